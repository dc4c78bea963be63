"""Tokens that may have several listeners, over real connections."""

import contextlib
import json

import pytest
import requests
import websocket

from socket2me_flask.relay.listeners import MAX_LISTENERS_PER_TOKEN
from tests.support.delivery import Acknowledging, Caller, bearer, error_code, events
from tests.support.servers import DEADLINE_SECONDS, PythonListener, Server, wait_until

PATIENCE_SECONDS = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = {
        "ACK_TIMEOUT_SECONDS": PATIENCE_SECONDS,
        "REPLY_TIMEOUT_SECONDS": PATIENCE_SECONDS,
        "REDELIVER_SECONDS": PATIENCE_SECONDS,
        "MAX_ATTEMPTS": 2,
        "CLIENT_QUEUE_LIMIT_BYTES": 2_000_000,
        "HOLD_SECONDS": 1,  # a client may be attached a moment after it was answered
    }
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/relay.db"
    with Server(STORE_URL=url, **settings) as server:
        yield server


@pytest.fixture
def join(server):
    """What connects a listener of a token, in this mode and with these options."""
    with contextlib.ExitStack() as stack:
        yield lambda made, **auth: stack.enter_context(
            Acknowledging(server, made["token"], secret=made["secret"], **auth)
        )


def state_of(server, made):
    answer = requests.get(f"{server.url}/v1/tokens/{made['token']}", headers=bearer(made), timeout=5)
    return answer.json()


def listed(server, made):
    return state_of(server, made)["listeners"]


def refusal(client):
    """Return the reason for which a connect was refused."""
    head, _, reason = client.answer.partition(",")
    assert head.startswith("44/"), client.answer
    return json.loads(reason)["message"]


def test_a_token_says_how_many_receive_its_calls(server):
    """As it was asked, and for a token that did not ask, `newest`."""
    assert server.new_with_secret(listeners="all")["listeners"] == "all"
    made = server.new_with_secret()
    assert "listeners" not in made
    assert state_of(server, made)["listener_mode"] == "newest"
    refused = requests.post(f"{server.url}/v1/new", json={"listeners": "both"}, timeout=5)
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400,
        "listeners is one of newest, all, one.",
    )


def test_each_listener_receives_each_call_once_in_order(server, join):
    """From when it came; also a client of Engine.IO 3, which gives its options in the query."""
    made = server.new_with_secret(listeners="all")
    first = join(made, listener="ann")
    assert server.go(made["token"], tail="/0").text == "OK"
    second = join(made, listeners="all")
    old = websocket.create_connection(
        f"ws://127.0.0.1:{server.port}/socket.io/?EIO=3&transport=websocket", timeout=DEADLINE_SECONDS
    )
    old.send(f"40/{made['token']}?secret={made['secret']}&listener=123,")
    wait_until(lambda: len(listed(server, made)) == 3, "all are attached")
    for number in (1, 2, 3):
        assert server.go(made["token"], tail=f"/{number}", json={"n": number}).text == "OK"
    assert [first.event()[1]["path"] for _ in range(4)] == ["/0", "/1", "/2", "/3"]
    assert [second.event()[1]["body"]["n"] for _ in range(3)] == [1, 2, 3]
    received = []
    while len(received) < 3:
        packet = old.recv()
        if packet.startswith("42"):
            received.append(json.loads(packet[packet.index("[") :])[1]["path"])
    assert received == ["/1", "/2", "/3"]
    shown = listed(server, made)
    assert [each["id"] for each in shown][::2] == ["ann", "123"]
    assert shown[1]["id"].startswith("~")
    assert all(each["connected"] and each["mode"] == "notify" for each in shown)
    assert shown[0]["since"] <= shown[1]["since"] <= shown[2]["since"]
    old.close()
    wait_until(lambda: len(listed(server, made)) == 2, "one has left")


def test_the_first_acknowledgement_answers_the_caller(server, join):
    """A rejection waits for what the others say; if none is left, the last says what the caller receives."""
    made = server.new_with_secret(listeners="all", mode="ack")
    first, second = join(made), join(made)
    caller = Caller(server, made["token"])
    first.acknowledge(first.event()[0], "reject", "not me")
    ack_id, _ = second.event()
    assert [each["in_flight"] for each in listed(server, made)] == [0, 1]
    second.acknowledge(ack_id)
    assert (caller.answer.status_code, caller.answer.text) == (200, "OK")
    caller = Caller(server, made["token"])
    first.event()
    second.acknowledge(second.event()[0], "reject", "nor me")
    first.leave()
    assert (caller.answer.status_code, error_code(caller.answer)) == (503, "client_left")


def test_the_first_reply_answers_the_caller(server, join):
    """Beside a listener in mode notify, which only watches."""
    made = server.new_with_secret(listeners="all")
    watching, replying = join(made), join(made, mode="reply")
    caller = Caller(server, made["token"])
    assert watching.event()[0] is None
    replying.acknowledge(replying.event()[0], 201, "made")
    assert (caller.answer.status_code, caller.answer.text) == (201, "made")


def test_one_listener_receives_each_call(server, join):
    """The one with the least in flight; what it had when it left goes to another, whose answer counts."""
    made = server.new_with_secret(listeners="one", mode="ack")
    workers = [join(made), join(made)]
    callers = [Caller(server, made["token"], tail="/0", data="zero", headers={"Content-Type": "text/plain"})]
    held = workers[0].event()
    assert held[1]["path"] == "/0"
    for number in (1, 2):
        callers.append(Caller(server, made["token"], tail=f"/{number}"))
        ack_id, request = workers[1].event()
        assert request["path"] == f"/{number}"
        workers[1].acknowledge(ack_id)
        assert callers[-1].answer.text == "OK"
    workers[0].leave()
    ack_id, request = workers[1].event()
    assert (request["path"], request["body"]) == ("/0", "zero")
    workers[1].acknowledge(ack_id)
    assert callers[0].answer.text == "OK"


def test_windows_of_several_listeners(server, join):
    """Without room in any of them a call waits; an acknowledgement of either makes some."""
    made = server.new_with_secret(listeners="one", mode="ack")
    workers = [join(made, window=1), join(made, window=1)]
    callers = [Caller(server, made["token"], tail="/0")]
    ack_ids = [workers[0].event()[0]]
    callers.append(Caller(server, made["token"], tail="/1"))
    ack_ids.append(workers[1].event()[0])
    callers.append(Caller(server, made["token"], tail="/2"))
    assert (callers[2].answer.status_code, error_code(callers[2].answer)) in (
        (503, "client_busy"),
        (504, "not_acknowledged"),
    )
    caller = Caller(server, made["token"], tail="/3")
    workers[1].acknowledge(ack_ids[1])
    ack_id, request = workers[1].event()
    assert request["path"] == "/3"
    workers[1].acknowledge(ack_id)
    assert caller.answer.text == "OK"


def test_the_newest_with_an_id_replaces_the_one_before(server, join):
    """It is sent `replaced`; who has another id stays."""
    made = server.new_with_secret(listeners="all")
    old, other = join(made, listener="ann"), join(made, listener="bob")
    new = join(made, listener="ann")
    assert old.receive() == f'42/{made["token"]},["replaced"]'
    wait_until(lambda: [each["id"] for each in listed(server, made)] == ["bob", "ann"], "the new one is attached")
    assert server.go(made["token"]).text == "OK"
    assert new.event()[1]["id"] == other.event()[1]["id"]


def test_what_a_listener_may_ask_for(server, join):
    """A refusal says what is wrong, and where in a filter; it replaces no client."""
    made = server.new_with_secret(listeners="all")
    asked = {
        "listeners": ("one", "This token has listeners: all. A client cannot have another."),
        "listener": ("x" * 10_000, "auth.listener is up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'."),
        "filter": ("path:/a header.x-a:", "auth.filter: A value is missing. (column 20)"),
    }
    for name, (value, reason) in asked.items():
        assert refusal(join(made, **{name: value})) == reason
    for value in ("", "a b", "\u00fc", 1, ["a"]):
        assert "auth.listener" in refusal(join(made, listener=value))
    assert "status: is not known" in refusal(join(made, filter="status:200"))
    assert "1000 characters" in refusal(join(made, filter="x" * 1001))
    newest = server.new_with_secret()
    assert "has listeners: newest" in refusal(join(newest, listeners="all"))
    assert join(newest, listeners="newest", listener="ann").answer.startswith("40/")
    assert listed(server, made) == []
    assert [each["id"] for each in listed(server, newest)] == ["ann"]


@pytest.mark.parametrize("listeners", ["newest", "all", "one"])
def test_a_filter_says_which_calls_a_listener_receives(server, join, listeners):
    """If that of none holds, the caller is answered so at once."""
    made = server.new_with_secret(listeners=listeners)
    client = join(made, filter="PUT path:/pay/* header.x-kind:big body.$.n:1*")
    wait_until(lambda: listed(server, made), "it is attached")
    matching = {"method": "PUT", "tail": "/pay/in", "headers": {"X-Kind": "BIG"}, "json": {"n": 12}}
    for change in ({"method": "POST"}, {"tail": "/"}, {"headers": {}}, {"json": {"n": 21}}):
        refused = server.go(made["token"], **{**matching, **change})
        assert (refused.status_code, error_code(refused)) == (503, "no_listener")
    assert server.go(made["token"], **matching).text == "OK"
    assert client.event()[1]["body"] == {"n": 12}


def test_a_listener_that_does_not_read_delays_no_other(server, join):
    """At the limit of its queue it is disconnected alone, and every call reaches the other."""
    made = server.new_with_secret(listeners="all")
    reading = PythonListener(server, made["token"], auth={"secret": made["secret"]})
    slow = join(made)
    body, sent = b"x" * 200_000, 0
    while len(listed(server, made)) == 2:
        assert sent < 100, "it was not disconnected"
        answer = server.go(made["token"], data=body)
        assert answer.text == "OK"
        assert answer.elapsed.total_seconds() < PATIENCE_SECONDS * 5
        sent += 1
    reading.expect("connect")
    for _ in range(sent):
        assert reading.expect("request")["body"] == body
    reading.client.disconnect()
    slow.leave()


def test_a_token_has_so_many_listeners_and_no_more(server):
    """The next one is refused with the reason; when one has left, there is room."""
    made = server.new_with_secret(listeners="all")
    with contextlib.ExitStack() as stack:

        def connect():
            return stack.enter_context(Acknowledging(server, made["token"], secret=made["secret"]))

        clients = [connect() for _ in range(MAX_LISTENERS_PER_TOKEN)]
        wait_until(lambda: len(listed(server, made)) == MAX_LISTENERS_PER_TOKEN, "all are attached")
        for _ in range(3):
            assert refusal(connect()) == "This token has as many listeners as it may."
        assert server.go(made["token"]).text == "OK"
        assert len({client.event()[1]["id"] for client in clients}) == 1
        clients[0].leave()
        wait_until(lambda: len(listed(server, made)) < MAX_LISTENERS_PER_TOKEN, "one has left")
        assert connect().answer.startswith("40/")
    assert "MAX_LISTENERS_PER_TOKEN" in server.log


# With a mailbox


def acknowledge_next(client, tail=None):
    """Acknowledge the next event, which is for this path."""
    ack_id, request = client.event()
    assert tail in (None, request["path"]), request
    client.acknowledge(ack_id)
    return request


def waiting(server, made):
    return {each["id"]: (each["connected"], each["waiting"]) for each in listed(server, made)}


def test_who_was_away_receives_what_it_has_not_had_in_order(server, join):
    """Each listener has its position; a new one begins with the next event, the first of all with the oldest."""
    made = server.new_with_secret(listeners="all", mailbox=True)
    assert server.go(made["token"], tail="/0").status_code == 202
    ann = join(made, listener="ann")
    acknowledge_next(ann, "/0")
    wait_until(lambda: waiting(server, made) == {"ann": (True, 0)}, "it is acknowledged")
    bob = join(made, listener="bob")
    caller = Caller(server, made["token"], tail="/1")
    acknowledge_next(ann, "/1")
    assert caller.answer.text == "OK"  # the first acknowledgement answers
    ack_id, request = bob.event()
    assert (request["path"], request["attempt"]) == ("/1", 1)
    bob.leave()
    for number in (2, 3):
        caller = Caller(server, made["token"], tail=f"/{number}")
        acknowledge_next(ann, f"/{number}")
        assert caller.answer.text == "OK"
    wait_until(lambda: waiting(server, made) == {"ann": (True, 0), "bob": (False, 3)}, "one is behind")
    assert len(events(server, made)["waiting"]) == 3
    bob = join(made, listener="bob", window=2)
    carol = join(made, listener="carol")
    for number in (1, 2, 3):
        acknowledge_next(bob, f"/{number}")
    wait_until(lambda: not any(events(server, made).values()), "nothing is kept that all have had")
    assert server.go(made["token"], tail="/4").status_code == 202
    for client in (ann, bob, carol):
        acknowledge_next(client, "/4")


def test_a_listener_without_an_id_has_no_position_when_it_has_left(server, join):
    """What it had not acknowledged is kept only for those who are owed it."""
    made = server.new_with_secret(listeners="all", mailbox=True)
    ann, anonymous = join(made, listener="ann"), join(made)
    caller = Caller(server, made["token"], tail="/0")
    acknowledge_next(ann, "/0")
    anonymous.event()
    assert caller.answer.text == "OK"
    assert len(events(server, made)["in_flight"]) == 1
    anonymous.leave()
    wait_until(lambda: not any(events(server, made).values()), "it is dropped")
    assert list(waiting(server, made)) == ["ann"]


def test_an_event_that_one_of_all_listeners_fails_at(server, join):
    """It delays no other listener, is a dead letter when all have passed it, and can be sent to all again."""
    made = server.new_with_secret(listeners="all", mailbox=True)
    ann, bob = join(made, listener="ann"), join(made, listener="bob")
    assert Caller(server, made["token"], tail="/0").answer.status_code == 202
    for attempt in (1, 2):
        ack_id, request = ann.event()
        assert request["attempt"] == attempt
        ann.acknowledge(ack_id, "reject", "no")
    wait_until(lambda: waiting(server, made) == {"ann": (True, 0), "bob": (True, 1)}, "it has given up")
    assert events(server, made)["dead_letters"] == []
    request = acknowledge_next(bob, "/0")
    while request["attempt"] < 2:  # it was not acknowledged in time, while the other failed
        request = acknowledge_next(bob, "/0")
    wait_until(lambda: events(server, made)["dead_letters"] == [request["id"]], "it is a dead letter")
    url = f"{server.url}/v1/tokens/{made['token']}/events/{request['id']}"
    assert requests.post(f"{url}/redeliver", headers=bearer(made), timeout=5).status_code == 202
    for client in (ann, bob):
        assert acknowledge_next(client, "/0")["attempt"] == 1
    wait_until(lambda: not any(events(server, made).values()), "both have it")


def test_each_event_goes_to_one_listener_at_a_time(server, join):
    """The one with the least in flight; what a listener had when it left, or had too long, goes to another."""
    made = server.new_with_secret(listeners="one", mailbox=True)
    ann, bob = join(made, listener="ann", window=2), join(made, listener="bob", window=2)
    callers = [Caller(server, made["token"], tail="/0")]
    first = ann.event()
    callers.append(Caller(server, made["token"], tail="/1"))
    second = bob.event()
    assert [first[1]["path"], second[1]["path"]] == ["/0", "/1"]
    bob.acknowledge(second[0])
    assert callers[1].answer.text == "OK"
    ann.leave()
    again = bob.event()
    assert (again[1]["path"], again[1]["attempt"]) == ("/0", 2)
    bob.acknowledge(again[0])
    assert callers[0].answer.text == "OK"
    wait_until(lambda: not any(events(server, made).values()), "nothing is left")
    late = Caller(server, made["token"], tail="/2")
    bob.event()
    ann = join(made, listener="ann")
    assert bob.receive() == f'42/{made["token"]},["dropped","{late.answer.json()["id"]}"]'
    bob.leave()
    acknowledge_next(ann, "/2")
    wait_until(lambda: not any(events(server, made).values()), "nothing is left")


def test_a_rejected_event_goes_to_any_listener_after_a_while(server, join):
    """Others are sent meanwhile, also to one with a window of 1."""
    made = server.new_with_secret(listeners="one", mailbox=True)
    ann = join(made)
    rejected = Caller(server, made["token"], tail="/0")
    ann.acknowledge(ann.event()[0], "reject", "no")
    assert rejected.answer.status_code == 202
    caller = Caller(server, made["token"], tail="/1")
    acknowledge_next(ann, "/1")
    assert caller.answer.text == "OK"
    bob = join(made)
    ann.leave()
    assert acknowledge_next(bob, "/0")["attempt"] == 2


def test_filters_with_a_mailbox(server, join):
    """On all, an event that is left out counts as acknowledged; on one, it waits for a listener that wants it."""
    made = server.new_with_secret(listeners="all", mailbox=True)
    ann = join(made, listener="ann", filter="/a*")
    assert server.go(made["token"], tail="/b").status_code == 202
    caller = Caller(server, made["token"], tail="/a")
    acknowledge_next(ann, "/a")
    assert caller.answer.text == "OK"
    wait_until(lambda: not any(events(server, made).values()), "all have passed both")
    made = server.new_with_secret(listeners="one", mailbox=True)
    join(made, filter="/a*")
    for tail in ("/b", "/c"):
        assert server.go(made["token"], tail=tail).status_code == 202
    assert len(events(server, made)["waiting"]) == 2
    caller = Caller(server, made["token"], tail="/a")
    carol = join(made, filter="/c")
    acknowledge_next(carol, "/c")
    anybody = join(made, window=3)
    acknowledge_next(anybody, "/b")
