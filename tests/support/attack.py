"""An attack from another address, and what a probe of `/healthz` sees of it.

`assert_harmless` runs an attacker in a process of its own, whose connections come from `ATTACKER`, while this
process probes from 127.0.0.1, each time over a new connection. The attacker is a function of a module, called with
the port and with the arguments that are given, which returns when the attack is over. Its process is forked from
one that has loaded what attackers import, so that an attack costs no start of Python:

    def send_much(port, seconds):
        with connect(port) as sock: ...

    def test_it(server):
        assert_harmless(server, send_much, 3)

The bounds are those that hold on a quiet machine. The longest wait for an answer is also measured as the CPU time
that the relay's process took between the probe's request and its answer. Other processes that keep the machine busy
do not change that, so it has the strict bound. Wall-clock time has one that is `NOISE` times as long, and the
median one that is `MEDIAN_NOISE` times as long; `ATTACK_NOISE=1` makes all of them strict.
"""

import multiprocessing
import os
import signal
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import Server, wait_until

ATTACKER = "127.0.0.2"
VICTIM = "127.0.0.1"

NOISE = float(os.environ.get("ATTACK_NOISE", 4))
MEDIAN_NOISE = NOISE**1.5  # on a busy machine each probe waits for a CPU, and so does the relay
WORST_SECONDS = 0.25
MEDIAN_SECONDS = 0.02
GROWTH_BYTES = 100_000_000

PROBE_PAUSE_SECONDS = 0.01
PROBE_TIMEOUT_SECONDS = 20
ATTACK_TIMEOUT_SECONDS = 45

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "requests", "tests.support.attack", "tests.support.raw"])


def connect(port: int, address: str = ATTACKER, **options: Any) -> socket.socket:
    """Return a connection to the relay from an address of this machine."""
    return socket.create_connection(("127.0.0.1", port), source_address=(address, 0), timeout=10, **options)


@dataclass
class Report:
    """What the probes saw, and what the attack cost the relay's process."""

    waits: list[float] = field(default_factory=list)  # wall-clock seconds, one for each probe
    cpu: list[float] = field(default_factory=list)  # seconds of the relay's CPU time, one for each probe
    failures: list[str] = field(default_factory=list)
    before_bytes: int = 0
    most_bytes: int = 0
    before_files: int = 0
    most_files: int = 0

    def __str__(self) -> str:
        return (
            f"{len(self.waits)} probes: median {statistics.median(self.waits) * 1000:.1f} ms,"
            f" longest {max(self.waits) * 1000:.0f} ms ({max(self.cpu) * 1000:.0f} ms of CPU),"
            f" {len(self.failures)} failed; memory +{(self.most_bytes - self.before_bytes) / 1e6:.0f} MB,"
            f" files +{self.most_files - self.before_files}"
        )


def assert_harmless(
    server: Server,
    attack: Callable[..., None],
    *args: Any,
    growth_bytes: int = GROWTH_BYTES,
    attack_port: int | None = None,
) -> Report:
    """Fail unless probes are answered in time during the attack, and the relay is as before when it is over.

    `args` are pickled. `attack_port` is that of a proxy, if the attack comes through one. The number of open files
    has to come back to that of before within the usual deadline.
    """
    pid = server.worker_pid
    report = Report(before_bytes=memory_of(pid), before_files=files_of(pid))
    is_over = threading.Event()
    prober = threading.Thread(target=_probe_until, args=(is_over, server.port, pid, report), daemon=True)
    prober.start()
    try:
        with ProcessPoolExecutor(1, _PROCESSES, signal.alarm, (ATTACK_TIMEOUT_SECONDS,)) as attacker:
            attacker.submit(attack, attack_port or server.port, *args).result()
        wait_until(
            lambda: files_of(pid) <= report.before_files + 1,  # a probe's own connection
            f"the files of the attack are closed: {report.before_files} before, {files_of(pid)} now",
        )
    finally:
        is_over.set()
        prober.join()
    print(report)
    assert server.worker_pid == pid, "the worker was replaced"
    assert not report.failures, report.failures[:3]
    assert max(report.cpu) < WORST_SECONDS, report
    assert max(report.waits) < WORST_SECONDS * NOISE, report
    assert statistics.median(report.waits) < MEDIAN_SECONDS * MEDIAN_NOISE, report
    assert report.most_bytes - report.before_bytes < growth_bytes, report
    return report


def _probe_until(is_over: threading.Event, port: int, pid: int, report: Report) -> None:
    while not is_over.wait(PROBE_PAUSE_SECONDS):
        cpu, started = cpu_of(pid), time.monotonic()
        try:
            _probe(port)
        except (OSError, ValueError) as error:
            report.failures.append(repr(error))
        report.waits.append(time.monotonic() - started)
        report.cpu.append(cpu_of(pid) - cpu)
        report.most_files = max(report.most_files, files_of(pid))
        report.most_bytes = max(report.most_bytes, memory_of(pid))


def _probe(port: int) -> None:
    """Ask for `/healthz` over a new connection. Raises if it is not answered 200."""
    with socket.create_connection(
        ("127.0.0.1", port), source_address=(VICTIM, 0), timeout=PROBE_TIMEOUT_SECONDS
    ) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := sock.recv(4096):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ValueError(answer)


def cpu_of(pid: int) -> float:
    """Return how many seconds the main thread of a process has run, which is where green threads run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def memory_of(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files_of(pid: int) -> int:
    """Return how many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def reset(sock: socket.socket) -> None:
    """Close a connection by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def room_of(port: int) -> int:
    """Return how many sessions the attacker may open now, and close them."""
    sids = []
    while len(sids) < 1000 and (answer := _ask(port, "GET", ""))[0] == 200:
        sids.append(answer[1].split('"')[3])
    for sid in sids:
        _ask(port, "POST", f"&sid={sid}", b"1")
    return len(sids)


def _ask(port: int, method: str, query: str, body: bytes = b"") -> tuple[int, str]:
    with connect(port, ATTACKER) as sock:
        sock.sendall(
            f"{method} /socket.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: x\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return int(answer[9:12]), answer.partition(b"\r\n\r\n")[2].decode()
