"""The body of an HTTP request, read whole and within a limit. Knows WSGI and nothing else."""

from collections.abc import Mapping
from typing import Any

from .errors import BodyTooLarge, IncompleteBody, RelayError


def read_body(environ: Mapping[str, Any], max_bytes: int) -> bytes:
    """Return a request's body, whether its length was announced or it came in chunks.

    Raises `BodyTooLarge` before it reads more than `max_bytes`, and `IncompleteBody` where the body ends
    early or its chunks are malformed.
    """
    stream = environ["wsgi.input"]
    announced = environ.get("CONTENT_LENGTH")
    in_chunks = "HTTP_TRANSFER_ENCODING" in environ
    if announced and in_chunks:
        raise IncompleteBody("A body has a length or comes in chunks, not both.")
    try:
        if announced:
            length = int(announced)
            if length > max_bytes:
                raise BodyTooLarge
            body: bytes = stream.read(length)
            if len(body) < length:
                raise IncompleteBody
        elif in_chunks and environ.get("wsgi.input_terminated"):
            body = stream.read(max_bytes + 1)
            if len(body) > max_bytes:
                raise BodyTooLarge
        else:
            body = b""
    except RelayError:
        raise
    except Exception:  # each server has its own for what is malformed
        raise IncompleteBody from None
    return body
