"""Flask's part of the one error shape, and the headers that every answer of Flask's has."""

import logging

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from ..answers import SECURITY_HEADERS
from ..errors import RelayError
from ..services import get_services

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Answer every error of `app` in the one shape, and give every answer its headers."""
    app.register_error_handler(RelayError, _answer)
    app.register_error_handler(HTTPException, _answer_http_exception)
    app.register_error_handler(Exception, _answer_surprise)
    app.after_request(_add_security_headers)


def prefers(mimetype: str, other: str) -> bool:
    """Say whether the caller's `Accept` rates `mimetype` above `other`."""
    accept = request.accept_mimetypes
    return bool(accept) and accept[mimetype] > accept[other]


def _answer(error: RelayError) -> Response:
    """Answer in JSON, or one plain line for a caller that rates text higher."""
    answers = get_services().answers
    if prefers("text/plain", "application/json"):
        answers.note(error)
        response = Response(f"{error}\n", error.status, answers.headers(error), mimetype="text/plain")
    else:
        status, headers, body = answers.as_json(error)
        response = Response(body, status, headers)
    return response


def _answer_http_exception(error: HTTPException) -> Response:
    original = error.get_response()
    shaped = RelayError(error.description)
    shaped.status = original.status_code
    shaped.code = error.name.lower().replace(" ", "_")
    shaped.headers = tuple(
        (name, original.headers[name]) for name in ("Allow", "Retry-After") if name in original.headers
    )
    return _answer(shaped)


def _answer_surprise(error: Exception) -> Response:
    log.error("a call failed", exc_info=error)
    return _answer(RelayError())


def _add_security_headers(response: Response) -> Response:
    for name, value in SECURITY_HEADERS:
        response.headers[name] = value
    return response
