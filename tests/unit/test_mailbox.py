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


@pytest.mark.parametrize("listeners", ["newest", "one", "all"])
def test_no_timer_is_left_of_what_a_client_rejected_before_it_left(relay, store, listeners):
    """The event waits in the mailbox for the next client, and not for its next attempt."""
    client = listener_of(listeners)
    record = store.add("b" * 24, 60, secret_hash=b"x", mode="ack", mailbox=True, listeners=listeners)
    relay.presence.attach(record.token, client)
    store.mailboxes.put(call_for(record.token, "/a"))
    relay.mailboxes.notify(record.token)
    wait_until(lambda: client.calls == ["/a"], "it is delivered")
    client.on_ack(["reject", "not now"])
    assert waiting_for_attempts(relay) == 1
    relay.presence.detach(record.token, client)
    assert waiting_for_attempts(relay) == 0


def test_no_timer_is_left_of_a_client_that_rejects_an_event_at_once_and_leaves(relay, record):
    """Both are handled before the thread that sends the event has its turn again."""
    client = AckClient()

    def reject_and_leave(call, on_ack, *args):
        on_ack(["reject", "not now"])
        relay.presence.detach(record.token, client)

    relay.mailboxes.spawn = lambda run: run()
    client.send = reject_and_leave
    relay.presence.attach(record.token, client)
    relay.mailboxes.store.put(call_for(record.token, "/a"))
    relay.mailboxes.notify(record.token)
    assert waiting_for_attempts(relay) == 0


@pytest.mark.parametrize("listeners", ["newest", "one", "all"])
def test_no_timer_is_left_of_what_was_dropped_while_it_waited_for_its_next_attempt(relay, store, listeners):
    """Nor is it sent again."""
    client = listener_of(listeners)
    record = store.add("b" * 24, 60, secret_hash=b"x", mode="ack", mailbox=True, listeners=listeners)
    relay.presence.attach(record.token, client)
    call = call_for(record.token, "/a")
    store.mailboxes.put(call)
    relay.mailboxes.notify(record.token)
    wait_until(lambda: client.calls == ["/a"], "it is delivered")
    client.on_ack(["reject", "not now"])
    relay.mailboxes.delete(record.token, call.id)
    assert client.dropped == ([] if listeners == "one" else [call.id])  # of "one" another might have had it next
    assert waiting_for_attempts(relay) == 0
    store.mailboxes.put(call_for(record.token, "/b"))
    relay.mailboxes.notify(record.token)
    wait_until(lambda: client.calls == ["/a", "/b"], "the next one is delivered")


def listener_of(listeners):
    client = AckClient()
    client.listeners = listeners
    return client


def waiting_for_attempts(relay):
    return sum(map(len, relay.mailboxes.attempts.back_offs))


def test_an_event_at_which_the_relay_fails_is_tried_again(relay, record, caplog):
    """After a while, and with a line in the log."""
    client = AckClient()
    send, client.send = client.send, lambda *args: 1 / 0
    relay.mailboxes.spawn = lambda run: run()
    relay.presence.attach(record.token, client)
    relay.mailboxes.store.put(call_for(record.token, "/a"))
    relay.mailboxes.notify(record.token)
    assert len(relay.mailboxes.attempts.retries) == 1
    assert "ZeroDivisionError" in caplog.text
    client.send = send
    relay.mailboxes.attempts.retries.postpone(-60)
    relay.mailboxes.attempts.retries.run(lambda: None)
    assert client.calls == ["/a"]


def test_a_client_that_has_left_is_sent_no_more_of_its_mailbox(relay, record):
    """It is found out by an event, which waits for the next client."""
    gone, fresh = AckClient(), AckClient()
    relay.mailboxes.spawn = lambda run: run()
    relay.presence.attach(record.token, gone)
    gone.gone = True
    relay.mailboxes.store.put(call_for(record.token, "/a"))
    relay.mailboxes.notify(record.token)
    assert not relay.mailboxes.notify(record.token)
    relay.presence.attach(record.token, fresh)
    assert fresh.calls == ["/a"]


def test_many_mailboxes_give_way_to_others(relay, store):
    """When all are looked at: the store was away."""
    turns = []
    for number in range(100):
        token = store.add(f"{number:024}", 60, secret_hash=b"x", mode="ack", mailbox=True).token
        relay.presence.attach(token, AckClient())
    relay.mailboxes.notify_all(lambda: turns.append(None))
    assert len(turns) == 1
