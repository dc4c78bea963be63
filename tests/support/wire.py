"""A TCP proxy between two programs under test, whose connections can be cut and frozen."""

import contextlib
import socket
import struct
import threading
import time


class Wire:
    """Accepts connections at `port` and passes them to `target`, a port too, from the address `source`."""

    def __init__(self, target: int, source: str = "127.0.0.1") -> None:
        self.target = target
        self._source = source
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._pairs)

    def cut(self, *, resets: bool = False) -> None:
        """End every connection, with `resets` by TCP's RST. New ones are accepted."""
        for pair in list(self._pairs):
            for end in pair if resets else ():
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._end(pair)

    def freeze(self, seconds: float) -> None:
        """Pass nothing on for a while, not even the end of a connection, and accept none."""
        self._flows.clear()
        time.sleep(seconds)
        self._flows.set()

    def close(self) -> None:
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=[near], daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._flows.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self.target), source_address=(self._source, 0))
        except OSError:
            near.close()
            return
        pair = (near, far)
        self._pairs.add(pair)
        for source, sink in (pair, pair[::-1]):
            threading.Thread(target=self._pump, args=[pair, source, sink], daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        self._flows.wait()
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
