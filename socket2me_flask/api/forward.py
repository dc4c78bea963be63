"""`/v1/go/<token>`: a caller's request on its way to the token's client."""

import time
from typing import Any

from flask import Blueprint, Response, request

from ..errors import BodyTooLarge, IncompleteBody, UnknownToken
from ..messages import Call
from ..services import get_services
from ..tokens import is_token

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")

blueprint = Blueprint("forward", __name__)


@blueprint.route("/go/<token>", methods=METHODS, provide_automatic_options=False)
@blueprint.route("/go/<token>/<anypath:path>", methods=METHODS, provide_automatic_options=False)
def forward(token: str, path: str = "") -> Response:
    """Forward the call and answer `OK`."""
    received_at = time.time()
    if not is_token(token):
        raise UnknownToken
    services = get_services()
    environ = request.environ
    body = read_body(environ, services.settings["MAX_BODY_BYTES"])
    services.relay.forward(Call.from_environ(environ, token, body, received_at))
    return Response("OK", mimetype="text/plain")


def read_body(environ: dict[str, Any], max_bytes: int) -> bytes:
    """Return a request's body, whether its length was announced or it came in chunks.

    Raises `BodyTooLarge` before it reads more than `max_bytes`, and `IncompleteBody` where the body ends
    early or its chunks are malformed.
    """
    stream = environ["wsgi.input"]
    announced = environ.get("CONTENT_LENGTH")
    try:
        if announced:
            length = int(announced)
            if length > max_bytes:
                raise BodyTooLarge
            body: bytes = stream.read(length)
            if len(body) < length:
                raise IncompleteBody
        elif environ.get("wsgi.input_terminated") and "HTTP_TRANSFER_ENCODING" in environ:
            body = stream.read(max_bytes + 1)
            if len(body) > max_bytes:
                raise BodyTooLarge
        else:
            body = b""
    except (ValueError, OSError):  # gunicorn's parse errors are OSErrors
        raise IncompleteBody from None
    return body
