"""What `socket2me listen` gets through: from callers through the relay and the client to a local app, and back.

The relay, the client and the app share one core; the callers, each of which waits for its answer, have the other.
CPU time is that of the processes, so that a busy machine changes it little; 1 s / the sum of the three is how many
calls a core of their own would carry.

    python benchmarks/client.py                     # modes ack and reply, 1 to 16 callers, and from a mailbox
    python benchmarks/client.py --against CHECKOUT  # the same code of another checkout beside this, in turns

The app is `serve_app`: one process with bare sockets that answers `OK` to whatever it is sent.
"""

import argparse
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import ROOT, SERVER_CORE, Client, Row, Server, cpu_seconds, load, payload, post, use_load_core

REQUESTS = 4_000
ROUNDS = 5
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


def serve_app() -> None:
    """Be a trivial local app: say on which port, and answer each request once it is whole."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    received: dict[int, bytes] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connections[connection.fileno()] = connection
                received[connection.fileno()] = b""
                poll.register(connection, select.EPOLLIN)
                continue
            connection = connections[number]
            data = connection.recv(65_536)
            if not data:
                poll.unregister(number)
                del connections[number], received[number]
                connection.close()
                continue
            data = received[number] + data
            head, is_whole, body = data.partition(b"\r\n\r\n")
            if is_whole and len(body) >= int(head.lower().partition(b"\r\ncontent-length:")[2].split()[0]):
                connection.sendall(ANSWER)
                data = b""
            received[number] = data


@dataclass
class Stack:
    """A relay, a client and an app that share a core, and what was measured of them."""

    relay: Server
    client_pid: int
    app_pid: int
    request: bytes
    calls_a_second: list[float] = field(default_factory=list)
    microseconds: list[tuple[float, float, float]] = field(default_factory=list)  # of relay, client and app
    latencies: list[float] = field(default_factory=list)

    def measure(self, callers: int) -> None:
        """Send requests once, and keep what was seen."""
        before = self._cpu_seconds()
        result = load(self.relay.port, self.request, requests=REQUESTS, connections=callers)
        spent = [after - old for after, old in zip(self._cpu_seconds(), before, strict=True)]
        if result.ok != REQUESTS:
            raise RuntimeError(result.answers)
        self.calls_a_second.append(REQUESTS / result.seconds)
        self.microseconds.append(tuple(seconds / REQUESTS * 1e6 for seconds in spent))
        self.latencies += result.latencies

    def _cpu_seconds(self) -> list[float]:
        return [cpu_seconds(pid) for pid in (self.relay.pid, self.client_pid, self.app_pid)]

    def rows(self, name: str, callers: int) -> list[Row]:
        relay, client, app = (statistics.median(column) for column in zip(*self.microseconds, strict=True))
        total = statistics.median(sum(each) for each in self.microseconds)
        latencies = statistics.quantiles(self.latencies, n=100, method="inclusive")
        return [
            Row(f"{name}: calls through relay, client and app", statistics.median(self.calls_a_second), "calls/s"),
            Row("    p50", latencies[49] * 1e3, "ms", 2.0 if callers <= 4 else None),
            Row("    p99", latencies[98] * 1e3, "ms"),
            Row("    CPU per call: relay", relay, "us"),
            Row("    CPU per call: client", client, "us"),
            Row("    CPU per call: app", app, "us"),
            Row("    1 s / CPU per call of the three", 1e6 / total, "calls/s", 2500, at_least=True),
        ]


@contextmanager
def on_core(*command: object, **options: object) -> Iterator[subprocess.Popen]:
    """Run a command on the servers' core for as long as the context lasts."""
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), *command], stdout=subprocess.PIPE, text=True, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def stack(root: Path = ROOT, options: tuple[str, ...] = (), **settings: object) -> Iterator[Stack]:
    """Start the relay and `socket2me listen` of the code at `root`, with an app behind it."""
    with ExitStack() as cleanup:
        home = cleanup.enter_context(tempfile.TemporaryDirectory())
        relay = cleanup.enter_context(Server(root=root, **settings))
        app = cleanup.enter_context(on_core(sys.executable, __file__, "--serve-app"))
        target = f"http://127.0.0.1:{app.stdout.readline().strip()}"
        listen = cleanup.enter_context(
            on_core(
                *(sys.executable, "-m", "socket2me", "listen", target, "--server", relay.url, *options),
                cwd=root,
                env={**os.environ, "XDG_STATE_HOME": home},
            )
        )
        while "/v1/go/" not in (line := listen.stdout.readline()):
            pass
        url = line.strip()
        while "Connected" not in listen.stdout.readline():
            pass
        threading.Thread(target=listen.stdout.read, daemon=True).start()
        made = Stack(relay, listen.pid, app.pid, post(url.removeprefix(relay.url), payload()))
        load(relay.port, made.request, requests=500)  # so that connections are open and caches full
        yield made


def measured_in_turns(roots: list[Path], callers: int, options: tuple[str, ...], **settings: object) -> list[Stack]:
    """Return what was measured with the code of each of `roots`, round by round."""
    with ExitStack() as cleanup:
        stacks = [cleanup.enter_context(stack(root, options, **settings)) for root in roots]
        for _ in range(ROUNDS):
            for each in stacks:
                each.measure(callers)
    return stacks


def run() -> list[Row]:
    rows = []
    with Server() as relay:
        token = relay.new_token()
        request = post(f"/v1/go/{token}", payload())
        result = load(relay.port, request, requests=20_000, clients=[Client(relay.port, token)])
        rows.append(Row("relay alone, to a client that only counts", 20_000 / result.seconds, "calls/s"))
    for name, callers, options in SIDES:
        (seen,) = measured_in_turns([ROOT], callers, options)
        rows += seen.rows(name, callers)
    with tempfile.TemporaryDirectory() as folder:
        (seen,) = measured_in_turns([ROOT], 16, (), STORE_URL=f"sqlite:///{folder}/relay.db")
    rows += seen.rows("ack from a mailbox, 16 callers", 16)[:-1]
    return rows


SIDES = [
    ("ack, 16 callers", 16, ()),
    ("reply, 16 callers", 16, ("--reply",)),
    ("reply, 4 callers", 4, ("--reply",)),
    ("reply, 1 caller", 1, ("--reply",)),
]


def compare(other: Path) -> Iterator[Row]:
    """Measure the code of another checkout and this one, in turns."""
    for name, callers, options in SIDES:
        theirs, ours = measured_in_turns([other, ROOT], callers, options)
        yield from theirs.rows(f"there: {name}", callers)
        yield from ours.rows(f"here: {name}", callers)
        pairs = zip(ours.microseconds, theirs.microseconds, strict=True)
        ratio = statistics.median(sum(here) / sum(there) for here, there in pairs)
        yield Row("    CPU per call of the three, here / there", ratio, "x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve-app", action="store_true")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    arguments = parser.parse_args()
    if arguments.serve_app:
        serve_app()
    use_load_core()
    for row in compare(arguments.against.resolve()) if arguments.against else run():
        print(row, flush=True)
