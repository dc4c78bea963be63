"""The store in a file: what only it can do, and what can befall it."""

import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from socket2me_flask.errors import ConfigError, StoreUnavailable
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import SQLiteStore
from socket2me_flask.storage.sqlite_thread import Worker
from tests.support.fakes import call_of
from tests.support.servers import ROOT


@pytest.fixture
def box(open_file):
    """A store with a token that has a mailbox, and the token."""
    store = open_file()
    return store, store.add(new_token(), 60, mailbox=True).token


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
    code = f"from socket2me_flask.storage import sqlite as s; s.LOCK_SECONDS = 0.1; s.SQLiteStore({path!r}).start()"
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
        "relay.db-shm": 0o600,
        "relay.db-wal": 0o600,
        "relay.db.lock": 0o600,
    }


def test_a_worker_outlives_whatever_happens_on_it(caplog):
    """Who waits hears of it, who listens is told on its own thread, and the next is done."""

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
