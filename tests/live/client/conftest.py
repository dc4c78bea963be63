"""Fixtures: a relay that keeps mailboxes, a local app, and `socket2me listen` between them."""

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.local_app import App
from tests.support.servers import BIN, DEADLINE_SECONDS, Server, clean_environment, wait_until


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A relay that keeps mailboxes."""
    with Server(STORE_URL=f"sqlite:///{tmp_path_factory.mktemp('relay')}/relay.db") as server:
        yield server


@pytest.fixture
def app() -> Iterator[App]:
    with App() as app:
        yield app


class Command:
    """`socket2me` in a process of its own. `expect` reads what `--json` prints."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [BIN / "socket2me", *arguments],
            env={**clean_environment(), "HOME": str(home), "XDG_STATE_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = ""
        self.terms: dict[str, Any] = {}

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)

    def expect(self, event: str) -> dict[str, Any]:
        """Return the next event of that name; those before it are passed over."""
        passed = []
        while True:
            try:
                told = json.loads(self._lines.get(timeout=DEADLINE_SECONDS))
            except queue.Empty:
                raise AssertionError(f"no {event!r} after {passed}, {self.process.poll()=}") from None
            if told["event"] == "url":
                self.url = told["url"]
            if told["event"] == "terms":
                self.terms = told
            if told["event"] == event:
                return told
            passed.append(told)

    def end(self, sig: int = signal.SIGINT) -> tuple[int, str]:
        """End it; return its status and what it wrote to stderr."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Return its status, once it ended, and what it wrote to stderr."""
        status = self.process.wait(DEADLINE_SECONDS)
        self._reader.join()
        self.process.stdout.close()
        with self.process.stderr:
            return status, self.process.stderr.read()


def until_attached(server: Server, command: Command, home: Path) -> None:
    """Wait until the relay knows the client: it accepts a connection a moment before."""
    kept = json.loads((home / "socket2me" / "tokens.json").read_text())
    (secret,) = (each["secret"] for each in kept if command.url.endswith(each["token"]))
    headers = {"Authorization": f"Bearer {secret}"}
    inspect = f"{server.url}/v1/tokens/{command.url.rpartition('/')[2]}"
    wait_until(lambda: requests.get(inspect, headers=headers, timeout=5).json()["connected"], "it is attached")


@pytest.fixture
def listen(relay: Server, app: App, tmp_path: Path) -> Iterator[Any]:
    """Start `socket2me listen`, for the app unless another target is given, and wait until it is connected."""
    commands = []

    def start(*options: str, target: str = "", server: Server = relay, home: Path = tmp_path) -> Command:
        command = Command(home, "listen", target or app.url, "--server", server.url, "--json", *options)
        commands.append(command)
        command.expect("url")
        command.expect("terms")
        server.giveaways.add(command.url.rpartition("/")[2])
        until_attached(server, command, home)
        return command

    yield start
    for command in commands:
        if not command.process.stdout.closed:
            command.end()
