"""Acknowledgements, replies and mailboxes, over real connections."""

import json
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from socket2me import __version__
from socket2me_flask.relay.back_off import RETRY_SECONDS
from tests.support.delivery import Acknowledging, Caller, bearer, error_code, events
from tests.support.redis_server import Redis
from tests.support.servers import (
    DEADLINE_SECONDS,
    NodeListener,
    Pair,
    PythonListener,
    Server,
    WebSocket,
    wait_until,
)

# How long the relay of these tests waits for a client, and how long until it sends an event again.
PATIENCE_SECONDS = 1


@pytest.fixture(scope="module", params=["gunicorn", "redis"])
def server(request, tmp_path_factory):
    settings = {
        "ACK_TIMEOUT_SECONDS": PATIENCE_SECONDS,
        "REPLY_TIMEOUT_SECONDS": PATIENCE_SECONDS,
        "REDELIVER_SECONDS": PATIENCE_SECONDS,
        "MAX_ATTEMPTS": 2,
        "MAILBOX_MAX_EVENTS": 20,
        "HOLD_SECONDS": 1,  # a client may be attached a moment after it was answered
    }
    if request.param == "redis":
        with Redis() as redis, Pair(redis.url, **settings) as server:
            yield server
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/relay.db"
        with Server(request.param, STORE_URL=url, **settings) as server:
            yield server


# What depends on the HTTP server: how callers and polls wait, and how a connection ends.
under_each_server = pytest.mark.parametrize("server", ["gunicorn", "redis", "flask"], indirect=True)


@under_each_server
@pytest.mark.parametrize("by_token", [False, True])
def test_ack_is_ok_when_the_client_acknowledged(server, by_token):
    """Not before; chosen at connect, or when the token was made."""
    made = server.new_with_secret(**({"mode": "ack"} if by_token else {}))
    auth = {"secret": made["secret"]} | ({} if by_token else {"mode": "ack"})
    with Acknowledging(server, made["token"], **auth) as client:
        caller = Caller(server, made["token"])
        ack_id, _ = client.event()
        time.sleep(0.2)
        assert caller.is_alive()
        client.acknowledge(ack_id)
        assert (caller.answer.status_code, caller.answer.text) == (200, "OK")


@under_each_server
def test_an_ack_that_stays_out_is_504(server):
    """The caller does not receive OK for what no client confirmed; a late acknowledgement does no harm."""
    token = server.new()
    with Acknowledging(server, token, mode="ack") as client:
        caller = Caller(server, token)
        ack_id, _ = client.event()
        assert (caller.answer.status_code, error_code(caller.answer)) == (504, "not_acknowledged")
        assert PATIENCE_SECONDS <= caller.seconds < PATIENCE_SECONDS + 2
        client.acknowledge(ack_id)
        client.acknowledge(ack_id)
        caller = Caller(server, token)
        client.acknowledge(client.event()[0])
        assert caller.answer.text == "OK"


@under_each_server
@pytest.mark.parametrize("mode", ["ack", "reply"])
def test_a_client_that_leaves_ends_the_wait_at_once(server, mode):
    """503 with Retry-After: whether it was delivered is unknown."""
    token = server.new()
    with Acknowledging(server, token, mode=mode) as client:
        caller = Caller(server, token)
        client.event()
    assert (caller.answer.status_code, error_code(caller.answer)) == (503, "client_left")
    assert "Retry-After" in caller.answer.headers
    assert caller.seconds < PATIENCE_SECONDS


def test_a_replaced_clients_acknowledgement_changes_nothing(server):
    """Its callers receive an error; what it sends afterwards answers no caller."""
    token = server.new()
    with Acknowledging(server, token, mode="reply") as old:
        caller = Caller(server, token)
        ack_id, _ = old.event()
        with Acknowledging(server, token, mode="reply") as new:
            assert error_code(caller.answer) == "client_left"
            caller = Caller(server, token)
            new_ack_id, _ = new.event()
            old.acknowledge(ack_id, 200, "forged")
            old.acknowledge(new_ack_id, 200, "forged")
            new.acknowledge(new_ack_id, 200, "mine")
            assert caller.answer.text == "mine"


def test_a_client_on_the_same_connection_cannot_acknowledge_for_another(server):
    """An id means something within its namespace only."""
    tokens = [server.new(), server.new()]
    with Acknowledging(server, tokens[0], mode="reply") as client:
        client.send(f'40/{tokens[1]},{{"mode":"reply"}}')
        client.receive()
        caller = Caller(server, tokens[0])
        ack_id, _ = client.event()
        client.send(f'43/{tokens[1]},{ack_id}[200,"wrong"]')
        client.acknowledge(ack_id, 200, "right")
        assert caller.answer.text == "right"


def test_a_reply_that_stays_out_is_504(server):
    """Except under /go, where it is OK, as the original's second version had it."""
    token = server.new()
    with Acknowledging(server, token, mode="reply") as client:
        caller = Caller(server, token)
        client.event()
        assert (caller.answer.status_code, error_code(caller.answer)) == (504, "not_acknowledged")
        assert caller.seconds >= PATIENCE_SECONDS
        as_of_old = requests.post(f"{getattr(server, 'other', server).url}/go/{token}", timeout=5)
        assert (as_of_old.status_code, as_of_old.text) == (200, "OK")


REJECTIONS = [
    (["reject", "the database is down"], 503, "The client rejected this call: the database is down"),
    (["reject", "a\n\x1bb", 502], 502, "The client rejected this call: a b"),
    (["reject", "", 504], 504, "The client rejected this call."),
    (["reject", "x" * 1000, 200], 503, "The client rejected this call: " + "x" * 300),
]


@pytest.mark.parametrize("mode", ["ack", "reply"])
@pytest.mark.parametrize(("args", "status", "message"), REJECTIONS)
def test_a_rejection_answers_the_caller_at_once(server, mode, args, status, message):
    """502, 503 or 504 with the client's reason, long before the timeout of the mode."""
    token = server.new()
    with Acknowledging(server, token, mode=mode) as client:
        caller = Caller(server, token)
        client.acknowledge(client.event()[0], *args)
        assert (caller.answer.status_code, error_code(caller.answer)) == (status, "rejected")
        assert caller.answer.json()["error"]["message"] == message
        assert "Retry-After" in caller.answer.headers
        assert caller.seconds < PATIENCE_SECONDS


@pytest.mark.parametrize(("mode", "transports"), [("ack", ["polling"]), ("reply", ["websocket"])])
def test_a_rejection_of_the_javascript_client(server, mode, transports):
    """Its handler calls `acknowledge("reject", reason)`."""
    token = server.new()
    options = {"auth": {"mode": mode}, "transports": transports, "reply": ["reject", "not today"]}
    with NodeListener(server, token, **options) as client:
        client.expect("connect")
        answer = server.go(token)
    assert (answer.status_code, error_code(answer)) == (503, "rejected")
    assert "not today" in answer.text


@pytest.mark.parametrize("mode", ["ack", "reply"])
def test_a_rejection_of_the_python_client(server, mode):
    """Its handler returns `"reject", reason`."""
    token = server.new()
    with PythonListener(server, token, auth={"mode": mode}, replies=[("reject", "not today", 502)]) as client:
        client.expect("connect")
        answers = [server.go(token) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [502, 200]
    assert "not today" in answers[0].text


def test_what_is_a_reply_is_no_rejection(server):
    """The word as a body, alone or with headers, is a reply; in mode ack the word alone rejects."""
    token = server.new()
    with Acknowledging(server, token, mode="reply") as client:
        for args in (["reject"], ["reject", {"X-A": "b"}], [200, "reject", {}], [None, "reject"], ["reject", None]):
            caller = Caller(server, token)
            client.acknowledge(client.event()[0], *args)
            assert (caller.answer.status_code, caller.answer.text) == (200, "reject")
    with Acknowledging(server, token, mode="ack") as client:
        caller = Caller(server, token)
        client.acknowledge(client.event()[0], "reject")
        assert caller.answer.status_code == 503
        caller = Caller(server, token)
        client.acknowledge(client.event()[0], {"reject": "no"}, "reject")
        assert caller.answer.status_code == 200


def test_a_client_learns_how_long_the_relay_waits(server):
    """The answer to a CONNECT with an option has the timeouts in seconds, beside `sid`."""
    token = server.new()
    with Acknowledging(server, token, mode="notify") as client:
        answer = json.loads(client.answer.partition(",")[2])
    assert answer["sid"]
    assert answer["relay"] == {
        "ack_timeout_seconds": PATIENCE_SECONDS,
        "reply_timeout_seconds": PATIENCE_SECONDS,
        "redeliver_seconds": PATIENCE_SECONDS,
        "max_window": 100,
        "max_attempts": 2,
        "version": __version__,
    }


REPLIES = [
    (None, 200, b"OK"),
    ([201], 201, b""),
    ([404, "not here"], 404, b"not here"),
    ([200, {"a": [1, None]}, {"X-A": "b"}], 200, b'{"a":[1,null]}'),
    ([200, {"$bytes": "AAH/"}], 200, b"\0\1\xff"),
    ([{"$bytes": "AAH/"}], 200, b"\0\1\xff"),
    ([304], 304, b""),
    ([99], 502, None),
    ([200, {"nested": {"$bytes": "AAH/"}}], 502, None),
]


@pytest.mark.parametrize(
    ("args", "status", "body", "transports"),
    [(*reply, ["websocket"]) for reply in REPLIES] + [(*reply, ["polling"]) for reply in REPLIES[3:6]],
)
def test_a_reply_of_the_javascript_client(server, args, status, body, transports):
    """Status, body and headers, each optional; text, JSON or bytes."""
    token = server.new()
    with NodeListener(server, token, auth={"mode": "reply"}, transports=transports, reply=args or []) as client:
        client.expect("connect")
        answer = server.go(token, data=b"x")
    assert answer.status_code == status
    if body is None:
        assert error_code(answer) == "bad_reply"
    else:
        assert answer.content == body
    assert answer.headers.get("X-A") == ("b" if args and len(args) > 2 else None)


@under_each_server
def test_a_reply_of_the_python_client(server):
    """What its handler returns; several values make several arguments."""
    token = server.new()
    returns = [(201, "made", {"X-A": "b"}), b"\0\1", None]
    with PythonListener(server, token, auth={"mode": "reply"}, replies=returns) as client:
        client.expect("connect")
        answers = [server.go(token) for _ in range(3)]
    assert [(answer.status_code, answer.content) for answer in answers] == [
        (201, b"made"),
        (200, b"\0\1"),
        (200, b"OK"),
    ]
    assert answers[0].headers["X-A"] == "b"
    assert "X-A" not in server.go(token).headers


def test_a_reply_leaves_nothing_in_the_callers_browser(server):
    """Headers that a browser keeps for an origin do not pass; those that callers need do, repeated ones too."""
    token = server.new()
    kept = {"Set-Cookie": "a=b", "Clear-Site-Data": '"*"', "Alt-Svc": 'h2="evil.example:443"'}
    needed = {
        "Content-Type": "text/xml",
        "Link": ["<a>", "<b>"],
        "X-Own": "1",
        "WebHook-Allowed-Rate": 100,
    }
    with Acknowledging(server, token, mode="reply") as client:
        caller = Caller(server, token)
        ack_id, _ = client.event()
        client.acknowledge(ack_id, 200, "<a/>", kept | needed)
        answer = caller.answer
    assert (answer.status_code, answer.text) == (200, "<a/>")
    assert not set(kept) & set(answer.headers)
    assert {name: answer.headers[name] for name in needed} == {
        **needed,
        "Link": "<a>, <b>",
        "WebHook-Allowed-Rate": "100",
    }
    assert (answer.headers["Cache-Control"], answer.headers["Content-Security-Policy"]) == ("no-store", "sandbox")


def test_a_reply_with_more_headers_than_it_may_have(server):
    """Its caller receives 502, and the client stays connected."""
    token = server.new()
    with Acknowledging(server, token, mode="reply") as client:
        for headers in ({"X-Many": ["a"] * 40_000}, {"X-Long": "a" * 100_000}):
            caller = Caller(server, token)
            ack_id, _ = client.event()
            client.acknowledge(ack_id, 200, "x", headers)
            assert (caller.answer.status_code, error_code(caller.answer)) == (502, "bad_reply")
        caller = Caller(server, token)
        client.acknowledge(client.event()[0], 201)
        assert caller.answer.status_code == 201


@under_each_server
def test_notify_asks_for_no_acknowledgement(server):
    """The packet is the one that it always was."""
    token = server.new()
    with Acknowledging(server, token) as client:
        assert server.go(token).text == "OK"
        assert client.event()[0] is None


def test_what_a_client_may_acknowledge_with_has_bounds(server):
    """What is no acknowledgement ends the session; attachments that do not come delay no other."""
    token = server.new()
    for bad in (f'43/{token},1{{"no":"list"}}', f"43/{token},1[", f"4699-/{token},1[]"):
        with Acknowledging(server, token, mode="ack") as client:
            Caller(server, token)
            assert client.event()[0] == 1
            client.send(bad)
            client.expect_close()
    with Acknowledging(server, token, mode="reply") as client:
        caller = Caller(server, token)
        ack_id, _ = client.event()
        client.send(f'462-/{token},{ack_id}[{{"_placeholder":true,"num":0}},{{"_placeholder":true,"num":1}}]')
        client.acknowledge(ack_id, 200, "after all")  # in place of the attachments
        assert caller.answer.text == "after all"


# The window of calls


@contextmanager
def relay_with(kind, folder, **settings):
    """A relay that is a single process, or a pair on Redis: then callers are at the other."""
    if kind == "redis":
        with Redis() as redis, Pair(redis.url, **settings) as server:
            yield server
    else:
        with Server(kind, STORE_URL=f"sqlite:///{folder}/relay.db", **settings) as server:
            yield server


KINDS = ["gunicorn", "redis"]
ACK_SECONDS = 3


@pytest.fixture(scope="module", params=KINDS)
def holding_server(request, tmp_path_factory):
    """A relay whose callers wait longer for room than for an acknowledgement."""
    settings = {"HOLD_SECONDS": DEADLINE_SECONDS, "ACK_TIMEOUT_SECONDS": ACK_SECONDS, "STORE_TIMEOUT_SECONDS": 1}
    with relay_with(request.param, tmp_path_factory.mktemp("store"), **settings) as server:
        yield server


def test_a_call_waits_for_room_in_the_clients_window(holding_server):
    """Its time to be acknowledged begins when it is delivered, which is when there is room."""
    token = holding_server.new()
    with Acknowledging(holding_server, token, mode="ack", window=2) as client:
        callers = [Caller(holding_server, token, tail=f"/{number}") for number in range(6)]
        for _ in range(3):  # in all longer than either timeout
            both = [client.event()[0] for _ in range(2)]
            time.sleep(ACK_SECONDS * 0.4)
            for ack_id in both:
                client.acknowledge(ack_id)
        assert [caller.answer.status_code for caller in callers] == [200] * 6
        assert max(caller.seconds for caller in callers) > ACK_SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_finds_no_room_was_not_delivered(kind, tmp_path):
    """503 client_busy after HOLD_SECONDS: the client never receives it."""
    with relay_with(kind, tmp_path, HOLD_SECONDS=0.5, ACK_TIMEOUT_SECONDS=DEADLINE_SECONDS) as server:
        token = server.new()
        with Acknowledging(server, token, mode="ack", window=1) as client:
            first = Caller(server, token, tail="/first")
            ack_id, _ = client.event()
            busy = server.go(token, tail="/second")
            assert (busy.status_code, error_code(busy)) == (503, "client_busy")
            assert "Retry-After" in busy.headers
            client.acknowledge(ack_id)
            assert first.answer.status_code == 200
            third = Caller(server, token, tail="/third")
            ack_id, request = client.event()
            assert request["path"] == "/third"
            client.acknowledge(ack_id)
            assert third.answer.status_code == 200


def test_a_call_that_is_not_acknowledged_in_time_makes_room(holding_server):
    """Else a client that forgets one would receive no other."""
    token = holding_server.new()
    with Acknowledging(holding_server, token, mode="ack", window=1) as client:
        first = Caller(holding_server, token)
        client.event()
        second = Caller(holding_server, token)
        ack_id, _ = client.event()
        client.acknowledge(ack_id)
        assert (first.answer.status_code, second.answer.status_code) == (504, 200)


def test_a_call_that_waits_for_room_follows_to_the_next_client(holding_server):
    """When the busy client disconnects, its own caller is answered, and the other call goes to the next client."""
    token = holding_server.new()
    with Acknowledging(holding_server, token, mode="ack", window=1) as client:
        first = Caller(holding_server, token, tail="/first")
        client.event()
        second = Caller(holding_server, token, tail="/second")
        time.sleep(0.3)  # until it waits; if it does not yet, it finds no client, which is the same to it
    assert error_code(first.answer) == "client_left"
    with Acknowledging(holding_server, token, mode="ack", window=1) as client:
        ack_id, request = client.event()
        assert request["path"] == "/second"
        client.acknowledge(ack_id)
        assert second.answer.status_code == 200


def test_a_client_that_names_no_window_is_sent_all(server):
    """The window that the relay assumes is for mailboxes only: such a client always got what came."""
    token = server.new()
    with Acknowledging(server, token, mode="ack") as client:
        callers = [Caller(server, token) for _ in range(3)]
        for ack_id in [client.event()[0] for _ in range(3)]:
            client.acknowledge(ack_id)
        assert [caller.answer.status_code for caller in callers] == [200] * 3


# Mailboxes


@pytest.fixture
def made(server):
    return server.new_with_secret(mailbox=True)


@under_each_server
def test_events_wait_for_their_client(server, made):
    """202 with an id while no client is connected; then in order, each with its id and its attempt."""
    answers = [server.go(made["token"], data={"n": number}) for number in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    ids = [answer.json()["id"] for answer in answers]
    assert events(server, made) == {"waiting": ids, "in_flight": [], "dead_letters": []}
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        for number in range(3):
            ack_id, request = client.event()
            assert (request["id"], request["params"]["n"], request["attempt"]) == (ids[number], str(number), 1)
            assert events(server, made)["in_flight"] == [ids[number]]
            client.acknowledge(ack_id)
        wait_until(lambda: not events(server, made)["waiting"], "the mailbox is empty")
        caller = Caller(server, made["token"])
        client.acknowledge(client.event()[0])
        assert (caller.answer.status_code, caller.answer.text) == (200, "OK")


@under_each_server
def test_what_is_not_acknowledged_comes_again(server, made):
    """To the next client, or to the same one after a while, with the same id; its caller receives 202 meanwhile."""
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        caller = Caller(server, made["token"])
        _, first = client.event()
    assert caller.answer.status_code == 202
    assert caller.answer.json()["id"] == first["id"]
    assert caller.seconds < PATIENCE_SECONDS
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        _, again = client.event()
        assert again == first | {"attempt": 2}


def test_a_rejected_event_comes_again_later(server, made):
    """Its caller is answered 202 at once; the next attempt follows after the back-off, in the same connection."""
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        caller = Caller(server, made["token"])
        ack_id, first = client.event()
        rejected_at = time.monotonic()
        client.acknowledge(ack_id, "reject", "not now")
        assert (caller.answer.status_code, caller.answer.json()) == (202, {"id": first["id"]})
        assert caller.seconds < PATIENCE_SECONDS
        assert events(server, made) == {"waiting": [first["id"]], "in_flight": [], "dead_letters": []}
        ack_id, second = client.event()
        assert time.monotonic() - rejected_at >= RETRY_SECONDS[0]
        assert (second["id"], second["attempt"]) == (first["id"], 2)
        client.acknowledge(ack_id, "reject", "not now either")  # the last of MAX_ATTEMPTS
        wait_until(lambda: events(server, made)["dead_letters"] == [first["id"]], "it is a dead letter")


@pytest.mark.parametrize("window", [1, 2])
def test_order_is_strict_with_a_window_of_one(server, made, window):
    """Then a rejected event holds up those behind it; with a larger window they go first."""
    a, b = (server.go(made["token"], tail=tail).json()["id"] for tail in ("/a", "/b"))
    with Acknowledging(server, made["token"], secret=made["secret"], window=window) as client:
        got = []
        while len(got) < 3:
            ack_id, request = client.event()
            got.append(request["id"])
            client.acknowledge(ack_id, *(["reject", "not now"] if len(got) == 1 else []))
        assert got == ([a, a, b] if window == 1 else [a, b, a])


def test_a_late_rejection_does_not_end_a_later_attempt(server, made):
    """It is of an attempt that has ended; the one that is on its way counts."""
    event_id = server.go(made["token"]).json()["id"]
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        first, _ = client.event()
        second, _ = client.event()
        client.acknowledge(first, "reject", "too late")
        assert events(server, made)["in_flight"] == [event_id]
        client.acknowledge(second)
        wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")


def test_after_max_attempts_an_event_becomes_a_dead_letter_and_can_be_sent_again(server, made):
    """It delays no other event, and is not lost."""
    bad = server.go(made["token"]).json()["id"]
    good = server.go(made["token"]).json()["id"]
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        for attempt in (1, 2):
            _, request = client.event()
            assert (request["id"], request["attempt"]) == (bad, attempt)
        ack_id, request = client.event()
        assert request["id"] == good
        client.acknowledge(ack_id)
        wait_until(
            lambda: events(server, made) == {"waiting": [], "in_flight": [], "dead_letters": [bad]}, "it is aside"
        )
        url = f"{server.url}/v1/tokens/{made['token']}/events/{bad}/redeliver"
        assert requests.post(url, headers=bearer(made), timeout=5).status_code == 202
        ack_id, request = client.event()
        assert (request["id"], request["attempt"]) == (bad, 1)
        client.acknowledge(ack_id)
        wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")


def test_an_event_can_be_looked_at_and_dropped(server, made):
    """Whole, its body as base64."""
    event_id = server.go(made["token"], tail="/a%20b?q=1", data=b"\0\xff").json()["id"]
    url = f"{server.url}/v1/tokens/{made['token']}/events/{event_id}"
    shown = requests.get(url, headers=bearer(made), timeout=5).json()
    assert (shown["id"], shown["state"], shown["attempts"]) == (event_id, "waiting", 0)
    assert (shown["method"], shown["path"], shown["query"]) == ("POST", "/a%20b", "q=1")
    assert b64decode(shown["body"]) == b"\0\xff"
    assert shown["size"] > 2
    assert shown["headers"]["content-length"] == "2"
    assert requests.delete(url, headers=bearer(made), timeout=5).status_code == 204
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/redeliver")):
        answer = requests.request(method, url + tail, headers=bearer(made), timeout=5)
        assert (answer.status_code, error_code(answer)) == (404, "unknown_event")


def test_mailboxes_are_for_those_with_the_secret(server, made):
    """401 for others; 404 for open tokens, for those without a mailbox, and for those that do not live."""
    event_id = server.go(made["token"]).json()["id"]
    plain = server.new_with_secret()
    for method, tail in (
        ("GET", ""),
        ("GET", f"/{event_id}"),
        ("DELETE", f"/{event_id}"),
        ("POST", f"/{event_id}/redeliver"),
    ):

        def ask(token, headers=None, method=method, tail=tail):
            url = f"{server.url}/v1/tokens/{token}/events{tail}"
            return requests.request(method, url, headers=headers, timeout=5).status_code

        assert ask(made["token"]) == ask(made["token"], bearer(plain)) == 401
        assert ask(plain["token"], bearer(plain)) == ask(server.new()) == ask("z" * 24) == 404
    assert events(server, made)["waiting"] == [event_id]


def test_a_window_is_how_many_are_on_their_way(server, made):
    """One unless the client asks for more; in order all the same."""
    ids = [server.go(made["token"]).json()["id"] for _ in range(5)]
    with Acknowledging(server, made["token"], secret=made["secret"], window=3) as client:
        got = [client.event() for _ in range(3)]
        assert [request["id"] for _, request in got] == ids[:3]
        assert events(server, made)["in_flight"] == ids[:3]
        client.acknowledge(got[1][0])
        assert client.event()[1]["id"] == ids[3]


def test_a_full_mailbox_refuses_and_loses_nothing(server, made):
    """429 with Retry-After."""
    ids = [server.go(made["token"]).json()["id"] for _ in range(20)]
    answer = server.go(made["token"])
    assert (answer.status_code, error_code(answer)) == (429, "mailbox_full")
    assert "Retry-After" in answer.headers
    assert events(server, made)["waiting"] == ids


def test_a_reply_from_a_mailbox(server):
    """It answers the caller that still waits; later it only acknowledges."""
    made = server.new_with_secret(mailbox=True, mode="reply")
    server.go(made["token"])
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        client.acknowledge(client.event()[0], 200, "too late")
        caller = Caller(server, made["token"])
        client.acknowledge(client.event()[0], 418, "in time")
        assert (caller.answer.status_code, caller.answer.text) == (418, "in time")
        wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")


def test_a_mailbox_takes_a_client_that_acknowledges(server, made):
    """One in mode notify is refused with a reason: its events would never leave."""
    with Acknowledging(server, made["token"], secret=made["secret"], mode="notify") as client:
        assert client.answer.startswith(f"44/{made['token']},")
        assert "has a mailbox" in client.answer
    options = {"mailbox": True, "mode": "notify"}
    assert requests.post(f"{server.url}/v1/new", json=options, timeout=5).status_code == 400


@pytest.mark.parametrize("options", [{"mailbox": 1}, {"mailbox": "yes"}, {"mode": "sometimes"}, {"mode": None}])
def test_options_of_delivery_that_are_none(server, options):
    """400, with a sentence."""
    assert requests.post(f"{server.url}/v1/new", json=options, timeout=5).status_code == 400


def test_the_memory_store_has_no_mailboxes():
    """400, with the reason; and a server that should give every token one does not start."""
    with Server() as server:
        answer = requests.post(f"{server.url}/v1/new", json={"mailbox": True}, timeout=5)
        assert answer.status_code == 400
        assert "STORE_URL" in answer.text
        made = server.new_with_secret(mode="ack")
        assert (
            requests.get(
                f"{server.url}/v1/tokens/{made['token']}/events", headers=bearer(made), timeout=5
            ).status_code
            == 404
        )


def test_the_server_can_give_every_token_a_mailbox(tmp_path):
    """MAILBOX_DEFAULT; a token may still say no."""
    with Server(STORE_URL=f"sqlite:///{tmp_path}/relay.db", MAILBOX_DEFAULT="true", HOLD_SECONDS=0) as server:
        assert server.go(server.new_with_secret()["token"]).status_code == 202
        assert server.go(server.new_with_secret(mailbox=False)["token"]).status_code == 503
        assert server.go(server.new()).status_code == 503


def test_a_notify_client_of_another_token_does_not_wait_for_the_database(server):
    """Its calls do not wait for the disk."""
    token = server.new()
    with PythonListener(server, token) as client:
        client.expect("connect")
        assert server.go(token).text == "OK"
        assert "attempt" not in client.expect("request")


def test_a_late_acknowledgement_counts_for_its_event(server, made):
    """Whichever attempt it is of, as long as the client is attached."""
    event_id = server.go(made["token"]).json()["id"]
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        first, request = client.event()
        second, again = client.event()
        assert (request["attempt"], again["attempt"]) == (1, 2)
        assert request["id"] == again["id"] == event_id
        client.acknowledge(first)
        wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")
        client.acknowledge(second)
        caller = Caller(server, made["token"])
        client.acknowledge(client.event()[0])
        assert caller.answer.text == "OK"


def test_a_client_that_leaves_lets_all_callers_go(server, made):
    """Also those whose events were still to be sent."""
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        callers = [Caller(server, made["token"]) for _ in range(3)]
        client.event()
        wait_until(lambda: len(sum(events(server, made).values(), [])) == 3, "all are kept")
    for caller in callers:
        assert caller.answer.status_code == 202
        assert caller.seconds < PATIENCE_SECONDS


def test_the_next_event_follows_one_that_is_deleted_on_its_way(server, made):
    """At once; and one that is sent again on request is, too."""
    ids = [server.go(made["token"]).json()["id"] for _ in range(2)]
    url = f"{server.url}/v1/tokens/{made['token']}/events"
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        assert client.event()[1]["id"] == ids[0]
        started = time.monotonic()
        assert requests.post(f"{url}/{ids[0]}/redeliver", headers=bearer(made), timeout=5).status_code == 202
        assert client.event()[1]["id"] == ids[0]
        assert requests.delete(f"{url}/{ids[0]}", headers=bearer(made), timeout=5).status_code == 204
        assert client.receive() == f'42/{made["token"]},["dropped","{ids[0]}"]'
        assert client.event()[1]["id"] == ids[1]
        assert time.monotonic() - started < PATIENCE_SECONDS


def test_a_client_is_told_of_what_it_has_and_no_other(server, made):
    """An event that is dropped while it waits is none of its business."""
    ids = [server.go(made["token"]).json()["id"] for _ in range(3)]
    url = f"{getattr(server, 'other', server).url}/v1/tokens/{made['token']}/events"
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        assert client.event()[1]["id"] == ids[0]
        for event_id in (ids[1], ids[0]):
            assert requests.delete(f"{url}/{event_id}", headers=bearer(made), timeout=5).status_code == 204
        assert client.receive() == f'42/{made["token"]},["dropped","{ids[0]}"]'
        assert client.event()[1]["id"] == ids[2]


@pytest.mark.parametrize("is_rejected", [True, False])
def test_after_the_last_attempt_there_is_no_back_off(server, made, is_rejected):
    """An event is dead-lettered at once, and so the next is sent; a late acknowledgement counts even then."""
    bad, good = (server.go(made["token"]).json()["id"] for _ in range(2))
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        acks = []
        for attempt in (1, 2):
            ack_id, request = client.event()
            assert (request["id"], request["attempt"]) == (bad, attempt)
            acks.append(ack_id)
            if is_rejected:
                client.acknowledge(ack_id, "reject")
        last = time.monotonic()
        ack_id, request = client.event()
        assert request["id"] == good
        assert time.monotonic() - last < RETRY_SECONDS[1] + (0 if is_rejected else PATIENCE_SECONDS)
        assert events(server, made) == {"waiting": [], "in_flight": [good], "dead_letters": [bad]}
        client.acknowledge(ack_id)
        if not is_rejected:
            client.acknowledge(acks[0])
            wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")


def test_an_event_that_is_dropped_while_its_caller_waits_is_not_called_kept(server, made):
    """The caller receives 410: no client will handle it."""
    url = f"{server.url}/v1/tokens/{made['token']}/events"
    with Acknowledging(server, made["token"], secret=made["secret"]) as client, ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(server.go, made["token"]) for _ in range(2)]
        in_flight = client.event()[1]["id"]
        (waiting,) = wait_until(lambda: events(server, made)["waiting"], "the other waits")
        for event_id in (waiting, in_flight):
            assert requests.delete(f"{url}/{event_id}", headers=bearer(made), timeout=5).status_code == 204
        answers = [caller.result() for caller in callers]
    assert [(answer.status_code, error_code(answer)) for answer in answers] == [(410, "event_dropped")] * 2


def test_a_token_that_is_deleted_while_its_callers_wait_keeps_nothing(server, made):
    """They receive 404: the mailbox is gone with its token."""
    with Acknowledging(server, made["token"], secret=made["secret"]) as client, ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(server.go, made["token"]) for _ in range(2)]
        client.event()
        wait_until(lambda: events(server, made)["waiting"], "the other waits")
        url = f"{server.url}/v1/tokens/{made['token']}"
        assert requests.delete(url, headers=bearer(made), timeout=5).status_code == 204
        answers = [caller.result() for caller in callers]
    assert [(answer.status_code, error_code(answer)) for answer in answers] == [(404, "unknown_token")] * 2


def test_an_acknowledgement_of_an_earlier_attempt_counts_after_a_retry(server, made):
    """An event that is sent again on request while it is handled is not handled twice."""
    url = f"{getattr(server, 'other', server).url}/v1/tokens/{made['token']}/events"

    def attempts():
        return [each["attempts"] for each in requests.get(url, headers=bearer(made), timeout=5).json()["in_flight"]]

    with Acknowledging(server, made["token"], secret=made["secret"]) as client, ThreadPoolExecutor(1) as pool:
        caller = pool.submit(server.go, made["token"])
        ack_id, request = client.event()
        for _ in range(3):  # more than MAX_ATTEMPTS: they are counted from the start
            wait_until(lambda: attempts() == [1], "the attempt is counted, which its client need not wait for")
            answer = requests.post(f"{url}/{request['id']}/redeliver", headers=bearer(made), timeout=5)
            assert answer.status_code == 202
            again_ack_id, again = client.event()
            assert (again["id"], again["attempt"]) == (request["id"], 1)
            ack_id, again_ack_id = again_ack_id, ack_id
        client.acknowledge(again_ack_id)
        assert caller.result().status_code == 200
        wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")


def test_an_event_that_no_client_could_take_delays_no_other(tmp_path):
    """It may grow on its way: a control character takes 6 bytes of JSON, a form is there twice."""
    grows = {"data": b"a=" + b"\x01" * 50_000, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    with Server(STORE_URL=f"sqlite:///{tmp_path}/relay.db", CLIENT_QUEUE_LIMIT_BYTES=300_000) as server:
        made, token = server.new_with_secret(mailbox=True), server.new()
        large = server.go(made["token"], **grows).json()["id"]
        server.go(made["token"], data={"n": 1})
        with Acknowledging(server, made["token"], secret=made["secret"]) as client:
            ack_id, request = client.event()
            assert request["params"]["n"] == "1"
            client.acknowledge(ack_id)
            wait_until(lambda: events(server, made)["dead_letters"] == [large], "it is a dead letter")
        with WebSocket(server, token) as client:
            answer = server.go(token, **grows)
            assert (answer.status_code, error_code(answer)) == (413, "event_too_large")
            assert server.go(token).text == "OK"
            assert client.receive().startswith(f"42/{token},")


def test_a_window_of_large_events_does_not_make_a_client_slow(tmp_path):
    """As many are on their way as fit; each acknowledgement makes room."""
    with Server(STORE_URL=f"sqlite:///{tmp_path}/relay.db", CLIENT_QUEUE_LIMIT_BYTES=300_000) as server:
        made = server.new_with_secret(mailbox=True)
        ids = [
            server.go(made["token"], data=b"x" * 100_000, headers={"Content-Type": "text/plain"}).json()["id"]
            for _ in range(24)
        ]
        with Acknowledging(server, made["token"], secret=made["secret"], window=20) as client:
            got = []
            for _ in ids:
                ack_id, request = client.event()
                got.append(request["id"])
                time.sleep(0.01)
                client.acknowledge(ack_id)
            assert got == ids
            wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")
