"""One HTTP/1.1 request over a connection, and its answer.

The request is written at once. An answer of the usual form, with its length, is read here. Any other is read by the
standard library's HTTP client: in chunks, until the end of the connection, or not as RFC 9112 has it.
"""

import contextlib
import http.client
import io
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# How much is read of the socket at once.
READ_BYTES = 65_536

# How many headers an answer of the usual form has: as many as `http.client` takes.
_MAX_HEADERS = 100

# How many digits of a length are read: as many as show that it is more than anything that is wanted.
_MAX_DIGITS = 18

# Headers that say how an answer ends. It is of the usual form without them.
_FRAMING = frozenset(("transfer-encoding", "connection", "upgrade"))

# How late an answer may be waited for: each change of a socket's timeout is a system call.
_LATE_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Answer:
    """What the local app answered.

    headers: as they came, repeated ones too.
    body: its first bytes, as many as were wanted; `is_cut` says whether there was more.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    is_cut: bool


def seconds_until(deadline: float) -> float:
    """Return the seconds until `deadline`, by `time.monotonic()`. Raises `TimeoutError` if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def encode(method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """Return a request as it is sent. Raises `ValueError` if a part of it would be taken for another."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers:
        if _lower_name(name) is None:
            raise ValueError("a request has a header whose name is none")
        lines.append(f"{name}: {value}")
    lines.append("\r\n")
    head = "\r\n".join(lines)
    if head.count("\r") != len(lines) or head.count("\n") != len(lines):
        raise ValueError("a request has a line break in its head")
    return head.encode("latin-1") + body


def exchange(
    connection: http.client.HTTPConnection, method: str, request: bytes, deadline: float, max_body_bytes: int
) -> Answer:
    """Send a request over an open connection and return the answer.

    The connection stays open only if another request may follow. Raises `OSError`, `http.client.HTTPException` or,
    at the `deadline`, `TimeoutError`; then the connection is to be closed.
    """
    sock: socket.socket = connection.sock
    started = time.monotonic()
    sock.settimeout(seconds_until(deadline))
    with contextlib.suppress(BrokenPipeError):  # it may have answered before it read all of the body
        sock.sendall(request)
    if time.monotonic() - started > _LATE_SECONDS:
        sock.settimeout(seconds_until(deadline))
    received = sock.recv(READ_BYTES)
    try:
        while (found := usual_answer(method, received, max_body_bytes)) is None:
            sock.settimeout(seconds_until(deadline))
            piece = sock.recv(READ_BYTES)
            if not piece:
                break
            received += piece
    except UnusualAnswer:
        found = None
    if found is None:
        return exchange_slowly(connection, method, received, deadline, max_body_bytes)
    answer, end = found
    if end < len(received):
        connection.close()
    return answer


class UnusualAnswer(Exception):
    """`exchange_slowly` has to read an answer."""


def usual_answer(method: str, received: bytes, max_body_bytes: int) -> tuple[Answer, int] | None:
    """Return an answer and where it ends; None until all of it is received. Raises `UnusualAnswer`."""
    head, is_whole, body = received.partition(b"\r\n\r\n")
    parsed = _parse_head(head) if is_whole and method != "HEAD" else None
    if parsed is None:
        raise UnusualAnswer
    status, headers, length = parsed
    if length > max_body_bytes:
        raise UnusualAnswer
    if len(body) < length:
        return None
    return Answer(status, headers, body[:length], False), len(head) + 4 + length


def exchange_slowly(
    connection: http.client.HTTPConnection, method: str, received: bytes, deadline: float, max_body_bytes: int
) -> Answer:
    """Return an answer of any form, of which something was received, as the standard library reads it."""
    response = http.client.HTTPResponse(_Received(connection.sock, received, deadline), method=method)  # type: ignore[arg-type]
    response.begin()
    body = bytearray()
    while len(body) <= max_body_bytes and (piece := response.read1(READ_BYTES)):
        body += piece
    is_cut = len(body) > max_body_bytes
    if not is_cut and response.length:  # `read1` takes a broken connection for the end
        raise http.client.IncompleteRead(bytes(body), response.length)
    if is_cut or response.will_close:
        connection.close()
    response.close()
    return Answer(response.status, response.getheaders(), bytes(body[:max_body_bytes]), is_cut)


def _parse_head(head: bytes) -> tuple[int, list[tuple[str, str]], int] | None:
    """Return the status, the headers and the body's length of an answer of the usual form; None for any other."""
    first, *lines = head.decode("latin-1").split("\r\n")
    matched = _usual_first_line(first)
    if matched is None or len(lines) > _MAX_HEADERS:
        return None
    length = None
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        lower = _lower_name(name)
        value = value.strip(" \t")
        if not colon or lower is None or "\n" in value or "\r" in value:
            return None
        if lower == "content-length":
            if length is not None or not (value.isascii() and value.isdecimal()):
                return None
            length = int(value[:_MAX_DIGITS])
        elif lower in _FRAMING and (lower, value.lower()) != ("connection", "keep-alive"):
            return None
        headers.append((name, value))
    return (int(matched[1]), headers, length) if length is not None else None


# RFC 9112, section 4. An answer of any other status may have no body whatever its length says, or be none.
_usual_first_line = re.compile(r"HTTP/1\.1 (20[0-35-9]|2[1-9]\d|30[0-35-9]|3[1-9]\d|[45]\d\d)(?: .*)?").fullmatch

# RFC 9110, section 5.6.2.
is_header_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


@lru_cache(maxsize=256)  # what apps and providers use are few names
def _lower_name(name: str) -> str | None:
    """Return a header's name in lower case, or None if it is not the name of one."""
    return name.lower() if is_header_name(name) is not None else None


class _Received(io.RawIOBase):
    """A connection for `http.client.HTTPResponse` from which something was received already."""

    def __init__(self, sock: socket.socket, received: bytes, deadline: float) -> None:
        self._sock = sock
        self._received = received
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a file to read it from, as a socket does."""
        return io.BufferedReader(self, READ_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read what was received before, and then what comes. Raises `TimeoutError` at the deadline."""
        if not self._received:
            self._sock.settimeout(seconds_until(self._deadline))
            return self._sock.recv_into(buffer)
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        self._received = self._received[count:]
        return count
