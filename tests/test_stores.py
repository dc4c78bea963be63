"""The contract of `TokenStore`, held against every store."""

import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from socket2me_flask.errors import (
    ConfigError,
    MailboxesFull,
    MailboxFull,
    StoreUnavailable,
    TooManyTokens,
    UnknownEvent,
    UnknownToken,
)
from socket2me_flask.messages import Call
from socket2me_flask.stores import MemoryStore, SQLiteStore, TokenRecord
from socket2me_flask.stores.worker import Worker
from socket2me_flask.tokens import new_token

from .live import ROOT


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request, clock):
    if request.param == "memory":
        yield partial(MemoryStore, clock)
    else:
        yield request.getfixturevalue("open_file")


@pytest.fixture
def open_file(tmp_path, clock):
    """Return what opens the same file again and again, as one relay after another does."""
    opened = []

    def open_file(**bounds):
        while opened:
            opened.pop().close()
        opened.append(SQLiteStore(str(tmp_path / "relay.db"), clock, **bounds))
        return opened[0]

    yield open_file
    while opened:
        opened.pop().close()


@pytest.fixture
def store(make_store):
    return make_store()


def test_a_token_lives_until_its_time_is_over(store, clock):
    """Expiry is checked on read, to the instant, and waits for no sweep."""
    token = new_token()
    assert not store.get(token)
    store.add(token, 60.5)
    clock.now += 60.4
    assert store.get(token)
    clock.now += 0.1
    assert not store.get(token)
    assert not store.refresh(token)


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
    """Lifetime, end, secret and mode, also after a refresh."""
    token = new_token()
    record = store.add(token, 60, secret_hash=b"hash", mode="reply")
    assert record == store.get(token) == TokenRecord(token, 60, clock.now + 60, b"hash", "reply")
    clock.now += 10
    assert store.refresh(token) == store.get(token) == TokenRecord(token, 60, clock.now + 60, b"hash", "reply")


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
    """Whether or not they were swept; the sweep still hears of them."""
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
    """A sweep of the memory store touches what expired and nothing else, however many tokens live."""

    class CountingBuckets(dict):
        popped = 0

        def pop(self, key):
            type(self).popped += 1
            return super().pop(key)

        def __iter__(self):
            raise AssertionError("a sweep walked over all buckets")

        keys = values = items = __iter__

    store = MemoryStore(clock)
    store._buckets = CountingBuckets()
    for number in range(10_000):
        store.add(new_token(), 1000 + number % 500)
    for _ in range(10):
        store.add(new_token(), 5)
    clock.now += 6
    assert len(store.pop_expired()) == 10
    assert CountingBuckets.popped == 1


def test_tokens_survive_the_process(open_file, clock):
    """As they were; what expired meanwhile is found by the next sweep, what was removed is gone."""
    store = open_file()
    record = store.add(new_token(), 60, secret_hash=b"hash", mode="ack", mailbox=True)
    short = store.add(new_token(), 10)
    gone = store.add(new_token(), 60)
    store.remove(gone.token)
    clock.now += 20
    record = store.refresh(record.token)
    store = open_file()
    assert store.get(record.token) == record
    assert store.get(short.token) is None
    assert store.get(gone.token) is None
    assert store.pop_expired() == [short.token]
    assert open_file().pop_expired() == []


def test_the_memory_store_keeps_no_mailboxes(clock):
    """An event that is answered 202 has to survive the process."""
    assert MemoryStore(clock).mailboxes is None


@pytest.fixture
def box(open_file):
    """A store with a token that has a mailbox, and the token."""
    store = open_file()
    return store, store.add(new_token(), 60, mailbox=True).token


def call_of(token, body=b"", received_at=1.0):
    return Call(token, "POST", "/a%20b", "q=1", {"x-a": "gr\xfc\xdfe"}, body, received_at, is_legacy=True)


def test_events_come_out_as_they_went_in(box):
    """In order, field by field, and whole again after the process."""
    store, token = box
    calls = [call_of(token, bytes([number, 0, 255])) for number in range(3)]
    for call in calls:
        store.put(call)
    waiting = store.waiting(token, 2)
    assert [event.call for event in waiting] == calls[:2]
    assert [(event.attempts, event.is_set_aside) for event in waiting] == [(0, False)] * 2
    assert store.find(token, calls[2].id).call == calls[2]
    assert [event.call.id for event in store.summary(token)] == [call.id for call in calls]
    assert {event.call.body for event in store.summary(token)} == {b""}


def test_events_survive_the_process(box, open_file):
    """With their attempts and their state."""
    store, token = box
    calls = [call_of(token) for _ in range(3)]
    for call in calls:
        store.put(call)
    store.attempted(calls[0].id)
    store.set_aside(calls[1].id)
    store.acknowledge(calls[2].id)
    store = open_file()
    assert [(e.call.id, e.attempts, e.is_set_aside) for e in store.summary(token)] == [
        (calls[0].id, 1, False),
        (calls[1].id, 0, True),
    ]


def test_an_event_that_was_set_aside_can_be_sent_again(box):
    """In its old place, its attempts counted from the start."""
    store, token = box
    calls = [call_of(token) for _ in range(2)]
    for call in calls:
        store.put(call)
    store.attempted(calls[0].id)
    store.set_aside(calls[0].id)
    assert [event.call for event in store.waiting(token, 5)] == calls[1:]
    store.redeliver(token, calls[0].id)
    assert [(event.call, event.attempts) for event in store.waiting(token, 5)] == [(call, 0) for call in calls]


def test_events_are_found_by_their_own_token_only(box):
    """Whoever has another secret sees nothing."""
    store, token = box
    other = store.add(new_token(), 60, mailbox=True).token
    store.put(call := call_of(token))
    for ask in (store.find, store.redeliver, store.delete):
        with pytest.raises(UnknownEvent):
            ask(other, call.id)
    assert store.waiting(other, 5) == []
    store.delete(token, call.id)
    with pytest.raises(UnknownEvent):
        store.find(token, call.id)


@pytest.mark.parametrize(
    ("bounds", "error"),
    [({"max_events": 2}, MailboxFull), ({"max_bytes": 2700}, MailboxFull), ({"total_bytes": 2700}, MailboxesFull)],
)
def test_mailboxes_have_bounds(open_file, bounds, error):
    """What was kept stays; when it goes, there is room. The bounds hold after a restart."""
    store = open_file(**bounds)
    token = store.add(new_token(), 60, mailbox=True).token
    calls = [call_of(token, b"x" * 1000) for _ in range(3)]
    for call in calls[:2]:
        store.put(call)
    with pytest.raises(error):
        store.put(calls[2])
    store = open_file(**bounds)
    with pytest.raises(error):
        store.put(calls[2])
    assert [event.call for event in store.waiting(token, 5)] == calls[:2]
    store.acknowledge(calls[0].id)
    store.put(calls[2])


def test_a_mailbox_ends_with_its_token(box, clock):
    """However that ends."""
    store, token = box
    removed = store.add(new_token(), 1000, mailbox=True).token
    for each in (token, removed):
        store.put(call_of(each))
    store.remove(removed)
    clock.now += 61
    assert store.pop_expired() == [token]
    assert store.summary(removed) == store.summary(token) == []
    assert (store._size, store._sizes) == (0, {})


def test_old_events_are_dropped(box):
    """By when they were received."""
    store, token = box
    for received_at in (1.0, 2.0, 3.0):
        store.put(call_of(token, received_at=received_at))
    assert store.drop_older(2.5) == 2
    assert [event.call.received_at for event in store.summary(token)] == [3.0]


def test_a_database_that_fails_says_so_and_recovers(box):
    """What could not be written was not accepted, and counts for nothing."""
    store, token = box
    store.put(call_of(token))
    (pages,) = store._do(lambda: store._database.execute("PRAGMA page_count").fetchone())
    store._do(lambda: store._database.execute(f"PRAGMA max_page_count = {pages + 5}").fetchone())
    refused = 0
    for _ in range(20):
        try:
            store.put(call_of(token, b"x" * 5000))
        except StoreUnavailable:
            refused += 1
    assert 0 < refused < 20
    with pytest.raises(StoreUnavailable):
        store.add(other := new_token(), 60, secret_hash=b"x" * 50_000)
    assert store.get(other) is None
    store._do(lambda: store._database.execute("PRAGMA max_page_count = 100000").fetchone())
    store.put(last := call_of(token))
    events = store.summary(token)
    assert len(events) == 22 - refused
    assert events[-1].call.id == last.id
    assert store._size == sum(event.size for event in events)


def test_a_file_is_one_processs(open_file, tmp_path):
    """A second relay on it would not see what the first changes: it does not start."""
    open_file()
    path = str(tmp_path / "relay.db")
    code = f"from socket2me_flask.stores import sqlite as s; s.LOCK_SECONDS = 0.1; s.SQLiteStore({path!r})"
    second = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "ConfigError: STORE_URL" in second.stderr
    assert "locked" in second.stderr


@pytest.mark.parametrize("content", [b"no database", None])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, clock, content):
    """With a reason, and left as it is."""
    path = tmp_path / "other.db"
    if content is None:
        other = sqlite3.connect(path)
        other.execute("PRAGMA user_version = 99")
        other.close()
    else:
        path.write_bytes(content * 1000)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="STORE_URL"):
        SQLiteStore(str(path), clock)
    assert path.read_bytes()[24:] == before[24:] or content is None


def test_nothing_is_asked_of_a_closed_store_in_vain(box):
    """Whoever is late hears of it, and does not wait for ever."""
    store, token = box
    store.close()
    with pytest.raises(StoreUnavailable):
        store.put(call_of(token))


def test_many_writers_share_commits(box):
    """What waits for the disk waits together, and each is in order with its own."""
    store, token = box
    commits = []
    commit = store._worker._work
    store._worker._work = lambda jobs: (commits.append(len(jobs)), time.sleep(0.01), commit(jobs))
    threads = [threading.Thread(target=store.put, args=[call_of(token)]) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.summary(token)) == 50
    assert len(commits) < 25


def test_an_event_of_a_token_that_ended_is_not_kept(box):
    """It may have ended while the body came: nobody would ever get it."""
    store, token = box
    store.remove(token)
    with pytest.raises(UnknownToken):
        store.put(call_of(token))
    assert store._size == 0


@pytest.mark.parametrize("change", ["remove", "refresh"])
def test_a_change_that_cannot_be_written_is_not_made(box, open_file, change, clock, monkeypatch):
    """What only memory knew would be undone by a restart: a deleted token would live again."""
    store, token = box
    before = store.get(token)
    clock.now += 10
    with monkeypatch.context() as patch:
        for write in ("_drop", "_write_token"):
            patch.setattr(store, write, lambda _: store._database.execute("nonsense"))
        with pytest.raises(StoreUnavailable):
            getattr(store, change)(token)
    assert store.get(token) == before
    assert getattr(store, change)(token)
    assert (open_file().get(token) is None) == (change == "remove")


def test_an_id_that_is_there_already_fails_alone(box):
    """What is written with it in one transaction is kept."""
    store, token = box
    call, other = call_of(token), call_of(token)
    store.put(call)
    jobs = [store._worker.submit(lambda each=each: store._put(each)) for each in (call, other)]
    with pytest.raises(StoreUnavailable):
        jobs[0].wait()
    jobs[1].wait()
    assert [event.call.id for event in store.summary(token)] == [call.id, other.id]


def test_the_file_is_for_nobody_else_to_read(box, tmp_path):
    """Bodies and headers of callers are in it."""
    store, token = box
    store.put(call_of(token))
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "relay.db": 0o600,
        "relay.db-wal": 0o600,
    }


def test_a_worker_outlives_whatever_happens_on_it(caplog):
    """Who waits hears of it, who listens is told on its own thread, and the next is done."""

    def work(jobs):
        for job in jobs:
            job.result = job.do()

    told = []
    worker = Worker(work, lambda error: told.append((error, threading.current_thread())))
    native = worker.submit(threading.current_thread).wait()
    error = ZeroDivisionError()
    with pytest.raises(StoreUnavailable):
        worker.submit(lambda: (_ for _ in ()).throw(error)).wait()
    assert worker.submit(lambda: 7).wait() == 7
    ((told_error, thread),) = told
    assert told_error is error
    assert thread is not native
    worker.stop()
