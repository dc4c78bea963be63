"""Channels, and who listens at them: stock clients from npm, and a reader of frames."""

import http.client
import json
import socket
from subprocess import STDOUT
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.support.servers import DEADLINE_SECONDS, JS, Lines, Listener, Server, with_bytes

EVENT_STREAM = "text/event-stream"


class Channel:
    """A channel of a relay. `key` is who may listen, `token` who may post."""

    def __init__(self, server: Server) -> None:
        answer = requests.head(f"{server.url}/smee/new", allow_redirects=False, timeout=DEADLINE_SECONDS)
        assert answer.status_code == 307, answer.text
        self.url = answer.headers["Location"]
        self.key = self.url.rpartition("/")[2]
        self.token = self.key.partition("-")[0]
        server.giveaways |= {self.token, self.key}
        self._headers = {"Authorization": f"Bearer {self.key.partition('-')[2]}"}

    def _get(self, server: Server, tail: str = "") -> Any:
        url = f"{server.url}/v1/tokens/{self.token}{tail}"
        answer = requests.get(url, headers=self._headers, timeout=DEADLINE_SECONDS)
        assert answer.ok, answer.text
        return answer.json()

    def kept(self, server: Server) -> list[str]:
        """Return the ids of the events that are kept."""
        events = self._get(server, "/events")
        return [each["id"] for each in events["in_flight"] + events["waiting"]]

    def listeners(self, server: Server) -> list[dict[str, Any]]:
        """Return the listeners, with those that are away."""
        return self._get(server)["listeners"]

    def connected(self, server: Server) -> int:
        """Return how many listeners are connected."""
        return sum(each["connected"] for each in self.listeners(server))


class StreamReader:
    """The stream of a channel. `next` returns the next event, its fields by name."""

    def __init__(self, server: Server, path: str, **headers: str) -> None:
        connection = self._connection = http.client.HTTPConnection(
            "127.0.0.1", server.port, timeout=DEADLINE_SECONDS
        )
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"Accept": EVENT_STREAM} | sent)
        self.socket: socket.socket = connection.sock  # the response takes it
        self.response = connection.getresponse()
        self.status = self.response.status

    def next(self) -> dict[str, str] | None:
        """Return the next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode().removesuffix("\n"):
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value
        return fields or None

    def message(self) -> dict[str, Any]:
        """Return the data of the next event that is no control event."""
        while (event := self.next()) is not None and "event" in event:
            pass
        assert event is not None, "the stream ended"
        self.last_id = event["id"]
        return json.loads(event["data"])

    def close(self) -> None:
        self.response.close()
        self._connection.close()

    def __enter__(self) -> "StreamReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StockClient(Listener):
    """A program of `tests/js`, around a package from npm."""

    def __init__(self, program: str, *arguments: str) -> None:
        super().__init__()
        self.output: list[str] = []
        lines = Lines(["node", program, *arguments], self._on_line, cwd=JS, stderr=STDOUT)
        self.process, self.kill, self.close = lines.process, lines.kill, lines.close

    def _on_line(self, line: str) -> None:
        self.output.append(line)
        if line.startswith('{"token":"smee"'):
            said = json.loads(line)
            self.record(said["event"], *with_bytes(said["data"]))


def path_of(url: str) -> str:
    return urlsplit(url).path
