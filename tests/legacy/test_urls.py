"""The URLs of the later originals, and an app that knows no others."""

import json
import subprocess
import time

import pytest
import requests

from socket2me_flask.tokens import new_token

from ..live import ROOT, PythonListener, Server, WebSocket
from ..security.raw import Raw
from .clients import EVERY_CLIENT, VERSIONS, crowd, one


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A relay that waits a moment for a reply, and keeps mailboxes."""
    folder = tmp_path_factory.mktemp("store")
    with Server(REPLY_TIMEOUT_SECONDS=0.5, STORE_URL=f"sqlite:///{folder}/relay.db") as server:
        yield server


def test_new_and_refresh(http):
    """A token, as a JSON string for whoever asks for JSON; then what works with it."""
    assert http.get("/new").data.decode().isalnum()
    answer = http.get("/new", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert http.get(f"/refresh/{answer.json}").data == b"OK"
    assert http.get(f"/v1/refresh/{answer.json}").data == b"OK"
    assert http.get(f"/refresh/{new_token()}").status_code == 404
    assert http.get("/refresh").status_code == 404
    assert http.post("/new").status_code == 405


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_a_call_without_v1(server, method):
    """Every method; the request has its URL, and its query as an object, beside all that it has under /v1."""
    token = server.new()
    with PythonListener(server, token, transports=["websocket"]) as client:
        client.expect("connect")
        answer = requests.request(method, f"{server.url}/go/{token}/a%20b//c?x=1&x=2&y=%C3%BC", timeout=5)
        assert (answer.status_code, answer.text) == (200, "" if method == "HEAD" else "OK")
        request = client.expect("request")
        assert request["url"] == f"/go/{token}/a%20b//c?x=1&x=2&y=%C3%BC"
        assert request["query"] == {"x": ["1", "2"], "y": "ü"}
        assert request["params"] == {"x": ["1", "2"], "y": "ü", "token": token}
        assert (request["method"], request["path"]) == (method, "/a%20b//c")
        server.go(token)
        request = client.expect("request")
        assert "url" not in request
        assert request["query"] == ""


def test_a_call_that_has_nothing_to_say(server):
    """No query is an empty object."""
    token = server.new()
    with PythonListener(server, token, transports=["websocket"]) as client:
        client.expect("connect")
        with Raw(server.port) as raw:  # percent-encoded where it need not be, which is the same URL
            raw.send(f"GET /%67o/{token}/%61 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert raw.answer() == (200, b"OK")
        request = client.expect("request")
        assert (request["url"], request["query"]) == (f"/go/{token}/%61", {})


def test_nobody_can_forge_a_placeholder(impatient):
    """A client would take it for the place where the bytes belong."""
    token = impatient.new()
    with WebSocket(impatient, token) as client:
        url = f"{impatient.url}/go/{token}?_placeholder=true&num=0"
        requests.post(url, data=b"\xff", headers={"Content-Type": "image/png"}, timeout=5)
        request = json.loads("[" + client.receive().partition("[")[2])[1]
    assert request["query"] == {"num": "0"}
    assert request["params"] == {"num": "0", "token": token}


@pytest.mark.parametrize("path", ["", "/", "/x", "/%ff"])
def test_what_does_not_live_is_404(http, path):
    """Unknown tokens, and what is no token."""
    assert http.get(f"/go{path}").status_code == 404
    assert http.get(f"/go/{new_token()}{path}").status_code == 404


@pytest.mark.parametrize("version", VERSIONS)
def test_an_app_of_2016(impatient, version):
    """It gets a token, listens, and refreshes, with nothing but the relay's URL set."""
    command = ["node", "--no-deprecation", "app.cjs", version, impatient.url]
    with subprocess.Popen(command, cwd=ROOT / "tests" / "js", stdout=subprocess.PIPE, text=True) as app:
        try:
            heard, url = json.loads(app.stdout.readline())
            assert heard == "connected"
            impatient.giveaways.add(url.rpartition("/")[2])
            assert json.loads(app.stdout.readline()) == ["refreshed", 200]
            assert (
                requests.post(f"{url}?a=b", json={"data": {"personEmail": "x@example.org"}}, timeout=5).text == "OK"
            )
            heard, request = json.loads(app.stdout.readline())
            assert heard == "request"
            assert request["params"]["data"] == request["body"]["data"] == {"personEmail": "x@example.org"}
            assert request["query"] == {"a": "b"}
        finally:
            app.kill()


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        ([201, "made", {"X-A": "b"}], 201, b"made"),
        ([{"$bytes": "AAH/"}], 200, b"\0\1\xff"),
        ([], 200, b"OK"),
        ([700], 502, None),
        (["reject", "not today"], 503, None),
    ],
)
def test_a_client_that_acknowledges_answers_the_caller(impatient, reply, status, body):
    """Each of the old clients, over each transport, and bytes too."""
    kinds = [(*kind, impatient.new()) for kind in EVERY_CLIENT]
    with crowd(impatient, kinds, reply=reply) as listeners:
        for (_, _, token), listener in zip(kinds, listeners, strict=True):
            listener.expect("connect", after=["pong"])
            answer = requests.post(f"{impatient.url}/go/{token}", data=b"x", timeout=5)
            assert answer.status_code == status
            assert body is None or answer.content == body
            assert answer.headers.get("X-A") == ("b" if len(reply) == 3 else None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_does_not_acknowledge_makes_its_caller_wait(impatient, version):
    """OK after REPLY_TIMEOUT_SECONDS; at once where it was called under /v1, in mode notify."""
    token = impatient.new()
    with one(impatient, version, "websocket", token) as client:
        client.expect("connect", after=["pong"])
        started = time.monotonic()
        assert requests.post(f"{impatient.url}/go/{token}", timeout=5).text == "OK"
        assert time.monotonic() - started >= 0.5
        started = time.monotonic()
        assert impatient.go(token).text == "OK"
        assert time.monotonic() - started < 0.5


def test_options_of_delivery_in_the_query(impatient):
    """Mode, window and secret, as in `auth`."""
    made = impatient.new_with_secret(mailbox=True)
    ids = [impatient.go(made["token"]).json()["id"] for _ in range(3)]
    query = f"{made['token']}?secret={made['secret']}&mode=ack&window=3"
    with crowd(impatient, [("2.5.0", "websocket", query)]) as (client,):
        assert [client.expect("request", after=["pong", "connect"])["id"] for _ in range(3)] == ids
    kept = requests.post(f"{impatient.url}/go/{made['token']}", timeout=5)
    assert kept.status_code == 202
    with crowd(impatient, [("1.7.4", "websocket", query)], reply=[]) as (client,):
        for _ in range(3):
            client.expect("request", after=["pong", "connect"])
        request = client.expect("request", after=["pong", "connect"])
        assert request["url"] == f"/go/{made['token']}"
