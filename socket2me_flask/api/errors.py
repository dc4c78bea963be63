"""The one error shape: `{"error": {"code", "message"}}`, or one plain line for a caller that wants text."""

import logging

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from ..errors import RelayError

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Answer every error of `app` in the one shape."""
    app.register_error_handler(RelayError, answer)
    app.register_error_handler(HTTPException, _answer_http_exception)
    app.register_error_handler(Exception, _answer_surprise)


def answer(error: RelayError) -> Response:
    """Return the answer to a call that failed. Needs a request context."""
    response = _shape(error.status, error.code, str(error))
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def prefers(mimetype: str, other: str) -> bool:
    """Say whether the caller's `Accept` rates `mimetype` above `other`."""
    accept = request.accept_mimetypes
    return bool(accept) and accept[mimetype] > accept[other]


def _answer_http_exception(error: HTTPException) -> Response:
    response = error.get_response()
    code = error.name.lower().replace(" ", "_")
    shaped = _shape(response.status_code, code, error.description or error.name)
    for name in ("Allow", "Retry-After"):
        if name in response.headers:
            shaped.headers[name] = response.headers[name]
    return shaped


def _answer_surprise(error: Exception) -> Response:
    log.error("a call failed", exc_info=error)
    return answer(RelayError())


def _shape(status: int, code: str, message: str) -> Response:
    if prefers("text/plain", "application/json"):
        response = Response(f"{message}\n", mimetype="text/plain")
    else:
        response = jsonify(error={"code": code, "message": message})
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response
