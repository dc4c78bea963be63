"""A local app that keeps each request as the bytes that it was, and answers as a test says."""

import queue
import socket
import ssl
import threading
from dataclasses import dataclass
from http.client import HTTPConnection

from tests.support.servers import DEADLINE_SECONDS, Server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"


@dataclass
class Received:
    """A request, taken apart no further than HTTP has to."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def by_name(self) -> dict[str, str]:
        return dict(self.headers)


class App:
    """The app. `answer` is the bytes that it answers with, or a function that returns them. None closes it.

    So does an answer that says `Connection: close`.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answer = OK
        self.received: queue.Queue[Received] = queue.Queue()
        self._tls = tls
        self._connections = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def expect(self) -> Received:
        """Return the next request."""
        return self.received.get(timeout=DEADLINE_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as stream:
                while line := stream.readline():
                    received = self._read(stream, line)
                    self.received.put(received)
                    answer = self.answer(received) if callable(self.answer) else self.answer
                    if answer is None:
                        return
                    connection.sendall(answer)
                    if b"Connection: close" in answer:
                        return
        except OSError:
            pass  # the client hung up

    @staticmethod
    def _read(stream, line: bytes) -> Received:
        headers = []
        while (header := stream.readline()) != b"\r\n":
            name, _, value = header.decode("latin-1").rstrip("\r\n").partition(":")
            headers.append((name, value.removeprefix(" ")))
        length = int({name.lower(): value for name, value in headers}.get("content-length", 0))
        return Received(line.decode("latin-1").rstrip("\r\n"), headers, stream.read(length))

    def close(self) -> None:
        if self._listener.fileno() == -1:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close all connections."""
        while self._connections:
            try:
                self._connections.pop().shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call(server: Server, url: str, target: str = "", method: str = "POST", headers=(), body=b"", chunked=False):
    """Call the relay with exactly these headers; return the status, the headers and the body of its answer."""
    path = url.removeprefix(server.url)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.putrequest(method, path + target, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter([body[:7], body[7:]]), encode_chunked=True)
        else:
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()
