"""What a hostile Socket.IO client can do: to the relay, and to the same service on the stock stack.

Each test was written to fail on the stock stack, and is run against it to show that it does.
"""

import contextlib
import sys
import time
from typing import NamedTuple

import pytest
import requests

from tests.support.raw import DEADLINE_SECONDS, LegacyWebSocket, Raw, RawWebSocket, assert_closed_at_once
from tests.support.servers import Server


class StockServer(Server):
    """`stock.py` under eventlet's own server, as the stock stack is run since gunicorn has no worker for it."""

    @staticmethod
    def command(runner, port):
        return [sys.executable, "-m", "tests.support.stock", str(port)], {}

    def new(self):
        return "a" * 24  # it issues none, and logs it


@pytest.fixture(scope="module")
def relay():
    with Server(
        JOIN_TIMEOUT_SECONDS=1,
        HOLD_SECONDS=0,
        CLIENT_QUEUE_LIMIT_BYTES=3_000_000,
        MAX_NAMESPACES_PER_CONNECTION=5,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def stock():
    with StockServer() as server:
        yield server


@pytest.fixture(params=["relay", pytest.param("stock", marks=pytest.mark.xfail(strict=True))])
def server(request):
    return request.getfixturevalue(request.param)


class Peer(NamedTuple):
    """A server, and what the client speaks to it."""

    server: Server
    protocol: type[RawWebSocket]

    def connect(self, **options):
        websocket = self.protocol(self.server.port, **options)
        if isinstance(self.server, StockServer):
            websocket.socket.settimeout(SILENCE_SECONDS)
        return websocket

    @contextlib.contextmanager
    def client(self):
        """A client that has joined a token of its own."""
        token = self.server.new()
        with self.connect() as websocket:
            websocket.join(token)
            yield websocket, token


# The stock stack answers some of it with silence.
SILENCE_SECONDS = 1


@pytest.fixture(
    params=[
        pytest.param(("relay", RawWebSocket), id="relay"),
        pytest.param(("relay", LegacyWebSocket), id="legacy"),
        pytest.param(("stock", RawWebSocket), id="stock", marks=pytest.mark.xfail(strict=True)),
    ]
)
def peer(request):
    """A client of each protocol on the relay, and one on the stock stack."""
    name, protocol = request.param
    return Peer(request.getfixturevalue(name), protocol)


def client(server):
    """A client of Engine.IO 4 that has joined a token of its own."""
    return Peer(server, RawWebSocket).client()


def test_a_handshake_from_before_the_rfc_is_refused(server):
    """Hixie-76 and -75 had no limit that a server could enforce."""
    old = "Origin: http://x\r\nSec-WebSocket-Key1: 1 2\r\nSec-WebSocket-Key2: 1 2\r\n"
    with Raw(server.port) as raw:
        raw.send(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\n{old}\r\n12345678".replace(
                "http://x", server.url
            ).encode()
        )
        assert raw.read_until(b"\r\n").startswith(b"HTTP/1.1 400 ")


def test_compression_is_not_negotiated(peer):
    """It would cost some 300 KB of memory a client."""
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    with peer.connect(headers=offer) as websocket:
        assert websocket.handshake.startswith("HTTP/1.1 101 ")
        assert "extensions" not in websocket.handshake.lower()


def test_endless_fragments_end(peer):
    """The bound is on the message; fragments that never end do not fill the memory."""
    with peer.client() as (websocket, _):
        websocket.send_frame(b"4", final=False)
        for _ in range(200):
            websocket.send_frame(b"x" * 10_000, opcode=0, final=False)
        opcode, payload = websocket.receive_frame()
        assert (opcode, payload[:2]) == (8, (1009).to_bytes(2, "big"))


def test_a_large_frame_is_refused_by_its_head(peer):
    """A megabyte is not unmasked if it cannot be a reply: two bytes show that it is no reply."""
    with peer.client() as (websocket, _):
        websocket.send_frame(b"42", length=990_000)
        opcode, payload = websocket.receive_frame()
        assert (opcode, payload[:2]) == (8, (1009).to_bytes(2, "big"))
        websocket.read_to_end()


def test_attachments_are_not_waited_for(peer):
    """A packet may claim billions of them; what comes after it is still understood."""
    with peer.client() as (websocket, token):
        other = "b" * 24 if isinstance(peer.server, StockServer) else peer.server.new()
        websocket.send_frame(f'452999999999-/{token},["x",{{"_placeholder":true,"num":0}}]'.encode())
        websocket.send_frame(f"40/{other},".encode())
        assert websocket.receive().startswith(f"40/{other},")


def test_an_acknowledgement_of_id_0_harms_no_other(peer):
    """It deletes the stock stack's counter: the next event with a callback fails."""
    with peer.client() as (websocket, token):
        websocket.send_frame(f"43/{token},0[]".encode())
        assert peer.server.go(token, data=b"{}").status_code == 200
        assert websocket.receive().startswith("4")
        websocket.send_frame(f"43/{token},0[]".encode())
        time.sleep(0.2)
        assert peer.server.go(token, data=b"{}").status_code == 200


def test_seventeen_packets_in_a_post_are_all_handled(server):
    """Not answered OK and dropped."""
    url = f"{server.url}/socket.io/?EIO=4&transport=polling"
    token = server.new()
    sid = requests.get(url, timeout=5).text.split('"')[3]
    packets = "\x1e".join(["3"] * 16 + [f"40/{token},"])
    assert requests.post(f"{url}&sid={sid}", data=packets, timeout=5).status_code == 200
    assert requests.get(f"{url}&sid={sid}", timeout=3).text.startswith(f"40/{token},")


@pytest.mark.parametrize("frame", [b"4", b"4x", b"40/a,{", b"9"])
def test_what_cannot_be_decoded_ends_the_session(server, frame):
    """Instead of a session that looks alive and swallows calls."""
    with client(server) as (websocket, _):
        websocket.send_frame(frame)
        websocket.read_to_end()


def test_a_connection_that_joins_nothing_is_closed(server):
    """After JOIN_TIMEOUT_SECONDS; over polling too."""
    with Peer(server, RawWebSocket).connect() as websocket:
        websocket.read_to_end()
    url = f"{server.url}/socket.io/?EIO=4&transport=polling"
    sid = requests.get(url, timeout=5).text.split('"')[3]
    assert requests.get(f"{url}&sid={sid}", timeout=3).status_code == 400


def test_a_connection_whose_client_left_is_closed(peer):
    """Leaving the last namespace starts the same clock."""
    with peer.client() as (websocket, token):
        websocket.send_frame(f"41/{token},".encode())
        websocket.read_to_end()


def test_a_client_that_never_reads_is_cut_off(peer):
    """Its queue has a bound, and callers receive an error."""
    with peer.client() as (_, token):
        statuses = [peer.server.go(token, data=b"x" * 1_000_000).status_code for _ in range(30)]
    assert 503 in statuses


def test_an_event_named_connect_is_no_connect(server):
    """Events of clients are not delivered, and not to the stock stack's own handlers."""
    with client(server) as (websocket, token):
        before = requests.get(f"{server.url}/connects", timeout=5).text
        websocket.send_frame(f'42/{token},["connect"]'.encode())
        websocket.send_frame(f'42/{token},["disconnect","x"]'.encode())
        assert server.go(token, data=b"{}").status_code == 200
        websocket.receive()
        assert requests.get(f"{server.url}/connects", timeout=5).text == before


def test_what_is_no_namespace_is_refused(peer):
    """Nothing but `/` and the namespaces of live tokens."""
    with peer.connect() as websocket:
        websocket.receive()
        websocket.send_frame(b"40/admin,")
        assert websocket.receive().startswith("44/admin,")


def test_pings_without_end_do_not_keep_others_waiting(relay):
    """One who asks and does not read gets an answer to its newest ping only."""
    with client(relay) as (websocket, _):
        websocket.socket.settimeout(0.01)
        pings = bytes([0x89, 0x80 | 125]) + bytes(4 + 125)
        deadline = time.monotonic() + 1.5
        slowest = 0.0
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                websocket.send(pings * 500)
            started = time.monotonic()
            assert requests.get(f"{relay.url}/healthz", timeout=5).ok
            slowest = max(slowest, time.monotonic() - started)
    assert slowest < 0.5


def upgrade(server, sid):
    """Open a WebSocket for a session that polls."""
    websocket = RawWebSocket(server.port, query=f"&sid={sid}")
    assert websocket.handshake.startswith("HTTP/1.1 101 ")
    return websocket


def test_a_session_tries_one_websocket_at_a_time_and_moves_to_one_only(relay):
    """Each is an open file that no limit would count."""
    url = f"{relay.url}/socket.io/?EIO=4&transport=polling"
    token = relay.new()
    sid = requests.get(url, timeout=5).text.split('"')[3]
    requests.post(f"{url}&sid={sid}", data=f"40/{token},", timeout=5)
    with upgrade(relay, sid) as first:
        assert_closed_at_once(upgrade(relay, sid))
        first.send_frame(b"nonsense")  # it fails: another may be tried
        first.read_to_end()
    with upgrade(relay, sid) as second:
        second.send_frame(b"2probe")
        assert second.receive() == "3probe"
        second.send_frame(b"5")
        assert second.receive().startswith(f"40/{token},")
        assert_closed_at_once(upgrade(relay, sid))
        assert relay.go(token).ok
        assert second.receive().startswith(f"42/{token},")


def test_a_websocket_that_is_being_tried_ends_with_its_session(relay):
    """Not with a timer of its own."""
    url = f"{relay.url}/socket.io/?EIO=4&transport=polling"
    sid = requests.get(url, timeout=5).text.split('"')[3]
    with upgrade(relay, sid) as tried:
        started = time.monotonic()
        requests.post(f"{url}&sid={sid}", data="1", timeout=5)
        tried.read_to_end()
    assert time.monotonic() - started < 2


def test_clients_that_come_do_not_delay_the_pings_of_those_who_are_there():
    """A client that receives nothing for interval and timeout disconnects."""
    with Server(PING_INTERVAL_SECONDS=1, PING_TIMEOUT_SECONDS=1) as server, contextlib.ExitStack() as stack:
        websocket = stack.enter_context(RawWebSocket(server.port))
        websocket.join(server.new())
        pings = []
        ends = time.monotonic() + 4.5
        websocket.socket.settimeout(0.1)
        while time.monotonic() < ends:
            requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=5)
            with contextlib.suppress(TimeoutError):
                assert websocket.receive_frame() == (1, b"2")
                pings.append(time.monotonic())
                websocket.send_frame(b"3")
    gaps = [later - earlier for earlier, later in zip(pings, pings[1:], strict=False)]
    assert len(gaps) >= 2
    assert max(gaps) < 1.9


def test_joining_and_leaving_the_root_does_not_use_up_attempts(relay):
    """As with a token."""
    with client(relay) as (websocket, _):
        for _ in range(20):
            websocket.send_frame(b"40")
            assert websocket.receive().startswith('40{"sid":')
            websocket.send_frame(b"41")


@pytest.mark.parametrize("auth", ['""', "[]", "false", "0.5", "null", '"raw"', '["raw"]'])
def test_auth_that_is_no_object_is_refused(relay, auth):
    """Also what is false in Python: never a silent default."""
    token = relay.new()
    with RawWebSocket(relay.port) as websocket:
        websocket.receive()
        websocket.send_frame(f"40/{token},{auth}".encode())
        answer = websocket.receive()
        assert answer.startswith(f"44/{token},")
        assert "bad_auth" in answer


def test_auth_that_is_too_large_is_refused(relay):
    """By its length, before it is parsed. The connection stays."""
    token = relay.new()
    with RawWebSocket(relay.port) as websocket:
        websocket.receive()
        websocket.send_frame(f'40/{token},{{"body":"{"x" * 16_384}"}}'.encode())
        assert "auth takes 16,384 characters" in websocket.receive()
        websocket.send_frame(f"40/{token},".encode())
        assert websocket.receive().startswith(f'40/{token},{{"sid":')


def test_one_connection_cannot_try_tokens_for_ever(relay):
    """MAX_NAMESPACES_PER_CONNECTION counts attempts that fail, too."""
    with RawWebSocket(relay.port) as websocket:
        websocket.receive()
        reasons = []
        for number in range(7):
            websocket.send_frame(f"40/{'a' * 23}{number},".encode())
            reasons.append(websocket.receive())
        assert ["unknown_token" in reason for reason in reasons] == [True] * 5 + [False] * 2
        assert "too_many_namespaces" in reasons[-1]


def test_joining_and_leaving_does_not_use_up_attempts(relay):
    """A client may come and go over one connection as often as it likes."""
    with client(relay) as (websocket, token):
        for _ in range(20):
            websocket.send_frame(f"41/{token},".encode())
            websocket.send_frame(f"40/{token},".encode())
            assert websocket.receive().startswith(f'40/{token},{{"sid":')


@pytest.mark.parametrize("protocol", [RawWebSocket, LegacyWebSocket])
def test_a_flood_of_events_does_not_keep_others_from_being_served(relay, protocol):
    """A client that sends as fast as it can costs little, and all others are served meanwhile."""
    with Peer(relay, protocol).client() as (websocket, token):
        frames = b"".join(
            bytes([0x81, 0x80 | 40]) + bytes(4) + f'42/{token},["x"]'.encode().ljust(40) for _ in range(1000)
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        websocket.socket.settimeout(0.01)
        answered = 0
        while answered < 20:
            assert time.monotonic() < deadline
            with contextlib.suppress(TimeoutError):
                websocket.socket.sendall(frames)
            assert requests.get(f"{relay.url}/healthz", timeout=1).ok
            answered += 1


def test_nothing_is_sent_before_the_connect_is_accepted(relay):
    """A client that is refused sees no event; one that is accepted sees its CONNECT first."""
    made = relay.new_with_secret()
    token = made["token"]
    with RawWebSocket(relay.port) as listener:
        listener.join(token, f'{{"secret":"{made["secret"]}"}}')
        with RawWebSocket(relay.port) as intruder:
            intruder.receive()
            for _ in range(3):
                intruder.send_frame(f'40/{token},{{"secret":"guess"}}'.encode())
                assert relay.go(token, data=b"{}").status_code == 200
                assert intruder.receive().startswith(f"44/{token},")
            intruder.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                intruder.receive()
        for _ in range(3):
            assert listener.receive().startswith(f'451-/{token},["request"')
            listener.receive_frame()
