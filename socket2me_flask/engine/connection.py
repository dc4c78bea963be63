"""One WebSocket on one socket: frames out as fast as the peer takes them, messages in as they become whole.

Never blocks. Knows frames and sockets, not what the messages mean.
"""

import contextlib
import socket
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .loop import Loop, Watch
from .protocol import BadPacket
from .websocket import CloseCode, FrameReader, Opcode, ProtocolError, close_frame, frame

# What one read may bring. A peer that sends more has to wait until the others had their turn.
READ_BYTES = 65_536


class Owner(Protocol):
    """Whom a connection tells what happens to it."""

    def on_message(self, opcode: int, payload: bytes) -> None:
        """Take a whole text or binary message. May raise `BadPacket`."""

    def on_drained(self) -> None:
        """Take note that the peer has taken everything, and there is room for more."""

    def on_closing(self, reason: str) -> None:
        """Take note that a close frame was written for what the peer sent. `on_closed` follows after `abort`."""

    def on_closed(self, reason: str) -> None:
        """Take note that the socket is closed, whoever closed it. Nothing is called after this."""


class _Nobody:
    def on_message(self, opcode: int, payload: bytes) -> None:
        pass

    def on_drained(self) -> None:
        pass

    def on_closing(self, reason: str) -> None:
        pass

    def on_closed(self, reason: str) -> None:
        pass


_NOBODY = _Nobody()


class Connection:
    """A WebSocket after its handshake. `lock` keeps threads apart, where there are any."""

    __slots__ = (
        "_lock",
        "_loop",
        "_max_message_bytes",
        "_pong_due",
        "_reader",
        "_unsent",
        "_writing",
        "owner",
        "is_closing",
        "is_open",
        "is_paused",
        "socket",
    )

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        lock: AbstractContextManager[Any],
        owner: Owner | None,
        *,
        max_message_bytes: int,
    ) -> None:
        self.socket = sock
        self.owner: Owner = owner or _NOBODY
        self.is_open = True  # until the socket is closed: a connection that says goodbye still is
        self.is_closing = False
        self.is_paused = False
        self._loop = loop
        self._lock = lock
        self._max_message_bytes = max_message_bytes
        self._reader: FrameReader | None = None  # only while a message is incomplete
        self._unsent: bytes | memoryview = b""
        self._pong_due: bytes | None = None  # to the newest ping that came while the peer did not read
        self._writing: Watch | None = None

    @property
    def unsent_bytes(self) -> int:
        """What was written and the kernel has not taken yet. While there is any, the peer is slow."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Write frames, after those that are still unsent."""
        with self._lock:
            if not self.is_open:
                return
            self._unsent = bytes(self._unsent) + data if self._unsent else data
            if self._writing is None and not self._all_sent():
                self._writing = self._loop.when_writable(self.socket, self._on_writable)

    def close(self, code: CloseCode, last: bytes = b"") -> None:
        """Write `last` and a close frame, then nothing more. Whoever calls sees to it that `abort` follows."""
        with self._lock:
            if not self.is_closing:
                self.write(last + close_frame(code))
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
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # Werkzeug has this socket too, and closes it late
            self.socket.close()
            # The owner has this connection: a circle, and memory until the collector comes.
            owner, self.owner = self.owner, _NOBODY
            owner.on_closed(reason)

    def pause_reading(self, paused: bool) -> None:
        """Read no further, or go on."""
        if paused != self.is_paused and self.is_open:
            self.is_paused = paused
            self._loop.pause(self)

    def on_readable(self) -> None:
        """Read what is there and bring on what it completes."""
        if not self.is_open:
            return
        try:
            data = self.socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.abort("the connection ended")
        elif not self.is_closing:
            reader = self._reader or FrameReader(self._max_message_bytes)
            try:
                for opcode, payload in reader.feed(data):
                    self._on_message(opcode, payload)
                self._reader = reader if reader.is_amid_message else None
            except ProtocolError as error:
                self._refuse(error.code, str(error))
            except BadPacket as error:
                self._refuse(CloseCode.INVALID_DATA, str(error))

    def _on_message(self, opcode: int, payload: bytes) -> None:
        if self.is_closing:
            return
        if opcode == Opcode.PING:
            if self._unsent:
                self._pong_due = payload
            else:
                self.write(frame(Opcode.PONG, payload))
        elif opcode == Opcode.CLOSE:
            self._refuse(CloseCode.NORMAL, "the client closed")
        elif opcode != Opcode.PONG:
            self.owner.on_message(opcode, payload)

    def _refuse(self, code: CloseCode, reason: str) -> None:
        self.close(code)
        self.owner.on_closing(reason)

    def _on_writable(self) -> bool:
        """Go on with what is unsent. Return whether to be called again."""
        with self._lock:
            if not self.is_open or not self._all_sent():
                return self.is_open
            if not self.is_closing and self.is_open:
                if self._pong_due is not None:
                    pong, self._pong_due = frame(Opcode.PONG, self._pong_due), None
                    self.write(pong)
                self.owner.on_drained()  # which may write more
            if self._unsent:
                return True
            self._writing = None
            self._shut_when_sent()
            return False

    def _all_sent(self) -> bool:
        """Send what the kernel takes. Return whether nothing is left to send."""
        try:
            sent = self.socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
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
