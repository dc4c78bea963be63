"""A socket that was taken out of its HTTP server: writes as fast as the peer reads, and reports what becomes of it.

Never blocks. Knows sockets, not what goes over them: `engineio/websocket_connection.py` speaks WebSocket, and
`smee/stream_connection.py` sends events.
"""

import contextlib
import socket
import ssl
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from .loop import Loop, Watch

# What a non-blocking socket raises when it would block; with TLS, for either direction.
WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ConnectionOwner:
    """What receives the events of a connection. By default, each is ignored."""

    __slots__ = ()

    def on_progress(self) -> None:
        """Some of what was written is unsent: the peer reads slowly, or has just read a part."""

    def on_drained(self) -> None:
        """The peer has read all that was written: there is room for more."""

    def on_closed(self, reason: str) -> None:
        """The socket is closed, by either side. No other event follows."""


OwnerT = TypeVar("OwnerT", bound=ConnectionOwner)


class DetachedConnection(Generic[OwnerT]):
    """One connection. A subclass reads, and says what its last bytes are.

    socket: its socket, which does not block.
    is_open: until the socket is closed.
    is_closing: its last bytes were written.
    is_paused: nothing is read.
    """

    __slots__ = (
        *("_lock", "_loop", "_owner", "_pending", "_unsent", "_writing"),
        *("is_closing", "is_open", "is_paused", "socket"),
    )

    # The owner of a closed connection, which ignores everything.
    _no_owner: OwnerT

    def __init__(self, sock: socket.socket, loop: Loop, lock: AbstractContextManager[Any], owner: OwnerT) -> None:
        """`lock` keeps threads apart, where there are any."""
        self.socket = sock
        self.is_open = True
        self.is_closing = False
        self.is_paused = False
        self._loop = loop
        self._lock = lock
        self._owner = owner
        self._pending = getattr(sock, "pending", None)  # where the socket speaks TLS
        self._unsent: bytes | memoryview = b""
        self._writing: Watch | None = None

    def on_readable(self, events: int = 0) -> None:
        """Read once."""
        raise NotImplementedError

    def _end(self, code: int) -> bytes:
        """Return the last bytes, which say why the connection ends, if the protocol has a `code` for that."""
        raise NotImplementedError

    def _forget_unread(self) -> None:
        """Drop what was read and is incomplete: the connection ends."""

    def _write_due(self) -> None:
        """Write what had to wait until the peer has read everything."""

    @property
    def unsent_bytes(self) -> int:
        """What was written and the kernel has not accepted yet. While there is any, the peer is slow."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Write after what is still unsent."""
        with self._lock:
            if not self.is_open:
                return
            self._unsent = bytes(self._unsent) + data if self._unsent else data
            if self._writing is None and not self._all_sent():
                self._writing = self._loop.when_writable(self.socket, self._on_writable)
                self._owner.on_progress()

    def close(self, code: int, last: bytes = b"") -> None:
        """Write `last` and the last bytes, then nothing more. The caller ensures that `abort` follows."""
        with self._lock:
            if not self.is_closing:
                self.write(last + self._end(code))
                self.is_closing = True
                self._shut_when_sent()

    def abort(self, reason: str = "the relay closed it") -> None:
        """Close the socket now."""
        with self._lock:
            if not self.is_open:
                return
            self.is_open = False
            self.is_closing = True
            self._loop.leave(self)
            if self._writing is not None:
                self._writing.cancel()
                self._writing = None
            self._unsent = b""
            self._forget_unread()
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # Werkzeug has this socket too, and closes it late
            self.socket.close()
            # The owner refers to this connection: the cycle would keep memory until the garbage collector runs.
            owner, self._owner = self._owner, self._no_owner
            owner.on_closed(reason)

    def is_owned_by(self, owner: OwnerT) -> bool:
        """Return whether `owner` receives the events of this connection."""
        return self._owner is owner

    def transfer_to(self, owner: OwnerT) -> None:
        """Report to another owner from now on."""
        self._owner = owner

    def pause_reading(self, paused: bool) -> None:
        """Read nothing until this is called with `paused=False`."""
        if paused != self.is_paused and self.is_open:
            self.is_paused = paused
            self._loop.pause(self)

    @property
    def has_pending(self) -> bool:
        """Whether TLS has data for the next read that the kernel's socket does not report as readable."""
        return self._pending is not None and self.is_open and not self.is_paused and self._pending() > 0

    def has_ended(self) -> bool:
        """Return whether the peer has closed the connection and everything before that was read."""
        if self._pending is not None or not self.is_open:
            return not self.is_open  # TLS cannot look ahead
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except WOULD_BLOCK:
            return False
        except OSError:
            return True

    def _on_writable(self) -> bool:
        """Send what is unsent. Return whether some is left."""
        with self._lock:
            if not self.is_open:
                return False
            unsent = len(self._unsent)
            if not self._all_sent():
                if len(self._unsent) < unsent:
                    self._owner.on_progress()
                return True
            if not self.is_closing and self.is_open:
                self._write_due()
                self._owner.on_drained()  # which may write more
            if self._unsent:
                return True
            self._writing = None
            self._shut_when_sent()
            return False

    def _all_sent(self) -> bool:
        """Send what the kernel accepts. Return whether nothing is left to send."""
        try:
            sent = self.socket.send(self._unsent)
        except WOULD_BLOCK:
            return False
        except OSError:
            self.abort("the connection broke")
            return True
        self._unsent = memoryview(self._unsent)[sent:] if sent < len(self._unsent) else b""
        return not self._unsent

    def _shut_when_sent(self) -> None:
        # Half-closed, so that the peer gets what was sent: a close with something unread would discard it.
        if self.is_closing and not self._unsent and self.is_open:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
