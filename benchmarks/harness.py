"""What the benchmarks share: servers on a core of their own, callers and clients over bare sockets on another.

Callers and clients are written against the wire and not with a library, so that the load costs little and what
is measured is the server.
"""

import base64
import json
import os
import selectors
import shlex
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER_CORE, LOAD_CORE = 0, 1
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def use_load_core() -> None:
    """Keep this process, which makes the load, off the server's core."""
    if os.cpu_count() > 1:
        os.sched_setaffinity(0, {LOAD_CORE})


class Server:
    """A server under `gunicorn -k eventlet` on its own core; `app` is `wsgi:app` or the yardstick."""

    def __init__(self, app: str = "wsgi:app", **settings: object) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        gunicorn = Path(sys.executable).with_name("gunicorn")
        pythonpath = ROOT / "benchmarks"
        self.process = subprocess.Popen(
            [*shlex.split("taskset -c"), str(SERVER_CORE), gunicorn, "-k", "eventlet", app],
            cwd=ROOT,
            env={
                **os.environ,
                "PORT": str(self.port),
                "PYTHONPATH": str(pythonpath),
                **{name: str(value) for name, value in settings.items()},
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.set_blocking(self.process.stderr.fileno(), False)
        self.pid = self._worker()

    def _worker(self) -> int:
        """Return the process that serves, once it does."""
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(self.process.stderr.read().decode())
            try:
                with socket.create_connection(("127.0.0.1", self.port)) as probe:
                    probe.sendall(b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n")
                    probe.recv(100)
            except ConnectionError:
                time.sleep(0.05)
                continue
            master = self.process.pid
            return int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])

    def cpu_seconds(self) -> float:
        """Return the user and system time that the worker has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Return the worker's resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def log(self) -> str:
        """Return what the server has written since this was last asked."""
        return (self.process.stderr.read() or b"").decode()

    def new_token(self) -> str:
        return urllib.request.urlopen(f"{self.url}/v1/new").read().decode()

    def stop(self) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        status = self.process.wait(60)
        self.process.stderr.close()
        return status

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def payload(size: int = 1024) -> bytes:
    """Return a JSON body as GitHub sends it for a push, cut to about `size` bytes."""
    push = {
        "ref": "refs/heads/main",
        "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "after": "0000000000000000000000000000000000000000",
        "repository": {
            "id": 186853002,
            "node_id": "MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=",
            "name": "Hello-World",
            "full_name": "Codertocat/Hello-World",
            "private": False,
            "owner": {"name": "Codertocat", "login": "Codertocat", "id": 21031067, "site_admin": False},
            "html_url": "https://github.com/Codertocat/Hello-World",
            "stargazers_count": 0,
            "license": None,
        },
        "pusher": {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"},
        "created": False,
        "deleted": True,
        "commits": [],
    }
    body = json.dumps({**push, "compare": ""}).encode()
    return json.dumps({**push, "compare": "x" * max(0, size - len(body))}).encode()


def post(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """Return a POST as a provider sends it, headers included."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: relay.example\r\nAccept: */*\r\nUser-Agent: GitHub-Hookshot/044aadd\r\n"
        f"Content-Type: {content_type}\r\nX-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\n"
        f"X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={'d' * 64}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class Client:
    """A client of the relay over a bare WebSocket: it counts the events that it gets, and answers pings."""

    def __init__(self, port: int, token: str, auth: str = "") -> None:
        self.received = 0
        self.bytes = 0
        self.numbers: list[int] = []  # the `n` of each event's query, where it has one
        self.closed = False
        self._buffer = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._read_until(b"\r\n\r\n")
        self._read_until(b"}")  # the Engine.IO handshake
        self.send(f"40/{token},{auth}".encode())
        self._read_until(b'{"sid":')
        self._read_until(b"}")

    def _read_until(self, end: bytes) -> None:
        while end not in self._buffer:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(bytes(self._buffer))
            self._buffer += data
        del self._buffer[: self._buffer.index(end) + len(end)]

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, text: bytes) -> None:
        self.socket.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)

    def on_readable(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            self.closed = True
            return
        self._buffer += data
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 2:
            length, head = buffer[at + 1], 2
            if length == 126:
                head = 4
                if len(buffer) - at < 4:
                    break
                (length,) = struct.unpack_from("!H", buffer, at + 2)
            elif length == 127:
                head = 10
                if len(buffer) - at < 10:
                    break
                (length,) = struct.unpack_from("!Q", buffer, at + 2)
            if len(buffer) - at < head + length:
                break
            self._on_frame(buffer, at + head, length, buffer[at] & 15)
            at += head + length
        del buffer[:at]

    def _on_frame(self, buffer: bytearray, start: int, length: int, opcode: int) -> None:
        if opcode == 2:
            self.bytes += length
        elif opcode == 8:
            self.closed = True
        elif buffer[start] == 0x32:  # an Engine.IO ping
            self.send(b"3")
        elif buffer[start + 1] in b"25":
            self.received += 1
            self.bytes += length
            at = buffer.find(b'"query":"n=', start, start + length)
            if at >= 0:
                self.numbers.append(int(buffer[at + 11 : buffer.index(b'"', at + 11)]))

    def close(self) -> None:
        self.socket.close()


@dataclass
class Result:
    """What a load saw: `answers` by status, and the latency of each in seconds."""

    answers: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    accepted_numbers: list[int] = field(default_factory=list)

    @property
    def ok(self) -> int:
        return self.answers.get(200, 0)

    def percentile(self, percent: float) -> float:
        return statistics.quantiles(self.latencies, n=1000, method="inclusive")[round(percent * 10) - 1]


class _Caller:
    """One keep-alive connection that sends a request, waits for its answer, and sends the next."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.number = -1
        self._buffer = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: bytes, number: int) -> None:
        self.number = number
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def on_readable(self) -> int | None:
        """Return the status of the answer, once it is whole."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a caller's connection")
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        at = head.lower().index(b"content-length:") + 15
        if len(body) < int(head[at:].split(b"\r\n", 1)[0]):
            return None
        self._buffer = b""
        return int(head[9:12])


def load(
    port: int,
    request: bytes,
    *,
    connections: int = 16,
    requests: int | None = None,
    seconds: float | None = None,
    clients: list[Client] = (),
    numbered: bool = False,
) -> Result:
    """Send `request` over keep-alive connections, a number of times or for a time, while clients listen.

    With `numbered`, the text `n=000000000` in the request becomes the number of the request.
    """
    selector = selectors.DefaultSelector()
    callers = [_Caller(port) for _ in range(connections)]
    for peer in [*callers, *clients]:
        selector.register(peer, selectors.EVENT_READ)
    result = Result()
    sent = 0
    started = time.perf_counter()

    def more() -> bool:
        if requests is not None:
            return sent < requests
        return time.perf_counter() - started < seconds

    def send(caller: _Caller) -> None:
        nonlocal sent
        sent += 1
        caller.send(request.replace(b"n=000000000", b"n=%09d" % sent, 1) if numbered else request, sent)

    waiting = 0
    for caller in callers:
        if more():
            send(caller)
            waiting += 1
    while waiting:
        for key, _ in selector.select():
            peer = key.fileobj
            if isinstance(peer, Client):
                peer.on_readable()
                if peer.closed:
                    selector.unregister(peer)
                continue
            status = peer.on_readable()
            if status is None:
                continue
            result.latencies.append(time.perf_counter() - peer.sent_at)
            result.answers[status] = result.answers.get(status, 0) + 1
            if more():
                send(peer)
            else:
                waiting -= 1
    result.seconds = time.perf_counter() - started
    for caller in callers:
        selector.unregister(caller)
        caller.socket.close()
    drain(clients, lambda: False, quiet_seconds=0.3)
    return result


def drain(clients: list[Client], done, quiet_seconds: float) -> None:
    """Let clients read until `done()` or nothing came for `quiet_seconds`."""
    selector = selectors.DefaultSelector()
    for client in clients:
        if not client.closed:
            selector.register(client, selectors.EVENT_READ)
    while not done() and selector.get_map():
        ready = selector.select(quiet_seconds)
        if not ready:
            return
        for key, _ in ready:
            key.fileobj.on_readable()
            if key.fileobj.closed:
                selector.unregister(key.fileobj)
