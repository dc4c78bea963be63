"""The command `socket2me` in a process of its own."""

import json
import queue
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import jsonschema_rs
import requests

from tests.support.servers import BIN, DEADLINE_SECONDS, ROOT, Server, clean_environment, wait_until


def _schema() -> Any:
    """Return the schema of what `--json` prints. It allows members that are not in it: the tests do not."""
    schema = json.loads((ROOT / "docs" / "listen.schema.json").read_text())
    for each in schema["$defs"].values():
        if each.get("type") == "object":
            each["additionalProperties"] = False
    return jsonschema_rs.validator_for(schema)


SCHEMA = _schema()


class Command:
    """`socket2me`, of `folder`, in a process of its own. `expect` reads what `--json` prints, by its schema."""

    def __init__(
        self, home: Path, *arguments: str, folder: Path = BIN, cwd: Path | None = None, **environment: str
    ) -> None:
        self.process = subprocess.Popen(
            [folder / "socket2me", *arguments],
            cwd=cwd,
            env={**clean_environment(), "HOME": str(home), "XDG_STATE_HOME": str(home), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = ""
        self.terms: dict[str, Any] = {}
        self.inspector = ""  # its URL
        self.printed: list[str] = []

    def _read(self) -> None:
        for line in self.process.stdout:
            self.printed.append(line)
            self._lines.put(line)

    def expect(self, event: str) -> dict[str, Any]:
        """Return the next event of that name; those before it are passed over."""
        passed = []
        while True:
            try:
                line = json.loads(self._lines.get(timeout=DEADLINE_SECONDS))
            except queue.Empty:
                raise AssertionError(f"no {event!r} after {passed}, {self.process.poll()=}") from None
            SCHEMA.validate(line)
            if line["event"] == "url":
                self.url = line["url"]
            if line["event"] == "inspector":
                self.inspector = line["url"]
            if line["event"] == "terms":
                self.terms = line
            if line["event"] == event:
                return line
            passed.append(line)

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
