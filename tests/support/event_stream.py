"""A reader of `text/event-stream`, as a browser reads it, that can be cut anywhere."""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlencode

from tests.support.delivery import bearer
from tests.support.servers import DEADLINE_SECONDS, Server


class EventStream:
    """The stream of a token's history. `next` returns an event: its kind, its id and its data."""

    def __init__(
        self, server: Server, made: dict[str, Any], last_event_id: str | None = None, **query: str
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_SECONDS)
        headers = bearer(made) | ({"Last-Event-ID": last_event_id} if last_event_id is not None else {})
        path = f"/v1/tokens/{made['token']}/requests/stream" + (f"?{urlencode(query)}" if query else "")
        self._connection.request("GET", path, headers=headers)
        self.socket: socket.socket = self._connection.sock  # the response takes it
        self.response = self._connection.getresponse()
        self.status = self.response.status
        if self.status == 200:
            assert self.response.readline() == b"retry: 1000\n"
            assert self.response.readline() == b"\n"

    def next(self) -> tuple[str, str | None, Any] | None:
        """Return the next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode().removesuffix("\n"):
            name, _, value = line.partition(": ")
            if name:  # else it is a comment
                fields[name] = value
        if not fields:
            return None
        return fields["event"], fields.get("id"), json.loads(fields["data"])

    def close(self) -> None:
        self.response.close()
        self._connection.close()

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
