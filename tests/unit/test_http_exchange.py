"""How a request to the local app is written and its answer read, against the standard library's HTTP client."""

import contextlib
import http.client
import os
import socket
import sys
import threading
import time

import pytest

from socket2me.local_app.http_exchange import encode, exchange
from socket2me.output.terminal import is_read

LIMIT = 1000

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
    b"HTTP/1.1 200\r\ncontent-length: 2\r\nX-A: 1\r\nX-A:  two \r\n\r\nOK",
    b"HTTP/1.1 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nOK",
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 2\r\n\r\nOK",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nOK",
]
ENDED = [
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK",
    b"HTTP/1.1 200 OK\r\n\r\nOK",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nOK",
    b"HTTP/1.1 abc\r\n\r\n",
    b"nothing of HTTP\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 101 + b"Content-Length: 0\r\n\r\n",
    b"",
]


@pytest.fixture
def pair():
    """An open connection, and the app's end of it."""
    ours, theirs = socket.socketpair()
    connection = http.client.HTTPConnection("app")
    connection.sock = ours
    with ours, theirs:
        yield connection, theirs


def outcome(read):
    try:
        return read()
    except http.client.HTTPException as error:
        return type(error)


def of_the_standard_library(method, answer):
    """Return the status, the headers without the spaces around them, and the body; or the error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(ours, method=method)
        response.begin()
        body = response.read()
        return response.status, [(name, value.strip()) for name, value in response.getheaders()], body


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize(("answer", "ends"), [(each, False) for each in ANSWERS] + [(each, True) for each in ENDED])
def test_an_answer_is_what_the_standard_library_reads(pair, answer, ends, in_pieces, method):
    """Status, headers and body, or the kind of error, are the same, in whatever pieces they come."""
    connection, theirs = pair

    def write():
        theirs.recv(100)
        with contextlib.suppress(OSError):  # of an answer to HEAD the body is not waited for
            for piece in [answer[at : at + 1] for at in range(len(answer))] if in_pieces else [answer]:
                theirs.sendall(piece)
            if ends:
                theirs.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()

    def read():
        found = exchange(connection, method, b"request", time.monotonic() + 20, LIMIT)
        return found.status, [(name, value.strip()) for name, value in found.headers], found.body

    assert outcome(read) == outcome(lambda: of_the_standard_library(method, answer))
    writer.join()


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [(ANSWERS[0], True), (ANSWERS[6], True), (ANSWERS[3], False), (ANSWERS[0] + b"surplus", False)],
)
def test_a_connection_is_kept_only_for_a_clean_end(pair, answer, is_kept):
    """An answer that says `close`, and bytes without a request, end it."""
    connection, theirs = pair
    theirs.sendall(answer)
    exchange(connection, "POST", b"request", time.monotonic() + 20, LIMIT)
    assert (connection.sock is not None) == is_kept


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nConte", ANSWERS[0][:-1], ANSWERS[6][:-6]])
def test_an_answer_that_does_not_come_in_time(pair, answer):
    """Whatever part of it has come, `TimeoutError` is raised at the deadline."""
    connection, theirs = pair
    theirs.sendall(answer)
    with pytest.raises(TimeoutError):
        exchange(connection, "POST", b"request", time.monotonic() + 0.05, LIMIT)


@pytest.mark.parametrize("framing", [f"Content-Length: {LIMIT + 1}", "Transfer-Encoding: chunked"])
def test_of_a_large_answer_the_beginning_is_read(pair, framing):
    """It is cut at the limit, and the connection is closed."""
    connection, theirs = pair
    chunk = b"" if "Length" in framing else b"%x\r\n" % (LIMIT + 1)
    theirs.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + chunk + b"x" * (LIMIT + 1))
    answer = exchange(connection, "POST", b"request", time.monotonic() + 20, LIMIT)
    assert (answer.body, answer.is_cut, connection.sock) == (b"x" * LIMIT, True, None)


@pytest.mark.parametrize(
    ("method", "target", "header"),
    [
        ("GET\r\n", "/", ("a", "b")),
        ("GET", "/\n", ("a", "b")),
        ("GET", "/", ("a\r\nb", "c")),
        ("GET", "/", ("a: b", "c")),
        ("GET", "/", ("", "c")),
        ("GET", "/", ("a", "b\r\nc: d")),
        ("GET", "/", ("a", "b\nc")),
        ("GET", "/", ("a", "\u20ac")),
    ],
)
def test_a_request_is_not_made_of_what_would_be_two(method, target, header):
    """A line break in any part, and a name that is none, is an error before anything is sent."""
    with pytest.raises(ValueError):
        encode(method, target, [header], b"")


@pytest.mark.skipif(sys.platform == "win32", reason="poll")
def test_output_that_is_not_read():
    """A pipe is found to be full, and to be read again."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as pipe, open(writing, "w") as output:
        assert is_read(output)
        os.set_blocking(writing, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        assert not is_read(output)
        pipe.read(65_536)
        assert is_read(output)
