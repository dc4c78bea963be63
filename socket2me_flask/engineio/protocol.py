"""Engine.IO protocol 4: packets, and how the two transports write them. Bytes in, bytes out, no I/O.

https://github.com/socketio/engine.io-protocol
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from .websocket import Opcode, frame

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = (b"0", b"1", b"2", b"3", b"4", b"5", b"6")

_SEPARATOR = b"\x1e"

# The most packets in one payload that is taken. engine.io-client and python-engineio's client put everything that
# waits into one, without a bound of their own: acknowledgements of all that came during the POST before.
PAYLOAD_PACKETS = 500

# The type of a payload that is text.
TEXT_PAYLOAD = "text/plain; charset=UTF-8"

# What `Codec` asks for: this module is the codec of protocol 4.
clients_ping = False


class Packet(NamedTuple):
    """One packet: of text, its type first, or the bytes of a binary message. The beginning, if it `is_cut`."""

    data: bytes
    binary: bool = False
    is_cut: bool = False


PING_PACKET, PONG_PACKET, NOOP_PACKET = Packet(PING), Packet(PONG), Packet(NOOP)


class BadPacket(Exception):
    """What a client sent is not a packet."""


class TooManyPackets(BadPacket):
    """A payload has more than `PAYLOAD_PACKETS` packets."""

    def __init__(self) -> None:
        super().__init__(f"a payload of more than {PAYLOAD_PACKETS} packets")


class FrameCodec(Protocol):
    """How packets are written to a connection."""

    def encode_frames(self, packets: Iterable[Packet]) -> bytes:
        """Return packets as frames, one each: of a WebSocket, if it is one."""


class Codec(FrameCodec, Protocol):
    """How the packets of a session are written."""

    @property
    def clients_ping(self) -> bool:
        """Whether the client asks whether the server is there, or the server the client."""

    def encode_payload(self, packets: Sequence[Packet]) -> tuple[str, bytes]:
        """Return packets as the body of an HTTP answer, after its content type."""

    def decode_payload(self, body: bytes) -> list[Packet]:
        """Return the packets in the body of a POST. Raises `BadPacket`."""

    def decode_message(self, opcode: int, payload: bytes) -> Packet:
        """Return the packet in a WebSocket message. Raises `BadPacket`."""


def encode_payload(packets: Sequence[Packet]) -> tuple[str, bytes]:
    """Return packets as the body of an HTTP answer, after its content type."""
    parts = [b"b" + b64encode(packet.data) if packet.binary else packet.data for packet in packets]
    return TEXT_PAYLOAD, _SEPARATOR.join(parts)


def decode_payload(body: bytes) -> list[Packet]:
    """Return the packets in the body of a POST. Raises `BadPacket`."""
    if body.count(_SEPARATOR) >= PAYLOAD_PACKETS:
        raise TooManyPackets
    return [_decode_text(part) for part in body.split(_SEPARATOR)]


def encode_frames(packets: Iterable[Packet]) -> bytes:
    """Return packets as WebSocket frames, one each."""
    return b"".join([frame(Opcode.BINARY if packet.binary else Opcode.TEXT, packet.data) for packet in packets])


def decode_message(opcode: int, payload: bytes) -> Packet:
    """Return the packet in a WebSocket message. Raises `BadPacket`."""
    if opcode == Opcode.BINARY:
        return Packet(payload, binary=True)
    if not payload:
        raise BadPacket("an empty packet")
    return Packet(payload)


def _decode_text(part: bytes) -> Packet:
    if not part:
        raise BadPacket("an empty packet")
    if part[:1] != b"b":
        return Packet(part)
    try:
        return Packet(b64decode(part[1:], validate=True), binary=True)
    except Base64Error:
        raise BadPacket("a binary packet that is not base64") from None
