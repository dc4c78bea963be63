"""The cases of the official suite of Socket.IO, protocol 5, restated.

Its server has the namespaces `/` and `/custom`, and echoes what it receives. The relay has a namespace for each
token, sends calls as events, and receives acknowledgements: those stand in for them.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.raw import RawWebSocket
from tests.support.servers import Server
from tests.support.suite import Polling, assert_closed, open_websocket, receive


@pytest.fixture(params=[4, 3])
def version(request):
    return request.param


@pytest.fixture
def client(server):
    """A WebSocket of Engine.IO 4, after its handshake."""
    client = open_websocket(server, 4)
    assert client.recv().startswith("0{")
    yield client
    client.shutdown()


def joined(client, namespace):
    """Join a namespace, and return what came with the answer."""
    client.send(f"40{namespace}")
    answer = receive(client, "2")
    assert answer.startswith(f"40{namespace}")
    return json.loads(answer.removeprefix(f"40{namespace}"))


@pytest.mark.parametrize("auth", ["", '{"token":"123"}'])
def test_the_main_namespace(client, auth):
    """With and without a payload; the answer has an id."""
    client.send(f"40{auth}")
    assert set(json.loads(receive(client, "2")[2:])) == {"sid"}


@pytest.mark.parametrize("auth", ["", '{"pid":"123"}'])
def test_a_custom_namespace(server, client, auth):
    """The same, with a payload that the relay passes over; the id of each namespace is another."""
    token = server.new()
    client.send(f"40/{token},{auth}")
    answer = receive(client, "2")
    assert set(json.loads(answer.removeprefix(f"40/{token},"))) == {"sid"}
    assert joined(client, "") != json.loads(answer.removeprefix(f"40/{token},"))


def test_an_unknown_namespace(client):
    """Is refused with a reason, and the connection stays."""
    client.send("40/random")
    answer = receive(client, "2")
    assert answer.startswith('44/random,{"message":')
    joined(client, "")


@pytest.mark.parametrize(
    "packet",
    ["4abc", "4", "40/x,{", "40[", "40/x,abc", "49", "4x/x,", "42{}", '42abc["message",1]', "42", "45-[1]"],
)
def test_what_is_no_packet(client, packet):
    """Closes the connection."""
    client.send(packet)
    assert_closed(client)


def test_the_query_of_a_namespace_is_passed_over(server, client):
    """What socket.io-client writes behind it for a server before version 3."""
    token = server.new()
    client.send(f"40/{token}?token=abc,")
    assert receive(client, "2").startswith(f"40/{token},")


def test_leaving_one_namespace_leaves_the_other(server, client):
    """The other still receives its events; nothing comes for the one that was left."""
    first, second = server.new(), server.new()
    joined(client, f"/{first},")
    joined(client, f"/{second},")
    client.send(f"41/{first},")
    assert server.go(second).text == "OK"
    assert receive(client, "2").startswith(f'42/{second},["request",{{')


def test_leaving_the_main_namespace_leaves_the_other(server, client):
    """The same for `/`."""
    token = server.new()
    joined(client, "")
    joined(client, f"/{token},")
    client.send("41")
    assert server.go(token).text == "OK"
    assert receive(client, "2").startswith(f"42/{token},")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ('["done"]', b"done"),
        ('[{"a":1}]', b'{"a":1}'),
        ('[201,"made"]', b"made"),
        ("[]", b"OK"),
    ],
)
def test_an_acknowledgement(server, client, arguments, answer):
    """Of text, an object, several arguments, none: it reaches the party that asked for it."""
    token = server.new()
    client.send(f'40/{token},{{"mode":"reply"}}')
    assert receive(client, "2").startswith(f"40/{token},")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.go, token)
        event = receive(client, "2")
        ack_id = event.removeprefix(f"42/{token},").partition("[")[0]
        client.send(f"43/{token},{ack_id}{arguments}")
        assert call.result().content == answer


@pytest.mark.parametrize(
    "packet", ['42["message",1]', '421["message"]', '42/custom,["message"]', '451-["message",{}]', "42/x?a=b,[1]"]
)
def test_events_of_clients_are_passed_over(server, client, packet):
    """The connection stays; they are unsolicited, and get no answer."""
    client.send(packet)
    assert joined(client, f"/{server.new()},")


def test_binary_events_and_acknowledgements(server, client):
    """An event with its attachment; an acknowledgement with one of its own."""
    token = server.new()
    client.send(f'40/{token},{{"mode":"reply"}}')
    assert receive(client, "2").startswith(f"40/{token},")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.go, token, data=b"\1\2\xff", headers={"Content-Type": "image/png"})
        event = receive(client, "2")
        assert event.startswith(f"451-/{token},")
        assert '{"_placeholder":true,"num":0}' in event
        assert receive(client, "2") == b"\1\2\xff"
        ack_id = event.removeprefix(f"451-/{token},").partition("[")[0]
        client.send(f'461-/{token},{ack_id}[{{"_placeholder":true,"num":0}}]')
        client.send_binary(b"\xfe\0")
        assert call.result().content == b"\xfe\0"


@pytest.mark.parametrize("end", ["close frame", "close packet", "end of the connection", "invalid frame"])
@pytest.mark.parametrize("attachment", [b"", b"bytes"])
def test_an_acknowledgement_in_one_piece_with_the_end(either_server, end, attachment):
    """Answers its caller: what arrived before the end is handled first. Over WebSocket."""
    token = either_server.new()
    with RawWebSocket(either_server.port) as client, ThreadPoolExecutor(1) as pool:
        client.join(token, '{"mode":"reply"}')
        call = pool.submit(either_server.go, token)
        ack_id = client.receive().removeprefix(f"42/{token},").partition("[")[0]
        if attachment:
            frames = text_frame(f'461-/{token},{ack_id}[{{"_placeholder":true,"num":0}}]')
            frames += bytes([0x82, 0x80 | len(attachment)]) + bytes(4) + attachment
        else:
            frames = text_frame(f'43/{token},{ack_id}["bytes"]')
        ends = {
            "close frame": b"\x88\x80" + bytes(4),
            "close packet": text_frame("1"),
            "invalid frame": b"\xff\x80",
        }
        client.send(frames + ends.get(end, b""))
        if end == "end of the connection":
            client.close()
        assert (call.result().status_code, call.result().text) == (200, "bytes")


def text_frame(text):
    """Return a short frame, masked with zeros."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode()


def test_an_acknowledgement_in_one_payload_with_the_end(either_server, version):
    """The same for a client that polls, and with an attachment."""
    token = either_server.new()
    client = Polling(either_server, version)
    client.post(f"40/{token}?mode=reply," if version == 3 else f'40/{token},{{"mode":"reply"}}')
    while f"40/{token}" not in client.get().text:
        pass
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(either_server.go, token)
        while f"42/{token}," not in (received := client.get().text):
            pass
        ack_id = received.partition(f"42/{token},")[2].partition("[")[0]
        text = f'461-/{token},{ack_id}[{{"_placeholder":true,"num":0}}]'
        assert client.post(text, "bZG9uZQ==" if version == 4 else "b4ZG9uZQ==", "1").text == "ok"
        assert (call.result().status_code, call.result().text) == (200, "done")


def test_what_else_came_before_the_end_is_dropped(server):
    """A CONNECT that its client did not wait for replaces no client."""
    token = server.new()
    with RawWebSocket(server.port) as client, RawWebSocket(server.port) as other:
        client.join(token)
        other.receive()
        other.send(text_frame(f"40/{token},") + b"\x88\x80" + bytes(4))
        assert other.receive_frame()[0] == 8
        assert server.go(token).text == "OK"
        assert client.receive().startswith(f"42/{token},")


def test_a_connection_that_joins_nothing_is_closed():
    """Within the join timeout."""
    with Server(JOIN_TIMEOUT_SECONDS=0.5) as server:
        client = open_websocket(server, 4)
        client.recv()
        assert_closed(client)
        polling = Polling(server, 4)
        while polling.get().status_code == 200:
            pass
        assert requests.get(f"{server.url}/healthz", timeout=5).ok
