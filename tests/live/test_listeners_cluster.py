"""Several listeners of a token, at two relays on one Redis."""

import contextlib

import pytest
import requests

from socket2me_flask.storage import MAX_LISTENERS_PER_TOKEN
from tests.support.delivery import Acknowledging, Caller, bearer, error_code, events
from tests.support.redis_server import Redis
from tests.support.servers import Pair, wait_until

REFUSED = '{"message":"This token has as many listeners as it may.","data":{"code":"too_many_listeners"}}'


@pytest.fixture(scope="module")
def server():
    settings = {
        "REDELIVER_SECONDS": 1,
        "HOLD_SECONDS": 1,
    }
    with Redis() as redis, Pair(redis.url, **settings) as server:
        yield server


@pytest.fixture
def join(server):
    """What connects a listener of a token to the first relay, or to the other one."""
    with contextlib.ExitStack() as stack:

        def join(relay, made, **auth):
            client = stack.enter_context(Acknowledging(relay, made["token"], secret=made["secret"], **auth))
            assert client.answer.startswith("40/"), client.answer
            return client

        yield join


def listed(relay, made):
    answer = requests.get(f"{relay.url}/v1/tokens/{made['token']}", headers=bearer(made), timeout=5)
    return answer.json()["listeners"]


def test_all_listeners_of_all_processes_receive_a_call(server, join):
    """Wherever it arrives; both processes list all of them."""
    made = server.new_with_secret(listeners="all")
    here, there = join(server, made, listener="ann"), join(server.other, made, listener="bob")
    for relay in (server, server.other):
        wait_until(
            lambda relay=relay: [each["id"] for each in listed(relay, made)] == ["ann", "bob"], "all are listed"
        )
    for number, relay in enumerate((server, server.other)):
        answer = requests.post(f"{relay.url}/v1/go/{made['token']}/{number}", timeout=5)
        assert answer.text == "OK"
    for client in (here, there):
        assert [client.event()[1]["path"] for _ in range(2)] == ["/0", "/1"]
    there.leave()
    wait_until(lambda: [each["id"] for each in listed(server, made)] == ["ann"], "one has left")
    assert server.go(made["token"], tail="/2").text == "OK"
    assert here.event()[1]["path"] == "/2"


def test_the_first_answer_of_any_process_answers_the_caller(server, join):
    """A failure at one process waits for the others; if all have failed, the last one is the answer."""
    made = server.new_with_secret(listeners="all", mode="reply")
    here, there = join(server, made), join(server.other, made)
    caller = Caller(server, made["token"])  # which calls the other relay
    there.acknowledge(there.event()[0], "reject", "no")
    here.acknowledge(here.event()[0], 201, "made")
    assert (caller.answer.status_code, caller.answer.text) == (201, "made")
    caller = Caller(server, made["token"])
    here.event()
    there.acknowledge(there.event()[0], 200, "there")
    assert caller.answer.text == "there"
    caller = Caller(server, made["token"])
    there.event()
    here.acknowledge(here.event()[0], "reject", "no")
    wait_until(lambda: sorted(each["in_flight"] for each in listed(server, made)) == [0, 1], "it has rejected")
    there.leave()
    assert error_code(caller.answer) == "client_left"


@pytest.mark.parametrize("mailbox", [False, True])
@pytest.mark.parametrize("listeners", ["newest", "all", "one"])
def test_a_client_may_reply_and_leave_at_once(server, join, listeners, mailbox):
    """In one piece: the caller, at another process, receives its reply and not that it has left."""
    made = server.new_with_secret(listeners=listeners, mode="reply", mailbox=mailbox)
    for number in range(3):
        with join(server, made) as client:
            caller = Caller(server, made["token"])
            client.acknowledge_and_leave(client.event()[0], 201, f"made {number}")
            assert (caller.answer.status_code, caller.answer.text) == (201, f"made {number}")


def test_a_call_without_a_listener_waits_for_the_first_at_any_process(server, join):
    """As a call without a client does."""
    made = server.new_with_secret(listeners="all")
    caller = Caller(server, made["token"], tail="/0")
    here = join(server, made)
    assert here.event()[1]["path"] == "/0"
    assert caller.answer.text == "OK"


def test_one_listener_of_all_processes_receives_a_call(server, join):
    """Calls reach the listeners of both; no call reaches two."""
    made = server.new_with_secret(listeners="one")
    here, there = join(server, made), join(server.other, made)
    wait_until(lambda: len(listed(server.other, made)) == 2, "both are attached")
    for number in range(6):
        assert server.go(made["token"], tail=f"/{number}").text == "OK"
    there.leave()
    wait_until(lambda: len(listed(server.other, made)) == 1, "one has left")
    assert server.go(made["token"], tail="/last").text == "OK"
    received = []
    while not received or received[-1] != "/last":
        received.append(here.event()[1]["path"])
    assert 2 <= len(received) <= 6
    assert len(set(received)) == len(received)


def test_what_a_listener_had_when_it_left_goes_to_another_process(server, join):
    """Whole, and its answer is the caller's; without any other listener the caller receives an error."""
    made = server.new_with_secret(listeners="one", mode="ack")
    workers = [join(server, made), join(server.other, made)]
    wait_until(lambda: len(listed(server.other, made)) == 2, "both are attached")
    caller = Caller(server, made["token"], json={"n": 1})
    wait_until(lambda: sum(each["in_flight"] for each in listed(server, made)) == 1, "one has it")
    ids = [each["in_flight"] for each in listed(server, made)]
    first, second = workers if ids[0] else reversed(workers)
    first.event()
    first.leave()
    ack_id, request = second.event()
    assert request["body"] == {"n": 1}
    second.acknowledge(ack_id)
    assert (caller.answer.status_code, caller.answer.text) == (200, "OK")
    caller = Caller(server, made["token"])
    second.event()
    second.leave()
    assert error_code(caller.answer) == "client_left"


@pytest.mark.parametrize("is_held", [False, True], ids=["sent", "held"])
def test_what_the_only_listener_had_when_it_left_goes_to_one_that_came_to_another_process(server, join, is_held):
    """Also if the process that was called had that listener, and no other process had one."""
    made = server.new_with_secret(listeners="one", mode="ack")
    first = None if is_held else join(server.other, made)
    caller = Caller(server, made["token"], json={"n": 1})  # which calls the other relay
    first = first or join(server.other, made)
    first.event()
    second = join(server, made)
    wait_until(lambda: len(listed(server.other, made)) == 2, "both are attached")
    first.leave()
    ack_id, request = second.event()
    assert request["body"] == {"n": 1}
    second.acknowledge(ack_id)
    assert (caller.answer.status_code, caller.answer.text) == (200, "OK")


def test_the_newest_with_an_id_replaces_the_one_at_another_process(server, join):
    """Alone, and it is sent `replaced`."""
    made = server.new_with_secret(listeners="all")
    old, other = join(server, made, listener="ann"), join(server, made, listener="bob")
    new = join(server.other, made, listener="ann")
    assert old.receive() == f'42/{made["token"]},["replaced"]'
    wait_until(lambda: [each["id"] for each in listed(server, made)] == ["bob", "ann"], "the new one is listed")
    assert server.go(made["token"]).text == "OK"
    assert new.event()[1]["id"] == other.event()[1]["id"]


def test_positions_in_a_mailbox_follow_a_listener_to_another_process(server, join):
    """Each receives each event once, in order, whichever process has kept it."""
    made = server.new_with_secret(listeners="all", mailbox=True)
    ann, bob = join(server, made, listener="ann"), join(server.other, made, listener="bob")
    caller = Caller(server, made["token"], tail="/0")
    ack_id, request = bob.event()
    bob.acknowledge(ack_id)
    assert (request["path"], caller.answer.text) == ("/0", "OK")
    bob.leave()
    ack_id, _ = ann.event()
    ann.acknowledge(ack_id)
    for number in (1, 2):
        caller = Caller(server, made["token"], tail=f"/{number}")
        ack_id, request = ann.event()
        assert request["path"] == f"/{number}"
        ann.acknowledge(ack_id)
        assert caller.answer.text == "OK"
    bob = join(server, made, listener="bob")
    for number in (1, 2):
        ack_id, request = bob.event()
        assert request["path"] == f"/{number}"
        bob.acknowledge(ack_id)
    wait_until(lambda: not any(events(server.other, made).values()), "all have all")


def test_an_event_is_claimed_by_one_listener_of_all_processes(server, join):
    """What one had when it left goes to one at the other process."""
    made = server.new_with_secret(listeners="one", mailbox=True)
    workers = [join(server, made), join(server.other, made)]
    callers = [Caller(server, made["token"], tail=f"/{number}") for number in range(2)]
    first, second = (worker.event() for worker in workers)
    assert {first[1]["path"], second[1]["path"]} == {"/0", "/1"}
    assert len(events(server, made)["in_flight"]) == 2
    workers[0].leave()
    workers[1].acknowledge(second[0])
    ack_id, request = workers[1].event()
    assert (request["id"], request["attempt"]) == (first[1]["id"], 2)
    workers[1].acknowledge(ack_id)
    assert [caller.answer.status_code for caller in callers] == [200, 200]
    wait_until(lambda: not any(events(server, made).values()), "nothing is left")


def test_what_a_listener_rejected_is_free_for_other_processes_when_it_has_left(server, join):
    """Its process keeps no claim on an event that waits for its next attempt, if it has no listener any more."""
    made = server.new_with_secret(listeners="one", mailbox=True)
    here = join(server, made)
    caller = Caller(server, made["token"])
    ack_id, first = here.event()
    here.acknowledge(ack_id, "reject", "no")
    assert caller.answer.status_code == 202
    here.leave()
    wait_until(lambda: not listed(server, made), "it has left")
    there = join(server.other, made)
    ack_id, request = there.event()
    assert (request["id"], request["attempt"]) == (first["id"], 2)
    there.acknowledge(ack_id)
    wait_until(lambda: not any(events(server, made).values()), "nothing is left")


def test_the_end_of_a_token_disconnects_its_listeners_at_all_processes(server, join):
    """At once."""
    made = server.new_with_secret(listeners="all")
    clients = [join(server, made), join(server.other, made)]
    requests.delete(f"{server.url}/v1/tokens/{made['token']}", headers=bearer(made), timeout=5)
    for client in clients:
        assert client.receive() == f"41/{made['token']},"


@pytest.mark.parametrize("mailbox", [False, True])
def test_a_token_has_so_many_listeners_at_all_processes(server, mailbox):
    """The next one is refused with the reason: also where they are away, and have positions."""
    made = server.new_with_secret(listeners="all", mailbox=mailbox)
    with contextlib.ExitStack() as stack:

        def connect(relay, number):
            client = Acknowledging(
                relay, made["token"], secret=made["secret"], mode="ack", listener=f"listener-{number}"
            )
            return stack.enter_context(client)

        for number in range(MAX_LISTENERS_PER_TOKEN):
            assert connect((server, server.other)[number % 2], number).answer.startswith("40/")
        wait_until(lambda: len(listed(server, made)) == MAX_LISTENERS_PER_TOKEN, "all are attached")
        if mailbox:
            stack.close()
            wait_until(lambda: not any(each["connected"] for each in listed(server, made)), "all have left")
        for relay in (server, server.other):
            assert REFUSED in connect(relay, "more").answer
            nameless = Acknowledging(relay, made["token"], secret=made["secret"], mode="ack")
            assert REFUSED in stack.enter_context(nameless).answer
        assert connect(server, 1).answer.startswith("40/")
