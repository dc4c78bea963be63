"""One WebSocket on one socket: writes frames as fast as the peer reads them, and reports complete messages.

Never blocks. Knows frames and sockets, not what the messages mean.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import InitVar, dataclass, field
from typing import Any

from ..concurrency.loop import Loop, Watch
from ..errors import RelayError, TooManyFrames, TooManyIncomplete
from ..limits import Pool
from .protocol import BadPacket
from .receive_limits import ReceiveLimits
from .websocket import CloseCode, FrameReader, Opcode, ProtocolError, close_code, close_frame, frame

# What a non-blocking socket raises when it would block; with TLS, for either direction.
WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# The size of one read, which bounds the frames in it to some 300. A frame whose head has arrived is read in larger
# pieces. Between two reads of one connection, the other connections are read.
READ_BYTES = 2048
LARGE_READ_BYTES = 65_536

# How many pings of one read are answered; of more, the newest (RFC 6455, section 5.5.3, allows just one).
PONGS_PER_READ = 16

# The reason of `Owner.on_closing` if the peer closed the connection by a close frame.
CLIENT_CLOSED = "the client closed"


class Owner:
    """What receives the events of a connection. By default, each is ignored."""

    __slots__ = ()

    def on_message(self, opcode: int, payload: bytes) -> None:
        """Handle a complete text or binary message. May raise `BadPacket`."""

    def on_progress(self) -> None:
        """Some of what was written is unsent: the peer reads slowly, or has just read a part."""

    def on_drained(self) -> None:
        """The peer has read all that was written: there is room for more."""

    def on_limit(self, error: RelayError) -> None:
        """The peer has reached a limit: reading pauses for a moment, or the connection is closed."""

    def on_closing(self, reason: str) -> None:
        """A close frame was written because of what the peer sent. `on_closed` follows after `abort`."""

    def on_closed(self, reason: str) -> None:
        """The socket is closed, by either side. No other event follows."""


_NOBODY = Owner()  # of a closed connection


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What all connections have in common.

    max_message_bytes: the largest message that a peer may send.
    incomplete: the bytes that are held of all incomplete messages, by address.
    """

    loop: Loop
    max_message_bytes: int
    incomplete: Pool


@dataclass(slots=True, eq=False)
class Connection:
    """A WebSocket after its handshake."""

    socket: socket.socket
    _options: ConnectionOptions
    _lock: AbstractContextManager[Any]  # keeps threads apart, where there are any
    _owner: Owner
    address: InitVar[str]  # the one that its incomplete messages count for
    is_open: bool = field(default=True, init=False)  # until the socket is closed
    is_closing: bool = field(default=False, init=False)  # a close frame was written
    is_paused: bool = field(default=False, init=False)  # nothing is read: by one of the next two
    _is_paused_by_owner: bool = field(default=False, init=False)
    _is_throttled: bool = field(default=False, init=False)
    _receive_limits: ReceiveLimits = field(init=False)
    _pending: Callable[[], int] | None = field(init=False)  # where the socket speaks TLS
    _reader: FrameReader | None = field(default=None, init=False)  # only while a message is incomplete
    _unsent: bytes | memoryview = field(default=b"", init=False)
    _pong_due: bytes | None = field(default=None, init=False)  # for the newest ping since the peer does not read
    _writing: Watch | None = field(default=None, init=False)

    def __post_init__(self, address: str) -> None:
        self._receive_limits = ReceiveLimits(self._options.incomplete, address)
        self._pending = getattr(self.socket, "pending", None)

    @property
    def unsent_bytes(self) -> int:
        """What was written and the kernel has not accepted yet. While there is any, the peer is slow."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Write frames, after those that are still unsent."""
        with self._lock:
            if not self.is_open:
                return
            self._unsent = bytes(self._unsent) + data if self._unsent else data
            if self._writing is None and not self._all_sent():
                self._writing = self._options.loop.when_writable(self.socket, self._on_writable)
                self._owner.on_progress()

    def close(self, code: int, last: bytes = b"") -> None:
        """Write `last` and a close frame, then nothing more. The caller ensures that `abort` follows."""
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
            self._options.loop.leave(self)
            if self._writing is not None:
                self._writing.cancel()
                self._writing = None
            self._unsent = b""
            self._reader = None
            self._receive_limits.hold(0)
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # Werkzeug has this socket too, and closes it late
            self.socket.close()
            # The owner refers to this connection: the cycle would keep memory until the garbage collector runs.
            owner, self._owner = self._owner, _NOBODY
            owner.on_closed(reason)

    def is_owned_by(self, owner: Owner) -> bool:
        """Return whether `owner` receives the events of this connection."""
        return self._owner is owner

    def transfer_to(self, owner: Owner) -> None:
        """Report to another owner from now on."""
        self._owner = owner

    def pause_reading(self, paused: bool) -> None:
        """Read nothing until this is called with `paused=False`."""
        self._is_paused_by_owner = paused
        self._pause()

    def _pause(self) -> None:
        paused = self._is_paused_by_owner or self._is_throttled
        if paused != self.is_paused and self.is_open:
            self.is_paused = paused
            self._options.loop.pause(self)

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

    def on_readable(self, events: int = 0) -> None:
        """Read once, and report the messages that this completes."""
        if not self.is_open:
            return
        reader = self._reader
        size = READ_BYTES if reader is None else min(max(READ_BYTES, reader.missing_bytes), LARGE_READ_BYTES)
        try:
            data = self.socket.recv(size)
        except WOULD_BLOCK:
            return
        except OSError:
            data = b""
        if not data:
            self.abort("the connection ended")
        elif not self.is_closing:
            if reader is None:
                reader = FrameReader(self._options.max_message_bytes)
            try:
                self._read(reader, data)
            except ProtocolError as error:
                self._refuse(error.code, str(error))
            except BadPacket as error:
                self._refuse(CloseCode.INVALID_DATA, str(error))

    def _read(self, reader: FrameReader, data: bytes) -> None:
        pings: list[bytes] = []
        pongs_left = PONGS_PER_READ
        for opcode, payload in reader.feed(data):
            if self.is_closing:
                return
            if opcode == Opcode.PING:
                pings.append(payload)
                continue
            if pings and pongs_left > 0 and opcode != Opcode.PONG:  # in the order of arrival
                self._pong(pings[-pongs_left:])
                pongs_left -= len(pings)
                pings.clear()
            if opcode == Opcode.CLOSE:
                self._refuse(close_code(payload), CLIENT_CLOSED)
            elif opcode != Opcode.PONG:
                self._owner.on_message(opcode, payload)
        if pings:
            self._pong(pings[-max(1, pongs_left) :])
        self._reader = reader if reader.is_amid_message else None
        self._apply_limits(reader)

    def _apply_limits(self, reader: FrameReader) -> None:
        """Count what was read. Raises `ProtocolError` if there is no room for an incomplete message."""
        if not self._receive_limits.hold(reader.held_bytes if self.is_open else 0):
            self._owner.on_limit(TooManyIncomplete())
            raise ProtocolError(CloseCode.TRY_AGAIN_LATER, "no room for messages that are incomplete")
        pause_seconds = self._receive_limits.count_frames(reader.frames)
        if pause_seconds and not self._is_throttled and self.is_open:
            self._is_throttled = True
            self._pause()
            self._options.loop.call_later(pause_seconds, self._end_throttling)
            self._owner.on_limit(TooManyFrames())

    def _pong(self, pings: list[bytes]) -> None:
        if self._unsent:
            self._pong_due = pings[-1]
        else:
            self.write(b"".join([frame(Opcode.PONG, ping) for ping in pings]))

    def _end_throttling(self) -> None:
        self._is_throttled = False
        self._pause()

    def _refuse(self, code: int, reason: str) -> None:
        self._reader = None
        self._receive_limits.hold(0)
        self.close(code)
        self._owner.on_closing(reason)

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
                if self._pong_due is not None:
                    pong, self._pong_due = frame(Opcode.PONG, self._pong_due), None
                    self.write(pong)
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
