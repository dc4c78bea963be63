"""A reply that is larger than the relay carries is refused as that reply, and its client stays."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.legacy_clients import crowd
from tests.support.raw import RawWebSocket
from tests.support.redis_server import Redis
from tests.support.servers import NodeListener, Pair, Server

LIMIT = 4096
LARGE = 3 * LIMIT


@pytest.fixture(scope="module", params=["gunicorn", "flask", "redis"])
def server(request):
    settings = {"MAX_CLIENT_MESSAGE_BYTES": LIMIT, "REPLY_TIMEOUT_SECONDS": 10, "HOLD_SECONDS": 2}
    if request.param == "redis":
        with Redis() as redis, Pair(redis.url, **settings) as server:
            yield server
    else:
        with Server(request.param, **settings) as server:
            yield server


def code_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
@pytest.mark.parametrize("body", ["x" * LARGE, {"$bytes": "AAH/" * (LARGE // 4)}, {"a": ["\u00fc" * LARGE]}])
def test_a_large_reply_of_a_client_of_today(server, transports, body):
    """Text, bytes and JSON; its caller receives 502 and the next call reaches the same client."""
    token = server.new()
    with NodeListener(server, token, auth={"mode": "reply"}, transports=transports, reply=[200, body]) as client:
        client.expect("connect")
        for _ in range(2):
            assert code_of(server.go(token)) == (502, "bad_reply")
            client.expect("request")
        client.expect_silence()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("version", ["1.4.8", "2.5.0"])
def test_a_large_reply_of_a_client_of_2016(server, version, transport):
    """It keeps its connection, and so the URL that it gave away."""
    token = server.new()
    with crowd(server, [(version, transport, token)], reply=["x" * LARGE]) as (client,):
        client.expect("connect", after=["pong"])
        for _ in range(2):
            answer = requests.post(f"{server.url}/go/{token}", timeout=15)
            assert code_of(answer) == (502, "bad_reply")
            client.expect("request", after=["pong"])


def test_a_large_reply_in_pieces(server):
    """Fragments of a message, and a frame that comes byte by byte; what follows it is read as it is."""
    token = server.new()
    with RawWebSocket(server.port) as client, ThreadPoolExecutor() as pool:
        client.join(token, '{"mode":"reply"}')
        for way in ("fragments", "bytes", "small"):
            call = pool.submit(server.go, token)
            ack_id = client.receive().partition(",")[2].partition("[")[0]
            reply = f"43/{token},{ack_id}{json.dumps([200, 'x' * LARGE])}".encode()
            if way == "fragments":
                client.send_frame(reply[:1000], 1, final=False)
                client.send_frame(reply[1000:3000], 0, final=False)
                client.send_frame(reply[3000:6000], 0, final=False)
                client.send_frame(reply[6000:9000], 0, final=True)
            elif way == "bytes":
                client.send_frame(reply[:1], length=len(reply))
                for at in range(1, 1500):
                    client.send(reply[at : at + 1])
                client.send(reply[1500:])
            else:
                client.send_frame(f'43/{token},{ack_id}["fits"]'.encode())
            if way == "small":
                assert call.result().text == "fits"
            else:
                assert code_of(call.result()) == (502, "bad_reply")


@pytest.mark.parametrize("packet", ["42/{},[{}]", "40/{},{}", "2{}{}"])
def test_any_other_large_packet_ends_the_session(server, packet):
    """As it always did: only a reply has a caller that waits."""
    token = server.new()
    with RawWebSocket(server.port) as client:
        client.join(token)
        client.send_frame(packet.format(token, "1" * LARGE).encode())
        opcode, payload = client.receive_frame()
        assert (opcode, payload[:2]) == (8, (1009).to_bytes(2, "big"))


def test_a_reply_that_is_much_too_large_ends_the_session(server):
    """What is dropped has a bound, too: 16 times the limit."""
    token = server.new()
    with RawWebSocket(server.port) as client, ThreadPoolExecutor() as pool:
        client.join(token, '{"mode":"reply"}')
        call = pool.submit(server.go, token)
        ack_id = client.receive().partition(",")[2].partition("[")[0]
        client.send_frame(f"43/{token},{ack_id}".encode(), length=17 * LIMIT)
        opcode, payload = client.receive_frame()
        assert (opcode, payload[:2]) == (8, (1009).to_bytes(2, "big"))
        assert call.result().status_code == 503


def test_an_acknowledgement_may_be_large(server):
    """In mode ack its content is not used."""
    token = server.new()
    with NodeListener(server, token, auth={"mode": "ack"}, transports=["websocket"], reply=["x" * LARGE]) as client:
        client.expect("connect")
        assert server.go(token).text == "OK"
