"""One address neither stalls nor stops the relay: attacks from 127.0.0.2, seen by a probe from 127.0.0.1.

`attack.py` has the bounds.
"""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from requests.adapters import HTTPAdapter

from tests.support.attack import ATTACKER, VICTIM, assert_harmless, connect, reset, room_of
from tests.support.raw import RawWebSocket
from tests.support.servers import Server, wait_until
from tests.support.shared_attacks import PONG_PACKET, send_small_frames


@pytest.fixture(scope="module")
def relay():
    with Server(HOLD_SECONDS=0) as server:
        yield server


def do_nothing(port, seconds):
    with connect(port):
        time.sleep(seconds)


def test_an_attack_that_does_nothing_is_harmless(relay):
    """What the other tests of this file measure is not the measuring itself."""
    report = assert_harmless(relay, do_nothing, 0.5)
    assert len(report.waits) > 5


UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket%b HTTP/1.1\r\nHost: x\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(scope="module")
def small_relay():
    """A relay with room for twenty sessions of an address."""
    with Server(HOLD_SECONDS=0, MAX_CONNECTIONS_PER_ADDRESS=20) as server:
        yield server


def open_and_reset(port, times):
    """Ask for a WebSocket, and reset the connection before the answer can be written."""
    for _ in range(times):
        sock = connect(port)
        sock.sendall(UPGRADE % b"")
        reset(sock)


def test_websockets_that_are_reset_before_their_handshake_count_for_nothing(small_relay):
    """Three times as many as an address may have; then it has room for all of them."""
    assert_harmless(small_relay, open_and_reset, 60)
    assert room_of(small_relay.port) == 20


def test_an_upgrade_that_is_reset_before_its_handshake_leaves_the_session_as_it_was(relay):
    """The next calls arrive by polls, and another upgrade may be tried."""
    token = relay.new()
    url = f"{relay.url}/socket.io/?EIO=4&transport=polling"
    sid = requests.get(url, timeout=5).text.split('"')[3]
    url += f"&sid={sid}"
    assert requests.post(url, data=f"40/{token},", timeout=5).ok
    assert requests.get(url, timeout=5).text.startswith(f"40/{token},")
    for _ in range(4):
        sock = connect(relay.port, VICTIM)
        sock.sendall(UPGRADE % f"&sid={sid}".encode())
        reset(sock)
        assert relay.go(token, json=1).text == "OK"
        assert requests.get(url, timeout=5).text.startswith(f"42/{token},")
    with RawWebSocket(relay.port, query=f"&sid={sid}") as websocket:
        websocket.send_frame(b"2probe")
        assert websocket.receive() == "3probe"


def send_bad_frames_and_stay(port, seconds):
    """Open as many WebSockets as possible, each of which sends what ends its session and is then left open."""
    ends = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        opened = 0
        while time.monotonic() < ends:
            websocket = stack.enter_context(RawWebSocket(port, address=ATTACKER))
            if websocket.handshake.startswith("HTTP/1.1 101 "):
                opened += 1
                websocket.send_frame(b"nonsense")
            else:
                assert websocket.handshake.startswith("HTTP/1.1 503 ")
                websocket.close()
                time.sleep(0.01)
        assert opened >= 20


def test_a_session_counts_until_its_socket_is_closed(small_relay):
    """One that ended for a bad frame is an open file for some seconds, so no more of them than of others."""
    report = assert_harmless(small_relay, send_bad_frames_and_stay, 3)
    in_handshake = 5  # requests that are being answered
    assert report.most_files - report.before_files <= 20 + in_handshake
    assert room_of(small_relay.port) == 20


@pytest.mark.parametrize("kind", ["join", "pong", "fragment", "mixed"])
def test_small_frames_over_many_websockets(relay, kind):
    """A read brings some hundred frames, and reading yields as everything else does."""
    assert_harmless(relay, send_small_frames, kind, 400, 1)


def send_pings(port, seconds):
    """Send as many frames over one WebSocket as are taken; nothing of it is too many in a read."""
    send_small_frames(port, "ping", 1, seconds)


def test_one_websocket_has_a_rate_of_frames(relay):
    """It is read more slowly, and not closed; the log says so."""
    assert_harmless(relay, send_pings, 2)
    wait_until(lambda: "FRAMES_PER_SECOND reached" in relay.log, "the log says so")


MANY_PACKETS = {
    "4": b"\x1e".join([b"3"] * 131_072),
    "4 acknowledgements and the end": b"\x1e".join([b"43/x,1[" + b"y" * 500] * 499 + [b"1"]),
    "4 at most": b"\x1e".join([b"42x" + b"y" * 500] * 500),
    "3 as text": b"1:2" * 87_000,
    "3 as text of two bytes": b"1:2" * 65_000 + "3:4üü".encode() * 9_000,
    "3 as bytes": b"\0\1\xff2" * 65_536,
    "3 beyond 16 bits": ("1001:4" + "😀" * 500).encode() * 100,
}


def post_many_packets(port, kind, posters, seconds):
    """Post as many packets as a body may hold, again and again, over sessions that poll."""
    body = MANY_PACKETS[kind]
    ends = time.monotonic() + seconds

    def post():
        url = f"http://127.0.0.1:{port}/socket.io/?EIO={kind[0]}&transport=polling&b64=1"
        with requests.Session() as http:
            http.mount("http://", FromAttacker())
            while time.monotonic() < ends:
                sid = http.get(url, timeout=20).text.split('"')[3]
                while http.post(f"{url}&sid={sid}", data=body, timeout=20).ok and time.monotonic() < ends:
                    pass

    with ThreadPoolExecutor(posters) as pool:
        for done in [pool.submit(post) for _ in range(posters)]:
            done.result()


class FromAttacker(HTTPAdapter):
    """Connects from the attacker's address."""

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, source_address=(ATTACKER, 0), **kwargs)


@pytest.mark.parametrize("kind", MANY_PACKETS)
def test_bodies_that_are_full_of_packets(relay, kind):
    """A payload has a bound in packets, and a session one in packets that were not handled yet."""
    assert_harmless(relay, post_many_packets, kind, 8, 1)


@pytest.fixture
def impatient_relay():
    """A relay that waits two seconds for a client to read."""
    settings = {"SEND_TIMEOUT_SECONDS": 2, "PING_INTERVAL_SECONDS": 2, "PING_TIMEOUT_SECONDS": 1}
    with Server(HOLD_SECONDS=0, **settings) as server:
        yield server


def read_nothing(port, clients, seconds):
    """Let calls wait for clients that read nothing, and say all the time that they are there."""
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack, requests.Session() as http:
        http.mount("http://", FromAttacker())
        sockets = []
        for _ in range(clients):
            token = http.get(f"{url}/v1/new", timeout=5).text
            websocket = stack.enter_context(RawWebSocket(port, address=ATTACKER))
            websocket.join(token)
            sockets.append(websocket.socket)
            for _ in range(6):
                http.post(f"{url}/v1/go/{token}", data=b"x" * 2_000_000, timeout=5)
        ends = time.monotonic() + seconds
        alive = list(sockets)
        while time.monotonic() < ends and alive:
            for sock in list(alive):
                try:
                    sock.sendall(PONG_PACKET)
                except OSError:
                    alive.remove(sock)
            time.sleep(0.1)
        assert not alive, f"{len(alive)} clients that read nothing are still connected"


def test_clients_that_read_nothing_are_cut_off(impatient_relay):
    """Whatever they say: their bytes are freed."""
    assert_harmless(impatient_relay, read_nothing, 5, 25)
    wait_until(lambda: "SEND_TIMEOUT_SECONDS reached" in impatient_relay.log, "the log says so")


# A form of control characters: in the request object each takes six bytes, in `body` and in `params`.
SWELLING = b"a=" + b"\x01" * 800_000
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def let_events_wait(port, clients, kind, seconds):
    """Let swollen events wait for WebSockets that read nothing, or be the answers of polls that are not read."""
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack, requests.Session() as http:
        http.mount("http://", FromAttacker())
        for _ in range(clients):
            token = http.get(f"{url}/v1/new", timeout=5).text
            if kind == "websocket":
                stack.enter_context(RawWebSocket(port, address=ATTACKER)).join(token)
            else:
                polling = f"{url}/socket.io/?EIO=4&transport=polling"
                sid = http.get(polling, timeout=5).text.split('"')[3]
                polling += f"&sid={sid}"
                http.post(polling, data=f"40/{token},", timeout=5)
                http.get(polling, timeout=5)
            http.post(f"{url}/v1/go/{token}", data=SWELLING, headers=FORM, timeout=5)
            if kind == "polling":
                poll = stack.enter_context(socket.socket())
                poll.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else much of it would fit in there
                poll.bind((ATTACKER, 0))
                poll.connect(("127.0.0.1", port))
                poll.sendall(polling.removeprefix(url).join(["GET ", " HTTP/1.1\r\nHost: x\r\n\r\n"]).encode())
        time.sleep(seconds)


@pytest.mark.parametrize(("kind", "setting"), [("websocket", "MAX_QUEUED_BYTES"), ("polling", "MAX_UNREAD_BYTES")])
def test_events_that_are_not_read(relay, kind, setting):
    """40 of nearly 10 MB each, within default limits: those of one address have a share of the memory, wherever
    they wait; the log says that it is used up."""
    assert_harmless(relay, let_events_wait, 40, kind, 1)
    wait_until(lambda: f"{setting} reached" in relay.log, "the log says so")
    with RawWebSocket(relay.port) as websocket:  # another address has room for one
        token = relay.new()
        websocket.join(token)
        assert relay.go(token, data=SWELLING, headers=FORM).text == "OK"
        assert len(websocket.receive()) > 12 * 800_000


def join_with_secret(port, http):
    """Return a WebSocket that has joined a token in mode `ack`, and the token."""
    made = http.post(f"http://127.0.0.1:{port}/v1/new", json={"mode": "ack"}, timeout=5).json()
    websocket = RawWebSocket(port, address=ATTACKER)
    websocket.join(made["token"], json.dumps({"secret": made["secret"]}))
    return websocket, made["token"]


def leave_messages_incomplete(port, clients, seconds):
    """Send nearly all of a message over many WebSockets."""
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            websocket = stack.enter_context(RawWebSocket(port, address=ATTACKER))
            with contextlib.suppress(OSError):
                websocket.send_frame(b"x" * 240_000, length=262_000)
        time.sleep(seconds)


def leave_acknowledgements_incomplete(port, clients, seconds):
    """Acknowledge a call with nine attachments of ten."""
    with contextlib.ExitStack() as stack, requests.Session() as http:
        http.mount("http://", FromAttacker())
        for _ in range(clients):
            websocket, token = join_with_secret(port, http)
            stack.enter_context(websocket)
            caller = stack.enter_context(connect(port))
            caller.sendall(f"GET /v1/go/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            ack_id = websocket.receive().partition(",")[2].partition("[")[0]
            with contextlib.suppress(OSError):
                websocket.send_frame(f"4610-/{token},{ack_id}[".encode() + b"{}," * 80_000 + b"0]")
                for _ in range(9):
                    websocket.send_frame(b"x" * 250_000, opcode=2)
        time.sleep(seconds)


def leave_bodies_incomplete(port, callers, seconds):
    """Send nearly all of a body of 2 MB over many connections."""
    token = requests.get(f"http://127.0.0.1:{port}/v1/new", timeout=5).text
    with contextlib.ExitStack() as stack:
        for _ in range(callers):
            caller = stack.enter_context(connect(port))
            with contextlib.suppress(OSError):
                caller.sendall(CALL.format(token).encode() + b"x" * 1_999_000)
        time.sleep(seconds)


CALL = "POST /v1/go/{} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"

INCOMPLETE = {
    "messages": (leave_messages_incomplete, 600, "MAX_INCOMPLETE_BYTES"),
    "acknowledgements": (leave_acknowledgements_incomplete, 60, "MAX_INCOMPLETE_BYTES"),
    "bodies": (leave_bodies_incomplete, 150, "MAX_READING_BYTES"),
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_what_never_becomes_complete(kind):
    """150 MB of it, within default limits: one address has a share, and the log says that it is used up."""
    leave_incomplete, count, setting = INCOMPLETE[kind]
    with Server(HOLD_SECONDS=0) as server:
        assert_harmless(server, leave_incomplete, count, 1)
        wait_until(lambda: f"{setting} reached" in server.log, "the log says so")


def wait_for_acknowledgements(port, callers, seconds):
    """Have calls of 2 MB wait for a client that reads them, and acknowledges none.

    They come from ten addresses: where few files may be open, one may have as few connections as 16.
    """
    with contextlib.ExitStack() as stack, requests.Session() as http:
        http.mount("http://", FromAttacker())
        websocket, token = join_with_secret(port, http)
        stack.enter_context(websocket)
        for number in range(callers):
            caller = stack.enter_context(connect(port, f"127.0.0.{2 + number % 10}"))
            caller.sendall(CALL.format(token).encode() + b"x" * 2_000_000)
            assert websocket.receive().startswith("451-")
            assert len(websocket.receive_frame()[1]) == 2_000_000  # its body, which is an attachment
        time.sleep(seconds)


def test_calls_that_wait_for_an_acknowledgement_are_small(relay):
    """A body goes when it was delivered, and not when its caller is answered."""
    assert_harmless(relay, wait_for_acknowledgements, 100, 1)


def send_nonsense(port, sessions):
    """End one session after the other by a packet that cannot be read."""
    for _ in range(sessions):
        with RawWebSocket(port, address=ATTACKER) as websocket:
            websocket.receive()
            websocket.send_frame(b"4x")
            websocket.receive_frame()


def test_the_log_has_a_bound(relay):
    """However often a peer does what is logged."""
    before = len(relay.log)
    assert_harmless(relay, send_nonsense, 500)
    assert "a client sent what cannot be read" in relay.log[before:]
    assert len(relay.log) - before < 300 * 100


LARGE_PACKETS = {
    "4 auth": b"40/x," + b'{"a":[' + b"[]," * 80_000 + b"[]]}",
    "4 deep auth": b"40/x," + b"[" * 16_000,
    "4 namespace": b"40/" + b"x" * 250_000 + b",",
    "4 acknowledgement": b"43/x,1[" + b"1," * 120_000 + b"1]",
    "3 query": b"40/x?" + b"a=b&" * 60_000,
    "3 short query": b"40/x?" + b"%41&" * 2_000,
}


def send_large_packets(port, kind, websockets, seconds):
    """Send a packet that is as large as may be, over new WebSockets as soon as it ends one."""
    packet = LARGE_PACKETS[kind]
    ends = time.monotonic() + seconds

    class Client(RawWebSocket):
        version = kind[0]

    def send():
        while time.monotonic() < ends:
            with contextlib.suppress(OSError), Client(port, address=ATTACKER) as websocket:
                while time.monotonic() < ends:
                    websocket.send_frame(packet)
                    websocket.receive_frame()

    with ThreadPoolExecutor(websockets) as pool:
        for done in [pool.submit(send) for _ in range(websockets)]:
            done.result()


@pytest.mark.parametrize("kind", LARGE_PACKETS)
def test_large_packets(relay, kind):
    """What is parsed of a packet has a bound, or is parsed in no time."""
    assert_harmless(relay, send_large_packets, kind, 4, 1)
