"""The cases of the official suites of Engine.IO, protocol 4 and protocol 3, restated.

Their servers echo messages. The relay does not: where they look for an echo, the answer to a CONNECT of Socket.IO,
or an event, stands in for it.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import websocket

from socket2me_flask.engineio.deadlines import POLL_GAP_SECONDS
from tests.support.raw import Raw
from tests.support.servers import Server, wait_until
from tests.support.suite import Polling, assert_closed, open_websocket, receive

INTERVAL_SECONDS = TIMEOUT_SECONDS = 1
LATE_SECONDS = 0.7  # what a machine that does other things as well may add


@pytest.fixture(scope="module")
def relay():
    settings = {"PING_INTERVAL_SECONDS": INTERVAL_SECONDS, "PING_TIMEOUT_SECONDS": TIMEOUT_SECONDS}
    with Server(HOLD_SECONDS=0, **settings) as server:
        yield server


@pytest.fixture(params=[4, 3])
def version(request):
    return request.param


# Handshake


def test_polling_opens_a_session(relay, version):
    """An open packet with an id, the upgrades, the times in milliseconds, and the largest payload."""
    opened = Polling(relay, version).opened
    assert isinstance(opened["sid"], str)
    assert opened["upgrades"] == ["websocket"]
    assert (opened["pingInterval"], opened["pingTimeout"]) == (1000, 1000)
    assert opened["maxPayload"] == 262_144


@pytest.mark.parametrize(
    "query", ["?transport=polling&EIO=abc", "?EIO=4", "?EIO=4&transport=abc", "?EIO=5&transport=polling"]
)
def test_a_version_and_a_transport_are_needed(relay, query):
    """Unknown ones, and none, are 400. (No version at all is version 3.)"""
    assert requests.get(f"{relay.url}/socket.io/{query}", timeout=5).status_code == 400


def test_a_session_is_opened_by_get(relay, version):
    """Not by POST, and not by PUT."""
    url = f"{relay.url}/socket.io/?EIO={version}&transport=polling"
    assert requests.post(url, timeout=5).status_code == 400
    assert requests.put(url, timeout=5).status_code == 400


def test_websocket_opens_a_session(relay, version):
    """The same, without upgrades."""
    client = open_websocket(relay, version)
    assert client.recv().startswith('0{"sid":"')
    client.shutdown()


@pytest.mark.parametrize("query", ["EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc"])
def test_a_websocket_needs_them_too(relay, query):
    """The handshake is refused."""
    with pytest.raises(websocket.WebSocketBadStatusException):
        websocket.create_connection(f"ws://127.0.0.1:{relay.port}/socket.io/?{query}", timeout=5)


# Messages


def test_a_payload_of_several_messages_by_polling(relay, version):
    """Each is answered, in order."""
    client = Polling(relay, version)
    tokens = [relay.new() for _ in range(2)]
    assert client.post(*(f"40/{token}," for token in tokens)).text == "ok"
    received = ""
    while not all(f"40/{token}," in received for token in tokens):
        received += client.get().text
    assert received.index(tokens[0]) < received.index(tokens[1])


def test_what_is_no_payload_by_polling(relay, version):
    """400, and the session has ended."""
    client = Polling(relay, version)
    assert client.post(raw="abc").status_code == 400
    assert client.get().status_code == 400


def test_binary_messages_by_polling(relay, version):
    """Base64 for a client that takes text only; the caller receives the bytes of a reply."""
    client = Polling(relay, version)
    token = relay.new()
    head = "b" if version == 4 else "b4"
    client.post(f"40/{token},")
    while f"40/{token}" not in client.get().text:
        pass
    relay.go(token, data=b"\1\2\xff", headers={"Content-Type": "image/png"})
    while f"{head}AQL/" not in (received := client.get().text):
        assert "2" in received  # a ping


def test_a_second_poll_at_a_time(server, version):
    """Ends the session; the first is answered with a close packet."""
    client = Polling(server, version)
    with ThreadPoolExecutor(2) as pool:
        polls = [pool.submit(client.get) for _ in range(2)]
        answers = {poll.result().status_code: poll.result().text for poll in polls}
    assert set(answers) == {200, 400}
    assert answers[200] == client.payload("1")
    assert client.get().status_code == 400


def answer_of_a_waiting_poll(server, version, end):
    """Return the packet in the answer to a poll during which `end` ends its session."""
    for seconds in (0.1, 1, 5):  # how long the poll may take to arrive before the end
        client = Polling(server, version)
        with ThreadPoolExecutor(1) as pool:
            poll = pool.submit(client.get)
            time.sleep(seconds)
            end(client)
            answer = poll.result()
        assert client.get().status_code == 400
        if answer.status_code == 200:
            break
    return answer.text.removeprefix("1:")


def test_a_second_post_at_a_time(server, version):
    """The same: it is refused, and a poll that waits is answered with a close packet."""

    def post_twice(client):
        with Raw(server.port) as raw:
            path = client.url.partition(str(server.port))[2]
            raw.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4".encode())
            event = '42["passed over"]'
            wait_until(lambda: client.post(event).status_code == 400, "the first POST is being read")

    assert answer_of_a_waiting_poll(server, version, post_twice) == "1"


def test_binary_messages_of_a_client_by_polling(relay, version):
    """The attachment of an acknowledgement, beside its text in one payload."""
    client = Polling(relay, version)
    token = relay.new()
    client.post(f"40/{token}?mode=reply," if version == 3 else f'40/{token},{{"mode":"reply"}}')
    while f"40/{token}" not in client.get().text:
        pass
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(relay.go, token)
        while f"42/{token}," not in (received := client.get().text):
            pass
        ack_id = received.partition(f"42/{token},")[2].partition("[")[0]
        head = "b" if version == 4 else "b4"
        text = f'461-/{token},{ack_id}[{{"_placeholder":true,"num":0}}]'
        assert client.post(text, f"{head}AQL/").text == "ok"
        assert call.result().content == b"\1\2\xff"


def test_a_cancelled_poll(server, version):
    """Ends the session, long before a client that polls no more is given up."""
    client = Polling(server, version)
    started = time.monotonic()
    with Raw(server.port) as raw:
        raw.send(f"GET {client.url.partition(str(server.port))[2]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    wait_until(lambda: client.post("2" if version == 3 else "3").status_code == 400, "the session has ended")
    assert time.monotonic() - started < POLL_GAP_SECONDS


@pytest.mark.parametrize("data", ["abc", ""])
def test_what_is_no_packet_by_websocket(relay, version, data):
    """Closes the connection."""
    client = open_websocket(relay, version)
    client.recv()
    client.send(data)
    assert_closed(client)


# Heartbeat: the server pings in protocol 4, the client in protocol 3


def test_pings_by_polling(relay):
    """Three of them, each answered; then the session still lives."""
    client = Polling(relay, 4)
    for _ in range(3):
        assert client.get().text == "2"
        assert client.post("3").status_code == 200


def test_a_ping_that_is_not_answered_by_polling(relay):
    """Ends the session after the timeout."""
    client = Polling(relay, 4)
    assert client.get().text == "2"
    time.sleep(TIMEOUT_SECONDS + LATE_SECONDS)
    assert client.get().status_code == 400


def test_pings_by_websocket(relay):
    """The same."""
    client = open_websocket(relay, 4)
    client.recv()
    for _ in range(3):
        assert client.recv() == "2"
        client.send("3")
    client.shutdown()


def test_a_ping_that_is_not_answered_by_websocket(relay):
    """The connection is closed, not before the timeout."""
    client = open_websocket(relay, 4)
    client.recv()
    assert client.recv() == "2"
    started = time.monotonic()
    assert_closed(client)
    assert TIMEOUT_SECONDS - 0.1 < time.monotonic() - started < TIMEOUT_SECONDS + LATE_SECONDS


def test_a_client_of_protocol_3_pings(relay):
    """Each ping has its pong, over either transport."""
    client = Polling(relay, 3)
    for _ in range(3):
        client.post("2")
        assert client.get().text in ("1:3", "2:401:3")
    by_websocket = open_websocket(relay, 3)
    by_websocket.recv()
    for _ in range(3):
        by_websocket.send("2")
        assert receive(by_websocket, "40") == "3"
    by_websocket.shutdown()


def test_a_client_of_protocol_3_that_does_not_ping(relay):
    """Its session ends after interval and timeout, over either transport."""
    polling = Polling(relay, 3)
    client = open_websocket(relay, 3)
    started = time.monotonic()
    assert_closed(client)
    assert time.monotonic() - started < INTERVAL_SECONDS + TIMEOUT_SECONDS + LATE_SECONDS
    time.sleep(LATE_SECONDS)
    assert polling.post("2").status_code == 400


# Close


def test_a_client_that_polls_closes_the_session(server, version):
    """A poll that waits meanwhile is answered with a noop packet, and the next with 400."""

    def close(client):
        assert client.post("1").text == "ok"

    assert answer_of_a_waiting_poll(server, version, close) == "6"


def test_a_client_closes_its_websocket_session(relay, version):
    """By a close packet."""
    client = open_websocket(relay, version)
    client.recv()
    client.send("1")
    assert_closed(client)


# Upgrade


def upgraded(relay, version):
    """Return a session that has moved to a WebSocket, and that."""
    polling = Polling(relay, version)
    client = open_websocket(relay, version, f"&sid={polling.sid}")
    client.send("2probe")
    assert client.recv() == "3probe"
    client.send("5")
    return polling, client


def test_an_upgrade(relay, version):
    """Polls are answered with a noop packet after the probe; then messages go over the WebSocket, both ways."""
    token = relay.new()
    polling = Polling(relay, version)
    client = open_websocket(relay, version, f"&sid={polling.sid}")
    client.send("2probe")
    assert client.recv() == "3probe"
    assert polling.get().text in ("6", "1:6")
    client.send("5")
    client.send(f"40/{token},")
    assert receive(client, "2", "40").startswith(f"40/{token},")
    assert relay.go(token).text == "OK"
    assert receive(client, "2").startswith(f"42/{token},")
    client.shutdown()


def test_requests_of_an_upgraded_session_are_refused(relay, version):
    """400, and the session stays."""
    token = relay.new()
    polling, client = upgraded(relay, version)
    assert polling.get().status_code == 400
    assert polling.post("4").status_code == 400
    client.send(f"40/{token},")
    assert receive(client, "2", "40").startswith(f"40/{token},")
    client.shutdown()


def test_a_websocket_of_an_upgraded_session_is_closed(relay, version):
    """It is opened and closed, and the session stays."""
    token = relay.new()
    polling, client = upgraded(relay, version)
    assert_closed(open_websocket(relay, version, f"&sid={polling.sid}"))
    client.send(f"40/{token},")
    assert receive(client, "2", "40").startswith(f"40/{token},")
    client.shutdown()
