"""Outermost WSGI app: routes to Engine.IO or Flask, yields once per request, rejects calls while draining."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .errors import RelayError, ShuttingDown, UnknownHost
from .http.answers import ErrorAnswers
from .http.hosts import Hosts
from .lifecycle import Lifecycle
from .telemetry import request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ENGINE_PATH = "/socket.io/"

# Platforms ask for these by the address of the machine, whatever its name.
HEALTH_PATHS = ("/healthz", "/readyz", "/metrics")

# What a process serves that is about to end.
_PATHS_TO_THE_END = ("/healthz", "/metrics")

# Where streams are asked for. Any answer but 200 ends their clients for good: `api/smee.py` has one for them.
_STREAMS_PATH = "/smee/"

# Where calls go.
_CALL_PATHS = ("/v1/go/", "/go/")

# Where the environ of a request to Flask has the `Upgrade` header, for the calls that carry it on.
UPGRADE = "socket2me.upgrade"


class Scheduler:
    """Yields to other green threads, and counts how often: code that has just yielded need not do so again."""

    def __init__(self, sleep: Callable[[float], object]) -> None:
        self._sleep = sleep
        self.count = 0

    def yield_to_others(self) -> None:
        """Let every other green thread that is ready run first."""
        self.note_yield()
        self._sleep(0)

    def note_yield(self) -> None:
        """Count a yield that happened elsewhere, in a wait."""
        self.count += 1


class Gateway:
    """The outermost WSGI application. `to_engine` and `to_api` are the applications behind it.

    A connection that always has another request ready would never yield by itself, so each request does once:
    while it is forwarded, or else at its end.
    """

    def __init__(
        self,
        to_engine: "WSGIApplication",
        to_api: "WSGIApplication",
        lifecycle: Lifecycle,
        scheduler: Scheduler,
        answers: ErrorAnswers,
        hosts: Hosts,
    ) -> None:
        self._to_engine = to_engine
        self._to_api = to_api
        self._lifecycle = lifecycle
        self._scheduler = scheduler
        self._answers = answers
        self._hosts = hosts
        self.calls_refused = 0  # while draining

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        lifecycle, scheduler = self._lifecycle, self._scheduler
        request_id.begin(environ.get("HTTP_X_REQUEST_ID", ""))
        start_response = _with_request_id(start_response)
        lifecycle.start()  # a server that does not do so itself: any but the relay's worker
        yields_before = scheduler.count
        path = environ["PATH_INFO"]
        if not self._hosts.allow(environ.get("HTTP_HOST", "")) and path not in HEALTH_PATHS:
            response = self._refuse(UnknownHost(), environ, start_response)
        elif path.startswith(ENGINE_PATH):
            response = self._to_engine(environ, start_response)
        elif (lifecycle.is_closed and not _is_served_to_the_end(path, environ)) or (
            lifecycle.is_draining and path == "/readyz"
        ):
            self.calls_refused += path.startswith(_CALL_PATHS)
            response = self._refuse(ShuttingDown(), environ, start_response)
        else:
            if "HTTP_UPGRADE" in environ:  # no route is a WebSocket, and Werkzeug would look for one
                environ[UPGRADE] = environ.pop("HTTP_UPGRADE")
            lifecycle.in_flight += 1
            try:
                response = self._to_api(environ, start_response)
            finally:
                lifecycle.in_flight -= 1
        if scheduler.count == yields_before:
            scheduler.yield_to_others()
        return response

    def _refuse(
        self, error: RelayError, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        answer = self._answers.render(error, environ.get("HTTP_ACCEPT", ""))
        start_response(answer.status, answer.headers)
        return [answer.body]


def _with_request_id(start_response: "StartResponse") -> "StartResponse":
    """Return what starts a response with the id of its request."""

    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        return start_response(status, [*headers, (request_id.HEADER, request_id.current())], *error)

    return start


def _is_served_to_the_end(path: str, environ: "WSGIEnvironment") -> bool:
    return path in _PATHS_TO_THE_END or (path.startswith(_STREAMS_PATH) and environ["REQUEST_METHOD"] == "GET")
