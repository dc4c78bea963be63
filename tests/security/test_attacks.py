"""One address neither stalls nor stops the relay: attacks from 127.0.0.2, seen by a probe from 127.0.0.1.

`attack.py` has the bounds.
"""

import contextlib
import time

import pytest
import requests

from ..live import Server
from .attack import ATTACKER, VICTIM, assert_harmless, connect, reset, room_of
from .raw import RawWebSocket


@pytest.fixture(scope="module")
def relay():
    with Server(HOLD_SECONDS=0) as server:
        yield server


def do_nothing(port, seconds):
    with connect(port):
        time.sleep(seconds)


def test_an_attack_that_does_nothing_is_harmless(relay):
    """What the other tests of this file measure is not the measuring itself."""
    report = assert_harmless(relay, do_nothing, 1)
    assert len(report.waits) > 20


UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket%b HTTP/1.1\r\nHost: x\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
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
