"""Bodies of HTTP requests: read whole, within a size and a time. Knows WSGI, not what the bodies are for."""

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .errors import BodyTimeout, BodyTooLarge, IncompleteBody, RelayError, TooManyBytes
from .timer import Timer

T = TypeVar("T")

# What is left of a body that nobody wants is read up to this size, so that its sender comes to hear the answer:
# many send all before they listen. More than that, and the connection is closed on them.
DISCARD_BYTES = 4_000_000

# A body is read in pieces of this size. One that is no larger counts for nothing: there is always room for it.
PIECE_BYTES = 65_536


class BodyReader:
    """Reads bodies. `new_timer` makes a timer that somebody runs.

    A body has `timeout_seconds` to arrive, and of all that are being read `max_reading_bytes` may have arrived.
    """

    def __init__(
        self,
        new_timer: Callable[[float, Callable[[Any], None]], Timer],
        *,
        timeout_seconds: float,
        max_reading_bytes: int,
    ) -> None:
        self._deadlines = new_timer(timeout_seconds, _Reading.expire)
        self._max_reading_bytes = max_reading_bytes
        self._reading_bytes = 0
        self._lock = threading.Lock()

    def read(self, environ: Mapping[str, Any], max_bytes: int) -> bytes:
        """Return a request's body, whether its length was announced or it came in chunks.

        Raises `BodyTooLarge` before it reads more than `max_bytes`, `BodyTimeout` if it does not arrive in time,
        `TooManyBytes`, and `IncompleteBody` where it ends early or is malformed.
        """
        announced = environ.get("CONTENT_LENGTH")
        in_chunks = "HTTP_TRANSFER_ENCODING" in environ
        if not announced and not in_chunks:
            return b""
        try:
            if in_chunks:
                if announced:
                    raise IncompleteBody("A body has a length or comes in chunks, not both.")
                if not environ.get("wsgi.input_terminated"):
                    raise IncompleteBody("This server takes no chunks.")
                length = max_bytes + 1
            else:
                length = _whole_number(announced)
                if length > max_bytes:
                    raise BodyTooLarge
            body = self._read_in_time(
                environ, self._read_small if length <= PIECE_BYTES else self._read_large, length
            )
            if in_chunks and len(body) > max_bytes:
                raise BodyTooLarge
            if not in_chunks and len(body) < length:
                raise IncompleteBody
        except BodyTooLarge:
            self.discard(environ)
            raise
        except RelayError:
            _close_after_answer(environ)
            raise
        return body

    def discard(self, environ: Mapping[str, Any]) -> None:
        """Read what is left of a body that nobody wants, if it is little; else close after the answer."""
        announced = environ.get("CONTENT_LENGTH")
        if not announced and "HTTP_TRANSFER_ENCODING" not in environ:
            return
        try:
            length = _whole_number(announced) if announced else DISCARD_BYTES + 1
            if announced and length > DISCARD_BYTES:
                raise BodyTooLarge
            # No more than was announced: Werkzeug's server would wait for it.
            if self._read_in_time(environ, _read_past, length) and not announced:
                raise BodyTooLarge
        except RelayError:
            _close_after_answer(environ)

    def _read_in_time(self, environ: Mapping[str, Any], read: Callable[[Any, int], T], length: int) -> T:
        """Read by `read`: what fails is the caller's fault, and takes no longer than it may."""
        reading = _Reading(environ.get("gunicorn.socket") or environ.get("werkzeug.socket"))
        self._deadlines.add(reading)
        try:
            body = read(environ["wsgi.input"], length)
        except RelayError:
            raise
        except Exception as error:  # each server has its own for what is malformed
            is_late = reading.is_expired or isinstance(error, TimeoutError)
            raise BodyTimeout if is_late else IncompleteBody from None
        finally:
            self._deadlines.discard(reading)
        if reading.is_expired:
            raise BodyTimeout
        return body

    @staticmethod
    def _read_small(source: Any, length: int) -> bytes:
        body: bytes = source.read(length)
        return body

    def _read_large(self, source: Any, length: int) -> bytes:
        pieces: list[bytes] = []
        arrived = 0
        try:
            while arrived < length and (piece := source.read(min(PIECE_BYTES, length - arrived))):
                pieces.append(piece)
                arrived += len(piece)
                if self._count(len(piece)) > self._max_reading_bytes and arrived > PIECE_BYTES:
                    raise TooManyBytes
            return b"".join(pieces)
        finally:
            self._count(-arrived)

    def _count(self, size: int) -> int:
        with self._lock:
            self._reading_bytes += size
            return self._reading_bytes


class _Reading:
    """A body that is being read, and the connection that it comes over."""

    __slots__ = ("_connection", "is_expired")

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self.is_expired = False

    def expire(self) -> None:
        """Let the read end as if the caller had stopped sending."""
        self.is_expired = True
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)


def _read_past(source: Any, length: int) -> bool:
    """Return whether there was as much as that."""
    while length > 0 and (piece := source.read(min(PIECE_BYTES, length))):
        length -= len(piece)
    return length <= 0


def _whole_number(text: str | None) -> int:
    if not (text and text.isascii() and text.isdigit()):
        raise IncompleteBody("Content-Length is a whole number.")
    return int(text)


def _close_after_answer(environ: Mapping[str, Any]) -> None:
    # WSGI has no way to say this. gunicorn's request has one, and `strict_http.py` puts that on its input.
    request = getattr(environ["wsgi.input"], "request", None)
    if request is not None:
        request().force_close()
