"""Which hosts the relay answers for."""

import pytest
import requests

from socket2me_flask.http.hosts import Hosts, parse
from tests.support.raw import Raw, RawWebSocket
from tests.support.servers import WITH_C_PARSER, Server, wait_until


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        *[(host, True) for host in ("relay.example", "RELAY.example:80", "relay.example.", "relay.example:")],
        *[(host, True) for host in ("127.0.0.1:8000", "[::1]", "[::1]:8000")],
        *[
            (host, False)
            for host in ("", "evil.example", "relay.example.evil.example", "evil.relay.example", ":80")
        ],
        *[
            (host, False)
            for host in ("127.0.0.1", "127.0.0.1:80", "relay.example@evil.example", "relay.example:x", "a:b:c")
        ],
    ],
)
def test_which_hosts_are_allowed(host, is_allowed):
    """A host with any port, or with the port that was set; case and the dot of the root do not matter."""
    assert Hosts(parse("Relay.example, 127.0.0.1:8000,[::1]")).allow(host) is is_allowed


def test_every_host_is_allowed_by_default():
    """Also a request that names none."""
    assert all(map(Hosts([]).allow, ["", "anything", "a:b:c"]))


@pytest.mark.parametrize("text", ["*", ",", "http://relay.example", "relay.example/", "a b", "::1", "a:port", ".a"])
def test_what_is_no_list_of_hosts(text):
    """It is refused at the start."""
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize("runner", ["gunicorn", WITH_C_PARSER, "flask"])
def test_a_request_for_another_host_is_refused(runner):
    """The API, calls, long-polling and WebSockets; a probe of the platform, by an address, is answered."""
    with Server(runner, ALLOWED_HOSTS="relay.example", HOLD_SECONDS=0) as server:
        good, evil = {"Host": "relay.example:8000"}, {"Host": "evil.example"}
        token = requests.get(f"{server.url}/v1/new", headers=good, timeout=5).text
        server.giveaways.add(token)
        polling = "/socket.io/?EIO=4&transport=polling"
        for method, path, status in (
            ("GET", "/v1/new", 200),
            ("POST", "/v1/new", 201),
            ("POST", f"/v1/go/{token}", 503),
            ("GET", f"/v1/refresh/{token}", 200),
            ("GET", polling, 200),
            ("GET", "/nowhere", 404),
        ):
            assert requests.request(method, server.url + path, headers=good, timeout=5).status_code == status
            answer = requests.request(method, server.url + path, headers=evil, timeout=5)
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host")
        for path in ("/healthz", "/readyz"):
            assert requests.get(server.url + path, headers=evil, timeout=5).ok
        with RawWebSocket(server.port) as refused:  # its host is x
            assert refused.handshake.startswith("HTTP/1.1 421 ")
        with Raw(server.port) as raw:
            raw.send(b"GET /v1/new HTTP/1.0\r\n\r\n")
            assert raw.answer()[0] in (400, 421)
        wait_until(lambda: "ALLOWED_HOSTS reached" in server.log, "the log says so")
