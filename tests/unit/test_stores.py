"""The contract of `TokenStore`, held against every store."""

import sys
import tracemalloc
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from socket2me_flask import config, create_app
from socket2me_flask.errors import (
    ConfigError,
    MailboxesFull,
    MailboxFull,
    TooManyTokens,
    UnknownEvent,
    UnknownToken,
)
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import MemoryStore, SQLiteStore, TokenRecord, Totals
from socket2me_flask.storage.memory import SPARE_SECONDS
from socket2me_flask.storage.record import MAX_DEAD_PASSED, MOST_WAITING_BYTES, SMALL_MAILBOX_BYTES
from tests.support.fakes import call_of


@pytest.fixture(params=["file", "redis"])
def reopen(request):
    """What opens a store that survives the process."""
    return request.getfixturevalue(f"open_{request.param}")


@pytest.fixture(params=["memory", "file", "redis"])
def make_store(request, clock):
    if request.param == "memory":
        return partial(MemoryStore, clock)
    return request.getfixturevalue(f"open_{request.param}")


@pytest.fixture
def store(make_store):
    return make_store()


def test_a_token_lives_until_its_time_is_over(store, clock):
    """Expiry is checked on read, and waits for no sweep. Redis's own clock goes on: 30 seconds suffice."""
    token = new_token()
    assert not store.get(token)
    store.add(token, 60.5)
    clock.now += 30.5
    assert store.get(token)
    clock.now += 30
    assert not store.get(token)
    assert not store.refresh(token)


def test_a_token_lives_to_the_instant(clock):
    """No fraction of a second is rounded away."""
    store = MemoryStore(clock)
    store.add(token := new_token(), 60.5)
    clock.now += 60.4
    assert store.get(token)
    clock.now += 0.1
    assert not store.get(token)


def test_refresh_gives_a_token_its_whole_time_again(store, clock):
    """A refreshed token lives as long as a new one; the sweep at its old time spares it."""
    token = new_token()
    store.add(token, 60)
    clock.now += 50
    assert store.refresh(token)
    clock.now += 50
    assert store.pop_expired() == []
    assert store.get(token)
    clock.now += 11
    assert store.pop_expired() == [token]


def test_refresh_of_an_unknown_token_is_refused(store):
    """Refresh creates nothing."""
    token = new_token()
    assert not store.refresh(token)
    assert not store.get(token)


def test_expired_tokens_are_popped_once(store, clock):
    """A sweep returns each expired token once, at the latest a second after it expired, and no live one."""
    short, long = new_token(), new_token()
    store.add(short, 10)
    store.add(long, 1000)
    clock.now += 9
    assert store.pop_expired() == []
    clock.now += 2
    assert store.pop_expired() == [short]
    assert store.pop_expired() == []
    assert store.get(long)


def test_a_popped_token_can_be_added_again(store, clock):
    """Nothing of an expired token stays behind."""
    token = new_token()
    store.add(token, 10)
    clock.now += 20
    store.pop_expired()
    store.add(token, 10)
    assert store.get(token)
    clock.now += 20
    assert store.pop_expired() == [token]


def test_a_record_says_what_was_kept(store, clock):
    """Lifetime, end, secret, mode, who signs its calls and how many receive them, also after a refresh."""
    token, given = new_token(), {"secret_hash": b"hash", "mode": "reply", "verify": "{}", "listeners": "all"}
    record = store.add(token, 60, **given)
    assert record == store.get(token) == TokenRecord(token, 60, clock.now + 60, **given)
    clock.now += 10
    expected = TokenRecord(token, 60, clock.now + 60, **given)
    assert store.refresh(token) == store.get(token) == expected


def test_a_removed_token_is_gone(store, clock):
    """At once, once, and no sweep finds it."""
    token, other = new_token(), new_token()
    store.add(token, 60)
    store.add(other, 60)
    assert store.remove(token)
    assert store.get(token) is None
    assert not store.remove(token)
    assert store.refresh(token) is None
    clock.now += 61
    assert store.pop_expired() == [other]
    assert not store.remove(other)


def test_the_number_of_tokens_has_a_bound(make_store, clock):
    """The next one is refused; when one has gone, there is room."""
    store = make_store(max_tokens=2)
    store.add(new_token(), 10)
    token = new_token()
    store.add(token, 60)
    with pytest.raises(TooManyTokens):
        store.add(new_token(), 60)
    clock.now += 12
    store.pop_expired()
    store.add(new_token(), 60)
    store.remove(token)
    store.add(new_token(), 60)


def test_tokens_that_have_expired_take_no_place(make_store, clock):
    """Whether or not they were swept; the sweep still reports them."""
    store = make_store(max_tokens=1)
    first, second = new_token(), new_token()
    store.add(first, 10)
    clock.now += 12
    store.add(second, 10)
    assert store.pop_expired() == [first]
    assert store.get(second)


def test_ping_answers(store):
    """A store that works says so by returning."""
    store.ping()


def test_the_work_of_a_sweep_follows_what_expired(clock):
    """A sweep of the memory store carries out as many lines of code among 10,000 live tokens as among none."""
    lines = []
    for live in (0, 10_000):
        store = MemoryStore(clock)
        for number in range(live):
            store.add(new_token(), 1000 + number % 500)
        for _ in range(10):
            store.add(new_token(), 5)
        clock.now += 6
        lines.append(lines_of(store.pop_expired))
    assert lines[0] == lines[1] > 10


def lines_of(do):
    """Return how many lines of Python a function carries out."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before)
    return count


def test_refreshing_takes_no_memory(clock):
    """However often it is done, and however long the tokens live: no bound is on how often."""
    store = MemoryStore(clock)
    tokens = [new_token() for _ in range(10)]
    for number, token in enumerate(tokens):
        store.add(token, 100_000 + 1000 * number)

    def refresh(seconds):
        for _ in range(seconds):
            clock.now += 1
            for token in tokens:
                store.refresh(token)

    tracemalloc.start()
    refresh(SPARE_SECONDS // len(tokens) + 1)  # what is spare is used by then
    before, _ = tracemalloc.get_traced_memory()
    refresh(500)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 500 * len(tokens) * 8  # less than a number in a heap for each
    clock.now += 105_000
    assert sorted(store.pop_expired()) == sorted(tokens[:6])


def test_tokens_survive_the_process(reopen, clock):
    """As they were; what expired meanwhile is found by the next sweep, what was removed is gone."""
    store = reopen()
    record = store.add(new_token(), 60, secret_hash=b"hash", mode="ack", mailbox=True, verify="{}", listeners="one")
    short = store.add(new_token(), 10)
    gone = store.add(new_token(), 60)
    store.remove(gone.token)
    clock.now += 20
    record = store.refresh(record.token)
    store = reopen()
    assert store.get(record.token) == record
    assert store.get(short.token) is None
    assert store.get(gone.token) is None
    assert store.pop_expired() == [short.token]
    assert reopen().pop_expired() == []


def test_the_memory_store_keeps_no_mailboxes(clock):
    """An event that is answered 202 has to survive the process."""
    assert MemoryStore(clock).mailboxes is None


def test_the_number_of_tokens_is_known(store, clock):
    """Of those that live; a sweep takes out those that have expired."""
    tokens = [new_token() for _ in range(3)]
    for token in tokens:
        store.add(token, 60)
    assert store.totals().tokens == 3
    store.remove(tokens[0])
    assert store.totals().tokens == 2
    clock.now += 61
    store.pop_expired()
    assert store.totals() == Totals(0)


@pytest.fixture
def box(reopen):
    """A store with a token that has a mailbox, and the token."""
    store = reopen()
    return store, store.add(new_token(), 60, mailbox=True).token


def bytes_in(store):
    """Return what all mailboxes hold, as it is counted."""
    if isinstance(store, SQLiteStore):
        return store.mailboxes.size
    return int(store.connection.call("GET", "s2m:bytes") or 0)


def test_events_come_out_as_they_went_in(box):
    """In order, field by field, and whole again after the process."""
    store, token = box
    calls = [call_of(token, bytes([number, 0, 255])) for number in range(3)]
    for call in calls:
        store.mailboxes.put(call)
    waiting = store.mailboxes.waiting(token, 2)
    assert [event.call for event in waiting] == calls[:2]
    assert [(event.attempts, event.is_dead_letter) for event in waiting] == [(0, False)] * 2
    assert store.mailboxes.find(token, calls[2].id).call == calls[2]
    assert [event.call.id for event in store.mailboxes.summary(token)] == [call.id for call in calls]
    assert {event.call.body for event in store.mailboxes.summary(token)} == {b""}


def test_large_events_are_not_all_read_at_once(box):
    """Up to `MOST_WAITING_BYTES` and one more, however many are asked for; others when those are gone."""
    store, token = box
    calls = [call_of(token, bytes(MOST_WAITING_BYTES // 2)) for _ in range(5)]
    for call in calls:
        store.mailboxes.put(call)
    assert [event.call.id for event in store.mailboxes.waiting(token, 100)] == [call.id for call in calls[:2]]
    store.mailboxes.acknowledge(token, calls[0].id)
    assert [event.call.id for event in store.mailboxes.waiting(token, 100)] == [call.id for call in calls[1:3]]


def test_events_that_are_known_are_not_read_again(box):
    """Of those only the state is returned, so that a look for new events costs what is new."""
    store, token = box
    calls = [call_of(token, bytes([number]) * 1_500_000) for number in range(4)]
    for call in calls:
        store.mailboxes.put(call)
    known = {call.id for call in calls[:3]}
    read_before = read_bytes()
    found = store.mailboxes.waiting(token, 10, known)
    assert [event.call.id for event in found] == [call.id for call in calls]
    assert [event.call.body for event in found] == [b"", b"", b"", calls[3].body]
    assert read_bytes() - read_before < 2_000_000


def read_bytes():
    """Return how many bytes this process has read, from files and sockets."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def test_events_survive_the_process(box, reopen):
    """With their attempts and their state."""
    store, token = box
    calls = [call_of(token) for _ in range(3)]
    for call in calls:
        store.mailboxes.put(call)
    store.mailboxes.attempted(token, calls[0].id)
    store.mailboxes.dead_letter(token, calls[1].id)
    store.mailboxes.acknowledge(token, calls[2].id)
    store = reopen()
    assert [(e.call.id, e.attempts, e.is_dead_letter) for e in store.mailboxes.summary(token)] == [
        (calls[0].id, 1, False),
        (calls[1].id, 0, True),
    ]


def test_an_event_that_was_set_aside_can_be_sent_again(box):
    """In its old place, its attempts counted from the start."""
    store, token = box
    calls = [call_of(token) for _ in range(2)]
    for call in calls:
        store.mailboxes.put(call)
    store.mailboxes.attempted(token, calls[0].id)
    store.mailboxes.dead_letter(token, calls[0].id)
    assert [event.call for event in store.mailboxes.waiting(token, 5)] == calls[1:]
    store.mailboxes.redeliver(token, calls[0].id)
    waiting = store.mailboxes.waiting(token, 5)
    assert [(event.call, event.attempts) for event in waiting] == [(call, 0) for call in calls]


def test_events_are_found_by_their_own_token_only(box):
    """A request with another secret sees nothing."""
    store, token = box
    other = store.add(new_token(), 60, mailbox=True).token
    store.mailboxes.put(call := call_of(token))
    for ask in (store.mailboxes.find, store.mailboxes.redeliver, store.mailboxes.delete):
        with pytest.raises(UnknownEvent):
            ask(other, call.id)
    assert store.mailboxes.waiting(other, 5) == []
    for ask in (store.mailboxes.find, store.mailboxes.redeliver, store.mailboxes.delete):
        with pytest.raises(UnknownEvent):
            ask(token, "bytes")
    store.mailboxes.delete(token, call.id)
    with pytest.raises(UnknownEvent):
        store.mailboxes.find(token, call.id)
    assert bytes_in(store) == 0


@pytest.mark.parametrize(
    ("bounds", "error"),
    [({"max_events": 2}, MailboxFull), ({"max_bytes": 3000}, MailboxFull), ({"total_bytes": 3000}, MailboxesFull)],
)
def test_mailboxes_have_bounds(reopen, bounds, error):
    """What was kept stays; when it goes, there is room. The bounds hold after a restart."""
    store = reopen(**bounds)
    token = store.add(new_token(), 60, mailbox=True).token
    calls = [call_of(token, b"x" * 1000) for _ in range(3)]
    for call in calls[:2]:
        store.mailboxes.put(call)
    with pytest.raises(error):
        store.mailboxes.put(calls[2])
    store = reopen(**bounds)
    with pytest.raises(error):
        store.mailboxes.put(calls[2])
    assert [event.call for event in store.mailboxes.waiting(token, 5)] == calls[:2]
    store.mailboxes.acknowledge(token, calls[0].id)
    store.mailboxes.put(calls[2])


def test_large_mailboxes_leave_a_tenth_to_small_ones(reopen):
    """A few tokens do not fill all of it: one that holds up to 64 KB has room when no other has."""
    store = reopen(total_bytes=10 * SMALL_MAILBOX_BYTES)
    large, small = (store.add(new_token(), 60, mailbox=True).token for _ in range(2))
    with pytest.raises(MailboxesFull):
        for _ in range(10):
            store.mailboxes.put(call_of(large, bytes(SMALL_MAILBOX_BYTES)))
    assert 8 * SMALL_MAILBOX_BYTES < bytes_in(store) <= 9 * SMALL_MAILBOX_BYTES
    store.mailboxes.put(call_of(small, bytes(SMALL_MAILBOX_BYTES - 1000)))
    with pytest.raises(MailboxesFull):
        store.mailboxes.put(call_of(small, bytes(1000)))


def test_a_mailbox_ends_with_its_token(box, clock):
    """However that ends."""
    store, token = box
    removed = store.add(new_token(), 1000, mailbox=True).token
    for each in (token, removed):
        store.mailboxes.put(call_of(each))
    store.remove(removed)
    clock.now += 61
    assert store.pop_expired() == [token]
    assert store.mailboxes.summary(removed) == store.mailboxes.summary(token) == []
    assert bytes_in(store) == 0


def test_what_all_mailboxes_hold_is_known(box, reopen):
    """Events, bytes, and when the oldest that waits was received; the same after the process."""
    store, token = box
    calls = [replace(call_of(token, b"abc"), received_at=float(number)) for number in (1, 2, 3)]
    assert store.totals() == Totals(1)
    for call in calls:
        store.mailboxes.put(call)
    assert store.totals() == Totals(1, 3, bytes_in(store), 1.0)
    store.mailboxes.dead_letter(token, calls[0].id)
    assert store.totals().oldest_waiting_at == 2.0
    store = reopen()
    assert store.totals() == Totals(1, 3, bytes_in(store), 2.0)
    for call in calls:
        store.mailboxes.delete(token, call.id)
    assert store.totals() == Totals(1)


def test_many_dead_letters_cost_little(box):
    """Only so many are passed over to find the oldest event that waits: then a dead letter counts."""
    store, token = box
    calls = [replace(call_of(token, b""), received_at=float(number)) for number in range(MAX_DEAD_PASSED + 3)]
    for call in calls[:-1]:
        store.mailboxes.put(call)
        store.mailboxes.dead_letter(token, call.id)
    store.mailboxes.put(calls[-1])
    assert store.totals().oldest_waiting_at == MAX_DEAD_PASSED


def test_old_events_are_dropped(box):
    """By when they were received."""
    store, token = box
    for received_at in (1.0, 2.0, 3.0):
        store.mailboxes.put(call_of(token, received_at=received_at))
    assert store.mailboxes.drop_older(2.5) == 2
    assert [event.call.received_at for event in store.mailboxes.summary(token)] == [3.0]


def test_an_event_of_a_token_that_ended_is_not_kept(box):
    """It may have ended while the body came: the event could not be delivered."""
    store, token = box
    store.remove(token)
    with pytest.raises(UnknownToken):
        store.mailboxes.put(call_of(token))
    assert bytes_in(store) == 0


def test_a_store_is_a_module_and_a_line(monkeypatch, clock):
    """The URL of a kind in `STORES` opens the store of its module, in an application as well."""
    opened = []

    def open_store(settings, clock):
        opened.append(settings.store_url)
        return MemoryStore(clock)

    module = types.ModuleType("socket2me_flask.storage.shelf")
    module.open_store = open_store
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(
        config.STORES, "shelf", config.StoreKind("shelf", "shelf://name", lambda url: bool(url.netloc))
    )
    monkeypatch.setenv("SOCKET2ME_STORE_URL", "shelf://one")
    app = create_app(clock=clock)
    assert opened == ["shelf://one"]
    assert app.test_client().get("/v1/new").status_code == 200
    monkeypatch.setenv("SOCKET2ME_STORE_URL", "shelf:")
    with pytest.raises(ConfigError, match="is not accepted"):
        create_app(clock=clock)
