"""The clients and callers of `chaos.py`: what clients received, and what callers received, by their own account.

A client writes down what it received before it acknowledges it: the account holds even if it is killed then.
"""

import contextlib
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from subprocess import PIPE, Popen
from typing import Any

import requests
import socketio

from tests.support.servers import ROOT, clean_environment
from tests.support.wire import Wire

CALL_TIMEOUT_SECONDS = 60


class Clients:
    """A process of clients of one `kind`, and what they received since its first start.

    python: python-socketio's; node: socket.io-client's, of which a process has one; library: those of our library.
    """

    def __init__(self, kind: str, made: list[dict[str, Any]], wire: Wire) -> None:
        self.kind = kind
        self.made = made
        self.wire = wire
        self.received: dict[str, list[int]] = {each["token"]: [] for each in made}
        self.said: Counter[str] = Counter()
        self._errors = tempfile.TemporaryFile("w+")
        self.start()

    def start(self) -> None:
        url = f"http://127.0.0.1:{self.wire.port}"
        if self.kind == "node":
            (made,) = self.made
            options = {"auth": {"secret": made["secret"], "body": "parsed"}, "reply": []}
            command = ["node", "client.mjs", url, made["token"], json.dumps(options)]
            folder = ROOT / "tests" / "js"
        else:
            command = [sys.executable, "-m", "tests.support.chaos_clients", self.kind, url]
            folder = ROOT
        self.process = Popen(
            command,
            cwd=folder,
            env={**clean_environment(), "MADE": json.dumps(self.made)},
            stdin=PIPE,
            stdout=PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self.process], daemon=True)
        self._reader.start()

    def kill(self) -> None:
        self.process.kill()
        self._forget()

    def terminate(self) -> None:
        self.process.terminate()
        self._forget()

    def _forget(self) -> None:
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self) -> None:
        self.kill()
        self._errors.close()

    def describe(self) -> str:
        """Return what the clients take for their state, and what they wrote to their standard error."""
        if self.kind == "python" and self.process.poll() is None:
            self.process.stdin.write("state\n")
            self.process.stdin.flush()
            time.sleep(1)
        self._errors.seek(0)
        return f"{self.kind}, {dict(self.said)}: {self._errors.read()[-3000:]}"

    def _read(self, process: Popen) -> None:
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote
            if said["event"] == "request":
                self.received[said["token"]].append(said["data"][0]["body"]["n"])
            elif said["token"] is not None:
                self.said[said["event"]] += 1


class Caller(threading.Thread):
    """Calls one token again and again, until it is ended. Each call has the next number."""

    def __init__(self, url: str, made: dict[str, Any], is_over: threading.Event, pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self._pause_seconds = pause_seconds
        self._url = f"{url}/v1/go/{made['token']}"
        self.token = made["token"]
        self._is_over = is_over
        self.accepted: list[int] = []  # the numbers of the calls that were answered 2xx
        self.answers: Counter[int] = Counter()
        self.acknowledged_from = 0.0  # when the latest call began whose client has acknowledged it in time
        self.longest_seconds = 0.0
        self.start()

    def run(self) -> None:
        for number in itertools.count():
            if self._is_over.wait(self._pause_seconds):
                return
            began_at = time.monotonic()
            try:
                answer = requests.post(self._url, json={"n": number}, timeout=CALL_TIMEOUT_SECONDS)
                status = answer.status_code
            except requests.RequestException:
                status = 0  # whether it was accepted is not known
            self.answers[status] += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began_at)
            if 200 <= status < 300:
                self.accepted.append(number)
            if status == 200:
                self.acknowledged_from = began_at


Say = Callable[..., None]


def run_python(url: str, made: dict[str, Any], say: Say) -> Callable[[], str]:
    """Be python-socketio's client, as docs/compatibility.md advises. Return what tells its state."""
    client = socketio.Client()

    def run() -> None:
        nonlocal client
        while True:
            client.on("request", on_request, namespace=made["namespace"])
            for event in ("connect", "disconnect", "connect_error", "replaced"):
                client.on(event, lambda *_, event=event: say(event), namespace=made["namespace"])
            try:
                client.connect(url, namespaces=[made["namespace"]], auth={"secret": made["secret"]})
                client.wait()
                return
            except (socketio.exceptions.ConnectionError, ValueError):
                client.shutdown()  # it may be connecting in the background
                client = socketio.Client()
                time.sleep(1)

    def on_request(request: dict[str, Any]) -> None:
        say("request", {"body": request["body"]})

    threading.Thread(target=run, daemon=True).start()

    def state() -> str:
        task = client._reconnect_task
        is_reconnecting = task.is_alive() if task else None
        return f"connected {client.connected}, Engine.IO {client.eio.state}, {client.namespaces}, {is_reconnecting}"

    return state


def run_library(url: str, made: dict[str, Any], say: Say) -> Callable[[], str]:
    """Be the client of our library, which handles one request at a time. Return what tells its state."""
    from socket2me import Client, Notice, Replaced

    notices: list[Notice] = []
    client = Client(
        url,
        token=made["token"],
        secret=made["secret"],
        parallel=1,
        on_notice=lambda notice: (notices.append(notice), say(notice.what)),
    )

    def run() -> None:
        try:
            client.listen(lambda request: say("request", {"body": json.loads(request.body)}))
        except Replaced:
            say("replaced")

    threading.Thread(target=run, daemon=True).start()
    return lambda: str(notices[-5:])


def main() -> None:
    """Run clients of a kind until the input ends; each line of it asks for their states."""
    kind, url = sys.argv[1:]
    lock = threading.Lock()

    def say(token: str, event: str, *data: Any) -> None:
        with lock:
            print(json.dumps({"token": token, "event": event, "data": data}), flush=True)

    run = {"python": run_python, "library": run_library}[kind]
    states = {
        made["token"]: run(url, made, lambda *said, token=made["token"]: say(token, *said))
        for made in json.loads(os.environ["MADE"])
    }
    for _ in sys.stdin:
        for token, state in states.items():
            print(token[:4], state(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
