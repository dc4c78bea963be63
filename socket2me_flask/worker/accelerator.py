"""Forwards calls without WSGI, which saves more than half of what a call costs under gunicorn and Flask.

The Flask application can still be extended: a call goes through it as soon as a hook or a handler wants to see it.
"""

from typing import Any

from ..http.answers import Answer
from ..relay.forwarder import METHODS, parse_target
from ..services import Services
from ..telemetry import request_id


class Accelerator:
    """Forwards the calls of one relay."""

    def __init__(self, services: Services) -> None:
        self._hooks_want_calls = services.hooks_want_calls
        self._hosts = services.hosts
        self._lifecycle = services.lifecycle
        self._scheduler = services.scheduler
        self._forwarder = services.forwarder
        self._answers = services.answers
        self._serves_legacy: bool = services.settings.legacy_clients

    def forward(self, request: Any, connection: Any) -> Answer | None:
        """Return the response to a request if it is a call that nothing else wants to see, else None."""
        if "/go/" not in request.uri or request.method not in METHODS or self._lifecycle.is_closed:
            return None
        target = parse_target(request.uri)
        if self._hosts.is_limited and not self._hosts.allow(_header(request, "HOST")):
            return None
        if target is None or (target.is_legacy and not self._serves_legacy) or self._hooks_want_calls():
            return None
        scheduler, lifecycle = self._scheduler, self._lifecycle
        yields_before = scheduler.count
        lifecycle.in_flight += 1
        try:
            answer = self._forwarder.forward(
                target,
                request.method,
                lambda: _headers(request),
                _RequestBody(request, connection),
                connection.host,
            )
        except Exception as error:
            answer = self._answers.render(error, _header(request, "ACCEPT"))
        finally:
            lifecycle.in_flight -= 1
        if scheduler.count == yields_before:
            scheduler.yield_to_others()
        return answer


class _RequestBody:
    """The body of a request as gunicorn parsed it: what `request_body.BodySource` asks for."""

    __slots__ = ("_awaits_continue", "_connection", "_request", "address", "content_length", "is_chunked")

    def __init__(self, request: Any, connection: Any) -> None:
        self._request = request
        self._connection = connection
        self.address: str = connection.host
        self.content_length: str | None = None
        self.is_chunked = False
        self._awaits_continue = False
        sent_id = ""
        for name, value in request.headers:
            if name == "CONTENT-LENGTH":
                self.content_length = value
            elif name == "TRANSFER-ENCODING":
                self.is_chunked = True
            elif name == "EXPECT":  # gunicorn's parsers let no other expectation pass
                self._awaits_continue = request.version >= (1, 1)
            elif name == "X-REQUEST-ID":
                sent_id = f"{sent_id},{value}" if sent_id else value
        if sent_id:
            request_id.begin(sent_id)

    def read(self, size: int) -> bytes:
        if self._awaits_continue:
            self._awaits_continue = False
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body: bytes = self._request.body.read(size)
        return body

    def cut_off(self) -> None:
        self._connection.cut_off()

    def close_after_response(self) -> None:
        self._request.force_close()


def _headers(request: Any) -> dict[str, str]:
    """Return the headers of a request: names in lower case. A header that came several times is one value."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        name = name.lower()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _header(request: Any, wanted: str) -> str:
    return ",".join([value for name, value in request.headers if name == wanted])
