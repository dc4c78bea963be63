"""Engine.IO 3 clients as they were published, against real relays."""

import os
import signal
import threading

import pytest
import requests

from socket2me_flask import create_app
from socket2me_flask.relay.tokens import new_token
from tests.support.legacy_clients import EVERY_CLIENT, VERSIONS, crowd, everyone, one
from tests.support.servers import NodeListener, Server, WebSocket, free_port, wait_until

EVERY_BYTE = bytes(range(256))
JSON = {"Content-Type": "application/json"}


def test_calls_arrive(either_server):
    """Text of any Unicode, bytes, and a file among fields; in order. Whoever serves."""
    tokens = [either_server.new() for _ in EVERY_CLIENT]
    with everyone(either_server, tokens) as clients:
        for client, token in zip(clients, tokens, strict=True):
            sent = {"a": "ü€😀\u2028\0", "large": "ü" * 100_000}
            assert either_server.go(token, "PUT", "/a%20b?q=%C3%BC", json=sent).text == "OK"
            request = client.expect("request")
            assert request["body"] == sent
            assert request["params"] == {"q": "ü", "token": token, **sent}
            assert (request["method"], request["path"], request["query"]) == ("PUT", "/a%20b", "q=%C3%BC")
            either_server.go(token, data='{"ü": "€😀"}'.encode(), headers=JSON)
            assert client.expect("request")["body"] == {"ü": "€😀"}
            either_server.go(token, data=EVERY_BYTE, headers={"Content-Type": "image/png"})
            assert client.expect("request")["body"] == EVERY_BYTE
            either_server.go(token, data={"ü": "€"}, files={"f": ("😀.bin", EVERY_BYTE, "image/png")})
            assert client.expect("request")["body"] == {
                "ü": "€",
                "f": {"filename": "😀.bin", "content_type": "image/png", "data": EVERY_BYTE},
            }
            for number in range(10):
                either_server.go(token, json=number)
            assert [client.expect("request")["body"] for _ in range(10)] == list(range(10))


def test_a_bad_token_is_an_error_event(server):
    """The reason is a string, as these clients expect it."""
    with crowd(server, [(*kind, new_token()) for kind in EVERY_CLIENT]) as clients:
        for client in clients:
            assert client.expect("error") == "No such token. It was never issued, or it has expired."


def test_the_newest_client_wins(server):
    """The replaced client is sent `replaced`, then its disconnect, and stays away."""
    tokens = [server.new() for _ in EVERY_CLIENT]
    with everyone(server, tokens) as clients:
        for client, token in zip(clients, tokens, strict=True):
            with WebSocket(server, token):
                client.expect("replaced")
                assert client.expect("disconnect") == "io server disconnect"
        clients[-1].expect_silence(2)  # by then they would have reconnected
        for client in clients:
            client.expect_silence(0)


def test_one_of_2016_displaces_one_of_today(server):
    """They are equals."""
    token = server.new()
    with NodeListener(server, token) as old:
        old.expect("connect")
        with one(server, "1.4.8", "websocket", token) as new:
            new.expect("connect")
            old.expect("replaced")
            assert server.go(token, json=1).text == "OK"
            assert new.expect("request")["body"] == 1


def test_an_expired_token_ends_its_client():
    """As long as it is refreshed, it stays."""
    with Server(TOKEN_EXPIRE_SECONDS=2, REAPER_INTERVAL_SECONDS=0.1) as server:
        tokens = [server.new() for _ in EVERY_CLIENT]
        all_are_here = threading.Event()

        def refresh():
            while not all_are_here.wait(0.2):
                for token in tokens:
                    assert requests.get(f"{server.url}/refresh/{token}", timeout=5).text == "OK"

        refresher = threading.Thread(target=refresh)
        refresher.start()
        try:
            with everyone(server, tokens) as clients:
                all_are_here.set()
                for client in clients:
                    assert client.expect("disconnect") == "io server disconnect"
        finally:
            all_are_here.set()
            refresher.join()


def test_heartbeats_keep_clients_and_find_a_dead_server():
    """Several answered pings; then the server stands still, which they notice; they reconnect, until they leave."""
    with Server(PING_INTERVAL_SECONDS=1, PING_TIMEOUT_SECONDS=3, HOLD_SECONDS=0) as server:
        tokens = [server.new() for _ in EVERY_CLIENT]
        with everyone(server, tokens) as clients:
            for client in clients:
                for _ in range(5):  # longer than interval and timeout
                    client.expect("pong")
            os.killpg(server.process.pid, signal.SIGSTOP)
            for client in clients:
                assert client.expect("disconnect", after=["pong"]) == "ping timeout"
            os.killpg(server.process.pid, signal.SIGCONT)
            for client, token in zip(clients, tokens, strict=True):
                client.expect("connect", after=["pong", "error"])
                assert server.go(token, json=1).text == "OK"
                assert client.expect("request", after=["pong"])["body"] == 1
        for token in tokens:
            wait_until(lambda token=token: server.go(token).status_code == 503, "the client has left")


def test_clients_reconnect_when_the_server_starts_again():
    """On the same port. It has forgotten their tokens, and refuses them."""
    port = free_port()
    with Server(port=port) as server:
        with everyone(server, [server.new() for _ in EVERY_CLIENT]) as clients:
            assert server.stop() == 0
            for client in clients:
                assert client.expect("disconnect", after=["error"]) in ("transport close", "transport error")
            with Server(port=port):
                for client in clients:
                    assert "No such token" in client.expect("error")


@pytest.mark.parametrize("version", VERSIONS[1:])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_options_come_in_the_query(server, version, transport):
    """A secret, and bodies as exact bytes. What the relay does not know may be there, too."""
    made = server.new_with_secret()
    token, secret = made["token"], made["secret"]
    queries = [f"?secret={secret}&body=raw&app=mine", "", "?secret=x", f"?secret={secret}&body=cooked"]
    with crowd(server, [(version, transport, token + query) for query in queries]) as (client, *others):
        client.expect("connect")
        assert server.go(token, data=b"{}", headers=JSON).text == "OK"
        assert client.expect("request")["body"] == b"{}"
        reasons = [other.expect("error") for other in others]
    assert reasons[:2] == ["This token has a secret, and auth.secret is not it."] * 2
    assert reasons[2] == "auth.body must be parsed or raw."


def test_several_tokens_over_one_connection(server):
    """Losing one leaves the other."""
    first, second = tokens = server.new(), server.new()
    clients = [("2.5.0", "websocket", token) for token in tokens]
    with crowd(server, clients, forceNew=False) as (one_client, other_client):
        one_client.expect("connect")
        other_client.expect("connect")
        with WebSocket(server, first):
            one_client.expect("replaced")
            one_client.expect("disconnect")
            server.go(second, json=2)
            assert other_client.expect("request")["body"] == 2


def test_they_can_be_turned_away(clock):
    """With LEGACY_CLIENTS=false: neither the protocol nor the URLs."""
    http = create_app({"LEGACY_CLIENTS": False}, clock=clock).test_client()
    for query in ("?EIO=3&transport=polling", "?transport=polling"):
        answer = http.get(f"/socket.io/{query}")
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "bad_request")
    token = http.get("/v1/new").text
    for path in ("/new", f"/refresh/{token}", f"/go/{token}"):
        answer = http.get(path)
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "not_found")
