"""One TCP connection of a caller: reads and writes that suspend a green thread, with and without TLS.

Knows sockets, not HTTP. It stands where gunicorn expects a socket.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import greenlet
from eventlet.patcher import original

from ..concurrency.poller import HAS_EPOLL, HUNG_UP, ON_CHANGE, Poller, switch_to_hub, wait_until, yield_to_others
from .budgets import MAX_HEAD_BYTES, SMALL_HEAD_BYTES, SMALL_UNREAD_BYTES, Budgets, HeadTooLarge

_RawSocket = original("socket").socket

# What gunicorn asks for where the length is unknown.
UNSIZED_READ_BYTES = 8192

# gunicorn reads up to 1 MB of a body ahead, and copies what is left of that for each piece that is asked for.
LARGEST_READ_BYTES = 65_536

# Of a body in many small chunks, this much is read at once where the next chunk's size is not known: they cost
# most, and after each read other green threads run.
LITTLE_BYTES = 512

# The response has been sent and the connection is to end: this much is still read and dropped, for as long as this
# may take. A close with something unread would make the kernel discard the response (RFC 9112, section 9.6).
LINGER_BYTES = 1_000_000
LINGER_SECONDS = 2

_UNCOUNTED = contextlib.nullcontext()


class Unreader(Protocol):
    """What has read a request; gunicorn's has."""

    def take_buffered(self) -> bytes:
        """Return what was read beyond the request, and drop it."""


class Request(Protocol):
    """A request that is being served; gunicorn's are such."""

    @property
    def unreader(self) -> Unreader:
        """What has read it."""

    def force_close(self) -> None:
        """Close the connection after the response."""


class Connection:
    """A connection whose socket does not block. One green thread uses it at a time.

    Reading: epoll reports a change once (`ON_CHANGE`), so `_is_readable` remembers it. It is set by a report, and
    cleared by a read that finds the kernel's buffer empty: one that would block, or one that brings less than was
    asked for. While it is not set, a read suspends the green thread until the next report. Once the peer has hung
    up no report follows, so from then on the flag stays set, and a read that would block is the end.

    host: the peer's IP address; `""` over a Unix socket.
    request: the request that is being served, if one is.
    is_detached: the socket has become a WebSocket's.
    reads_little: the body that is being read comes in so small chunks that little of it is read at once.
    """

    __slots__ = (
        "_budgeted_bytes",
        "_has_hung_up",
        "_budgets",
        "_head_bytes",
        "_is_readable",
        "_on_hangup",
        "_poller",
        "_send_timeout_seconds",
        "_socket",
        "_waiter",
        "address",
        "host",
        "is_detached",
        "reads_little",
        "request",
    )

    # What the socket raises when a read or a write would block.
    would_block: tuple[type[Exception], ...] = (BlockingIOError, InterruptedError)

    # Whether a read that brings less than was asked for has emptied the kernel's buffer.
    short_read_empties = True

    def __init__(
        self, sock: Any, address: Any, poller: Poller, budgets: Budgets, *, key: str, send_timeout_seconds: float
    ) -> None:
        self._socket = sock
        self._poller = poller
        self._send_timeout_seconds = send_timeout_seconds
        self._is_readable = False
        self._has_hung_up = False
        self._budgets = budgets
        self._head_bytes: int | None = 0  # of the head that is being read; None while a body is
        self._budgeted_bytes = 0  # of that head, in `budgets`
        self.reads_little = False
        self._on_hangup: Callable[[], None] | None = None
        self._waiter: greenlet.greenlet | None = None
        self.address = address
        self.host: str = address[0] if isinstance(address, tuple) else ""  # none over a Unix socket
        self.request: Request | None = None
        self.is_detached = False
        if HAS_EPOLL:
            poller.add(sock.fileno(), self._on_change, ON_CHANGE, key=key)

    # What gunicorn calls

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, `b""` at the end. Suspends the green thread until there are some.

        Where there are some already, other green threads run first, or a peer that always has more would stop them.
        Raises `HeadTooLarge`.
        """
        if self.reads_little and size <= UNSIZED_READ_BYTES:
            size = LITTLE_BYTES
        elif self._head_bytes:
            size = MAX_HEAD_BYTES  # a head that came in pieces is scanned anew for each of them
        elif size > LARGEST_READ_BYTES:
            size = LARGEST_READ_BYTES
        if self._is_readable:
            yield_to_others()
        while True:
            if not self._is_readable:
                self._wait_readable()
            try:
                data: bytes = self._socket.recv(size)
            except self.would_block:
                if self._has_hung_up:
                    return b""
                self._is_readable = False
            else:
                if len(data) < size and self.short_read_empties and not self._has_hung_up:
                    self._is_readable = False
                if self._head_bytes is not None:
                    self._head_bytes += len(data)
                    if self._head_bytes > SMALL_HEAD_BYTES:
                        self._budget_head(len(data))
                return data

    def send(self, data: bytes) -> int:
        """Send all of `data`. Raises `TimeoutError` if the peer reads none of it for too long."""
        self.sendall(data)
        return len(data)

    def sendall(self, data: bytes) -> None:
        """Send `data`. Raises `TimeoutError` if the peer reads none of it for too long, and `TooMuchUnread`."""
        left: bytes | memoryview = data
        try:
            while left:
                sent = self._socket.send(left)
                left = memoryview(left)[sent:] if sent < len(left) else b""
            return
        except self.would_block:
            pass
        with self._budgets.unread(self.host, len(data)) if len(left) > SMALL_UNREAD_BYTES else _UNCOUNTED:
            while left:
                wait_until(self._socket.fileno(), "write", self._send_timeout_seconds)
                with contextlib.suppress(*self.would_block):
                    left = memoryview(left)[self._socket.send(left) :]

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file. The relay has none; gunicorn serves other applications too."""
        file.seek(offset)
        data: bytes = file.read(-1 if count is None else count)
        self.sendall(data)
        return len(data)

    def shutdown(self, how: int) -> None:
        """Shut one or both directions down. Raises `OSError`."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket, unless it was detached."""
        if not self.is_detached and self._socket.fileno() >= 0:
            self.end_head()
            self._poller.remove(self._socket.fileno())
            self._socket.close()

    # What the relay calls

    def begin_head(self) -> None:
        """Count what is read from now on as a head."""
        self._head_bytes = 0
        self.reads_little = False

    def end_head(self) -> None:
        """Count what is read from now on as a body."""
        if self._budgeted_bytes:
            self._budgets.give_back_head(self.host, self._budgeted_bytes)
            self._budgeted_bytes = 0
        self._head_bytes = None

    def _budget_head(self, size: int) -> None:
        if (self._head_bytes or 0) > MAX_HEAD_BYTES:
            raise HeadTooLarge
        self._budgets.take_head(self.host, size)
        self._budgeted_bytes += size

    def close_after_response(self) -> None:
        """Close the connection once the request that is being served is answered."""
        if self.request is not None:
            self.request.force_close()

    def finish(self) -> None:
        """Half-close the connection: nothing more is sent."""
        self._shutdown_raw(socket.SHUT_WR)

    def cut_off(self) -> None:
        """Let a read that waits, and every later one, return `b""`. What is written still arrives."""
        self._shutdown_raw(socket.SHUT_RD)

    def abort(self) -> None:
        """End the connection in both directions, also while its green thread waits."""
        self._shutdown_raw(socket.SHUT_RDWR)

    def detach(self) -> Any:
        """Return the socket, which is non-blocking, and use it no more.

        Raises `ConnectionError` if the peer has already sent something beyond its request: a WebSocket client must
        not (RFC 6455, section 4.1).
        """
        if self.request is not None and self.request.unreader.take_buffered():
            self.request.force_close()  # what was read is gone, so the start of the next request is unknown
            raise ConnectionError("A client sends no frames before it has the answer to its handshake.")
        self.is_detached = True
        self._poller.remove(self._socket.fileno())
        return self._socket

    @contextlib.contextmanager
    def on_hangup(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call back if the peer closes the connection inside of this context."""
        if self._has_hung_up:
            callback()
        self._on_hangup = callback
        try:
            yield
        finally:
            self._on_hangup = None

    def has_hung_up(self) -> bool:
        """Return whether the peer has closed the connection."""
        if not self._has_hung_up:
            with contextlib.suppress(*self.would_block):
                self._has_hung_up = not self._peek()
        return self._has_hung_up

    def has_unread(self) -> bool:
        """Return whether the kernel holds something of the peer that has not been read."""
        try:
            return bool(self._peek())
        except OSError:  # there is nothing, or the connection has ended
            return False

    def _peek(self) -> bytes:
        data: bytes = self._socket.recv(1, socket.MSG_PEEK)
        return data

    def _shutdown_raw(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(how)

    def _wait_readable(self) -> None:
        if not HAS_EPOLL:
            wait_until(self._socket.fileno(), "read", None)
            self._is_readable = True
            return
        self._waiter = greenlet.getcurrent()
        try:
            switch_to_hub()
        finally:
            self._waiter = None

    def _on_change(self, events: int) -> None:
        self._is_readable = True
        if events & HUNG_UP:
            self._has_hung_up = True
            if self._on_hangup is not None:
                self._on_hangup()
        if self._waiter is not None:
            self._waiter.switch()


class TLSConnection(Connection):
    """A connection over TLS. Its handshake has not been done yet."""

    __slots__ = ()

    would_block = (*Connection.would_block, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    short_read_empties = False  # a read brings one record at most, and more may have arrived

    def recv(self, size: int) -> bytes:
        try:
            return super().recv(size)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    def do_handshake(self) -> None:
        """Perform the handshake. Raises `ssl.SSLError`, or `ConnectionError` if the peer leaves."""
        while True:
            try:
                self._socket.do_handshake()
                return
            except self.would_block:
                if self._has_hung_up:
                    raise ConnectionResetError from None
                self._wait_readable()

    def has_hung_up(self) -> bool:
        return self._has_hung_up  # TLS cannot look ahead

    def _peek(self) -> bytes:
        data: bytes = _RawSocket.recv(self._socket, 1, socket.MSG_PEEK)  # of what is encrypted
        return data

    def _shutdown_raw(self, how: int) -> None:
        # `SSLSocket.shutdown` would drop the session, and the next read would return what is encrypted.
        with contextlib.suppress(OSError):
            _RawSocket.shutdown(self._socket, how)
