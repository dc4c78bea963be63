"""The URLs of the later originals, and an app that knows no others."""

import json
import subprocess

import pytest
import requests

from socket2me_flask.tokens import new_token

from ..live import ROOT, PythonListener, WebSocket
from ..security.raw import Raw
from .clients import VERSIONS


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


def test_nobody_can_forge_a_placeholder(server):
    """A client would take it for the place where the bytes belong."""
    token = server.new()
    with WebSocket(server, token) as client:
        url = f"{server.url}/go/{token}?_placeholder=true&num=0"
        requests.post(url, data=b"\xff", headers={"Content-Type": "image/png"}, timeout=5)
        request = json.loads(client.receive().partition(",")[2])[1]
    assert request["query"] == {"num": "0"}
    assert request["params"] == {"num": "0", "token": token}


@pytest.mark.parametrize("path", ["", "/", "/x", "/%ff"])
def test_what_does_not_live_is_404(http, path):
    """Unknown tokens, and what is no token."""
    assert http.get(f"/go{path}").status_code == 404
    assert http.get(f"/go/{new_token()}{path}").status_code == 404


@pytest.mark.parametrize("version", VERSIONS)
def test_an_app_of_2016(server, version):
    """It gets a token, listens, and refreshes, with nothing but the relay's URL set."""
    command = ["node", "--no-deprecation", "app.cjs", version, server.url]
    with subprocess.Popen(command, cwd=ROOT / "tests" / "js", stdout=subprocess.PIPE, text=True) as app:
        try:
            heard, url = json.loads(app.stdout.readline())
            assert heard == "connected"
            server.giveaways.add(url.rpartition("/")[2])
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
