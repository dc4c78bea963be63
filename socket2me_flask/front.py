"""The door: what goes to the engine, what goes to Flask, that everybody has a turn, and when it is closed."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .answers import ErrorAnswers
from .engine import Engine
from .errors import ShuttingDown
from .relay import Relay

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ENGINE_PATH = "/socket.io/"

# How long calls that are on their way when the process is told to stop may take to be answered.
DRAIN_SECONDS = 2

# How long it may take until all of them have noticed that they were sent away.
LEAVE_SECONDS = 2


class Turns:
    """Lets others have their turn, and remembers that it did."""

    def __init__(self, sleep: Callable[[float], object]) -> None:
        self._sleep = sleep
        self.count = 0

    def give_way(self) -> None:
        """Let whoever else has something to do have a turn."""
        self.gave_way()
        self._sleep(0)

    def gave_way(self) -> None:
        """Remember that others had their turn."""
        self.count += 1


class Front:
    """The outermost WSGI application. `to_engine` and `to_api` are what lies behind it.

    A connection that always has another request ready would never give way to the others by itself, so each
    request does once: while it is forwarded, or else at its end.
    """

    def __init__(
        self,
        to_engine: "WSGIApplication",
        to_api: "WSGIApplication",
        engine: Engine,
        relay: Relay,
        turns: Turns,
        answers: ErrorAnswers,
        *,
        send_timeout_seconds: int,
    ) -> None:
        self._to_engine = to_engine
        self._to_api = to_api
        self._engine = engine
        self._relay = relay
        self._turns = turns
        self._answers = answers
        self._send_timeout_seconds = send_timeout_seconds
        self._in_flight = 0
        self._is_draining = False
        self._is_closed = False  # to new calls

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        turns = self._turns
        before = turns.count
        path = environ["PATH_INFO"]
        if "gunicorn.socket" in environ:
            # One that does not read its answer would be waited for without end.
            environ["gunicorn.socket"].settimeout(self._send_timeout_seconds)
        if path.startswith(ENGINE_PATH):
            answer = self._to_engine(environ, start_response)
        elif (self._is_closed and path != "/healthz") or (self._is_draining and path == "/readyz"):
            status, headers, body = self._answers.as_json(ShuttingDown())
            start_response(status, headers)
            answer = [body]
        else:
            self._in_flight += 1
            try:
                answer = self._to_api(environ, start_response)
            finally:
                self._in_flight -= 1
        if turns.count == before:  # nobody else ran meanwhile
            turns.give_way()
        return answer

    def drain(self) -> None:
        """Turn new calls away, wait for those on their way, then send the clients away.

        With peers calls are turned away last: the clients go to those, and calls follow them there.

        Clients go last: one that is still to acknowledge a call can do so. Whoever waits for one that does not is
        told when it has left.
        """
        self._is_draining = True
        may_follow = self._relay.has_peers
        self._is_closed = not may_follow
        self._relay.drain(may_follow=may_follow)
        self._wait_while(lambda: bool(self._in_flight or self._relay.is_owed_to), DRAIN_SECONDS)
        self._engine.drain()
        self._wait_while(self._relay.has_clients, LEAVE_SECONDS)
        if may_follow:
            self._is_closed = True
            self._relay.drain()
            self._wait_while(lambda: bool(self._in_flight), DRAIN_SECONDS)

    def _wait_while(self, condition: Callable[[], bool], most_seconds: float) -> None:
        deadline = time.monotonic() + most_seconds
        while condition() and time.monotonic() < deadline:
            self._engine.sleep(0.02)
