"""Bodies of HTTP requests: read whole, within a size and a time. Knows WSGI, not what the bodies are for."""

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from ..concurrency.timeout_queue import TimeoutQueue
from ..errors import BodyTimeout, BodyTooLarge, IncompleteBody, RelayError, TooManyBytes
from ..limits import Pool, address_key

T = TypeVar("T")

# The rest of a body that is refused is read up to this size, so that its sender receives the response: many send
# all before they read. Above it the connection is closed.
DISCARD_BYTES = 4_000_000

# A body is read in pieces of this size. A body that is no larger is not counted: there is always room for it.
PIECE_BYTES = 65_536


class BodySource(Protocol):
    """The body of one request, before it was read.

    content_length: the value of `Content-Length`, if there is one.
    is_chunked: whether the body comes in chunks.
    address: that of the peer, a caller or a proxy.
    """

    content_length: str | None
    is_chunked: bool
    address: str

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end of the body. Raises what its server raises."""

    def cut_off(self) -> None:
        """Let a `read` that waits return, as if the caller had stopped sending."""

    def close_after_response(self) -> None:
        """Have the connection closed after the response: it is unknown where the next request would begin."""


class EnvironBody:
    """The body of a request to any WSGI server (PEP 3333).

    Two servers provide more than WSGI does: the relay's own worker by `socket2me.connection`, which can close a
    connection and end a read, and Werkzeug's by `werkzeug.socket`.
    """

    __slots__ = ("_environ", "address", "content_length", "is_chunked")

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ
        self.content_length: str | None = environ.get("CONTENT_LENGTH") or None
        self.is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        self.address: str = environ.get("REMOTE_ADDR") or ""

    def read(self, size: int) -> bytes:
        if self.is_chunked and not self._environ.get("wsgi.input_terminated"):
            raise IncompleteBody("This server takes no chunks.")
        body: bytes = self._environ["wsgi.input"].read(size)
        return body

    def cut_off(self) -> None:
        if "socket2me.connection" in self._environ:
            self._environ["socket2me.connection"].cut_off()
        elif "werkzeug.socket" in self._environ:
            with contextlib.suppress(OSError):
                self._environ["werkzeug.socket"].shutdown(socket.SHUT_RD)

    def close_after_response(self) -> None:
        if "socket2me.connection" in self._environ:
            self._environ["socket2me.connection"].close_after_response()


class BodyReader:
    """Reads bodies. `new_timer` makes a timer that is run elsewhere.

    A body has `timeout_seconds` to arrive, and of all that are being read `max_reading_bytes` may have arrived. One
    address may have no more of that than it leaves free.
    """

    def __init__(
        self,
        new_timer: Callable[[float, Callable[[Any], None]], TimeoutQueue],
        *,
        timeout_seconds: float,
        max_reading_bytes: int,
    ) -> None:
        self._deadlines = new_timer(timeout_seconds, _Reading.expire)
        self._reading_bytes = Pool(max_reading_bytes)  # by address
        self._lock = threading.Lock()

    def read(self, source: BodySource, max_bytes: int) -> bytes:
        """Return a request's body, whether its length was announced or it came in chunks.

        Raises `BodyTooLarge` before it reads more than `max_bytes`, `BodyTimeout` if it does not arrive in time,
        `TooManyBytes`, and `IncompleteBody` where it ends early or is malformed.
        """
        announced = source.content_length
        if announced is None and not source.is_chunked:
            return b""
        try:
            if source.is_chunked:
                if announced is not None:
                    raise IncompleteBody("A body has a length or comes in chunks, not both.")
                length = max_bytes + 1
            else:
                length = _whole_number(announced)
                if length > max_bytes:
                    raise BodyTooLarge
            body = self._read_in_time(source, _read_small if length <= PIECE_BYTES else self._read_large, length)
            if source.is_chunked and len(body) > max_bytes:
                raise BodyTooLarge
            if not source.is_chunked and len(body) < length:
                raise IncompleteBody
        except BodyTooLarge:
            self.discard(source)
            raise
        except RelayError:
            source.close_after_response()
            raise
        return body

    def discard(self, source: BodySource) -> None:
        """Read the rest of a body that is refused, if it is small; else close the connection after the response."""
        announced = source.content_length
        if announced is None and not source.is_chunked:
            return
        try:
            length = DISCARD_BYTES + 1 if source.is_chunked else _whole_number(announced)
            if not source.is_chunked and length > DISCARD_BYTES:
                raise BodyTooLarge
            # No more than was announced: Werkzeug's server would wait for it.
            if self._read_in_time(source, _read_past, length) and source.is_chunked:
                raise BodyTooLarge
        except RelayError:
            source.close_after_response()

    def _read_in_time(self, source: BodySource, read: Callable[[BodySource, int], T], length: int) -> T:
        """Read by `read`: what fails is the caller's fault, and takes no longer than it may."""
        reading = _Reading(source)
        self._deadlines.add(reading)
        try:
            body = read(source, length)
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

    def _read_large(self, source: BodySource, length: int) -> bytes:
        pieces: list[bytes] = []
        arrived = 0
        key = address_key(source.address)
        try:
            while arrived < length and (piece := source.read(min(PIECE_BYTES, length - arrived))):
                pieces.append(piece)
                arrived += len(piece)
                with self._lock:
                    has_room = self._reading_bytes.has_room(key, len(piece))
                    self._reading_bytes.take(key, len(piece))
                if not has_room and arrived > PIECE_BYTES:
                    raise TooManyBytes
            return b"".join(pieces)
        finally:
            with self._lock:
                self._reading_bytes.give_back(key, arrived)


class _Reading:
    """A body that is being read, against the clock."""

    __slots__ = ("_source", "is_expired")

    def __init__(self, source: BodySource) -> None:
        self._source = source
        self.is_expired = False

    def expire(self) -> None:
        self.is_expired = True
        self._source.cut_off()


def _read_small(source: BodySource, length: int) -> bytes:
    return source.read(length)


def _read_past(source: BodySource, length: int) -> bool:
    """Return whether there was as much as that."""
    while length > 0 and (piece := source.read(min(PIECE_BYTES, length))):
        length -= len(piece)
    return length <= 0


def _whole_number(text: str | None) -> int:
    if not (text and text.isascii() and text.isdigit()):
        raise IncompleteBody("Content-Length is a whole number.")
    return int(text) if len(text) < 16 else 10**15  # Python refuses to convert thousands of digits
