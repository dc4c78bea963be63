"""Real servers and real clients for the live tests: started as a user starts them, on 127.0.0.1 only."""

import base64
import contextlib
import itertools
import json
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
import socketio
import websocket

from socket2me_flask.config import LIMITS, SETTINGS, variable_of

ROOT = Path(__file__).parent.parent.parent
JS = ROOT / "tests" / "js"
BIN = Path(sys.executable).parent
PORTS = range(10_000, 32_000)
PORT_SHARES = 8
PORTS_A_SHARE = len(PORTS) // PORT_SHARES
DEADLINE_SECONDS = 15  # for whatever should happen at once; only a failure waits this long


# The runner that needs the extra `fast`, as a parameter of a test or fixture.
WITH_C_PARSER = pytest.param(
    "gunicorn-fast",
    marks=pytest.mark.skipif(find_spec("gunicorn_h1c") is None, reason="the extra `fast` is not installed"),
)


def _ports() -> Iterator[int]:
    """Ports below the ephemeral range, whose ports the system gives to connections while a server starts.

    Each pytest worker has a share of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = range(PORTS.start + worker % PORT_SHARES * PORTS_A_SHARE, PORTS.stop)[:PORTS_A_SHARE]
    start = os.getpid() % PORTS_A_SHARE
    return itertools.cycle([*share[start:], *share[:start]])


_NEXT_PORTS = _ports()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that no other call returned lately."""
    for port in _NEXT_PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports are a cycle")


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of `condition`; fail if it does not come."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.01)
    return value


def command_for(runner: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of one of the three ways to run the relay.

    `gunicorn-fast` is gunicorn with its C parser, the extra `fast`.
    """
    if runner in ("gunicorn", "gunicorn-fast"):
        parser = "fast" if runner == "gunicorn-fast" else "python"
        command = shlex.split("gunicorn -k eventlet wsgi:app")
        return command, {"PORT": str(port), "GUNICORN_CMD_ARGS": f"--http-parser={parser}"}
    if runner == "procfile":
        line = (ROOT / "Procfile").read_text().strip()
        return shlex.split(line.removeprefix("web: ")), {"PORT": str(port)}
    if runner == "flask":
        return shlex.split("flask run"), {"FLASK_RUN_PORT": str(port)}
    raise ValueError(runner)


def variables(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings and limits, by their names in capitals, as environment variables. Other names are kept."""
    values = {name: str(value) for name, value in settings.items()}
    limits = " ".join(f"{name}={values.pop(name)}" for name in settings if name.lower() in LIMITS)
    named = {variable_of(name.lower()) if name.lower() in SETTINGS else name: v for name, v in values.items()}
    return {**named, "SOCKET2ME_LIMITS": limits}


class Server:
    """A relay in a process of its own."""

    def __init__(self, runner: str = "gunicorn", port: int | None = None, **settings: object) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.giveaways: set[str] = set()  # what no log may show
        command, environment = self.command(runner, self.port)
        self._log = []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **clean_environment(),
                **self.variables({"RATE_LIMIT_NEW": 0, **environment, **settings}),  # all tests have one address
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=lambda: self._log.extend(self.process.stdout), daemon=True)
        self._reader.start()
        try:
            wait_until(self.answers, f"{runner} serves")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    command = staticmethod(command_for)
    variables = staticmethod(variables)

    def answers(self) -> bool:
        assert self.process.poll() is None, f"the server ended: {self.log}"
        try:
            return requests.get(f"{self.url}/healthz", timeout=1).ok
        except requests.RequestException:
            return False

    @property
    def worker_pid(self) -> int:
        """The process that serves, under gunicorn."""
        master = self.process.pid
        return int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])

    @property
    def log(self) -> str:
        return "".join(self._log)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """End the server and return its status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, sig)
        status = self.process.wait(timeout=40)
        self._reader.join()
        self.process.stdout.close()
        for giveaway in self.giveaways:
            lines = [line for line in self._log if giveaway in line]
            assert not lines, f"the log gives a token or a secret away: {lines}"
        return status

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def new(self) -> str:
        answer = requests.get(f"{self.url}/v1/new", timeout=5)
        assert answer.status_code == 200
        self.giveaways.add(answer.text)
        return answer.text

    def new_with_secret(self, **options: object) -> dict[str, Any]:
        answer = requests.post(f"{self.url}/v1/new", json=options, timeout=5)
        assert answer.status_code == 201
        made: dict[str, Any] = answer.json()
        self.giveaways |= {made["token"], made["secret"]}
        return made

    def go(self, token: str, method: str = "POST", tail: str = "", **kwargs: Any) -> requests.Response:
        return requests.request(method, f"{self.url}/v1/go/{token}{tail}", timeout=20, **kwargs)


class HookedServer(Server):
    """`hooked.py` under gunicorn."""

    @staticmethod
    def command(runner, port):
        _, environment = command_for(runner, port)
        return shlex.split("gunicorn -k eventlet tests.support.hooked:app"), environment


class Previous(Server):
    """A relay of the code in `folder`, which needs another gunicorn: under `flask run`."""

    def __init__(self, folder: Path, runner: str = "flask", port: int | None = None, **settings: object) -> None:
        self._folder = folder
        super().__init__("flask", port, **settings)

    @staticmethod
    def variables(settings: Mapping[str, object]) -> dict[str, str]:
        return {name: str(value) for name, value in settings.items()}

    def command(self, runner: str, port: int) -> tuple[list[str], dict[str, str]]:  # type: ignore[override]
        command, environment = command_for(runner, port)
        return ["env", "-C", str(self._folder), *command], environment


class Pair(Server):
    """Two relays on one Redis. Clients and programs are at one of them, callers at the other."""

    def __init__(self, redis_url: str, runner: str = "gunicorn", **settings: object) -> None:
        settings["STORE_URL"] = redis_url
        with ThreadPoolExecutor() as pool:
            other = pool.submit(Server, runner, **settings)
            try:
                super().__init__(runner, **settings)
            except BaseException:
                other.result().stop()
                raise
        self.other = other.result()

    def go(self, *args: Any, **kwargs: Any) -> requests.Response:
        return self.other.go(*args, **kwargs)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.other.giveaways |= self.giveaways
        with ThreadPoolExecutor() as pool:
            other = pool.submit(self.other.stop, sig)
            return max(super().stop(sig), other.result(), key=abs)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without anything that would set up the relay, its tools first."""
    prefixes = ("SOCKET2ME_", "FLASK_", "GUNICORN_")
    kept = {k: v for k, v in os.environ.items() if k not in ("PORT", "REDIS_URL") and not k.startswith(prefixes)}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def run_to_end(command: str | list[str | Path], **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command with settings of the relay, on a free port unless they have one, and return what it did."""
    return subprocess.run(
        shlex.split(command) if isinstance(command, str) else command,
        cwd=ROOT,
        env={**clean_environment(), **variables({"PORT": free_port(), **settings})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Lines:
    """A process of clients, which ends with its input. A thread calls `on_line` with each line of its output."""

    def __init__(
        self,
        command: list[str],
        on_line: Callable[[str], None],
        cwd: Path = ROOT,
        stderr: Any = None,
        **environment: str,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**clean_environment(), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self._on_line = on_line
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.endswith("\n"):  # else the process was killed while it wrote
                self._on_line(line)

    def write(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it was killed before it read what was written
            self.process.stdin.close()
        self.process.wait(DEADLINE_SECONDS)
        self._reader.join()
        self.process.stdout.close()


class WebSocket:
    """A bare Engine.IO connection over WebSocket, for what no library would do."""

    def __init__(self, server: Server, token: str | None = None, **options: object) -> None:
        url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
        self._socket = websocket.create_connection(url, timeout=DEADLINE_SECONDS, **options)
        assert self.receive().startswith("0{")
        if token is not None:
            self.send(f"40/{token},")
            assert self.receive().startswith(f'40/{token},{{"sid":')

    @property
    def socket(self) -> socket.socket:
        return self._socket.sock

    def send(self, packet: str) -> None:
        self._socket.send(packet)

    def receive(self) -> str | bytes:
        return self._socket.recv()

    def expect_close(self) -> None:
        """Fail unless the server ends the connection, with or without a last packet."""
        try:
            assert self.receive() in ("1", "")
            assert self.receive() == ""
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            pass

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown()


class Listener:
    """What a client receives, whichever library it uses: `expect` takes events in their order."""

    def __init__(self) -> None:
        self._events: queue.Queue[tuple[str, list[Any]]] = queue.Queue()

    def record(self, event: str, *data: Any) -> None:
        self._events.put((event, list(data)))

    def expect(self, event: str, after: Collection[str] = ()) -> Any:
        """Return the first argument of the next event, which must be `event`; those in `after` may come first."""
        received = None
        while received is None or received in after:
            try:
                received, data = self._events.get(timeout=DEADLINE_SECONDS)
            except queue.Empty:
                raise AssertionError(f"received nothing, not even {event!r}") from None
        assert received == event, f"received {received!r} {data!r}, not {event!r}"
        return data[0] if data else None

    def expect_silence(self, seconds: float = 0.3) -> None:
        """Fail if anything is received. The one place that waits for nothing to happen."""
        try:
            received = self._events.get(timeout=seconds) if seconds else self._events.get_nowait()
        except queue.Empty:
            return
        raise AssertionError(f"received {received!r}")

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PythonListener(Listener):
    """python-socketio's client, which handles one message after the other.

    By itself it starts a thread for each: once in 400 times, on a busy machine, `disconnect` was received before
    the `replaced` that had come first.
    """

    def __init__(
        self,
        server: Server,
        *tokens: str,
        transports: list[str] | None = None,
        auth: Any = None,
        replies: Any = (),
        **kwargs,
    ):
        """`replies` are what the handler of `request` returns, one after the other, and then None."""
        super().__init__()
        self._replies = iter(replies)
        self._websockets: list[websocket.WebSocket] = []
        self.client = socketio.Client(websocket_extra_options={"class_": self._new_websocket}, **kwargs)
        self._start_thread = self.client.eio.start_background_task
        self.client.eio.start_background_task = self._start
        self._newest_message: threading.Thread | None = None  # the thread that handles it
        namespaces = [f"/{token}" for token in tokens]
        for namespace in namespaces:
            self._listen(namespace)
        try:
            self.client.connect(
                server.url,
                namespaces=namespaces,
                transports=transports,
                auth=auth,
                wait_timeout=DEADLINE_SECONDS,
            )
        except socketio.exceptions.ConnectionError:
            self.client.disconnect()

    def _start(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if target != self.client.eio.handlers["message"]:
            return self._start_thread(target, *args, **kwargs)
        before = self._newest_message

        def handle() -> None:
            if before is not None:
                before.join()
            target(*args, **kwargs)

        self._newest_message = self._start_thread(handle)
        return self._newest_message

    def _new_websocket(self, **options: Any) -> websocket.WebSocket:
        self._websockets.append(websocket.WebSocket(**options))
        return self._websockets[-1]

    def _listen(self, namespace: str) -> None:
        def recorder(event: str) -> Callable[..., None]:
            return lambda *data: self.record(event, *data)

        def on_request(*data: Any) -> Any:
            self.record("request", *data)
            return next(self._replies, None)

        self.client.on("request", on_request, namespace=namespace)
        for event in ("connect", "connect_error", "disconnect", "replaced"):
            self.client.on(event, recorder(event), namespace=namespace)

    def close(self) -> None:
        self.client.disconnect()
        # A client that was sent away may take its own mark of the end for part of what it still sends, and then
        # waits half a minute for another (python-engineio 4.15, `_write_loop`).
        if self.client.eio.queue is not None:
            self.client.eio.queue.put(None)
        self.client.eio.wait()
        for connection in self._websockets:  # the client forgets those that broke, and does not close them
            connection.shutdown()


class NodeListener(Listener):
    """socket.io-client under Node, by way of `js/client.mjs`."""

    def __init__(
        self, server: Server, *tokens: str, transports: list[str] | None = None, auth: Any = None, **options
    ):
        super().__init__()
        options |= {
            name: value for name, value in (("transports", transports), ("auth", auth)) if value is not None
        }
        arguments = [server.url, ",".join(tokens), json.dumps(options)]
        self._process = Lines(["node", "client.mjs", *arguments], self._on_line, cwd=JS)
        self.kill, self.close = self._process.kill, self._process.close

    def _on_line(self, line: str) -> None:
        said = json.loads(line)
        if said["token"] is not None:
            self.record(said["event"], *with_bytes(said["data"]))


def with_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    if isinstance(value, dict):
        if list(value) == ["$bytes"]:
            return base64.b64decode(value["$bytes"])
        return {key: with_bytes(item) for key, item in value.items()}
    return value
