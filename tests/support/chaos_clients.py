"""The clients of `chaos.py`, and what they received, by their own account.

A client writes down what it received before it acknowledges it: the account holds even if it is killed then.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import socketio

from tests.support.servers import JS, ROOT, Lines
from tests.support.wire import Wire


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
            command, cwd = ["node", "client.mjs", url, made["token"], json.dumps(options)], JS
        else:
            command, cwd = [sys.executable, "-m", "tests.support.chaos_clients", self.kind, url], ROOT
        self._lines = Lines(command, self._on_line, cwd, self._errors, MADE=json.dumps(self.made))
        self.process = self._lines.process

    def kill(self) -> None:
        self._lines.kill()

    def terminate(self) -> None:
        self.process.terminate()
        self._lines.close()

    def close(self) -> None:
        self.kill()
        self._errors.close()

    def describe(self) -> str:
        """Return what the clients take for their state, and what they wrote to their standard error."""
        if self.kind == "python" and self.process.poll() is None:
            self._lines.write("state")
            time.sleep(1)
        self._errors.seek(0)
        return f"{self.kind}, {dict(self.said)}: {self._errors.read()[-3000:]}"

    def _on_line(self, line: str) -> None:
        said = json.loads(line)
        if said["event"] == "request":
            self.received[said["token"]].append(said["data"][0]["body"])
        elif said["token"] is not None:
            self.said[said["event"]] += 1


Say = Callable[..., None]


def run_python(url: str, made: dict[str, Any], say: Say) -> Callable[[], str]:
    """Be python-socketio's client, as docs/compatibility.md advises. Return what describes its state."""
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
    """Be the client of our library, which handles one request at a time. Return what describes its state."""
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
