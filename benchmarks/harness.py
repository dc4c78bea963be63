"""What the benchmarks share: servers on one core, callers and clients, and Redis, on another.

Callers and clients speak over bare sockets and not with a library, so that the load costs little and what is
measured is the server.
"""

import base64
import json
import os
import resource
import selectors
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # for what the tests share

SERVER_CORE, LOAD_CORE = 0, 1


@dataclass
class Row:
    """One measured figure, and the bound that it is held against, where there is one."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    at_least: bool = False  # the bound is the lowest value, not the highest

    def __str__(self) -> str:
        bound = verdict = ""
        if self.bound is not None:
            bound = f"{'>=' if self.at_least else '<='} {self.bound:g}"
            is_met = self.value >= self.bound if self.at_least else self.value <= self.bound
            verdict = "met" if is_met else "MISSED"
        return f"{self.name:<62} {self.value:>10.4g} {self.unit:<10} {bound:<9} {verdict}"


def use_load_core() -> None:
    """Keep this process, which makes the load, off the server's core, and let it have many connections."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {LOAD_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Server:
    """A server under `gunicorn -k eventlet`, on the servers' core if none is given.

    `app` is `wsgi:app`, or the yardstick, which runs under the worker of gunicorn 25.3, the last that had one,
    in an environment of its own (`make yardstick`) and without the relay's configuration. `parser` is gunicorn's,
    and `root` the checkout whose code is run.
    """

    def __init__(
        self,
        app: str = "wsgi:app",
        port: int | None = None,
        core: int = SERVER_CORE,
        parser: str = "auto",
        root: Path = ROOT,
        **settings: object,
    ) -> None:
        if port is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        gunicorn = Path(sys.executable).with_name("gunicorn")
        config = []
        if app == "bare_wsgi:app":
            gunicorn = ROOT / ".venv-yardstick" / "bin" / "gunicorn"
            config = ["--config=python:bare_wsgi"]
        config.append(f"--http-parser={parser}")
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), gunicorn, "-k", "eventlet", *config, app],
            cwd=root,
            env={
                **os.environ,
                "PORT": str(port),
                "PYTHONPATH": f"{root}:{ROOT / 'benchmarks'}",
                # One machine plays a whole internet. The limit of each token is checked, and not reached.
                "SOCKET2ME_RATE_LIMIT_NEW": "0",
                "SOCKET2ME_RATE_LIMIT_REQUESTS": "10000000/minute",
                "SOCKET2ME_MAX_CONNECTIONS_PER_ADDRESS": "0",
                **{f"SOCKET2ME_{name}": str(value) for name, value in settings.items()},
            },
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.pid = self._wait_for_worker()

    def _wait_for_worker(self) -> int:
        """Return the process that serves, once it does."""
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(self.log())
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
        return cpu_seconds(self.pid)

    def memory_bytes(self) -> int:
        """Return the worker's resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def seconds_until_idle(self, most_seconds: float) -> float:
        """Wait until the worker uses less than 5 % of its core; return how long that took."""
        started = time.perf_counter()
        while time.perf_counter() - started < most_seconds:
            before = self.cpu_seconds()
            time.sleep(0.5)
            if self.cpu_seconds() - before < 0.025:
                break
        return time.perf_counter() - started

    def log(self) -> str:
        """Return what the server has written."""
        self._log.seek(0)
        return self._log.read().decode()

    def new_token(self) -> str:
        with urllib.request.urlopen(f"{self.url}/v1/new") as answer:
            return answer.read().decode()

    def new_tokens(self, count: int) -> list[str]:
        return new_tokens(self.port, count)

    def new_with_secret(self, **options: object) -> tuple[str, str]:
        """Return a token, and the `auth` of its client."""
        request = urllib.request.Request(f"{self.url}/v1/new", json.dumps(options).encode(), method="POST")
        with urllib.request.urlopen(request) as answer:
            made = json.load(answer)
        return made["token"], json.dumps({"secret": made["secret"]})

    def stop(self, sig: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sig)
        status = self.process.wait(60)
        self._log.close()
        return status

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has used, with that of its threads that have ended."""
    return time.clock_gettime(~pid << 3 | 2)  # the clock that clock_getcpuclockid(3) returns for the process


def new_tokens(port: int, count: int) -> list[str]:
    """Return tokens, asked for over one connection."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        tokens = []
        for _ in range(count):
            connection.sendall(b"GET /v1/new HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while len(answer.partition(b"\r\n\r\n")[2]) < 24:
                answer += connection.recv(4096)
            tokens.append(answer[-24:].decode())
        return tokens


class Crowd:
    """Many idle clients in a process of their own, which can be killed so that they vanish at once."""

    def __init__(self, server: Server, tokens: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "benchmarks" / "crowd.py", str(server.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.process.stdin.write("\n".join(tokens))
        self.process.stdin.close()
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("the crowd did not connect")

    def vanish(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


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


def upgrade() -> bytes:
    """Return the request that opens a WebSocket to the relay."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


class Client:
    """A client of the relay over a bare WebSocket: it counts the events that it gets, and answers pings."""

    def __init__(self, port: int, token: str, auth: str = "") -> None:
        self.received = 0
        self.attachment_bytes = 0
        self.ids: list[int] = []  # the number in the id of each event, which says in which order they came
        self.closed = False
        self._buffer = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(upgrade())
        self._read_until(b"\r\n\r\n")
        self._read_until(b"}")  # the Engine.IO handshake
        self.send(f"40/{token},{auth}".encode())
        self._read_until(b'{"sid":')
        self._read_members()

    def _read_members(self) -> None:
        """Read the rest of an object, which may have objects in it."""
        depth = 1
        while depth:
            self._read_until(b"}")
            depth += self._taken.count(b"{") - 1

    def _read_until(self, end: bytes) -> None:
        while end not in self._buffer:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(bytes(self._buffer))
            self._buffer += data
        length = self._buffer.index(end) + len(end)
        self._taken = bytes(self._buffer[:length])
        del self._buffer[:length]

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
        self._read_frames()

    def _read_frames(self) -> None:
        """Take what is whole out of the buffer."""
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
            self.attachment_bytes += length
        elif opcode == 8:
            self.closed = True
        elif buffer[start] == 0x32:  # an Engine.IO ping
            self.send(b"3")
        elif buffer[start + 1] in b"25":
            self.received += 1
            at = buffer.rindex(b'"id":"', start, start + length)
            self.ids.append(int(buffer[buffer.index(b"-", at) + 1 : buffer.index(b'"', at + 6)], 16))

    def close(self) -> None:
        self.socket.close()


class AcknowledgingClient(Client):
    """Acknowledges each event as it comes."""

    def __init__(self, port: int, token: str, auth: str) -> None:
        self._token = token.encode()
        super().__init__(port, token, auth)

    def _on_frame(self, buffer: bytearray, start: int, length: int, opcode: int) -> None:
        super()._on_frame(buffer, start, length, opcode)
        if buffer[start : start + 2] == b"42":
            at = buffer.index(b",", start) + 1
            ack_id = bytes(buffer[at : buffer.index(b"[", at)])
            if ack_id:
                self.send(b"43/" + self._token + b"," + ack_id + b"[]")


@dataclass
class Result:
    """What a load saw: `answers` by status, and the latency of each in seconds."""

    answers: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    unanswered: int = 0

    @property
    def ok(self) -> int:
        return self.answers.get(200, 0)

    def percentile(self, percent: float) -> float:
        return statistics.quantiles(self.latencies, n=1000, method="inclusive")[round(percent * 10) - 1]


class _Caller:
    """One keep-alive connection that sends a request, waits for its answer, and sends the next of its requests."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._requests = cycle(requests)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.closed = False
        self._buffer = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(next(self._requests))

    def on_readable(self) -> int | None:
        """Return the status of the answer, once it is whole."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return None
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        head = head.lower()
        at = head.index(b"content-length:") + 15
        if len(body) < int(head[at:].split(b"\r\n", 1)[0]):
            return None
        self._buffer = b""
        self.closed = b"connection: close" in head
        return int(head[9:12])


def load(port: int, request: bytes, *, connections: int = 16, **options) -> Result:
    """Send `request` over keep-alive connections to one server; `load_all` has the options."""
    return load_all([(port, [request])] * connections, **options)


def load_all(
    callers: list[tuple[int, list[bytes]]],
    *,
    requests: int | None = None,
    seconds: float | None = None,
    clients: list[Client] = (),
    until_closed: bool = False,
    pause_seconds: float = 0,
) -> Result:
    """Send requests over keep-alive connections, a number of times in all or for a time, while clients listen.

    Each of `callers` is a connection to a port, over which its requests go in turn, again and again; it sends
    the next as soon as it has an answer, or after a pause. With `until_closed`, a connection that the server
    closes is no error: an answer that was due on it counts as `unanswered`.
    """
    selector = selectors.DefaultSelector()
    peers = [_Caller(port, its_requests) for port, its_requests in callers]
    for peer in [*peers, *clients]:
        selector.register(peer, selectors.EVENT_READ)
    result = Result()
    sent = 0
    started = time.perf_counter()
    due = deque((started + pause_seconds * number / len(peers), peer) for number, peer in enumerate(peers))
    waiting: set[_Caller] = set()

    def may_send() -> bool:
        return sent < requests if requests is not None else time.perf_counter() - started < seconds

    def send_due() -> None:
        nonlocal sent
        while due and due[0][0] <= time.perf_counter():
            peer = due.popleft()[1]
            if may_send() and not peer.closed:
                peer.send()
                sent += 1
                waiting.add(peer)

    send_due()
    while waiting or (due and may_send()):
        for key, _ in selector.select(max(0, due[0][0] - time.perf_counter()) if due else None):
            peer = key.fileobj
            status = peer.on_readable()
            if peer.closed:
                selector.unregister(peer)
            if isinstance(peer, Client):
                continue
            if status is not None:
                result.latencies.append(time.perf_counter() - peer.sent_at)
                result.answers[status] = result.answers.get(status, 0) + 1
                waiting.remove(peer)
                due.append((time.perf_counter() + pause_seconds, peer))
            if peer.closed:
                if not until_closed:
                    raise ConnectionError("the server closed a caller's connection")
                result.unanswered += peer in waiting
                waiting.discard(peer)
            send_due()
        send_due()
    result.seconds = time.perf_counter() - started
    for peer in peers:
        peer.socket.close()
    drain(clients, quiet_seconds=0.3)
    return result


def drain(clients: list[Client], quiet_seconds: float) -> None:
    """Let clients read until nothing has come for a while."""
    selector = selectors.DefaultSelector()
    for client in clients:
        if not client.closed:
            selector.register(client, selectors.EVENT_READ)
    while selector.get_map() and (ready := selector.select(quiet_seconds)):
        for key, _ in ready:
            key.fileobj.on_readable()
            if key.fileobj.closed:
                selector.unregister(key.fileobj)
