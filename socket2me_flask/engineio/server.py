"""The Engine.IO server: which request goes where, and how it is answered.

python-socketio uses it as python-engineio's `Server`: the same `on`, `send`, `disconnect`, `handle_request`, all of
them public. Nothing of python-engineio's own transport is left.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ..errors import BadRequest, ForbiddenOrigin
from ..http.answers import SECURITY_HEADERS, ErrorAnswers
from ..http.origins import Origins
from . import polling, protocol, websocket
from .handshake import open_session, start_upgrade
from .sessions import Limits, Sessions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Engine(Sessions):
    """An Engine.IO server: serves the requests of its sessions."""

    def __init__(self, limits: Limits, answers: ErrorAnswers, origins: Origins, *, async_mode: str) -> None:
        super().__init__(limits, answers.note, async_mode=async_mode)
        self._answers = answers
        self._origins = origins

    def handle_request(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve a client's request (WSGI). One that becomes a WebSocket ends in what the loop raises for that."""
        try:
            if not self._origins.allow(environ):
                raise ForbiddenOrigin
            content_type, body = self._serve(environ)
        except (StopIteration, ConnectionError):
            raise  # the loop's
        except Exception as error:
            answer = self._answers.render(error)
            status, headers, body = answer.status, answer.headers, answer.body
        else:
            status = "200 OK"
            headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
            headers += [("Cache-Control", "no-store"), *SECURITY_HEADERS]
        start_response(status, headers + self.cors_headers(environ))
        return [body]

    def cors_headers(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        """Return what lets a web page that may connect read the answer."""
        return self._origins.headers(environ, "GET, POST", "Content-Type")

    def _serve(self, environ: "WSGIEnvironment") -> tuple[str, bytes]:
        """Return the type and the body of the answer."""
        method = environ["REQUEST_METHOD"]
        try:
            query = dict(parse_qsl(environ.get("QUERY_STRING", ""), max_num_fields=20))
        except ValueError:
            raise BadRequest("Too many query parameters.") from None
        if method == "OPTIONS":
            return protocol.TEXT_PAYLOAD, b""
        if method not in ("GET", "POST"):
            raise BadRequest("A client asks by GET and POST.")
        transport = query.get("transport")
        if transport not in ("polling", "websocket"):
            raise BadRequest("The transport is polling or websocket.")
        if transport == "websocket" and not (method == "GET" and websocket.is_wanted(environ)):
            raise BadRequest("This request asks for no WebSocket.")
        self.admission.check()
        if "sid" not in query:
            return open_session(self, environ, query)
        session = self.sessions.get(query["sid"])
        if session is None:
            raise BadRequest("No such session.")
        if transport == "websocket":
            raise start_upgrade(self, session, environ)
        if not session.state.is_polling:
            raise BadRequest("This session does not poll.")
        serve = polling.get if method == "GET" else polling.post
        return serve(self, session, environ)
