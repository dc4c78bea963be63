"""The store in a file: what only it can do, and what can befall it."""

import sqlite3
import subprocess
import sys
import threading
from functools import partial

import pytest

from socket2me_flask.errors import ConfigError, StoreUnavailable
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import SQLiteStore
from socket2me_flask.storage.sqlite_thread import Worker
from tests.support.fakes import call_of
from tests.support.servers import ROOT, wait_until


@pytest.fixture
def box(open_file):
    """A store with a token that has a mailbox, and the token."""
    store = open_file()
    return store, store.add(new_token(), 60, mailbox=True).token


def ask(store, statement):
    """Return the first row that a statement has in the store's own connection."""
    return store.database.run(lambda: store.database.execute(statement).fetchone())


def test_a_database_that_fails_says_so_and_recovers(box):
    """What could not be written was not accepted, and counts for nothing."""
    store, token = box
    store.mailboxes.put(call_of(token))
    (pages,) = ask(store, "PRAGMA page_count")
    ask(store, f"PRAGMA max_page_count = {pages + 5}")
    refused = 0
    for _ in range(20):
        try:
            store.mailboxes.put(call_of(token, b"x" * 5000))
        except StoreUnavailable:
            refused += 1
    assert 0 < refused < 20
    with pytest.raises(StoreUnavailable):
        store.add(other := new_token(), 60, secret_hash=b"x" * 50_000)
    assert store.get(other) is None
    ask(store, "PRAGMA max_page_count = 100000")
    store.mailboxes.put(last := call_of(token))
    events = store.mailboxes.summary(token)
    assert len(events) == 22 - refused
    assert events[-1].call.id == last.id
    assert store.mailboxes.size == sum(event.size for event in events)


def test_a_file_is_one_processs(open_file, tmp_path):
    """A second relay on it would not see what the first changes: it does not start."""
    open_file()
    path = str(tmp_path / "relay.db")
    code = (
        "from socket2me_flask.storage import SQLiteStore, sqlite_database as d; d.LOCK_SECONDS = 0.1; "
        f"SQLiteStore({path!r}).start()"
    )
    second = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "ConfigError: SOCKET2ME_STORE_URL" in second.stderr
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
        SQLiteStore(str(path), clock).start()
    assert path.read_bytes()[24:] == before[24:] or content is None


def test_nothing_is_asked_of_a_closed_store_in_vain(box):
    """A late job fails, and does not wait for ever."""
    store, token = box
    store.close()
    with pytest.raises(StoreUnavailable):
        store.mailboxes.put(call_of(token))


class Gate:
    """Holds up the database's thread, so that what is done meanwhile goes into one transaction."""

    def __init__(self, database, monkeypatch):
        self.waiting, self._threads, submit = [], [], database.submit
        self._open, is_closed = threading.Event(), threading.Event()
        monkeypatch.setattr(database, "submit", lambda job: (submit(job), self.waiting.append(job))[0])
        submit(lambda: (is_closed.set(), self._open.wait()))
        is_closed.wait()

    def start(self, do, *args):
        """Have a thread do something that waits for the database, and return when it waits."""
        thread, number = threading.Thread(target=do, args=args), len(self.waiting) + 1
        thread.start()
        self._threads.append(thread)
        wait_until(lambda: len(self.waiting) == number, "it waits")

    def open(self):
        self._open.set()
        for thread in self._threads:
            thread.join()


def test_many_writers_share_commits(box, tmp_path, monkeypatch):
    """What waits for the disk waits together, and each is in order with its own."""
    store, token = box
    other = sqlite3.connect(tmp_path / "relay.db", check_same_thread=False)
    count = partial(other.execute, "SELECT count(*) FROM events")
    gate = Gate(store.database, monkeypatch)
    calls = [call_of(token) for _ in range(50)]
    for call in calls:
        gate.start(store.mailboxes.put, call)
    committed_before_the_last = store.database.submit(lambda: count().fetchone())
    gate.open()
    assert committed_before_the_last.wait() == (0,)
    assert count().fetchone() == (50,)
    assert [event.call.id for event in store.mailboxes.summary(token)] == [call.id for call in calls]
    other.close()


@pytest.mark.parametrize("change", ["remove", "refresh"])
def test_a_change_that_cannot_be_written_is_not_made(box, open_file, change, clock):
    """What only memory knew would be undone by a restart: a deleted token would live again."""
    store, token = box
    before = store.get(token)
    clock.now += 10
    for event in ("INSERT", "DELETE"):
        ask(store, f"CREATE TRIGGER no_{event} BEFORE {event} ON tokens BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreUnavailable):
        getattr(store, change)(token)
    assert store.get(token) == before
    for event in ("INSERT", "DELETE"):
        ask(store, f"DROP TRIGGER no_{event}")
    assert getattr(store, change)(token)
    assert (open_file().get(token) is None) == (change == "remove")


def test_an_id_that_is_there_already_fails_alone(box, monkeypatch):
    """What is written with it in one transaction is kept."""
    store, token = box
    call, other, refused = call_of(token), call_of(token), []

    def put_again():
        with pytest.raises(StoreUnavailable):
            store.mailboxes.put(call)
        refused.append(call)

    store.mailboxes.put(call)
    gate = Gate(store.database, monkeypatch)
    gate.start(put_again)
    gate.start(store.mailboxes.put, other)
    gate.open()
    assert refused == [call]
    assert [event.call.id for event in store.mailboxes.summary(token)] == [call.id, other.id]


def test_no_other_user_can_read_the_file(box, tmp_path):
    """Bodies and headers of callers are in it."""
    store, token = box
    store.mailboxes.put(call_of(token))
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "relay.db": 0o600,
        "relay.db-shm": 0o600,
        "relay.db-wal": 0o600,
        "relay.db.lock": 0o600,
    }


def test_a_worker_outlives_whatever_happens_on_it():
    """A waiter receives the error, a callback is called on its own thread, and the next job is done."""

    def work(jobs):
        for job in jobs:
            job.result = job.what()

    told = []
    worker = Worker(work, lambda error: told.append((error, threading.current_thread())))
    with pytest.raises(StoreUnavailable):
        worker.submit(lambda: 1).wait()  # it has not begun
    worker.start()
    native = worker.submit(threading.current_thread).wait()
    error = ZeroDivisionError()
    with pytest.raises(StoreUnavailable):
        worker.submit(lambda: (_ for _ in ()).throw(error)).wait()
    assert worker.submit(lambda: 7).wait() == 7
    ((told_error, thread),) = told
    assert told_error is error
    assert thread is not native
    worker.stop()
