"""Engine.IO protocol 3, of socket.io-client 1.x and 2.x: how the two transports write packets.

Bytes in, bytes out, no I/O. The packets, and their types, are those of protocol 4.

https://github.com/socketio/engine.io-protocol/tree/v3
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence

from .protocol import MESSAGE, PAYLOAD_PACKETS, TEXT_PAYLOAD, BadPacket, Packet, TooManyPackets
from .websocket import Opcode, frame

# Before each packet of a payload: its length, in UTF-16 units as JavaScript counts them.
# The same for text in ASCII, and in UTF-16.
_TEXT_HEADS = {1: re.compile(rb"([0-9]{1,10}):").match, 2: re.compile(rb"((?:[0-9]\0){1,10}):\0").match}

# The same in a payload of bytes, where lengths are in bytes: 0 for text or 1, the digits as numbers, 255.
_BINARY_HEAD = re.compile(rb"([\0\1])([\0-\x09]{1,10})\xff").match
_DIGITS = bytes.maketrans(bytes(range(10)), b"0123456789")

_BINARY_TYPE = bytes([int(MESSAGE)])


class Codec:
    """How the packets of one session are written.

    Its client takes bytes, or, with `base64`, text only. A payload without bytes in it is text all the same, as
    engine.io's server has written it since 2017. One client reads that otherwise: if it `encodes_twice`, as the
    parsers of socket.io-client 1.x, it makes UTF-8 of the text in each packet of a text payload, and then, as
    all clients do, of the payload. If it takes bytes, too, it gets bytes.
    """

    __slots__ = ("base64", "encodes_twice")

    clients_ping = True

    def __init__(self, *, base64: bool) -> None:
        self.base64 = base64
        self.encodes_twice = False

    def encode_payload(self, packets: Sequence[Packet]) -> tuple[str, bytes]:
        if self.base64 or not (self.encodes_twice or any(packet.binary for packet in packets)):
            return TEXT_PAYLOAD, b"".join([self._encode_in_text(packet) for packet in packets])
        return "application/octet-stream", b"".join([_encode_in_bytes(packet) for packet in packets])

    def decode_payload(self, body: bytes) -> list[Packet]:
        if not body:
            raise BadPacket("an empty payload")
        return self._decode_bytes(body) if body[0] <= 1 else self._decode_text(body)

    def encode_frames(self, packets: Iterable[Packet]) -> bytes:
        return b"".join([self._encode_frame(packet) for packet in packets])

    def decode_message(self, opcode: int, payload: bytes) -> Packet:
        return _binary_packet(payload) if opcode == Opcode.BINARY else _text_packet(payload)

    def _encode_frame(self, packet: Packet) -> bytes:
        if packet.binary and not self.base64:
            return frame(Opcode.BINARY, _BINARY_TYPE + packet.data)
        return frame(Opcode.TEXT, _as_text(packet))

    def _encode_in_text(self, packet: Packet) -> bytes:
        data = _as_text(packet)
        if data.isascii():
            return b"%d:%b" % (len(data), data)
        text = data.decode("latin-1" if self.encodes_twice else "utf-8")
        return b"%d:%b" % (len(text.encode("utf-16-le")) // 2, text.encode())

    def _decode_text(self, body: bytes) -> list[Packet]:
        packets: list[Packet] = []
        at = 0
        try:
            # Lengths count UTF-16 units, so text that is not ASCII is cut as UTF-16, two bytes for each of them.
            unit, text = (1, body) if body.isascii() else (2, body.decode().encode("utf-16-le"))
            while at < len(text):
                if len(packets) == PAYLOAD_PACKETS:
                    raise TooManyPackets
                head = _TEXT_HEADS[unit](text, at)
                if head is None:
                    raise BadPacket("a packet without a length")
                start = head.end()
                at = start + int(head[1][::unit]) * unit
                if at > len(text):
                    raise BadPacket("a packet shorter than it says")
                packets.append(_text_packet(self._decode_units(text[start:at], unit)))
        except UnicodeError:
            raise BadPacket("text that is none, or is cut in the middle of a character") from None
        return packets

    def _decode_units(self, units: bytes, unit: int) -> bytes:
        if unit == 1:
            return units
        text = units.decode("utf-16-le")
        return text.encode("latin-1" if self.encodes_twice else "utf-8")

    def _decode_bytes(self, body: bytes) -> list[Packet]:
        packets: list[Packet] = []
        at = 0
        while at < len(body):
            if len(packets) == PAYLOAD_PACKETS:
                raise TooManyPackets
            head = _BINARY_HEAD(body, at)
            if head is None:
                raise BadPacket("a packet without a length")
            at = head.end() + int(head[2].translate(_DIGITS))
            if at > len(body):
                raise BadPacket("a packet shorter than it says")
            data = body[head.end() : at]
            packets.append(_binary_packet(data) if head[1] == b"\1" else _text_packet(data))
        return packets


def _encode_in_bytes(packet: Packet) -> bytes:
    data = _BINARY_TYPE + packet.data if packet.binary else packet.data
    return bytes([packet.binary, *map(int, str(len(data))), 255]) + data


def _as_text(packet: Packet) -> bytes:
    return b"b" + MESSAGE + b64encode(packet.data) if packet.binary else packet.data


def _text_packet(data: bytes) -> Packet:
    if not data:
        raise BadPacket("an empty packet")
    if data[:1] != b"b":
        return Packet(data)
    try:
        if data[1:2] == MESSAGE:
            return Packet(b64decode(data[2:], validate=True), binary=True)
    except Base64Error:
        pass
    raise BadPacket("a binary packet that is not base64 or no message")


def _binary_packet(data: bytes) -> Packet:
    if data[:1] != _BINARY_TYPE:
        raise BadPacket("a binary packet that is no message")
    return Packet(data[1:], binary=True)
