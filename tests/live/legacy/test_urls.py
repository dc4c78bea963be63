"""The URLs of the later originals, and an app that knows no others."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from socket2me_flask.relay.tokens import new_token
from tests.support.legacy_clients import EVERY_CLIENT, VERSIONS, crowd, one
from tests.support.raw import Raw
from tests.support.servers import ROOT, PythonListener, Server, WebSocket

# How long the relay of these tests waits for a reply.
WAIT_SECONDS = 1


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A relay that waits a moment for a reply, and keeps mailboxes."""
    folder = tmp_path_factory.mktemp("store")
    with Server(REPLY_TIMEOUT_SECONDS=WAIT_SECONDS, STORE_URL=f"sqlite:///{folder}/relay.db") as server:
        yield server


def test_new_and_refresh(http):
    """A token, as a JSON string for a caller that asks for JSON; then what works with it."""
    assert http.get("/new").data.decode().isalnum()
    answer = http.get("/new", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert http.get(f"/refresh/{answer.json}").data == b"OK"
    assert http.get(f"/v1/refresh/{answer.json}").data == b"OK"
    assert http.get(f"/refresh/{new_token()}").status_code == 404
    assert http.get("/refresh").status_code == 404
    assert http.post("/new").status_code == 405


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_tokens_stay_out_of_caches_and_pages_that_may_ask_get_them(prefix):
    """With and without /v1 alike; calls are none of a page's."""
    with Server(CORS_ALLOWED_ORIGINS="https://app.example", HOLD_SECONDS=0) as server:
        page = {"Origin": "https://app.example"}
        new = requests.get(f"{server.url}{prefix}/new", headers=page, timeout=5)
        server.giveaways.add(new.text)
        answers = [new]
        for path in (f"/refresh/{new.text}", "/refresh/nothing"):
            answers.append(requests.get(server.url + prefix + path, headers=page, timeout=5))
        answers.append(requests.options(f"{server.url}{prefix}/new", headers=page, timeout=5))
        for answer in answers:
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "GET" in answers[-1].headers["Access-Control-Allow-Methods"]
        refused = requests.get(f"{server.url}{prefix}/new", headers={"Origin": "https://evil.example"}, timeout=5)
        assert refused.status_code == 403
        assert "Access-Control-Allow-Origin" not in refused.headers
        called = requests.get(f"{server.url}{prefix}/go/{new.text}", headers=page, timeout=5)
        assert "Access-Control-Allow-Origin" not in called.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_a_call_without_v1(server, method):
    """Every method; the request has what the originals' had, and /v1 stays as it is."""
    token = server.new()
    with PythonListener(server, token, transports=["websocket"]) as client:
        client.expect("connect")
        answer = requests.request(method, f"{server.url}/go/{token}/a%20b//c?x=1&x=2&y=%C3%BC", timeout=5)
        assert (answer.status_code, answer.text) == (200, "" if method == "HEAD" else "OK")
        request = client.expect("request")
        assert request["url"] == "a b//c"
        assert request["query"] == {"x": ["1", "2"], "y": "ü"}
        assert request["params"] == {"x": ["1", "2"], "y": "ü", "token": token, "route": "a b"}
        assert request["body"] == {}
        assert (request["method"], request["path"]) == (method, "/a%20b//c")
        server.go(token, tail="/a/b?c%5Bd%5D=1")
        request = client.expect("request")
        assert not {"url", "body"} & set(request)
        assert request["query"] == "c%5Bd%5D=1"
        assert request["params"] == {"c[d]": "1", "token": token}


def test_a_call_that_has_nothing_to_say(server):
    """No query is an empty object."""
    token = server.new()
    with PythonListener(server, token, transports=["websocket"]) as client:
        client.expect("connect")
        with Raw(server.port) as raw:  # percent-encoded where it need not be, which is the same URL
            raw.send(f"GET /%67o/{token}/%61 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert raw.answer() == (200, b"OK")
        request = client.expect("request")
        assert (request["url"], request["query"]) == ("a", {})


@pytest.mark.parametrize(
    ("tail", "url", "params"),
    [
        ("", "", {}),
        ("/", "", {}),
        ("/foo", "foo", {"route": "foo"}),
        ("/foo/bar", "foo/bar", {"route": "foo", "file": "bar"}),
        ("/foo/bar/more", "foo/bar/more", {"route": "foo", "file": "bar"}),
        ("/foo/", "foo/", {"route": "foo"}),
        ("//foo", "/foo", {}),
        ("/help/me?fname=bob", "help/me", {"route": "help", "file": "me", "fname": "bob"}),
        ("/gr%C3%BC%C3%9Fe/b%2Fc", "grüße/b/c", {"route": "grüße", "file": "b/c"}),
        ("/foo/bar?route=x&file=y&token=z", "foo/bar", {"route": "foo", "file": "bar"}),
        ("?route=x", "", {"route": "x"}),
    ],
)
def test_what_the_originals_made_of_a_path(server, tail, url, params):
    """The second version's `url` is what follows the token; the first had a route and a file in `params`."""
    token = server.new()
    with PythonListener(server, token, transports=["websocket"]) as client:
        client.expect("connect")
        requests.get(f"{server.url}/go/{token}{tail}", timeout=5)
        request = client.expect("request")
    assert request["url"] == url
    assert request["params"] == {**params, "token": token}


def test_names_with_brackets(server):
    """In a query and in a form they make objects and lists, as in Express; JSON stays as it is."""
    token = server.new()
    nested = {"a": {"b": "1"}, "l": ["2"]}
    with PythonListener(server, token, transports=["websocket"]) as client:
        client.expect("connect")
        requests.post(f"{server.url}/go/{token}?a[b]=1&l[]=2", data={"c[d]": "3", "l": "4"}, timeout=5)
        request = client.expect("request")
        assert request["query"] == nested
        assert request["body"] == {"c": {"d": "3"}, "l": "4"}
        assert request["params"] == {**nested, "c": {"d": "3"}, "l": "4", "token": token}
        requests.post(f"{server.url}/go/{token}", json={"a[b]": "1"}, timeout=5)
        assert client.expect("request")["body"] == {"a[b]": "1"}


@pytest.mark.parametrize("text", ["null", "\n null\t", "\ufeffnull"])
def test_a_body_of_null_is_an_empty_object(server, text):
    """A handler of the second version reads `request.body.x`, which throws for null. Under /v1 it is null."""
    token = server.new()
    sent = {"data": text.encode(), "headers": {"Content-Type": "application/json"}}
    with PythonListener(server, token, transports=["websocket"]) as client:
        client.expect("connect")
        requests.post(f"{server.url}/go/{token}", timeout=5, **sent)
        assert client.expect("request")["body"] == {}
        server.go(token, **sent)
        assert client.expect("request")["body"] is None


def test_a_client_that_wants_raw_bodies_gets_bytes_or_none(server):
    """It said so, and is none of the originals'."""
    token = server.new()
    with PythonListener(server, token, transports=["websocket"], auth={"body": "raw"}) as client:
        client.expect("connect")
        requests.post(f"{server.url}/go/{token}", timeout=5)
        assert "body" not in client.expect("request")


def test_a_placeholder_cannot_be_forged(impatient):
    """A client would take it for the place where the bytes belong, also further in."""
    token = impatient.new()
    with WebSocket(impatient, token) as client:
        url = f"{impatient.url}/go/{token}?_placeholder=true&num=0&a[_placeholder]=true&a[num]=0"
        requests.post(url, data=b"\xff", headers={"Content-Type": "image/png"}, timeout=5)
        request = json.loads("[" + client.receive().partition("[")[2])[1]
    assert request["query"] == {"num": "0", "a[_placeholder]": "true", "a": {"num": "0"}}
    assert request["params"] == {**request["query"], "token": token}


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
            event, url = json.loads(app.stdout.readline())
            assert event == "connected"
            impatient.giveaways.add(url.rpartition("/")[2])
            assert json.loads(app.stdout.readline()) == ["refreshed", 200]
            assert (
                requests.post(f"{url}?a=b", json={"data": {"personEmail": "x@example.org"}}, timeout=5).text == "OK"
            )
            event, request = json.loads(app.stdout.readline())
            assert event == "request"
            assert request["params"]["data"] == request["body"]["data"] == {"personEmail": "x@example.org"}
            assert (request["query"], request["url"]) == ({"a": "b"}, "")
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


REPLIES_AT_GO = [
    ([404], 404, "text/html; charset=utf-8", b"OK"),
    ([], 200, "text/html; charset=utf-8", b"OK"),
    (["grüße"], 200, "text/html; charset=utf-8", "grüße".encode()),
    ([200, "<a/>", {"Content-Type": "text/xml"}], 200, "text/xml; charset=utf-8", b"<a/>"),
    ([200, "a", {"content-type": "text/plain; charset=iso-8859-1"}], 200, "text/plain; charset=iso-8859-1", b"a"),
    ([200, {"a": 1}], 200, "application/json", b'{"a":1}'),
    ([200, "{}", {"Content-Type": "application/json"}], 200, "application/json", b"{}"),
    ([204], 204, "text/html; charset=utf-8", b""),
]


@pytest.mark.parametrize(("reply", "status", "content_type", "body"), REPLIES_AT_GO)
def test_a_reply_at_go_is_as_from_express(impatient, reply, status, content_type, body):
    """Text is HTML and has a charset, and no body is OK; under /v1 it is as it always was."""
    token = impatient.new()
    with crowd(impatient, [("2.5.0", "websocket", f"{token}?mode=reply")], reply=reply) as (client,):
        client.expect("connect", after=["pong"])
        answer = requests.post(f"{impatient.url}/go/{token}", timeout=5)
        assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (status, content_type, body)
        at_v1 = impatient.go(token)
        assert at_v1.status_code == status
        assert at_v1.content == (b"" if reply == [404] else body)
        assert "text/html" not in at_v1.headers.get("Content-Type", "")


@pytest.mark.parametrize("version", VERSIONS)
def test_callers_of_a_client_that_never_acknowledges_wait_once(impatient, version):
    """The first one for REPLY_TIMEOUT_SECONDS, later ones not at all: so it was in the first version."""
    token = impatient.new()
    with one(impatient, version, "websocket", token) as client:
        client.expect("connect", after=["pong"])
        assert [seconds_of_call(impatient, token) >= WAIT_SECONDS for _ in range(4)] == [True, False, False, False]
        started = time.monotonic()
        assert impatient.go(token).text == "OK"
        assert time.monotonic() - started < WAIT_SECONDS


def seconds_of_call(server, token):
    """Call /go, and return how long it took until it was answered OK."""
    started = time.monotonic()
    answer = requests.post(f"{server.url}/go/{token}", timeout=5)
    assert (answer.text, answer.headers["Content-Type"]) == ("OK", "text/html; charset=utf-8")
    return time.monotonic() - started


def event_of(client):
    """Return the id to acknowledge the next event by."""
    return client.receive().partition(",")[2].partition("[")[0]


def test_callers_wait_again_when_a_client_acknowledges_after_all(impatient):
    """Its first reply came late, or that of a later call: from then on every caller waits for its reply."""
    token = impatient.new()
    with WebSocket(impatient, token) as client, ThreadPoolExecutor() as pool:
        assert seconds_of_call(impatient, token) >= WAIT_SECONDS
        late = event_of(client)
        for ack_id in (late, None):
            call = pool.submit(seconds_of_call, impatient, token)
            newest = event_of(client)
            assert call.result() < WAIT_SECONDS
            if ack_id is None:
                client.send(f'43/{token},{newest}["too late for its caller, but seen"]')
            else:
                client.send(f'43/{token},{ack_id}["forgotten by now"]')
        call = pool.submit(requests.post, f"{impatient.url}/go/{token}", timeout=5)
        client.send(f'43/{token},{event_of(client)}["in time"]')
        assert call.result().text == "in time"
        assert seconds_of_call(impatient, token) >= WAIT_SECONDS  # it is known to answer, so each caller waits
        assert seconds_of_call(impatient, token) >= WAIT_SECONDS


def test_callers_of_a_client_that_chose_a_mode_wait_each_time(impatient):
    """In mode reply, of the token or of the client, an answer is expected."""
    token = impatient.new_with_secret(mode="reply")
    with WebSocket(impatient) as client:
        client.send(f'40/{token["token"]},{{"secret":"{token["secret"]}"}}')
        client.receive()
        assert [seconds_of_call(impatient, token["token"]) >= WAIT_SECONDS for _ in range(2)] == [True, True]


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
        assert (request["url"], request["body"]) == ("", {})
