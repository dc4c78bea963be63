"""The server's side of WebSocket (RFC 6455): handshake and frames. Bytes in, bytes out, no I/O.

Offers no extensions and no subprotocols, so it negotiates none: compression would cost every client some
300 KB of zlib state. Accepts version 13 only; what came before it had no limits that a server could enforce.
"""

import struct
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from enum import IntEnum
from hashlib import sha1
from typing import Any

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Opcode(IntEnum):
    """What a frame carries (RFC 6455, section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Why a connection ends (RFC 6455, section 7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009


class BadHandshake(Exception):
    """A request that asks for a WebSocket in a way that RFC 6455, section 4.2.1, does not allow."""


class ProtocolError(Exception):
    """A frame that the client must not send. `code` goes into the close frame."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def accept(environ: Mapping[str, Any]) -> bytes:
    """Return the answer that opens a WebSocket. Raises `BadHandshake`."""
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    try:
        key_is_good = len(b64decode(key, validate=True)) == 16
    except (Base64Error, ValueError):
        key_is_good = False
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13" or not key_is_good:
        raise BadHandshake("A WebSocket takes Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key of 16 bytes.")
    # A digest that the protocol prescribes; it protects nothing.
    digest = sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + b64encode(digest) + b"\r\n\r\n"
    )


def is_wanted(environ: Mapping[str, Any]) -> bool:
    """Say whether a request asks for a WebSocket."""
    upgrade: str = environ.get("HTTP_UPGRADE", "")
    return upgrade.lower() == "websocket"


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message as one frame, unmasked as a server must send it."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, length) + payload


def close_frame(code: CloseCode) -> bytes:
    """Return a close frame."""
    return frame(Opcode.CLOSE, struct.pack("!H", code))


class FrameReader:
    """Puts messages together from the bytes that a client sends, however they are cut.

    A message may have `max_message_bytes`, its fragments counted together; memory stays below that and one
    read of the socket.
    """

    __slots__ = ("_buffer", "_fragments", "_fragments_bytes", "_fragments_opcode", "_max_message_bytes")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = b""
        self._fragments: list[bytes] | None = None
        self._fragments_bytes = 0
        self._fragments_opcode = 0

    @property
    def is_amid_message(self) -> bool:
        """Whether there is the beginning of a message."""
        return bool(self._buffer) or self._fragments is not None

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes and return the messages that they complete, as opcode and payload.

        Raises `ProtocolError` for what a client must not send.
        """
        buffer = self._buffer + data if self._buffer else data
        messages: list[tuple[int, bytes]] = []
        at = 0
        while True:
            parsed = self._frame_at(buffer, at)
            if parsed is None:
                break
            final, opcode, payload, at = parsed
            if opcode >= Opcode.CLOSE:
                messages.append((opcode, payload))
                continue
            if (opcode == Opcode.CONTINUATION) != (self._fragments is not None):
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a fragment out of turn")
            if self._fragments is None:
                if final:
                    messages.append((opcode, payload))
                    continue
                self._fragments, self._fragments_bytes, self._fragments_opcode = [], 0, opcode
            # An empty fragment must count too: a client could send them for ever.
            self._fragments_bytes += len(payload) + 1
            if self._fragments_bytes > self._max_message_bytes:
                raise ProtocolError(CloseCode.TOO_BIG, "a message too large")
            self._fragments.append(payload)
            if final:
                messages.append((self._fragments_opcode, b"".join(self._fragments)))
                self._fragments = None
        self._buffer = buffer[at:]
        return messages

    def _frame_at(self, buffer: bytes, at: int) -> tuple[bool, int, bytes, int] | None:
        """Return the frame at a place: final, opcode, payload, end. None while it is incomplete."""
        if len(buffer) - at < 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        final, opcode, length = bool(first & 0x80), first & 0x0F, second & 0x7F
        if first & 0x70 or opcode not in _OPCODES:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a frame with bits or an opcode that mean nothing")
        if not second & 0x80:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a frame that is not masked")
        if opcode >= Opcode.CLOSE and (length > 125 or not final):
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a control frame that is long or in fragments")
        mask_at = at + 2
        if length == 126:
            mask_at += 2
            if len(buffer) < mask_at:
                return None
            (length,) = struct.unpack_from("!H", buffer, at + 2)
        elif length == 127:
            mask_at += 8
            if len(buffer) < mask_at:
                return None
            (length,) = struct.unpack_from("!Q", buffer, at + 2)
        if length > self._max_message_bytes:
            raise ProtocolError(CloseCode.TOO_BIG, "a message too large")
        payload_at = mask_at + 4
        end = payload_at + length
        if len(buffer) < end:
            return None
        return final, opcode, _unmask(buffer[payload_at:end], buffer[mask_at:payload_at]), end


_OPCODES = frozenset(Opcode)


def _unmask(payload: bytes, mask: bytes) -> bytes:
    # As one large number, since Python has no faster exclusive or: a byte at a time takes 0.3 s for 1 MB.
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")
