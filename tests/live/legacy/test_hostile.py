"""What a hostile client can do that speaks Engine.IO 3: no more than one of Engine.IO 4.

What is the same for both is in `security/test_hostile_clients.py`.
"""

import contextlib
import threading
import time

import pytest
import requests

from tests.support.raw import LegacyWebSocket, Raw, assert_closed_at_once
from tests.support.servers import Server, wait_until


@pytest.fixture(scope="module")
def relay():
    with Server(JOIN_TIMEOUT_SECONDS=1, HOLD_SECONDS=0, MAX_NAMESPACES_PER_CONNECTION=5) as server:
        yield server


@contextlib.contextmanager
def client(server):
    """A client that has joined a token of its own."""
    token = server.new()
    with LegacyWebSocket(server.port) as websocket:
        websocket.join(token)
        yield websocket, token


def _poll(server, token=None):
    """Open a session that polls text, and join a token. Return its URL."""
    url = f"{server.url}/socket.io/?EIO=3&transport=polling&b64=1"
    opened = requests.get(url, timeout=5).text
    assert opened.endswith("}2:40")
    url += "&sid=" + opened.split('"')[3]
    if token is not None:
        assert requests.post(url, data=_payload(f"40/{token},"), timeout=5).text == "ok"
        assert requests.get(url, timeout=5).text == _payload(f"40/{token},")
    return url


def _payload(*packets):
    return "".join(f"{len(packet)}:{packet}" for packet in packets)


def test_a_handshake_from_before_the_rfc_is_refused(relay):
    """As browsers of 2016 no longer made it, either."""
    with Raw(relay.port) as raw:
        raw.send(
            b"GET /socket.io/?EIO=3&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key1: 1 2\r\nSec-WebSocket-Key2: 1 2\r\n\r\n12345678"
        )
        assert raw.read_until(b"\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("frame", "opcode"),
    [(b"4", 1), (b"4x", 1), (b"40/a,{", 1), (b"9", 1), (b"3", 1), (b"b3AA", 1), (b"b4*", 1), (b"", 2), (b"\3", 2)],
)
def test_what_cannot_be_decoded_ends_the_session(relay, frame, opcode):
    """A pong is what the server sends here, and a binary frame begins with the type of a message."""
    with client(relay) as (websocket, token):
        websocket.send_frame(frame, opcode)
        websocket.read_to_end()
        wait_until(lambda: relay.go(token).status_code == 503, "the session has ended")


@pytest.mark.parametrize("body", ["", "4:40", "0:", "1:9", "3:b3A", "\0\1", "x" * 10])
def test_a_post_that_is_no_payload_ends_the_session(relay, body):
    """Also one whose length is wrong."""
    url = _poll(relay, relay.new())
    assert requests.post(url, data=body, timeout=5).status_code == 400
    assert requests.get(url, timeout=5).status_code == 400


def test_a_post_that_is_too_large_is_refused(relay):
    """By its length, before it is read."""
    url = _poll(relay, relay.new())
    assert requests.post(url, data=b"0" * 262_145, timeout=5).status_code == 413


def test_many_packets_in_a_post_are_all_handled(relay):
    """Not answered OK and dropped."""
    token = relay.new()
    url = _poll(relay)
    requests.post(url, data=_payload(*["2"] * 17, f"40/{token},"), timeout=5)
    assert requests.get(url, timeout=5).text == _payload("3", f"40/{token},")


def test_a_payload_of_bytes_is_taken_and_answered(relay):
    """From browsers with socket.io-client 1.x, which do not say b64=1: their connect shows their version."""
    token = relay.new()
    url = f"{relay.url}/socket.io/?transport=polling"
    opened = requests.get(url, timeout=5)
    assert opened.headers["Content-Type"] == "text/plain; charset=UTF-8"
    assert opened.content.endswith(b"}2:40")
    url += "&sid=" + opened.text.split('"')[3]
    join = f"40/{token}".encode()
    requests.post(url, data=b"\0\2\7\xff" + join, timeout=5)
    assert requests.get(url, timeout=5).content == b"\0\2\x08\xff" + join + b","
    relay.go(token, data=b"\xff\0", headers={"Content-Type": "image/png"})
    received = requests.get(url, timeout=5).content
    assert received.startswith(b"\0")
    assert received.endswith(b"\1\3\xff\4\xff\0")


def test_a_payload_without_bytes_is_text(relay):
    """For a client that does not say b64=1, from 2.x on: bytes come only where there are any."""
    token = relay.new()
    url = f"{relay.url}/socket.io/?transport=polling"
    opened = requests.get(url, timeout=5)
    url += "&sid=" + opened.text.split('"')[3]
    requests.post(url, data=_payload(f"40/{token},"), timeout=5)
    joined = requests.get(url, timeout=5)
    assert (joined.headers["Content-Type"], joined.text) == ("text/plain; charset=UTF-8", _payload(f"40/{token},"))
    relay.go(token, json="ü")
    received = requests.get(url, timeout=5).content.decode()
    length, _, packet = received.partition(":")
    assert int(length) == len(packet)
    assert '"body":"ü"' in packet or '"body":"\\u00fc"' in packet
    relay.go(token, data=b"\xff\0", headers={"Content-Type": "image/png"})
    received = requests.get(url, timeout=5)
    assert received.headers["Content-Type"] == "application/octet-stream"
    assert received.content.endswith(b"\1\3\xff\4\xff\0")


def test_a_client_that_takes_text_only_gets_text_over_a_websocket(relay):
    """As it asked in its handshake."""
    token = relay.new()
    with LegacyWebSocket(relay.port, query="&b64=1") as websocket:
        websocket.join(token)
        relay.go(token, data=b"\xff\0", headers={"Content-Type": "image/png"})
        assert websocket.receive().startswith("451-")
        assert websocket.receive() == "b4/wA="


def test_pings_are_answered_and_what_is_in_them_is_not_sent_back(relay):
    """Pings do not fill a queue: one answer waits for a client that does not read, however many it owes."""
    with client(relay) as (websocket, _):
        websocket.send_frame(b"2" + b"x" * 60_000)
        assert websocket.receive_frame() == (1, b"3")
    url = _poll(relay, relay.new())
    for _ in range(10):
        requests.post(url, data=_payload(*["2"] * 500), timeout=5)
    assert requests.get(url, timeout=5).text == "1:3"


def test_a_flood_of_pings_does_not_keep_others_from_being_served(relay):
    """Whether or not it reads the answers."""
    with client(relay) as (websocket, _):
        pings = bytes([0x81, 0x80 | 1]) + bytes(4) + b"2"
        websocket.socket.settimeout(0.01)
        slowest = 0.0
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                websocket.socket.sendall(pings * 5000)
            started = time.monotonic()
            assert requests.get(f"{relay.url}/healthz", timeout=5).ok
            slowest = max(slowest, time.monotonic() - started)
    assert slowest < 1


def test_who_does_not_ping_is_ended():
    """After interval and timeout, also one that polls; who pings, stays. Until then they count like others."""
    with Server(PING_INTERVAL_SECONDS=1, PING_TIMEOUT_SECONDS=2, MAX_CONNECTIONS_PER_ADDRESS=3) as server:
        with client(server) as (silent, _), client(server) as (alive, token):
            url = _poll(server, server.new())
            for version in (3, 4):
                one_more = requests.get(f"{server.url}/socket.io/?EIO={version}&transport=polling", timeout=5)
                assert one_more.json()["error"]["code"] == "too_many_connections"
            all_is_seen = threading.Event()

            def ping():
                while not all_is_seen.wait(0.1):
                    alive.send_frame(b"2")

            pinging = threading.Thread(target=ping)
            pinging.start()
            started = time.monotonic()
            try:
                silent.read_to_end()
                assert time.monotonic() - started > 2
                wait_until(
                    lambda: requests.get(url, timeout=5).text != _payload("6"), "the one that polls is ended"
                )
                assert requests.get(url, timeout=5).status_code == 400
                assert server.go(token).ok
            finally:
                all_is_seen.set()
                pinging.join()


def test_a_connection_that_joins_nothing_is_closed(relay):
    """To be welcomed to `/` is not to join; over polling too, where the poll that waits is refused."""
    with LegacyWebSocket(relay.port) as websocket:
        websocket.read_to_end()
    url = _poll(relay)
    assert requests.get(url, timeout=5).status_code == 400


def test_one_connection_cannot_try_tokens_for_ever(relay):
    """MAX_NAMESPACES_PER_CONNECTION counts attempts that fail, too."""
    with LegacyWebSocket(relay.port) as websocket:
        websocket.receive()
        reasons = []
        for number in range(6):
            websocket.send_frame(f"40/{'a' * 23}{number}?secret=x,".encode())
            reasons.append(websocket.receive())
    assert ["No such token" in reason for reason in reasons] == [True] * 5 + [False]
    assert "has joined as many namespaces as it may" in reasons[-1]


def test_an_event_is_no_connect_and_no_disconnect(relay):
    """What clients send is not delivered."""
    with client(relay) as (websocket, token):
        for event in ('42["connect"]', f'42/{token},["disconnect","x"]', f"43/{token},0[]", "41"):
            websocket.send_frame(event.encode())
        websocket.send_frame(b"\4bytes", opcode=2)
        assert relay.go(token, json=1).ok
        assert websocket.receive().startswith(f'42/{token},["request"')


def test_a_session_tries_one_websocket_at_a_time(relay):
    """Each is an open file that no limit would count."""
    token = relay.new()
    url = _poll(relay, token)
    query = "&sid=" + url.partition("&sid=")[2]
    with LegacyWebSocket(relay.port, query=query) as first:
        assert_closed_at_once(LegacyWebSocket(relay.port, query=query))
        first.send_frame(b"nonsense")  # it fails: another may be tried
        first.read_to_end()
    with LegacyWebSocket(relay.port, query=query) as second:
        second.send_frame(b"2probe")
        assert second.receive() == "3probe"
        second.send_frame(b"5")
        wait_until(lambda: requests.get(url, timeout=5).status_code == 400, "the WebSocket carries the session")
        assert relay.go(token).ok
        assert second.receive().startswith(f"42/{token},")


def test_a_page_that_may_connect_may_do_so_as_they_do(relay):
    """With credentials, which browsers want to be allowed by name. Pages of others may not."""
    url = f"{relay.url}/socket.io/?EIO=3&transport=polling"
    answer = requests.get(url, headers={"Origin": relay.url}, timeout=5)
    assert answer.headers["Access-Control-Allow-Origin"] == relay.url
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    refused = requests.get(url, headers={"Origin": "https://evil.example"}, timeout=5)
    assert refused.status_code == 403
    assert "Access-Control-Allow-Credentials" not in refused.headers
    of_today = requests.get(url.replace("EIO=3", "EIO=4"), headers={"Origin": relay.url}, timeout=5)
    assert "Access-Control-Allow-Credentials" not in of_today.headers


@pytest.mark.parametrize("query", ["a=b&" * 101, "a=" + "x" * 8192])
def test_a_query_that_is_too_long_ends_the_session(relay, query):
    """It is longer than the URL that it comes from may be, or has more parameters than the bound."""
    token = relay.new()
    with LegacyWebSocket(relay.port) as websocket:
        assert websocket.receive().startswith("0{")
        websocket.send_frame(f"40/{token}?{query},".encode())
        assert websocket.receive_frame() == (1, b"40")
        opcode, payload = websocket.receive_frame()
        assert (opcode, payload) == (8, (1007).to_bytes(2, "big"))
    assert relay.go(token).status_code == 503
