"""What is delivered from a mailbox, with clients that are plain objects."""

import pytest

from socket2me_flask.relay.outlet import MAX_DEAD
from socket2me_flask.storage import SQLiteStore
from tests.support.fakes import AckClient, call_for, mailboxes_on, relay_on
from tests.support.servers import wait_until


@pytest.fixture
def store(tmp_path, clock):
    store = SQLiteStore(str(tmp_path / "relay.db"), clock)
    store.start()
    yield store
    store.close()


@pytest.fixture
def relay(store):
    return relay_with_mailboxes(store, redeliver_seconds=60, max_attempts=5)


def relay_with_mailboxes(store, **settings):
    return relay_on(store, mailboxes=mailboxes_on(store, **settings))


@pytest.fixture
def record(store):
    return store.add("a" * 24, 60, secret_hash=b"x", mode="ack", mailbox=True)


def test_a_client_that_attaches_while_another_is_displaced_is_the_one_that_gets_events(relay, record):
    """The client that is attached has the outlet, in whichever order threads got there."""
    first, second, third = AckClient(), AckClient(), AckClient()
    first.disconnect = lambda final_event=None: relay.presence.attach(record.token, third)
    relay.presence.attach(record.token, first)
    relay.presence.attach(record.token, second)
    assert relay.presence.get(record.token) is third
    relay.forward(call_for(record.token, "/a"), record)
    wait_until(lambda: third.calls == ["/a"], "it is delivered")
    assert second.calls == []


def test_nothing_is_left_when_all_have_gone(relay, record):
    """No outlet, no timer."""
    client = AckClient()
    relay.presence.attach(record.token, client)
    relay.forward(call_for(record.token, "/a"), record)
    wait_until(lambda: client.calls == ["/a"], "it is delivered")
    relay.presence.detach(record.token, client)
    mailboxes = relay.mailboxes
    assert not mailboxes.notify(record.token)
    assert len(mailboxes.attempts.overdue) == len(mailboxes.attempts.retries) == 0
    assert client.forgotten == [1]


def test_a_client_may_leave_once_it_has_acknowledged(relay, record):
    """The caller receives what the client has said, even if both come before the caller's thread has its turn."""
    client = AckClient()

    def acknowledge_and_leave(call, on_ack, *args):
        on_ack([])
        relay.presence.detach(record.token, client)

    relay.mailboxes.spawn = lambda run: run()
    client.send = acknowledge_and_leave
    relay.presence.attach(record.token, client)
    assert relay.forward(call_for(record.token, "/a"), record).status == "200 OK"


def test_a_late_detach_leaves_the_successor_its_events(relay, record):
    """The late disconnect of the replaced client changes nothing."""
    first, second = AckClient(), AckClient()
    relay.presence.attach(record.token, first)
    relay.presence.attach(record.token, second)
    relay.presence.detach(record.token, first)
    relay.forward(call_for(record.token, "/a"), record)
    wait_until(lambda: second.calls == ["/a"], "it is delivered")


def test_what_is_known_of_dead_letters_has_a_bound(store, record):
    """A client that acknowledges nothing, for ever: the acknowledgement of the oldest is forgotten."""
    relay, client = relay_with_mailboxes(store, redeliver_seconds=0, max_attempts=1), AckClient()
    mailboxes = relay.mailboxes
    relay.presence.attach(record.token, client)
    for number in range(MAX_DEAD + 2):
        mailboxes.store.put(call_for(record.token, f"/{number}"))
        mailboxes.notify(record.token)
        wait_until(lambda: len(mailboxes.attempts.overdue) == 1, "it is sent")
        mailboxes.attempts.overdue.run(lambda: None)
    assert mailboxes.attempts.dead_lettered["SOCKET2ME_MAX_ATTEMPTS"] == MAX_DEAD + 2
    assert client.forgotten == [1, 2]


def test_an_event_that_is_retried_for_ever_has_a_bound(relay, record):
    """Of as many attempts as MAX_ATTEMPTS an acknowledgement is waited for."""
    client = AckClient()
    relay.presence.attach(record.token, client)
    call = call_for(record.token)
    relay.mailboxes.store.put(call)
    relay.mailboxes.notify(record.token)
    for number in range(1, 9):
        wait_until(lambda n=number: len(client.calls) == n, "it is sent")
        wait_until(lambda: len(relay.mailboxes.attempts.overdue) == 1, "its acknowledgement is waited for")
        if number < 8:
            relay.mailboxes.redeliver(record.token, call.id)
    assert client.forgotten == [1, 2, 3]
