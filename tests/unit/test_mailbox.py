"""What is delivered from a mailbox, with clients that are plain objects."""

import threading

import pytest

from socket2me_flask.concurrency.timeout_queue import Timer
from socket2me_flask.relay.mailbox import Mailboxes
from socket2me_flask.storage import SQLiteStore
from tests.support.fakes import AckClient, call_for, relay_on
from tests.support.servers import wait_until


@pytest.fixture
def relay(tmp_path, clock):
    store = SQLiteStore(str(tmp_path / "relay.db"), clock)
    store.start()
    mailboxes = Mailboxes(
        store,
        redeliver_seconds=60,
        max_attempts=5,
        spawn=lambda run: threading.Thread(target=run).start(),
        new_timer=Timer,
    )
    yield relay_on(store, mailboxes=mailboxes)
    store.close()


@pytest.fixture
def record(relay):
    return relay._store.add("a" * 24, 60, secret_hash=b"x", mode="ack", mailbox=True)


def test_a_client_that_attaches_while_another_is_displaced_is_the_one_that_gets_events(relay, record):
    """Whoever is attached has the outlet, in whichever order threads got there."""
    first, second, third = AckClient(), AckClient(), AckClient()
    first.dismiss = lambda farewell=None: relay.attach(record.token, third)
    relay.attach(record.token, first)
    relay.attach(record.token, second)
    assert relay._clients[record.token] is third
    relay.forward(call_for(record.token, "/a"), record)
    wait_until(lambda: third.calls == ["/a"], "it is delivered")
    assert second.calls == []


def test_nothing_is_left_when_all_have_gone(relay, record):
    """No outlet, no waiter, no timer."""
    client = AckClient()
    relay.attach(record.token, client)
    relay.forward(call_for(record.token, "/a"), record)
    wait_until(lambda: client.calls == ["/a"], "it is delivered")
    relay.detach(record.token, client)
    mailboxes = relay.mailboxes
    assert (mailboxes._outlets, mailboxes._awaited) == ({}, {})
    assert mailboxes.overdue._due == mailboxes.retries._due == {}
    assert client.forgotten == [1]


def test_a_late_detach_leaves_the_successor_its_events(relay, record):
    """The displaced client's farewell changes nothing."""
    first, second = AckClient(), AckClient()
    relay.attach(record.token, first)
    relay.attach(record.token, second)
    relay.detach(record.token, first)
    relay.forward(call_for(record.token, "/a"), record)
    wait_until(lambda: second.calls == ["/a"], "it is delivered")
