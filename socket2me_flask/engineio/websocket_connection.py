"""One WebSocket on one socket: frames out as fast as the peer takes them, messages in as they become whole.

Never blocks. Knows frames and sockets, not what the messages mean.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..concurrency.loop import Loop, Watch
from ..errors import RelayError, TooManyFrames, TooManyIncomplete
from ..limits import Pool
from .protocol import BadPacket
from .websocket import CloseCode, FrameReader, Opcode, ProtocolError, close_code, close_frame, frame

# What a socket that does not block raises when it would; over TLS, for either direction.
WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# What one read may bring, which bounds the frames in it to some 300. A frame of which the head has come is read in
# larger pieces. A peer that sends more has to wait until the others had their turn.
READ_BYTES = 2048
LARGE_READ_BYTES = 65_536

# How many frames a peer may send in a second, averaged over one; it is read no further for the rest of that second.
# A client sends a frame or two for each call that it acknowledges, and one process forwards fewer calls than this.
FRAMES_PER_SECOND = 5000

# How many pings of one read are answered; of more, the newest (RFC 6455, section 5.5.3, allows just one).
PONGS_PER_READ = 16


# What is held of an incomplete message up to this size is not counted among those of all connections.
SMALL_HELD_BYTES = 16_384

# The reason of `ConnectionOwner.on_closing` if the peer closed the connection by a close frame.
CLIENT_CLOSED = "the client closed"


class Owner(Protocol):
    """Whom a connection tells what happens to it."""

    def on_message(self, opcode: int, payload: bytes) -> None:
        """Take a whole text or binary message. May raise `BadPacket`."""

    def on_progress(self) -> None:
        """Take note that something has to wait for the peer to read, or that it has read a part of it."""

    def on_drained(self) -> None:
        """Take note that the peer has taken everything, and there is room for more."""

    def on_limit(self, error: RelayError) -> None:
        """Take note that the peer has reached a limit: it is read no further for a moment, or refused."""

    def on_closing(self, reason: str) -> None:
        """Take note that a close frame was written for what the peer sent. `on_closed` follows after `abort`."""

    def on_closed(self, reason: str) -> None:
        """Take note that the socket is closed, whoever closed it. Nothing is called after this."""


class _Nobody:
    def on_message(self, opcode: int, payload: bytes) -> None:
        pass

    def on_progress(self) -> None:
        pass

    def on_drained(self) -> None:
        pass

    def on_limit(self, error: RelayError) -> None:
        pass

    def on_closing(self, reason: str) -> None:
        pass

    def on_closed(self, reason: str) -> None:
        pass


_NOBODY = _Nobody()


class Connection:
    """A WebSocket after its handshake. `lock` keeps threads apart, where there are any."""

    __slots__ = (
        "_counted_bytes",
        "_frames",
        "_held",
        "_is_held",
        "_is_throttled",
        "_lock",
        "_loop",
        "_max_message_bytes",
        "_pending",
        "_pong_due",
        "_reader",
        "_second_ends",
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
        held: tuple[str, Pool] | None = None,
    ) -> None:
        """`held` is whom this connection counts for, and what the incomplete messages of all may take."""
        self.socket = sock
        self._pending: Callable[[], int] | None = getattr(sock, "pending", None)  # where the socket speaks TLS
        self.owner: Owner = owner or _NOBODY
        self.is_open = True  # until the socket is closed: a connection that says goodbye still is
        self.is_closing = False
        self.is_paused = False
        self._is_held = False  # by its owner
        self._is_throttled = False
        self._frames = 0  # in the second that ends at:
        self._second_ends = 0.0
        self._loop = loop
        self._lock = lock
        self._max_message_bytes = max_message_bytes
        self._held = held
        self._counted_bytes = 0  # of an incomplete message
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
                self.owner.on_progress()

    def close(self, code: int, last: bytes = b"") -> None:
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
            self._reader = None
            self._count_held(0)
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # Werkzeug has this socket too, and closes it late
            self.socket.close()
            # The owner has this connection: a circle, and memory until the collector comes.
            owner, self.owner = self.owner, _NOBODY
            owner.on_closed(reason)

    def pause_reading(self, paused: bool) -> None:
        """Read no further, or go on."""
        self._is_held = paused
        self._pause()

    def _pause(self) -> None:
        paused = self._is_held or self._is_throttled
        if paused != self.is_paused and self.is_open:
            self.is_paused = paused
            self._loop.pause(self)

    @property
    def has_pending(self) -> bool:
        """Whether TLS has more for the next read, of which the socket itself says nothing."""
        return self._pending is not None and self.is_open and not self.is_paused and self._pending() > 0

    def has_ended(self) -> bool:
        """Return whether the peer has closed the connection, and sent nothing more before."""
        if self._pending is not None or not self.is_open:
            return not self.is_open  # TLS cannot look ahead
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except WOULD_BLOCK:
            return False
        except OSError:
            return True

    def on_readable(self, events: int = 0) -> None:
        """Read a piece of what is there and pass on what it completes."""
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
            if pings and pongs_left > 0 and opcode != Opcode.PONG:  # in the order in which they came
                self._pong(pings[-pongs_left:])
                pongs_left -= len(pings)
                pings.clear()
            if opcode == Opcode.CLOSE:
                self._refuse(close_code(payload), CLIENT_CLOSED)
            elif opcode != Opcode.PONG:
                self.owner.on_message(opcode, payload)
        if pings:
            self._pong(pings[-max(1, pongs_left) :])
        self._reader = reader if reader.is_amid_message else None
        self._count_held(reader.held_bytes)
        self._count_frames(reader.frames)

    def _count_held(self, size: int) -> None:
        """Count what is held of an incomplete message, unless it is small. Raises `ProtocolError` without room."""
        counted = size if size > SMALL_HELD_BYTES and self.is_open else 0
        if counted == self._counted_bytes or self._held is None:
            return
        address, pool = self._held
        if counted > self._counted_bytes and not pool.has_room(address, counted - self._counted_bytes):
            self.owner.on_limit(TooManyIncomplete())
            raise ProtocolError(CloseCode.TRY_AGAIN_LATER, "no room for messages that are incomplete")
        pool.give_back(address, self._counted_bytes - counted)
        self._counted_bytes = counted

    def _pong(self, pings: list[bytes]) -> None:
        if self._unsent:
            self._pong_due = pings[-1]
        else:
            self.write(b"".join([frame(Opcode.PONG, ping) for ping in pings]))

    def _count_frames(self, frames: int) -> None:
        now = time.monotonic()
        if now >= self._second_ends:
            self._frames = 0
            self._second_ends = now + 1
        self._frames += frames
        if self._frames > FRAMES_PER_SECOND and not self._is_throttled and self.is_open:
            self._is_throttled = True
            self._pause()
            self._loop.call_later(self._second_ends - now, self._end_throttling)
            self.owner.on_limit(TooManyFrames())

    def _end_throttling(self) -> None:
        self._is_throttled = False
        self._pause()

    def _refuse(self, code: int, reason: str) -> None:
        self._reader = None
        self._count_held(0)
        self.close(code)
        self.owner.on_closing(reason)

    def _on_writable(self) -> bool:
        """Go on with what is unsent. Return whether to be called again."""
        with self._lock:
            if not self.is_open:
                return False
            unsent = len(self._unsent)
            if not self._all_sent():
                if len(self._unsent) < unsent:
                    self.owner.on_progress()
                return True
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
