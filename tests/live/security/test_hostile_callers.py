"""What a hostile caller can send over HTTP, to gunicorn with each of its parsers."""

import contextlib
import json
import os
import select
import socket
import time

import pytest

from tests.support.raw import DEADLINE_SECONDS, Raw
from tests.support.servers import WITH_C_PARSER, PythonListener, Server, wait_until


@pytest.fixture(scope="module", params=["gunicorn", WITH_C_PARSER])
def server(request):
    with Server(
        request.param,
        BODY_TIMEOUT_SECONDS=1.5,
        KEEPALIVE_SECONDS=1,
        SEND_TIMEOUT_SECONDS=1,
        HOLD_SECONDS=0,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def token(server):
    """A token whose client must receive nothing that is refused."""
    token = server.new()
    with PythonListener(server, token) as client:
        client.expect("connect")
        yield token
        client.expect_silence()


def head(method_and_target, *headers, host="Host: x"):
    return "\r\n".join([f"{method_and_target} HTTP/1.1", *([host] if host else []), *headers, "", ""]).encode(
        "latin-1"
    )


MALFORMED = {
    "gzip beside a length": ("Content-Length: 2", "Transfer-Encoding: gzip"),
    "gzip alone": ("Transfer-Encoding: gzip",),
    "identity": ("Content-Length: 2", "Transfer-Encoding: identity"),
    "gzip, chunked": ("Transfer-Encoding: gzip, chunked",),
    "chunked twice": ("Transfer-Encoding: chunked, chunked",),
    "chunked in two headers": ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked beside a length": ("Content-Length: 2", "Transfer-Encoding: chunked"),
    "chunked beside a length, the other way round": ("Transfer-Encoding: chunked", "Content-Length: 2"),
    "chunked behind a vertical tab": ("Transfer-Encoding: \x0bchunked",),
    "two lengths": ("Content-Length: 2", "Content-Length: 3"),
    "two equal lengths": ("Content-Length: 2", "Content-Length: 2"),
    "a signed length": ("Content-Length: +2",),
    "a negative length": ("Content-Length: -2",),
    "a list of lengths": ("Content-Length: 2, 2",),
    "a length in other digits": ("Content-Length: \xb2",),
    "two hosts": ("Host: y",),
    "two equal hosts": ("Host: x",),
    "a control character in a value": ("X-A: a\x01b",),
    "a bell in a value": ("X-A: \x07",),
    "a delete in a value": ("X-A: a\x7fb",),
    "a null in a value": ("X-A: a\x00b",),
    "a carriage return in a value": ("X-A: a\rX-B: b",),
    "a space in a name": ("X A: b",),
    "no name": (": b",),
    "a folded header": ("X-A: a", " b"),
    "no colon": ("nonsense",),
    "a space before the colon": ("X-A : b",),
    "two types": ("Content-Type: text/plain", "Content-Type: text/html"),
}

# `Host` values that RFC 3986 has no authority for.
HOSTS = ["x y", "x/y", "user@x", "x:port", "[::1", "x:1:2", "x\\y", "x?y", "x#y", "<x>", "x,y z", '"x"']
HOSTS += ["x%zz", "x%4", "[x]", "[zz::1]", "[]", "x:123456", "x@", "::1", "[::1]x"]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_head_is_answered_400_and_the_connection_closed(server, token, name):
    """Whatever follows is not taken for a request."""
    with Raw(server.port) as raw:
        smuggled = head(f"POST /v1/go/{token}/smuggled", "Content-Length: 0")
        raw.send(head(f"POST /v1/go/{token}", *MALFORMED[name]) + smuggled)
        answer = raw.read_to_end()
        assert answer.startswith(b"HTTP/1.1 400 ") or answer.startswith(b"HTTP/1.1 501 "), answer[:100]
        assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "line",
    [
        "GET *", "OPTIONS *", "GET v1/new", "GET ", "get /v1/new", "G\x01T /v1/new", "GET /a b", "CONNECT x:80",
        "GET http://other/healthz", "GET ftp://x/healthz", "GET /a\tb", "GET /a\x00b", "GET /a\x7fb", "GET /a\x01b",
        "GET /a\x1bb", "GET /a\x0bb", "GET /a\x85b", "GET /\xff",
    ],
)  # fmt: skip
def test_a_request_line_that_is_none_is_answered_400_and_the_connection_closed(server, line):
    """Only a path or a URL is a target."""
    with Raw(server.port) as raw:
        raw.send(head(line) + head("GET /healthz"))
        answer = raw.read_to_end()
        assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
        assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("host", HOSTS)
def test_a_malformed_host_is_answered_400_and_the_connection_closed(server, token, host):
    """RFC 9110, section 7.2: an authority without user information."""
    with Raw(server.port) as raw:
        raw.send(head(f"GET /v1/go/{token}", host=f"Host: {host}") + head("GET /healthz"))
        answer = raw.read_to_end()
        assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
        assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "host", ["", "x", "x:80", "127.0.0.1", "[::1]:8000", "[fe80::1%25eth0]", "a-b.example.", "x_y", "X:", "x%41y"]
)
def test_a_host_that_is_one_is_accepted(server, host):
    """Names, addresses, ports; and none, for a target without an authority."""
    with Raw(server.port) as raw:
        raw.send(head("GET /healthz", host=f"Host: {host}"))
        assert raw.answer() == (200, b"OK")


@pytest.mark.parametrize(
    "version", ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1.10", "http/1.1", "HTTP/1.", "HTCPCP/1.1"]
)
def test_another_version_is_answered_400(server, token, version):
    """And is not echoed."""
    with Raw(server.port) as raw:
        raw.send(f"GET /v1/go/{token} {version}\r\nHost: x\r\n\r\n".encode())
        answer = raw.read_to_end()
        assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
        if not version.startswith("HTTP/1."):
            assert version.encode() not in answer


@pytest.mark.parametrize("expectation", ["100-continue, x", "x", "200-ok"])
def test_another_expectation_is_answered_417(server, token, expectation):
    """There is one that HTTP defines (RFC 9110, section 10.1.1)."""
    with Raw(server.port) as raw:
        raw.send(head(f"POST /v1/go/{token}", f"Expect: {expectation}", "Content-Length: 0"))
        assert raw.read_to_end().startswith(b"HTTP/1.1 417 ")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (head("GET <script>alert(1)</script>"), 400, "malformed_request"),
        (head("GET /", "Authorization Bearer hunter2"), 400, "malformed_request"),
        (head("GET /" + "hunter2" * 2000), 414, "uri_too_long"),
        (head("GET /", "X-A: " + "hunter2" * 2000), 431, "head_too_large"),
        (head("POST /", "Transfer-Encoding: hunter2"), None, None),  # the parsers differ: 400 or 501
        (head("POST /", "Expect: hunter2"), 417, "expectation_failed"),
        (b"\x16\x03\x01\x02\x00hunter2\r\n\r\n", 400, "malformed_request"),
    ],
)
def test_what_is_refused_unread_has_the_one_error_shape(server, request_bytes, status, code):
    """JSON, the security headers, and no word of what was sent, in the response or in the log."""
    with Raw(server.port) as raw:
        raw.send(request_bytes)
        answer = raw.read_to_end()
    response_head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message"}
    if status is not None:
        assert response_head.startswith(f"HTTP/1.1 {status} ".encode())
        assert error["code"] == code
    for line in (b"X-Content-Type-Options: nosniff", b"Referrer-Policy: no-referrer", b"Connection: close"):
        assert line in response_head
    for sent in (b"hunter2", b"script"):
        assert sent not in answer
    assert "hunter2" not in server.log
    assert "Traceback" not in server.log


def test_an_empty_line_before_a_request_is_skipped(server):
    """One, as RFC 9112, section 2.2, has it."""
    with Raw(server.port) as raw:
        raw.send(b"\r\n" + head("GET /healthz"))
        assert raw.answer() == (200, b"OK")


def test_a_request_without_a_host_is_answered_400(server):
    """HTTP/1.1 has one."""
    with Raw(server.port) as raw:
        raw.send(head("GET /healthz", host=None))
        assert raw.read_to_end().startswith(b"HTTP/1.1 400 ")


CHUNKS = {
    "no hexadecimal length": b"zz\r\nab\r\n0\r\n\r\n",
    "a signed length": b"+2\r\nab\r\n0\r\n\r\n",
    "a length that lies": b"1\r\nab\r\n0\r\n\r\n",
    "a bare line feed": b"2\nab\n0\n\n",
    "a trailer that is none": b"0\r\nnonsense\r\n\r\n",
    "a trailer that frames": b"2\r\nab\r\n0\r\nContent-Length: 3\r\n\r\n",
    "a trailer that routes": b"2\r\nab\r\n0\r\nHost: y\r\n\r\n",
    "a trailer that authorizes": b"2\r\nab\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    "a bare line feed in an extension": b"2;a=b\nc\r\nab\r\n0\r\n\r\n",
    "a bare carriage return in an extension": b"2;a=b\rc\r\nab\r\n0\r\n\r\n",
    "a null in an extension": b"2;a=\x00\r\nab\r\n0\r\n\r\n",
    "an extension that is too long": b"2;a=" + b"b" * 20_000 + b"\r\nab\r\n0\r\n\r\n",
    "no size": b"\r\nab\r\n0\r\n\r\n",
    "an end before the last line": b"2\r\nab\r\n0\r\n",
    "an end within a chunk": b"3\r\nab",
    "no end of a chunk": b"2\r\nab0\r\n\r\n",
    "a size with a prefix": b"0x2\r\nab\r\n0\r\n\r\n",
    "a size with an underscore": b"0_2\r\nab\r\n0\r\n\r\n",
    "trailers without end": b"2\r\nab\r\n0\r\n" + b"X-A: b\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_malformed_chunks_are_answered_400_and_the_connection_closed(server, token, name):
    """And no client receives half a body."""
    with Raw(server.port) as raw:
        raw.send(head(f"POST /v1/go/{token}", "Transfer-Encoding: chunked") + CHUNKS[name])
        raw.socket.shutdown(socket.SHUT_WR)
        answer = raw.read_to_end()
        assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
        assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "headers", [["X-A: " + "a" * 9000], [f"X-{number}: a" for number in range(150)]], ids=["long", "many"]
)
def test_a_head_that_is_too_large_is_answered_431_and_the_connection_closed(server, headers):
    """The length of a header and their number have bounds."""
    with Raw(server.port) as raw:
        raw.send(head("GET /healthz", *headers))
        assert raw.read_to_end().startswith(b"HTTP/1.1 431 ")


def test_script_name_by_header_changes_nothing(server):
    """Nor does any other variable of WSGI that a peer might set."""
    with Raw(server.port) as raw:
        raw.send(head("GET /healthz", "SCRIPT_NAME: /healthz", "PATH_INFO: /nowhere", "REMOTE_USER: root"))
        assert raw.answer() == (200, b"OK")


@pytest.mark.parametrize("length", [2_048_001, 10**9, 10**15])
def test_a_body_that_is_announced_too_large_is_refused_unread(server, token, length):
    """413 at once; the connection is closed on what is not worth reading."""
    with Raw(server.port) as raw:
        raw.send(head(f"POST /v1/go/{token}", f"Content-Length: {length}"))
        if length > 4_000_000:
            assert raw.read_to_end().startswith(b"HTTP/1.1 413 ")
        else:
            raw.send(b"x" * length + head("GET /healthz"))
            assert raw.answer()[0] == 413
            assert raw.answer() == (200, b"OK")


def test_chunks_without_end_are_refused_before_they_fill_the_memory(server, token):
    """413 when it is too much, and the connection closed if it goes on."""
    with Raw(server.port) as raw:
        raw.send(head(f"POST /v1/go/{token}", "Transfer-Encoding: chunked"))
        with contextlib.suppress(OSError):
            for _ in range(200):
                raw.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert raw.read_to_end().startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("drip", [False, True])
def test_a_body_that_does_not_arrive_is_answered_408_and_the_connection_closed(server, token, drip):
    """Whether it stops or comes a byte at a time."""
    with Raw(server.port) as raw:
        started = time.monotonic()
        raw.send(head(f"POST /v1/go/{token}", "Content-Length: 1000") + b"half")
        with contextlib.suppress(OSError):
            while drip and time.monotonic() - started < 5:
                raw.send(b"x")
                time.sleep(0.05)
                raw.socket.settimeout(0.001)
                with contextlib.suppress(TimeoutError):
                    if raw.socket.recv(1, socket.MSG_PEEK):
                        break
        raw.socket.settimeout(15)
        answer = raw.read_to_end()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_timeout" in answer


def test_a_head_that_does_not_arrive_is_not_waited_for(server):
    """After KEEPALIVE_SECONDS the connection is closed, a byte at a time or not."""
    with Raw(server.port) as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ")
        with contextlib.suppress(OSError):
            for _ in range(30):
                raw.send(b"x")
                time.sleep(0.1)
            raise AssertionError("still open after three seconds")
        assert raw.read_to_end() == b""


def open_files(server):
    return len(os.listdir(f"/proc/{server.worker_pid}/fd"))


def test_a_caller_that_does_not_read_its_answers_is_not_waited_for(server):
    """After SEND_TIMEOUT_SECONDS the connection is closed, and the log says nothing."""
    before = open_files(server)
    with Raw(server.port) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.socket.settimeout(0.5)
        request = head("GET /socket.io/?transport=none")  # which costs the least
        with contextlib.suppress(OSError):
            while True:
                raw.send(request * 1000)
        # The kernel takes megabytes of answers before the server notices, and tells this side late that it closed.
        deadline = time.monotonic() + 45
        while open_files(server) > before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("runner", ["gunicorn", WITH_C_PARSER])
def test_all_bodies_together_have_a_bound(runner):
    """What has arrived counts, not what was announced; there is always room for a small one."""
    with (
        Server(runner, BODY_TIMEOUT_SECONDS=6, HOLD_SECONDS=0, MAX_READING_BYTES=6_000_000) as server,
        contextlib.ExitStack() as stack,
    ):
        token = server.new()
        idle, *large, small = [stack.enter_context(Raw(server.port)) for _ in range(4)]
        idle.send(head(f"POST /v1/go/{token}", "Content-Length: 2000000"))
        for each in large:
            each.send(head(f"POST /v1/go/{token}", "Content-Length: 2000000") + b"x" * 1_600_000)
        # The one that is read last; which of them that is, is the relay's affair.
        ((refused,), _, _) = select.select([each.socket for each in large], [], [], DEADLINE_SECONDS)
        large.sort(key=lambda each: each.socket is not refused)
        status, body = large[0].answer()
        assert status == 503
        assert b"too_many_bytes" in body
        small.send(head(f"POST /v1/go/{token}", "Content-Length: 60000") + b"x" * 60_000)
        assert b"nobody_connected" in small.answer()[1]
        assert large[1].answer()[0] == 408
        assert idle.answer()[0] == 408


def test_a_pipeline_does_not_keep_others_waiting(server):
    """A connection that always has another request ready yields after each."""
    requests_ahead = 3000
    with Raw(server.port) as greedy, Raw(server.port) as modest:
        greedy.send(head("GET /v1/nothing") * requests_ahead)
        modest.send(head("GET /healthz"))
        assert modest.answer() == (200, b"OK")
        greedy.socket.setblocking(False)
        answered = 0
        with contextlib.suppress(BlockingIOError):
            while data := greedy.socket.recv(1 << 20):
                answered += data.count(b"HTTP/1.1 404")
        assert answered < requests_ahead


def test_an_unknown_token_costs_no_body(server):
    """404 before the body is read; a small one is read past, a large one ends the connection."""
    with Raw(server.port) as raw:
        raw.send(head("POST /v1/go/" + "z" * 24, "Content-Length: 4") + b"body" + head("GET /healthz"))
        assert raw.answer()[0] == 404
        assert raw.answer() == (200, b"OK")
    with Raw(server.port) as raw:
        raw.send(head("POST /v1/go/" + "z" * 24, "Content-Length: 5000000"))
        assert raw.read_to_end().startswith(b"HTTP/1.1 404 ")
    wait_until(lambda: server.process.poll() is None, "it lives")
