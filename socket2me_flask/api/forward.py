"""`/v1/go/<token>`, and `/go/<token>`: a caller's request on its way to the token's client.

`FastPath` serves what is forwarded, which is nearly all of the relay's work, without Flask's
request context, routing and response (a quarter of the time of a forwarded call). Whatever else there is to say
is said by the blueprint.
"""

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from ..body import BodyReader
from ..errors import RelayError, UnknownToken
from ..messages import Call
from ..relay import Relay
from ..replies import Answer
from ..services import get_services
from ..tokens import is_token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")

blueprint = Blueprint("forward", __name__)

# In the environ of a request that the fast path could not forward: why.
_ERROR = "socket2me.error"


@blueprint.route("/go/<anypath:tail>", methods=METHODS, provide_automatic_options=False)
def forward(tail: str, is_legacy: bool = False) -> Response:
    """Forward the call, or say why the fast path could not."""
    error: RelayError | None = request.environ.get(_ERROR)
    if error is not None:
        raise error
    token = tail.partition("/")[0]
    if not is_token(token):
        raise UnknownToken
    services = get_services()
    max_body_bytes = services.settings["MAX_BODY_BYTES"]
    answer = _forward(request.environ, token, services.relay, services.bodies, max_body_bytes, is_legacy)
    return Response(answer.body, answer.status, answer.headers)


class FastPath:
    """WSGI middleware in front of Flask that forwards calls."""

    def __init__(
        self,
        wsgi_app: "WSGIApplication",
        relay: Relay,
        bodies: BodyReader,
        *,
        max_body_bytes: int,
        serves_legacy: bool,
    ) -> None:
        self._wsgi_app = wsgi_app
        self._relay = relay
        self._bodies = bodies
        self._max_body_bytes = max_body_bytes
        self._match = _PATH_OR_LEGACY if serves_legacy else _PATH

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        match = self._match(environ["PATH_INFO"])
        if match is None or environ["REQUEST_METHOD"] not in METHODS:
            return self._wsgi_app(environ, start_response)
        try:
            is_legacy = match["prefix"] is None
            answer = _forward(environ, match["token"], self._relay, self._bodies, self._max_body_bytes, is_legacy)
        except RelayError as error:
            environ[_ERROR] = error
            environ.pop("HTTP_UPGRADE", None)  # Flask would look for a route that takes WebSockets
            return self._wsgi_app(environ, start_response)
        start_response(answer.status, answer.headers.copy())
        return [answer.body] if environ["REQUEST_METHOD"] != "HEAD" else []


_PATH = re.compile(r"(?P<prefix>/v1)/go/(?P<token>[a-z0-9]+)(?:/.*)?", re.DOTALL).fullmatch
_PATH_OR_LEGACY = re.compile(r"(?P<prefix>/v1)?/go/(?P<token>[a-z0-9]+)(?:/.*)?", re.DOTALL).fullmatch


def _forward(
    environ: "WSGIEnvironment",
    token: str,
    relay: Relay,
    bodies: BodyReader,
    max_body_bytes: int,
    is_legacy: bool,
) -> Answer:
    try:
        record = relay.admit(token)
    except RelayError:
        bodies.discard(environ)
        raise
    body = bodies.read(environ, max_body_bytes)
    return relay.forward(Call.from_environ(environ, token, body, time.time(), is_legacy=is_legacy), record)
