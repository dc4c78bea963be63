"""The cap on clients: it must bite before gunicorn's own, which would turn callers away without a word."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from flask import Flask

from ..errors import TooManyConnections
from ..services import get_services
from .errors import answer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class ConnectionCap:
    """WSGI middleware that answers a new Engine.IO session with 503 while `MAX_CONNECTIONS` are open."""

    def __init__(self, wsgi_app: "WSGIApplication", app: Flask) -> None:
        self._wsgi_app = wsgi_app
        self._app = app
        self._services = get_services(app)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/socket.io/") and "sid" not in parse_qs(environ["QUERY_STRING"]):
            settings = self._services.settings
            if self._services.sockets.connections >= settings["MAX_CONNECTIONS"]:
                error = TooManyConnections(retry_after_seconds=settings["RETRY_AFTER_SECONDS"])
                with self._app.request_context(environ):
                    return answer(error)(environ, start_response)
        return self._wsgi_app(environ, start_response)
