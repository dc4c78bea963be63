"""One WebSocket on one socket: reads frames, and reports complete messages.

Never blocks. Knows frames and sockets, not what the messages mean.
"""

import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..concurrency.detached_connection import WOULD_BLOCK, ConnectionOwner, DetachedConnection
from ..concurrency.loop import Loop
from ..errors import RelayError, TooManyFrames, TooManyIncomplete
from ..limits import Pool
from .protocol import BadPacket
from .receive_limits import ReceiveLimits
from .websocket import CloseCode, FrameReader, Opcode, ProtocolError, close_code, close_frame, frame

# The size of one read, which bounds the frames in it to some 300. A frame whose head has arrived is read in larger
# pieces. Between two reads of one connection, the other connections are read.
READ_BYTES = 2048
LARGE_READ_BYTES = 65_536

# How many pings of one read are answered; of more, the newest (RFC 6455, section 5.5.3, allows just one).
PONGS_PER_READ = 16

# The reason of `Owner.on_closing` if the peer closed the connection by a close frame.
CLIENT_CLOSED = "the client closed"


class Owner(ConnectionOwner):
    """What receives the events of a connection. By default, each is ignored."""

    __slots__ = ()

    def on_message(self, opcode: int, payload: bytes) -> None:
        """Handle a complete text or binary message. May raise `BadPacket`."""

    def on_limit(self, error: RelayError) -> None:
        """The peer has reached a limit: reading pauses for a moment, or the connection is closed."""

    def on_closing(self, reason: str) -> None:
        """A close frame was written because of what the peer sent. `on_closed` follows after `abort`."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What all connections have in common.

    max_message_bytes: the largest message that a peer may send.
    incomplete: the bytes that are held of all incomplete messages, by address.
    """

    loop: Loop
    max_message_bytes: int
    incomplete: Pool


class Connection(DetachedConnection[Owner]):
    """A WebSocket after its handshake."""

    __slots__ = (
        *("_is_paused_by_owner", "_is_throttled", "_max_message_bytes"),
        *("_pong_due", "_reader", "_receive_limits"),
    )

    _no_owner = Owner()

    def __init__(
        self,
        sock: socket.socket,
        options: ConnectionOptions,
        lock: AbstractContextManager[Any],
        owner: Owner,
        address: str,
    ) -> None:
        """`address` is the one that its incomplete messages count for."""
        super().__init__(sock, options.loop, lock, owner)
        self._max_message_bytes = options.max_message_bytes
        self._is_paused_by_owner = False
        self._is_throttled = False
        self._receive_limits = ReceiveLimits(options.incomplete, address)
        self._reader: FrameReader | None = None  # only while a message is incomplete
        self._pong_due: bytes | None = None  # for the newest ping since the peer does not read

    def pause_reading(self, paused: bool) -> None:
        self._is_paused_by_owner = paused
        self._pause()

    def _pause(self) -> None:
        super().pause_reading(self._is_paused_by_owner or self._is_throttled)

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
                reader = FrameReader(self._max_message_bytes)
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
            self._loop.call_later(pause_seconds, self._end_throttling)
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
        self._forget_unread()
        self.close(code)
        self._owner.on_closing(reason)

    def _end(self, code: int) -> bytes:
        return close_frame(code)

    def _forget_unread(self) -> None:
        self._reader = None
        self._receive_limits.hold(0)

    def _write_due(self) -> None:
        if self._pong_due is not None:
            pong, self._pong_due = frame(Opcode.PONG, self._pong_due), None
            self.write(pong)
