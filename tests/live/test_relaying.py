"""The whole relay as its users meet it: real servers, real clients, real connections."""

import hashlib
import hmac
import json
import re
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from socket2me_flask.relay.tokens import new_token
from tests.support.servers import (
    ROOT,
    WITH_C_PARSER,
    NodeListener,
    PythonListener,
    Server,
    WebSocket,
    clean_environment,
    command_for,
    free_port,
    variables,
    wait_until,
)
from tests.support.specification import EXAMPLE_HEADERS

CLIENTS = {
    "python-websocket": (PythonListener, {"transports": ["websocket"]}),
    "python-polling": (PythonListener, {"transports": ["polling"]}),
    "python-upgrade": (PythonListener, {}),
    "node-websocket": (NodeListener, {"transports": ["websocket"]}),
    "node-polling": (NodeListener, {"transports": ["polling"]}),
    "node-upgrade": (NodeListener, {}),
}


@pytest.fixture(params=CLIENTS)
def connect(request):
    """Connect a client of each kind; it is closed at the end of the test."""
    kind, options = CLIENTS[request.param]
    listeners = []

    def connect(server, *tokens, **more):
        listener = kind(server, *tokens, **{**options, **more})
        listeners.append(listener)
        return listener

    yield connect
    for listener in listeners:
        listener.close()


# All clients under gunicorn; under the others, those whose connections they treat differently.
PAIRS = [
    *(("gunicorn", client) for client in CLIENTS),
    ("flask", "python-websocket"),
    ("flask", "node-polling"),
    ("flask", "node-upgrade"),
    pytest.param("gunicorn-fast", "python-polling", marks=WITH_C_PARSER.marks),
    pytest.param("gunicorn-fast", "node-upgrade", marks=WITH_C_PARSER.marks),
    ("procfile", "python-upgrade"),
]
over_each_transport = pytest.mark.parametrize(("any_server", "connect"), PAIRS, indirect=True)


@over_each_transport
def test_a_call_reaches_the_client(any_server, connect):
    """New token, connect, call: the specification's example, over each transport, run in each way."""
    token = any_server.new()
    client = connect(any_server, token)
    client.expect("connect")
    sent = EXAMPLE_HEADERS
    answer = any_server.go(token, "GET", "?somevar1=somevalue1", headers=sent)
    assert (answer.status_code, answer.text) == (200, "OK")
    request = client.expect("request")
    assert request["headers"] == sent
    assert request["params"] == {"token": token, "somevar1": "somevalue1"}
    assert "body" not in request
    assert (request["method"], request["path"], request["query"]) == ("GET", "", "somevar1=somevalue1")
    assert isinstance(request["id"], str)
    assert isinstance(request["received_at"], float)
    assert request["remote_addr"] == "127.0.0.1"
    assert request["request_id"] == request["id"] == answer.headers["X-Request-Id"]


@over_each_transport
def test_bodies_arrive(any_server, connect):
    """JSON, form, multipart with a file, text and binary, over each transport, run in each way."""
    token = any_server.new()
    client = connect(any_server, token)
    client.expect("connect")
    any_server.go(token, tail="/a%20b//c?q=1&q=2", json={"a": {"b": "ü€😀"}, "token": "evil"})
    request = client.expect("request")
    assert request["body"] == {"a": {"b": "ü€😀"}, "token": "evil"}
    assert request["params"] == {"q": ["1", "2"], "a": {"b": "ü€😀"}, "token": token}
    assert request["path"] == "/a%20b//c"
    any_server.go(token, data={"a": ["1", "2"]})
    assert client.expect("request")["body"] == {"a": ["1", "2"]}
    every_byte = bytes(range(256))
    any_server.go(token, data={"a": "1"}, files={"f": ("x.bin", every_byte, "image/png")})
    request = client.expect("request")
    assert request["body"] == {
        "a": "1",
        "f": {"filename": "x.bin", "content_type": "image/png", "data": every_byte},
    }
    assert request["params"] == {"a": "1", "token": token}
    any_server.go(token, data="hello", headers={"Content-Type": "text/plain"})
    assert client.expect("request")["body"] == "hello"
    any_server.go(token, "PUT", data=every_byte, headers={"Content-Type": "image/png"})
    assert client.expect("request")["body"] == every_byte
    any_server.go(token, data=iter([b'{"in":', b'"chunks"}']), headers={"Content-Type": "application/json"})
    assert client.expect("request")["body"] == {"in": "chunks"}


@over_each_transport
def test_a_signature_survives(any_server, connect):
    """GitHub's published example verifies on the bytes that a raw client received.

    docs.github.com, "Validating webhook deliveries", "Testing the webhook payload validation".
    """
    secret, body = b"It's a Secret to Everybody", b"Hello, World!"
    published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    token = any_server.new()
    client = connect(any_server, token, auth={"body": "raw"})
    client.expect("connect")
    any_server.go(token, data=body, headers={"X-Hub-Signature-256": published, "Content-Type": "application/json"})
    request = client.expect("request")
    assert request["body"] == body
    computed = "sha256=" + hmac.new(secret, request["body"], hashlib.sha256).hexdigest()
    assert computed == request["headers"]["x-hub-signature-256"]


@over_each_transport
def test_the_newest_client_wins(any_server, connect):
    """The replaced client is sent `replaced`, then is disconnected; its successor gets the calls."""
    token = any_server.new()
    old = connect(any_server, token)
    old.expect("connect")
    new = connect(any_server, token)
    new.expect("connect")
    old.expect("replaced")
    old.expect("disconnect")
    for number in range(3):  # the late disconnect of the replaced client changes nothing
        assert any_server.go(token, json=number).status_code == 200
        assert new.expect("request")["body"] == number
    old.expect_silence()


@over_each_transport
def test_refusals_have_a_reason(any_server, connect):
    """Unknown tokens, what is no token and unknown `auth` end in `connect_error` with a reason."""
    unknown, token = new_token(), any_server.new()
    for namespace in (unknown, "x"):
        client = connect(any_server, namespace)
        assert "No such token" in str(client.expect("connect_error"))
    client = connect(any_server, token, auth={"body": "cooked"})
    assert "auth.body must be parsed or raw" in str(client.expect("connect_error"))


@over_each_transport
def test_a_call_is_held_for_a_client(any_server, connect):
    """A client that connects within the hold gets the call, and the caller OK."""
    token = any_server.new()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(any_server.go, token, json={"early": True})
        client = connect(any_server, token)
        client.expect("connect")
        assert client.expect("request")["body"] == {"early": True}
        assert answer.result().text == "OK"


def test_nobody_connected(any_server):
    """After the hold: 503, with Retry-After."""
    answer = any_server.go(any_server.new())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "nobody_connected"
    assert answer.headers["Retry-After"] == "5"


def test_what_does_not_live_is_404(any_server):
    """Unknown tokens, and what is no token."""
    for token in (new_token(), "x", "..", "%ff"):
        answer = any_server.go(token)
        assert answer.status_code == 404
    assert requests.get(f"{any_server.url}/v1/refresh/{new_token()}", timeout=5).status_code == 404


@over_each_transport
def test_bodies_over_the_limit_are_413(any_server, connect):
    """With a length and in chunks; the connection, and the client, stay usable."""
    token = any_server.new()
    client = connect(any_server, token)
    client.expect("connect")
    large = b"x" * 2_048_001
    for body in (large, iter([large[:2_000_000], large[2_000_000:]])):
        answer = any_server.go(token, data=body)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"
    assert any_server.go(token, data=large[:-1]).status_code == 200
    assert client.expect("request")["body"] == large[:-1]


@over_each_transport
def test_several_tokens_over_one_connection(any_server, connect):
    """Each token's calls reach its own namespace; losing one leaves the other."""
    first, second = any_server.new(), any_server.new()
    client = connect(any_server, first, second)
    client.expect("connect")
    client.expect("connect")
    for token in (first, second):
        any_server.go(token, json=token)
        request = client.expect("request")
        assert request["body"] == request["params"]["token"] == token
    with PythonListener(any_server, first) as successor:
        successor.expect("connect")
        client.expect("replaced")
        client.expect("disconnect")
        any_server.go(second, json="still here")
        assert client.expect("request")["body"] == "still here"


def test_a_client_that_left_is_gone(server, connect):
    """When a client leaves, callers receive 503, not OK; when it is back, they receive OK."""
    token = server.new()
    client = connect(server, token)
    client.expect("connect")
    client.close()
    wait_until(lambda: server.go(token).status_code == 503, "the client is gone")
    back = connect(server, token)
    back.expect("connect")
    assert server.go(token, json=1).text == "OK"
    assert back.expect("request")["body"] == 1


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def hasty_server(request):
    """A relay whose tokens live two seconds."""
    with Server(request.param, TOKEN_EXPIRE_SECONDS=2, REAPER_INTERVAL_SECONDS=0.1, HOLD_SECONDS=0) as server:
        yield server


@contextmanager
def refreshed(server, token):
    """Keep a token alive meanwhile."""
    is_over = threading.Event()

    def refresh():
        while not is_over.wait(0.5):
            requests.get(f"{server.url}/v1/refresh/{token}", timeout=5)

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_an_expired_token_ends_its_client(hasty_server, connect):
    """The client is disconnected, callers receive 404, and a new connect is refused."""
    token = hasty_server.new()
    with refreshed(hasty_server, token):  # a client on a busy machine may take longer than the token lives
        client = connect(hasty_server, token)
        client.expect("connect")
    client.expect("disconnect")
    assert hasty_server.go(token).status_code == 404
    assert requests.get(f"{hasty_server.url}/v1/refresh/{token}", timeout=5).status_code == 404
    assert "No such token" in str(connect(hasty_server, token).expect("connect_error"))


def test_a_refreshed_token_lives_on(hasty_server):
    """Refreshed in time, a token and its client outlive the token's first end."""
    token, other = hasty_server.new(), hasty_server.new()
    with PythonListener(hasty_server, token) as client, PythonListener(hasty_server, other) as witness:
        client.expect("connect")
        witness.expect("connect")
        stop = threading.Event()

        def refresh():
            while not stop.wait(0.2):
                assert requests.get(f"{hasty_server.url}/v1/refresh/{token}", timeout=5).text == "OK"

        refresher = threading.Thread(target=refresh)
        refresher.start()
        try:
            witness.expect("disconnect")  # a client whose token is not refreshed is disconnected
            assert hasty_server.go(token, json=1).text == "OK"
            assert client.expect("request")["body"] == 1
        finally:
            stop.set()
            refresher.join()


def test_a_transport_that_no_token_uses_is_closed(server):
    """A replaced client that does not close its connection itself is cut off."""
    token = server.new()
    with WebSocket(server, token) as old:
        with PythonListener(server, token) as newer:
            newer.expect("connect")
            assert old.receive() == f'42/{token},["replaced"]'
            assert old.receive() == f"41/{token},"
            old.expect_close()


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]])
@pytest.mark.parametrize("kind", [PythonListener, NodeListener])
def test_two_clients_that_reconnect_do_not_evict_each_other_for_ever(server, kind, transports):
    """Both reconnect by themselves; the replaced one stays away, and there is one change, not many."""
    token = server.new()
    with kind(server, token, reconnection=True, transports=transports) as old:
        old.expect("connect")
        with kind(server, token, reconnection=True, transports=transports) as new:
            new.expect("connect")
            old.expect("replaced")
            old.expect("disconnect")
            old.expect_silence(2.5)  # by then both libraries would have reconnected
            new.expect_silence(0)
            assert server.go(token, json=1).text == "OK"
            assert new.expect("request")["body"] == 1


def test_calls_arrive_in_the_order_in_which_they_were_accepted(server):
    """One caller's calls, one after another, arrive in that order."""
    token = server.new()
    with NodeListener(server, token, transports=["websocket"]) as client, requests.Session() as session:
        client.expect("connect")
        for number in range(200):
            session.post(f"{server.url}/v1/go/{token}", json=number, timeout=5)
        assert [client.expect("request")["body"] for _ in range(200)] == list(range(200))


def test_clients_have_a_cap_and_callers_do_not_feel_it():
    """At MAX_CONNECTIONS the next client is answered 503; callers are served all the same."""
    with Server(MAX_CONNECTIONS=1) as server:
        token = server.new()
        with PythonListener(server, token, transports=["websocket"]) as client:
            client.expect("connect")
            answer = requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=5)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "5"
            assert answer.json()["error"]["code"] == "too_many_connections"
            assert server.go(token, json=1).text == "OK"
            assert client.expect("request")["body"] == 1
        wait_until(
            lambda: requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=5).ok,
            "the place is free again",
        )


@pytest.mark.parametrize("runner", ["gunicorn", "procfile", "flask"])
def test_a_bad_setting_stops_the_start_with_one_line(runner):
    """The line names the variable and what it accepts."""
    command, environment = command_for(runner, free_port())
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**clean_environment(), **variables({**environment, "HOLD_SECONDS": "soon"})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode != 0
    assert re.fullmatch(
        r"socket2me: SOCKET2ME_HOLD_SECONDS='soon' is not accepted: it takes a number of seconds .*\n", ended.stderr
    )
    assert ended.stdout == ""


@pytest.mark.parametrize("runner", ["gunicorn", "flask"])
def test_a_start_and_an_end_are_quiet(runner):
    """What the log says is worth reading: no deprecation of the stack, no traceback, a clean end."""
    with Server(runner) as server:
        token = server.new()
        with PythonListener(server, token) as client:
            client.expect("connect")
        status = server.stop(signal.SIGTERM if runner == "gunicorn" else signal.SIGINT)
    assert "Traceback" not in server.log
    assert "EventletDeprecationWarning" not in server.log
    assert status == 0


def test_json_deeper_than_a_client_can_parse_arrives_as_text(server):
    """Deep nesting breaks neither the relay nor the client."""
    token = server.new()
    with PythonListener(server, token) as client:
        client.expect("connect")
        for depth, arrives_as in ((500, list), (501, str), (100_000, str)):
            body = "[" * depth + "]" * depth
            assert server.go(token, data=body, headers={"Content-Type": "application/json"}).text == "OK"
            arrived = client.expect("request")["body"]
            assert isinstance(arrived, arrives_as)
            assert arrived == (body if arrives_as is str else json.loads(body))


def test_a_caller_that_leaves_in_the_middle_of_its_body_is_not_forwarded(server):
    """Half a body is not delivered."""
    token = server.new()
    with PythonListener(server, token) as client:
        client.expect("connect")
        with socket.create_connection(("127.0.0.1", server.port)) as caller:
            caller.sendall(f"POST /v1/go/{token} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf".encode())
        with socket.create_connection(("127.0.0.1", server.port)) as caller:
            head = f"POST /v1/go/{token} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            caller.sendall(f"{head}5\r\nha".encode())
        assert server.go(token, json="whole").text == "OK"
        assert client.expect("request")["body"] == "whole"
        client.expect_silence()
