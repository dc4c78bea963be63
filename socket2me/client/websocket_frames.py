"""A WebSocket of websocket-client that reads and writes what there is at once, in few system calls.

Knows frames, not what their messages mean. The handshake, the end, control frames and fragments are the library's.
"""

import math
import os
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import websocket
from websocket import ABNF

# How much is read of the socket at once.
_READ_BYTES = 65_536

# RFC 6455, section 5.2: the first byte of a message that is one frame.
_TEXT, _BINARY = 0x80 | ABNF.OPCODE_TEXT, 0x80 | ABNF.OPCODE_BINARY

# How many masking keys are drawn at once; each has four bytes.
_MASKS = 256


class Beside(Protocol):
    """What the thread that receives waits for beside the WebSocket."""

    def wait(self, seconds: float) -> None:
        """Return when the WebSocket can be read, or nothing else is waited for. Raises `TimeoutError`."""

    def end(self) -> None:
        """Let another thread wait: the WebSocket has ended. May be called twice."""


class WebSocket(websocket.WebSocket):
    """Calls `on_message` with each message, in the thread that receives. `recv` returns what that does not take.

    Several threads may send at once. Those that receive wait for each other. With something `beside` it, which
    `on_message` sets, what the thread that receives sends is written when that begins to wait.
    """

    def __init__(self, on_message: Callable[[str | bytes], bool], **options: Any) -> None:
        super().__init__(**options)
        self._on_message = on_message
        self._received = bytearray()
        self._reading = threading.Lock()
        self._masks = b""
        self.beside: Beside | None = None
        self._receiver: int | None = None  # the thread that receives
        self._unsent: list[bytes] = []  # what it has sent

    def end(self) -> None:
        """End what is beside it: nothing is received any more."""
        if self.beside is not None:
            self.beside.end()

    def recv(self) -> str | bytes:
        """Return the next message that `on_message` does not take; `""` after the end."""
        self._receiver = threading.get_ident()
        try:
            while True:
                with self._reading:
                    message = self._take_message()
                if message is None:
                    message = super().recv()
                if not message and not self.connected:
                    self.end()
                elif self._on_message(message):
                    continue
                return message
        except BaseException:
            self.end()
            raise

    def recv_frame(self) -> ABNF:
        """Return the next frame. The library calls it for what `recv` does not take apart itself."""
        with self._reading:
            while (found := self._find_frame()) is None:
                self._read()
            start, end = found
            first, second = self._received[:2]
            if second & 0x80:
                raise websocket.WebSocketProtocolException("a frame of the relay is masked")
            data = bytes(self._received[start:end])
            del self._received[:end]
        frame = ABNF(first >> 7, first >> 6 & 1, first >> 5 & 1, first >> 4 & 1, first & 15, 0, data)
        frame.validate()
        return frame

    def send_messages(self, messages: Iterable[str | bytes]) -> None:
        """Send messages with nothing between them. Raises `OSError` or `WebSocketException` if they cannot be."""
        with self.lock:
            self._unsent += map(self._frame, messages)
            if self.beside is None or threading.get_ident() != self._receiver:
                self._write()

    def flush(self) -> None:
        """Write what waits to be written. Raises as `send_messages`."""
        if self._unsent:
            with self.lock:
                self._write()

    def _write(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        if self.sock is None:
            raise websocket.WebSocketConnectionClosedException("the socket is closed")
        self.sock.sendall(data)

    def _take_message(self) -> str | bytes | None:
        """Return the message that is next, once it has arrived; None if it is not a frame by itself."""
        received = self._received
        while (found := self._find_frame()) is None:
            self._read()
        start, end = found
        if received[0] not in (_TEXT, _BINARY) or received[1] & 0x80:
            return None
        data = received[start:end]
        is_text = received[0] == _TEXT
        del received[:end]
        return data.decode() if is_text else bytes(data)

    def _find_frame(self) -> tuple[int, int] | None:
        """Return where the payload of the first frame begins and ends; None until all of it has arrived."""
        received = self._received
        if len(received) < 2:
            return None
        start, length = 2, received[1] & 0x7F
        if length > 125:
            start = 4 if length == 126 else 10
            if len(received) < start:
                return None
            length = int.from_bytes(received[2:start])
        end = start + length
        return (start, end) if len(received) >= end else None

    def _read(self) -> None:
        if self.sock is None:
            raise websocket.WebSocketConnectionClosedException("the socket is closed")
        try:
            self.flush()
            if self.beside is not None and not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()):
                self.beside.wait(self.sock.gettimeout() or math.inf)
            if self.sock is None:  # closed meanwhile
                raise websocket.WebSocketConnectionClosedException("the socket is closed")
            data = self.sock.recv(_READ_BYTES)
        except TimeoutError:
            raise websocket.WebSocketTimeoutException("nothing has arrived") from None
        if not data:
            raise websocket.WebSocketConnectionClosedException("the relay has closed the connection")
        self._received += data

    def _frame(self, message: str | bytes) -> bytes:
        """Return a message as a frame with a masking key (RFC 6455, section 5.3)."""
        first, data = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
        length = len(data)
        if length < 126:
            head = bytes((first, 0x80 | length))
        elif length < 1 << 16:
            head = bytes((first, 0x80 | 126)) + length.to_bytes(2)
        else:
            head = bytes((first, 0x80 | 127)) + length.to_bytes(8)
        if not self._masks:
            self._masks = os.urandom(4 * _MASKS)
        mask, self._masks = self._masks[:4], self._masks[4:]
        keys = (mask * (length // 4 + 1))[:length]
        masked = int.from_bytes(data) ^ int.from_bytes(keys)
        return head + mask + masked.to_bytes(length)
