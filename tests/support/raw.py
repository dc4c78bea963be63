"""Bare sockets, for what no library would send."""

import base64
import os
import socket
import struct

DEADLINE_SECONDS = 15


class Raw:
    """A connection on which anything can be said."""

    def __init__(self, to: int | str, *, address: str = "127.0.0.1") -> None:
        """Connect to a port of this machine, from `address`, or to the path of a Unix socket."""
        if isinstance(to, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(DEADLINE_SECONDS)
            self.socket.connect(to)
        else:
            self.socket = socket.create_connection(
                ("127.0.0.1", to), source_address=(address, 0), timeout=DEADLINE_SECONDS
            )
        self.is_closing = False  # the server said that it ends the connection after its answer
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(f"the server closed after {self._buffer!r}")
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(end)
        return head + end

    def read_to_end(self) -> bytes:
        """Return all that comes until the server closes. Fails by a timeout if it does not."""
        try:
            while data := self.socket.recv(65536):
                self._buffer += data
        except ConnectionResetError:
            pass
        everything, self._buffer = self._buffer, b""
        return everything

    def read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed in the middle of an answer")
            self._buffer += data
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def answer(self) -> tuple[int, bytes]:
        """Return status and body of the next HTTP answer."""
        head = self.read_until(b"\r\n\r\n").lower()
        self.is_closing = b"connection: close" in head
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        return int(head[9:12]), self.read_exactly(length)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RawWebSocket(Raw):
    """A WebSocket to the Engine.IO endpoint, frame by frame."""

    version = 4
    accepts = '40/{},{{"sid":'  # how the answer to a connect begins
    passed_over = (b"2",)  # what `receive` does not return: pings of the server

    def __init__(self, port: int, headers: str = "", query: str = "", *, address: str = "127.0.0.1") -> None:
        super().__init__(port, address=address)
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(
            f"GET /socket.io/?EIO={self.version}&transport=websocket{query} HTTP/1.1\r\nHost: x\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n{headers}\r\n".encode()
        )
        self.handshake = self.read_until(b"\r\n\r\n").decode("latin-1")

    def send_frame(self, payload: bytes, opcode: int = 1, final: bool = True, length: int | None = None) -> None:
        """Send a frame, masked with zeros. `length` may lie."""
        length = len(payload) if length is None else length
        head = bytes([(0x80 if final else 0) | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65536:
            head += struct.pack("!BH", 0xFE, length)
        else:
            head += struct.pack("!BQ", 0xFF, length)
        self.send(head + bytes(4) + payload)

    def receive_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        first, length = self.read_exactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", self.read_exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.read_exactly(8))
        return first & 15, self.read_exactly(length)

    def receive(self) -> str:
        """Return the text of the next message, heartbeats aside."""
        while True:
            opcode, payload = self.receive_frame()
            if opcode != 1 or payload not in self.passed_over:
                return payload.decode()

    def join(self, token: str, auth: str = "") -> None:
        """Read the Engine.IO handshake and join a namespace."""
        assert self.receive().startswith("0{")
        self.send_frame(f"40/{token},{auth}".encode())
        answer = self.receive()
        assert answer.startswith(self.accepts.format(token)), answer


class LegacyWebSocket(RawWebSocket):
    """The same for Engine.IO 3: it is connected to `/` without asking, and its pings are answered."""

    version = 3
    accepts = "40/{},"
    passed_over = (b"40", b"3")


def assert_closed_at_once(websocket: RawWebSocket) -> None:
    """Fail unless a close frame is all that comes, and then the end."""
    with websocket:
        assert websocket.receive_frame() == (8, (1000).to_bytes(2, "big"))
        assert websocket.read_to_end() == b""
