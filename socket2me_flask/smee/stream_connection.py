"""The connection of a stream, after its request: events go out, and nothing comes in."""

from collections.abc import Iterable
from typing import Protocol

from ..concurrency.detached_connection import WOULD_BLOCK, ConnectionOwner, DetachedConnection
from ..engineio.protocol import Packet

# The size of one read. A client that waits for events sends nothing.
READ_BYTES = 512


class StreamCodec(Protocol):
    """How events are written."""

    last: bytes

    def encode_frames(self, packets: Iterable[Packet]) -> bytes:
        """Return events as they go over the connection."""


class Chunks:
    """In chunks (RFC 9112, section 7.1), by which a client knows an event that was cut off."""

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

    __slots__ = ("codec",)

    _nobody = ConnectionOwner()
    codec: StreamCodec

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
