"""The server's side of WebSocket (RFC 6455): handshake and frames. Bytes in, bytes out, no I/O.

Offers no extensions and no subprotocols, so it negotiates none: compression would cost every client some
300 KB of zlib state. Accepts version 13 only; what came before it had no limits that a server could enforce.
"""

import struct
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from enum import IntEnum
from hashlib import sha1
from typing import Any

VERSION = "13"

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
    """Why a connection ends (RFC 6455, section 7.4.1, and the IANA registry of close codes)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    TRY_AGAIN_LATER = 1013


class BadHandshake(Exception):
    """A request that asks for a WebSocket in a way that RFC 6455, section 4.2.1, does not allow."""


class BadVersion(BadHandshake):
    """The same, since it names another version (section 4.4)."""


class ProtocolError(Exception):
    """A frame that the client must not send. `code` goes into the close frame."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def accept(environ: Mapping[str, Any]) -> bytes:
    """Return the answer that opens a WebSocket. Raises `BadHandshake`, or `BadVersion` where only that is wrong."""
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" or "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise BadHandshake("A WebSocket takes HTTP/1.1 and Connection: Upgrade.")
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION")
    if version != VERSION:
        error = BadVersion if version else BadHandshake
        raise error(f"A WebSocket takes Sec-WebSocket-Version: {VERSION}.")
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    try:
        key_is_good = len(b64decode(key, validate=True)) == 16
    except (Base64Error, ValueError):
        key_is_good = False
    if not key_is_good:
        raise BadHandshake("A WebSocket takes a Sec-WebSocket-Key of 16 bytes.")
    # A digest that the protocol prescribes; it protects nothing.
    digest = sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + b64encode(digest) + b"\r\n\r\n"
    )


def is_wanted(environ: Mapping[str, Any]) -> bool:
    """Say whether a request asks for a WebSocket."""
    return "websocket" in _tokens(environ, "HTTP_UPGRADE")


def _tokens(environ: Mapping[str, Any], name: str) -> list[str]:
    """Return the tokens in a header, in lower case."""
    return [token.strip() for token in environ.get(name, "").lower().split(",")]


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message as one frame, unmasked as a server must send it."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, length) + payload


def close_frame(code: int) -> bytes:
    """Return a close frame."""
    return frame(Opcode.CLOSE, struct.pack("!H", code))


# A Socket.IO acknowledgement, or an attachment of one, that is larger than a message may be, but not by more than
# this factor, is read and dropped but for its beginning. So it can be refused as the reply that it is.
CUT_FACTOR = 16

# How much of such a message is kept.
CUT_BYTES = 512


class Cut(bytes):
    """The beginning of a message that is too large; the rest is dropped."""


def may_be_cut(opcode: int, beginning: bytes | bytearray) -> bool:
    """Say whether a message that is too large may be an acknowledgement, or an attachment of one."""
    return opcode == Opcode.BINARY or beginning[:2] in (b"43", b"46")


class FrameReader:
    """Puts messages together from the bytes that a client sends, however they are cut.

    A message may have `max_message_bytes`, its fragments counted together; memory stays below twice that and one
    read of the socket.
    """

    __slots__ = (
        "_buffer",
        "_fragments",
        "_max_message_bytes",
        "_message_bytes",
        "_opcode",
        "_skip_bytes",
        "frames",
        "missing_bytes",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()  # a frame that is incomplete
        self._fragments: bytearray | None = None  # of a message that is incomplete
        self._message_bytes = 0  # of its fragments, and one for each
        self._opcode = 0  # of that message
        self._skip_bytes = 0  # of a frame that is too large, of which the beginning was read
        self.frames = 0  # how many the last `feed` has read
        self.missing_bytes = 0  # how many the incomplete frame needs at least

    @property
    def is_amid_message(self) -> bool:
        """Whether there is the beginning of a message."""
        return bool(self._buffer) or self._fragments is not None or self._skip_bytes > 0

    @property
    def held_bytes(self) -> int:
        """How many bytes of an incomplete message are held."""
        return len(self._buffer) + (len(self._fragments) if self._fragments is not None else 0)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes and yield the messages that they complete, as opcode and payload.

        Raises `ProtocolError` for what a client must not send, after the messages before it.
        """
        data = data[self._skip(len(data)) :] if self._skip_bytes else data
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        self.frames = at = 0
        while (parsed := self._frame_at(buffer, at)) is not None:
            final, opcode, payload, at = parsed
            at += self._skip(len(buffer) - at)
            self.frames += 1
            if opcode >= Opcode.CLOSE:
                if opcode == Opcode.CLOSE:
                    _check_close(payload)
                yield opcode, payload
                continue
            if (opcode == Opcode.CONTINUATION) != (self._fragments is not None):
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a fragment out of turn")
            if self._fragments is not None:
                opcode, payload = self._opcode, self._joined(payload, final)
            elif not final:
                self._fragments, self._message_bytes, self._opcode = bytearray(), 0, opcode
                self._joined(payload, final)
            if final:
                if opcode == Opcode.TEXT and not payload.isascii() and not isinstance(payload, Cut):
                    _check_utf8(payload)
                yield opcode, payload
        if buffer is self._buffer:
            del self._buffer[:at]
        else:
            self._buffer += buffer[at:]
        self.missing_bytes = self.missing_bytes or self._skip_bytes

    def _skip(self, most: int) -> int:
        """Drop what is left of a frame that is too large, up to so many bytes. Return how many."""
        skipped = min(self._skip_bytes, most)
        self._skip_bytes -= skipped
        return skipped

    def _joined(self, payload: bytes, final: bool) -> bytes:
        """Add a fragment. Return the message, if it is its last one."""
        fragments = self._fragments if self._fragments is not None else bytearray()
        # An empty fragment must count too: a client could send them for ever.
        self._message_bytes += len(payload) + 1
        is_cut = self._message_bytes > self._max_message_bytes
        fragments += payload
        if is_cut:
            self._check_cut(self._opcode, self._message_bytes, fragments)
            del fragments[CUT_BYTES:]
        self._fragments = None if final else fragments
        if not final:
            return b""
        return Cut(fragments) if is_cut else bytes(fragments)

    def _check_cut(self, opcode: int, size: int, beginning: bytes | bytearray) -> None:
        """Raise for a message that is too large, unless it is to be cut."""
        if size > CUT_FACTOR * self._max_message_bytes or not may_be_cut(opcode, beginning):
            raise ProtocolError(CloseCode.TOO_BIG, "a message too large")

    def _frame_at(self, buffer: bytes | bytearray, at: int) -> tuple[bool, int, bytes, int] | None:
        """Return the frame at a place: final, opcode, payload, end. None while it is incomplete."""
        self.missing_bytes = 0
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
        if length >= 126:
            form = _LENGTHS[length]
            mask_at += form.size
            if len(buffer) < mask_at:
                return None
            shortest = 126 if length == 126 else 65_536
            (length,) = form.unpack_from(buffer, at + 2)
            if length < shortest:  # RFC 6455, section 5.2: the minimal number of bytes must be used
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a length that is written longer than it need be")
        payload_at = mask_at + 4
        end = payload_at + length
        is_cut = length > self._max_message_bytes
        if is_cut:
            if not final or opcode == Opcode.CONTINUATION:
                raise ProtocolError(CloseCode.TOO_BIG, "a message too large")
            end = payload_at + CUT_BYTES
            if len(buffer) >= payload_at + 2 or opcode == Opcode.BINARY:
                beginning = _unmask(buffer[payload_at : payload_at + 2], buffer[mask_at:payload_at])
                self._check_cut(opcode, length, beginning)
            elif length > CUT_FACTOR * self._max_message_bytes:
                raise ProtocolError(CloseCode.TOO_BIG, "a message too large")
        if len(buffer) < end:
            self.missing_bytes = end - len(buffer)
            return None
        payload = _unmask(buffer[payload_at:end], buffer[mask_at:payload_at])
        if is_cut:
            self._skip_bytes = length - CUT_BYTES
            payload = Cut(payload)
        return final, opcode, payload, end


_LENGTHS = {126: struct.Struct("!H"), 127: struct.Struct("!Q")}
_OPCODES = frozenset(Opcode)


def close_code(payload: bytes) -> int:
    """Return the code in a close frame, or 1000 where there is none."""
    return int.from_bytes(payload[:2], "big") if payload else CloseCode.NORMAL


def _check_close(payload: bytes) -> None:
    """Refuse a close frame of one byte, with a code that no peer may send, or a reason that is not UTF-8.

    RFC 6455, section 7.4, and the IANA registry of close codes.
    """
    if not payload:
        return
    code = close_code(payload)
    if len(payload) == 1 or not (code in _CLOSE_CODES or 3000 <= code <= 4999):
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, "a close frame with a code that means nothing")
    _check_utf8(payload[2:])


# 1004 is reserved, and 1005, 1006 and 1015 are never sent.
_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))


def _check_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise ProtocolError(CloseCode.INVALID_DATA, "text that is not UTF-8") from None


def _unmask(payload: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    # As one large number, since Python has no faster exclusive or: a byte at a time takes 0.3 s for 1 MB.
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")
