"""Flask's part of the one error shape, and the headers that every response of Flask's has."""

from typing import TYPE_CHECKING

from flask import Flask, Response, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from ..errors import RelayError
from ..http.answers import SECURITY_HEADERS, Answer
from ..services import get_services

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def register(app: Flask) -> None:
    """Give every error of `app` the one shape, and every response its headers."""
    app.register_error_handler(HTTPException, _render_http_exception)
    app.register_error_handler(Exception, _render)
    app.after_request(_add_security_headers)


class AnswerResponse(Response):
    """An `Answer` as Flask takes it. It has the headers that every response has."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body, answer.status)
        self.headers = Headers(answer.headers)  # without what Werkzeug would add

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        """Return the headers as they are: nothing is missing."""
        return self.headers


def _render(error: Exception) -> Response:
    return AnswerResponse(get_services().answers.render(error, request.headers.get("Accept", "")))


def _render_http_exception(error: HTTPException) -> Response:
    original = error.get_response()
    shaped = RelayError(error.description)
    shaped.status = original.status_code
    shaped.code = error.name.lower().replace(" ", "_")
    if error.code == 405:
        shaped.headers = (("Allow", ", ".join(sorted(original.allow))),)
    return _render(shaped)


def _add_security_headers(response: Response) -> Response:
    if not isinstance(response, AnswerResponse):
        for name, value in SECURITY_HEADERS:
            response.headers[name] = value
    return response
