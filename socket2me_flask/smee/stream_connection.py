"""The connection of a stream, after its request: events go out, and nothing comes in."""

import fcntl
import socket
import struct
import termios
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..concurrency.detached_connection import WOULD_BLOCK, ConnectionOwner, DetachedConnection
from ..concurrency.loop import Loop
from ..engineio.protocol import Packet

# The size of one read. A client that waits for events sends nothing.
READ_BYTES = 512

# What TIOCOUTQ returns, which is SIOCOUTQ for a socket (tcp(7)): how many bytes the peer has not acknowledged.
_INT = struct.Struct("i")


class StreamCodec(Protocol):
    """How events are written."""

    last: bytes

    def encode_frames(self, packets: Iterable[Packet]) -> bytes:
        """Return events as they go over the connection."""


class Chunks:
    """In chunks (RFC 9112, section 7.1), by which a client recognizes an event that was cut off."""

    last = b"0\r\n\r\n"

    def encode_frames(self, packets: Iterable[Packet]) -> bytes:
        data = b"".join([packet.data for packet in packets])
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Plain:
    """As they are, for a proxy that speaks HTTP/1.0, until the connection ends."""

    last = b""

    def encode_frames(self, packets: Iterable[Packet]) -> bytes:
        return b"".join([packet.data for packet in packets])


class StreamConnection(DetachedConnection[ConnectionOwner]):
    """The socket of one stream."""

    __slots__ = ("codec", "written_bytes")

    _no_owner = ConnectionOwner()

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        lock: AbstractContextManager[Any],
        owner: ConnectionOwner,
        codec: StreamCodec,
    ) -> None:
        super().__init__(sock, loop, lock, owner)
        self.codec = codec
        self.written_bytes = 0

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        super().write(data)

    @property
    def received_bytes(self) -> int:
        """How much of what was written the peer has, at least: over TLS more is sent than is written."""
        queue = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, _INT.pack(0)) if self.is_open else _INT.pack(0)
        (unacknowledged,) = _INT.unpack(queue)
        return self.written_bytes - self.unsent_bytes - int(unacknowledged)

    def on_readable(self, events: int = 0) -> None:
        """End the connection: the peer closes it, or has sent what no client sends."""
        try:
            data = self.socket.recv(READ_BYTES)
        except WOULD_BLOCK:
            return
        except OSError:
            data = b""
        self.abort("the client sent something" if data else "the connection ended")

    def _end(self, code: int) -> bytes:
        return self.codec.last
