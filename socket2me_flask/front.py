"""The door: what goes to the engine, what goes to Flask, that everybody has a turn, and when it is closed."""

import json
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .engine import Engine
from .errors import ShuttingDown
from .relay import Relay

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ENGINE_PATH = "/socket.io/"

# How long calls that are on their way when the process is told to stop may take to be answered.
DRAIN_SECONDS = 2


class Turns:
    """Lets others have their turn, and remembers that it did."""

    def __init__(self, sleep: Callable[[float], object]) -> None:
        self._sleep = sleep
        self.count = 0

    def give_way(self) -> None:
        """Let whoever else has something to do have a turn."""
        self.count += 1
        self._sleep(0)


class Front:
    """The outermost WSGI application.

    A connection that always has another request ready would never give way to the others by itself, so each
    request does once: while it is forwarded, or else at its end.
    """

    def __init__(
        self,
        wsgi_app: "WSGIApplication",
        engine: Engine,
        relay: Relay,
        turns: Turns,
        *,
        retry_after_seconds: int,
    ) -> None:
        self._wsgi_app = wsgi_app
        self._engine = engine
        self._relay = relay
        self._turns = turns
        self._retry_after_seconds = retry_after_seconds
        self._in_flight = 0
        self._is_draining = False

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        turns = self._turns
        before = turns.count
        path = environ["PATH_INFO"]
        if path.startswith(ENGINE_PATH):
            answer: Iterable[bytes] = self._engine.handle_request(environ, start_response)
        elif self._is_draining and path != "/healthz":
            answer = self._turn_away(start_response)
        else:
            self._in_flight += 1
            try:
                answer = self._wsgi_app(environ, start_response)
            finally:
                self._in_flight -= 1
        if turns.count == before:  # nobody else ran meanwhile
            turns.give_way()
        return answer

    def drain(self) -> None:
        """Turn new calls away, wait for those on their way, then send the clients away.

        Clients go last: one that is still to acknowledge a call can do so.
        """
        self._is_draining = True
        self._relay.drain()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._in_flight and time.monotonic() < deadline:
            self._engine.sleep(0.02)
        self._engine.drain()

    def _turn_away(self, start_response: "StartResponse") -> Iterable[bytes]:
        error = ShuttingDown()
        body = json.dumps(error.as_dict()).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Retry-After", str(self._retry_after_seconds)),
        ]
        start_response(f"{error.status} SERVICE UNAVAILABLE", headers)
        return [body]
