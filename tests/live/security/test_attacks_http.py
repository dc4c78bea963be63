"""One address neither stalls nor stops the relay by HTTP: attacks from 127.0.0.2, seen by a probe from 127.0.0.1.

`attack.py` has the bounds. Each is tried against both of gunicorn's parsers.
"""

import contextlib
import select
import socket
import time

import pytest
import requests

from tests.support.attack import ATTACKER, assert_harmless, connect, files_of, reset
from tests.support.servers import WITH_C_PARSER, Server, wait_until
from tests.support.shared_attacks import ACCEPTS, ask_with_accept


@pytest.fixture(scope="module", params=["gunicorn", WITH_C_PARSER])
def relay(request):
    with Server(request.param, HOLD_SECONDS=0) as server:
        yield server


CHUNKED = b"POST /v1/go/zz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def send_all(port, pieces, connections, seconds):
    """Send endless pieces over many connections, as fast as they are taken; open those anew that are closed."""
    start, piece = (part.encode("latin-1") for part in pieces)
    data = piece * max(1, 65_536 // len(piece))
    ends_at = time.monotonic() + seconds
    socks = {}
    while time.monotonic() < ends_at:
        while len(socks) < connections:
            sock = connect(port)
            sock.setblocking(False)
            socks[sock] = start
        _, writable, _ = select.select([], list(socks), [], 0.1)
        for sock in writable:
            try:
                sent = sock.send(socks[sock] or data)
                socks[sock] = socks[sock][sent:]
            except BlockingIOError:
                pass
            except OSError:
                sock.close()
                del socks[sock]
    for sock in socks:
        sock.close()


ENDLESS = {
    "a chunk-size line": (CHUNKED, b"0"),
    "a chunk extension": (CHUNKED + b"1;", b"a"),
    "trailers": (CHUNKED + b"0\r\n", b"X-A: b\r\n"),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n"),
    "chunks of 100 bytes": (CHUNKED, b"64\r\n" + b"x" * 100 + b"\r\n"),
    "a request line": (b"GET /", b"a"),
    "headers": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n"),
    "empty lines": (b"", b"\r\n"),
    "what is no HTTP": (b"", b"\x00\xff"),
    "requests": (b"", b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a body that nobody reads": (CHUNKED.replace(b"POST /v1/go/zz", b"GET /healthz"), b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends(relay, name):
    """Many connections that send as fast as they can."""
    pieces = [piece.decode("latin-1") for piece in ENDLESS[name]]
    assert_harmless(relay, send_all, pieces, 20, 0.5)
    assert "Traceback" not in relay.log


def send_much_at_once(port, megabytes):
    """The first case that was seen: a chunk-size line of megabytes, and then a trickle."""
    with connect(port) as sock, contextlib.suppress(OSError):
        sock.sendall(CHUNKED + b"0" * megabytes * 1_000_000)
        for _ in range(20):
            sock.sendall(b"0")
            time.sleep(0.05)


def test_a_chunk_size_line_of_megabytes(relay):
    """Refused after its first kilobytes."""
    assert_harmless(relay, send_much_at_once, 22)


def reset_amid_heads(port, times):
    """Reset connections whose heads are incomplete: that have sent nothing, and that have sent a part."""
    for number in range(times):
        sock = connect(port)
        if number % 2:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.01)  # so that the relay waits for the rest
        reset(sock)


def test_connections_that_are_reset_amid_a_head(relay):
    """It is the peer's doing: no fault is logged, and no answer is tried."""
    assert_harmless(relay, reset_amid_heads, 40)
    assert "Traceback" not in relay.log


def send_half_heads(port, count, size, seconds):
    """Hold heads open that never end, as large as they may be."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(
        b"X-%d: %b\r\n" % (n, b"a" * 8000) for n in range(size // 8000)
    )
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(connect(port))
            with contextlib.suppress(OSError):
                sock.sendall(head)
        time.sleep(seconds)


@pytest.mark.parametrize("size", [56_000, 800_000])
def test_half_heads_take_little_memory(relay, size):
    """Each has a bound, and all together have one."""
    assert_harmless(relay, send_half_heads, 400, size, 1)


def send_byte_by_byte(port, connections, seconds):
    """Send long heads a byte at a time."""
    ends_at = time.monotonic() + seconds
    socks = [connect(port) for _ in range(connections)]
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 8000) for n in range(7))
        )
    while time.monotonic() < ends_at:
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(b"a")
    for sock in socks:
        sock.close()


def test_heads_that_come_byte_by_byte(relay):
    """What has been read is not read anew for each byte, or it is little."""
    assert_harmless(relay, send_byte_by_byte, 20, 1.5)


@pytest.mark.parametrize("name", ACCEPTS)
def test_accept_headers_that_are_costly_to_parse(relay, name):
    """A bounded part of them is read, however many there are."""
    assert_harmless(relay, ask_with_accept, name, 7, 1)


def hold_silent(port, count, seconds):
    """Open connections and say nothing; open those anew that are closed."""
    ends_at = time.monotonic() + seconds
    socks = []
    while time.monotonic() < ends_at:
        while len(socks) < count:
            with contextlib.suppress(OSError):
                socks.append(connect(port))
        readable, _, _ = select.select(socks, [], [], 0.1)
        for sock in readable:
            sock.close()
            socks.remove(sock)
    for sock in socks:
        sock.close()


class SmallServer(Server):
    """A relay with room for 100 connections of callers."""

    @staticmethod
    def command(runner, port):
        return ["gunicorn", "-k", "eventlet", "--worker-connections", "100", "wsgi:app"], {"PORT": str(port)}


def test_silent_connections_of_one_address_leave_room_for_others():
    """An address has a share of the connections; the log says that it is reached."""
    with SmallServer() as server:
        assert_harmless(server, hold_silent, 200, 2)
        assert "an address has as many connections as it may" in server.log
        with contextlib.ExitStack() as stack:
            for _ in range(20):  # the attacker's share is free again
                sock = stack.enter_context(connect(server.port))
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def test_silent_connections_of_many_addresses_give_way():
    """The connection that has waited longest for a request is closed for a new one."""
    with SmallServer(KEEPALIVE_SECONDS=60) as server, contextlib.ExitStack() as stack:
        for number in range(150):
            address = f"127.0.0.{10 + number % 10}"
            stack.enter_context(connect(server.port, address))
        started = time.monotonic()
        for _ in range(20):
            assert requests.get(f"{server.url}/healthz", timeout=5).text == "OK"
        assert time.monotonic() - started < 5
        wait_until(lambda: "worker_connections are open" in server.log, "the log says so")


def exhaust_files(port, seconds):
    """Take every file that the process may open: callers, and WebSockets that break the protocol and stay."""
    with contextlib.ExitStack() as stack:
        waiting = []
        for number in range(300):
            with contextlib.suppress(OSError):
                sock = stack.enter_context(connect(port, f"127.0.0.{2 + number % 50}"))
                sock.sendall(
                    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                waiting += [sock] * (number % 2)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:  # most of them are never answered
            for sock in select.select(waiting, [], [], 0.1)[0]:
                waiting.remove(sock)
                with contextlib.suppress(OSError):
                    sock.recv(4096)
                    sock.sendall(b"\xff\xff\xff\xff")


class FewFilesServer(Server):
    """A relay that may open 128 files, however many clients it may have."""

    @staticmethod
    def command(runner, port):
        line = (
            "ulimit -n 128; exec gunicorn -k socket2me_flask.worker.EventletWorker --config python:tests "
            f"--bind 127.0.0.1:{port} wsgi:app"
        )
        return ["sh", "-c", line], {}


def test_out_of_files_is_not_for_ever():
    """When the attacker has left, everything is as before."""
    with FewFilesServer() as server:
        before = files_of(server.worker_pid)
        exhaust_files(server.port, 1)
        wait_until(lambda: files_of(server.worker_pid) <= before + 1, "the files are closed")
        for _ in range(5):
            assert requests.get(f"{server.url}/healthz", timeout=5).text == "OK"
        assert len(server.new()) == 24
        assert "no file is left" in server.log
        assert "Traceback" not in server.log


KEY = "k" * 40


@pytest.fixture(scope="module")
def debugged():
    """A relay that logs all that it can."""
    with Server(API_KEYS=KEY, LOG_LEVEL="DEBUG") as server:
        yield server


@pytest.mark.parametrize(
    "lines",
    [
        "Authorization Bearer {key}",
        "Authorization: Bearer {key}\r\n\x00",
        "Authorization : Bearer {key}",
        "X-A: \x1b[31m{key}",
        "Authorization:\r\n Bearer {key}",
    ],
)
def test_a_malformed_head_is_neither_logged_nor_echoed(debugged, lines):
    """Not at DEBUG either: it may have a key, a token, or what a terminal obeys."""
    token = "q" * 24
    before = len(debugged.log)
    with connect(debugged.port, ATTACKER) as sock:
        sock.sendall(f"POST /v1/go/{token} HTTP/1.1\r\nHost: x\r\n{lines.format(key=KEY)}\r\n\r\n".encode())
        answer = b""
        with contextlib.suppress(OSError):
            while data := sock.recv(4096):
                answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    wait_until(lambda: "malformed request" in debugged.log[before:], "the log says that one was refused")
    for secret in (KEY, token, "\x1b"):
        assert secret.encode() not in answer
        assert secret not in debugged.log
