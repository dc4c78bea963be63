"""Each limit: what is just within it passes, what is beyond is answered, says when to call again, is logged."""

import contextlib
import time

import pytest
import requests

from tests.support.raw import RawWebSocket
from tests.support.servers import PythonListener, Server, WebSocket, wait_until


def new(server, **kwargs):
    return requests.get(f"{server.url}/v1/new", timeout=5, **kwargs)


def assert_limited(server, answer, status, setting):
    assert answer.status_code == status
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Cache-Control"] == "no-store"
    wait_until(lambda: f"{setting} reached" in server.log, "the log says so")


def test_how_often_an_address_may_ask_for_a_token():
    """HEAD counts for nothing, both kinds of token count together."""
    with Server(RATE_LIMIT_NEW="3/hour") as server:
        assert new(server).ok
        assert requests.post(f"{server.url}/v1/new", timeout=5).ok
        for _ in range(5):
            assert requests.head(f"{server.url}/v1/new", timeout=5).ok
        assert new(server).ok
        answer = new(server)
        assert_limited(server, answer, 429, "RATE_LIMIT_NEW")
        assert 3000 < int(answer.headers["Retry-After"]) <= 3600


def test_when_an_address_may_ask_again():
    """After as many seconds as were said."""
    with Server(RATE_LIMIT_NEW="1/second") as server:
        answers = [new(server) for _ in range(2)]
        time.sleep(int(answers[1].headers.get("Retry-After", 1)))
        assert new(server).ok


@pytest.mark.parametrize(("hops", "counted_together"), [(0, True), (1, False)])
def test_a_forged_forwarded_for_moves_nothing(hops, counted_together):
    """Unless as many proxies are trusted; then what the caller itself put in front of theirs counts for nothing."""
    with Server(RATE_LIMIT_NEW="1/hour", TRUSTED_PROXY_HOPS=hops) as server:
        assert new(server, headers={"X-Forwarded-For": "192.0.2.1"}).ok
        other = new(server, headers={"X-Forwarded-For": "192.0.2.2"})
        assert other.status_code == (429 if counted_together else 200)
        forged = new(server, headers={"X-Forwarded-For": "192.0.2.99, 192.0.2.1"})
        assert forged.status_code == 429


@pytest.mark.parametrize(("hops", "url"), [(0, "http://127.0.0.1"), (1, "https://relay.example/v1/go/")])
def test_the_url_of_a_token_is_that_of_the_trusted_proxy(hops, url):
    """No client can have a URL made that leads elsewhere."""
    with Server(TRUSTED_PROXY_HOPS=hops) as server:
        forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "relay.example"}
        made = requests.post(f"{server.url}/v1/new", headers=forwarded, timeout=5).json()
        assert made["url"].startswith(url)


def test_how_often_a_token_may_be_called():
    """Others are not touched by it; the client receives nothing of what was refused."""
    with Server(RATE_LIMIT_REQUESTS="3/hour") as server:
        made, other = server.new_with_secret(), server.new()
        with (
            PythonListener(server, made["token"], auth={"secret": made["secret"]}) as client,
            PythonListener(server, other) as other_client,
        ):
            client.expect("connect")
            other_client.expect("connect")
            assert [server.go(made["token"]).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
            assert_limited(server, server.go(made["token"]), 429, "RATE_LIMIT_REQUESTS")
            assert server.go(other).ok
            for _ in range(3):
                client.expect("request")
            client.expect_silence()
        seen = requests.get(
            f"{server.url}/v1/tokens/{made['token']}",
            headers={"Authorization": f"Bearer {made['secret']}"},
            timeout=5,
        ).json()
        assert (seen["forwarded"], seen["refused"]) == (3, 3)


def test_how_many_tokens_may_live():
    """One that ends makes room."""
    with Server(MAX_TOKENS=2) as server:
        made = server.new_with_secret()
        assert new(server).ok
        assert_limited(server, new(server), 503, "MAX_TOKENS")
        bearer = {"Authorization": f"Bearer {made['secret']}"}
        assert requests.delete(f"{server.url}/v1/tokens/{made['token']}", headers=bearer, timeout=5).ok
        assert new(server).ok
        assert new(server).status_code == 503


def handshake(server, **kwargs):
    return requests.get(
        f"{server.url}/socket.io/", params={"EIO": "4", "transport": "polling"}, timeout=5, **kwargs
    )


@pytest.mark.parametrize("setting", ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS"])
def test_how_many_clients_may_be_connected(setting):
    """Whatever their transport; each that goes makes room, however it goes."""
    with Server(**{"MAX_CONNECTIONS_PER_ADDRESS": 0, setting: 2}) as server:
        for _ in range(3):
            with WebSocket(server, server.new()), WebSocket(server, server.new()):
                assert_limited(server, handshake(server), 503, setting)
                with RawWebSocket(server.port) as refused:
                    assert refused.handshake.startswith("HTTP/1.1 503 ")
            wait_until(lambda: has_room_for_two(server), "there is room again")


def has_room_for_two(server):
    """Say whether two sessions could be opened, and close them."""
    opened = [answer for answer in (handshake(server), handshake(server)) if answer.ok]
    for answer in opened:
        sid = answer.text.split('"')[3]
        requests.post(f"{server.url}/socket.io/?EIO=4&transport=polling&sid={sid}", data="1", timeout=5)
    return len(opened) == 2


def test_connections_of_an_address_are_those_behind_the_trusted_proxy():
    """A proxy brings the clients of many."""
    with Server(MAX_CONNECTIONS_PER_ADDRESS=1, TRUSTED_PROXY_HOPS=1) as server:

        def of(address):
            return handshake(server, headers={"X-Forwarded-For": address}).status_code

        # An IPv6 host has a whole /64 to itself.
        asked = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
        assert [of(address) for address in asked] == [200, 503, 200, 200, 503, 200]
        # Some proxies write a port, or brackets.
        assert [of(address) for address in ("192.0.2.1:99", "[2001:db8::3]:99", "[2001:db8::4]")] == [503] * 3


def test_how_many_namespaces_a_connection_may_join():
    """Those beyond are refused with a reason; those within go on."""
    with Server(MAX_NAMESPACES_PER_CONNECTION=2) as server:
        tokens = [server.new() for _ in range(3)]
        with WebSocket(server) as websocket:
            for token in tokens[:2]:
                websocket.send(f"40/{token},")
                assert websocket.receive().startswith(f'40/{token},{{"sid"')
            websocket.send(f"40/{tokens[2]},")
            assert "too_many_namespaces" in websocket.receive()
            assert server.go(tokens[0]).ok
            assert websocket.receive().startswith(f"42/{tokens[0]},")
        wait_until(lambda: "MAX_NAMESPACES_PER_CONNECTION reached" in server.log, "the log says so")


def test_every_limit_can_be_turned_off():
    """With 0."""
    off = ["RATE_LIMIT_NEW", "RATE_LIMIT_REQUESTS", "MAX_TOKENS", "MAX_CONNECTIONS"]
    off += ["MAX_CONNECTIONS_PER_ADDRESS", "MAX_NAMESPACES_PER_CONNECTION"]
    with Server(**dict.fromkeys(off, 0)) as server, contextlib.ExitStack() as stack:
        tokens = [server.new() for _ in range(70)]
        for token in tokens[:20]:
            stack.enter_context(WebSocket(server, token))
        crowded = stack.enter_context(WebSocket(server))
        for token in tokens:
            crowded.send(f"40/{token},")
            assert crowded.receive().startswith(f'40/{token},{{"sid"')
        assert server.go(tokens[-1]).ok
