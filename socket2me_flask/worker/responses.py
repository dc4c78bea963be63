"""The responses that the worker writes itself: of forwarded calls, and to requests that are malformed."""

import logging
import time
from datetime import timedelta
from email.utils import formatdate
from typing import Any

from gunicorn import SERVER
from gunicorn.glogging import Logger
from gunicorn.http import errors as http_errors
from gunicorn.http import wsgi

from ..errors import MalformedRequest
from ..http.answers import Answer, ErrorAnswers
from ..telemetry import request_id
from .budgets import HeadTooLarge
from .json_logger import JSONLogger
from .tcp_connection import Connection

log = logging.getLogger(__name__)

# What gunicorn's parsers raise, and what the peer receives: status, code, message. No word of what it sent.
REFUSALS: dict[type[Exception], tuple[int, str, str]] = {
    http_errors.LimitRequestLine: (414, "uri_too_long", "The request line is longer than this relay accepts."),
    http_errors.LimitRequestHeaders: (431, "head_too_large", "The head is larger than this relay accepts."),
    http_errors.UnsupportedTransferCoding: (501, "unsupported_coding", "The transfer coding is not chunked."),
    http_errors.ExpectationFailed: (417, "expectation_failed", "The only expectation is 100-continue."),
    http_errors.InvalidHTTPVersion: (400, "malformed_request", "The version is not HTTP/1.0 or HTTP/1.1."),
    http_errors.InvalidHeader: (400, "malformed_request", "A header is malformed, missing or repeated."),
    http_errors.InvalidHeaderName: (400, "malformed_request", "The name of a header is malformed."),
    HeadTooLarge: (431, "head_too_large", "The head is larger than this relay accepts."),
    http_errors.ParseException: (400, "malformed_request", "The request is not HTTP."),
}


class ResponseWriter:
    """Writes responses to connections, and to the access log.

    are_logged: gunicorn's configuration asks for an access log.
    """

    def __init__(self, cfg: Any, logger: Any, answers: ErrorAnswers) -> None:
        self._cfg = cfg
        self._logger = logger
        self._answers = answers
        self.are_logged: bool = type(logger) not in (Logger, JSONLogger) or logger.access_log_enabled
        self._date = ""
        self._dated_at = 0.0

    def send(self, connection: Connection, request: Any, answer: Answer, *, must_close: bool) -> None:
        """Send the response to a request, which is None if it could not be parsed. Raises `OSError`."""
        major, minor = (1, 0) if request is not None and request.version == (1, 0) else (1, 1)
        lines = [
            f"HTTP/{major}.{minor} {answer.status}",
            f"Server: {SERVER}",
            f"Date: {self._now()}",
            "Connection: close" if must_close else "Connection: keep-alive",
            *[f"{name}: {value}" for name, value in answer.headers],
            f"{request_id.HEADER}: {request_id.current()}",
            "\r\n",
        ]
        data = "\r\n".join(lines).encode("latin-1")
        connection.sendall(data if request is not None and request.method == "HEAD" else data + answer.body)

    def refuse(self, connection: Connection, error: BaseException) -> None:
        """Answer a request that is malformed, or at which the relay failed. The connection is to be closed then."""
        if isinstance(error, http_errors.ParseException | HeadTooLarge):
            log.debug("a malformed request was refused: %s", type(error).__name__)
            error = next(
                MalformedRequest(*refusal) for kind, refusal in REFUSALS.items() if isinstance(error, kind)
            )
        self.send(connection, connection.request, self._answers.render(error), must_close=True)

    def log(self, connection: Connection, request: Any, answer: Answer, seconds: float) -> None:
        """Write a line of the access log."""
        response = wsgi.Response(request, connection, self._cfg)
        response.status = answer.status
        response.headers = answer.headers
        response.sent = len(answer.body)
        environ = wsgi.default_environ(request, connection, self._cfg)
        host, port, *_ = connection.address if isinstance(connection.address, tuple) else ("", "")
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = host, str(port)
        for name, value in request.headers:
            environ.setdefault("HTTP_" + name.replace("-", "_"), value)
        self._logger.access(response, request, environ, timedelta(seconds=seconds))

    def _now(self) -> str:
        """Return the time as HTTP writes it, which changes once a second."""
        now = time.time()
        if now - self._dated_at >= 1 or now < self._dated_at:
            self._dated_at = float(int(now))
            self._date = formatdate(now, usegmt=True)
        return self._date
