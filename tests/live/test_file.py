"""The SQLite store's file under real relays: who opens it, full disks, damage, copies, and earlier versions."""

import contextlib
import json
import os
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import requests

from socket2me_flask.storage.sqlite_database import QUIET_SECONDS
from tests.support.delivery import Acknowledging, error_code, events
from tests.support.fakes import call_of
from tests.support.servers import (
    BIN,
    Previous,
    PythonListener,
    Server,
    command_for,
    run_to_end,
    wait_until,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def start(path, runner="gunicorn", server=Server, **settings):
    defaults = {"HOLD_SECONDS": 0, "REDELIVER_SECONDS": 1, "REAPER_INTERVAL_SECONDS": 0.2}
    return server(runner, STORE_URL=f"sqlite:///{path}", **defaults | settings)


def run(command, path, **environment):
    return run_to_end(command, **{"STORE_URL": f"sqlite:///{path}", **environment})


def is_ready(server):
    return requests.get(f"{server.url}/readyz", timeout=10).ok


def count(path, table="events"):
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608


# Who opens it


_IMPORT = f"{sys.executable} -c 'import threading, wsgi; assert threading.active_count() == 1'"


@pytest.mark.parametrize(
    ("command", "environment"),
    [("flask routes", {}), (_IMPORT, {}), (_IMPORT, {"STORE_URL": "redis://127.0.0.1:1/0"})],
    ids=["flask routes", "sqlite", "redis"],
)
def test_an_import_of_the_application_opens_no_file(command, environment, path):
    """Neither a file nor a thread is there after it, and no connection."""
    ended = run(command, path, RATE_LIMIT_NEW="60/minute", **environment)
    assert ended.returncode == 0, ended.stderr
    assert not list(path.parent.iterdir())


def test_flask_run_with_a_reloader_serves_and_reloads(path, tmp_path):
    """The parent opens no file, so that its child can; the next child has the tokens of the one before."""
    watched = tmp_path / "watched.txt"
    watched.touch()
    with start(path, "flask", FLASK_DEBUG=1, FLASK_RUN_EXTRA_FILES=watched) as server:
        token = server.new()
        assert server.log.count("tokens are kept in") == 1
        os.utime(watched, (1, 1))
        os.utime(watched, None)
        wait_until(lambda: server.log.count("tokens are kept in") == 2, "it has reloaded")
        wait_until(server.answers, "it serves")
        assert requests.get(f"{server.url}/v1/refresh/{token}", timeout=10).ok


@pytest.mark.parametrize("command", ["flask run", "flask run --debug", "gunicorn -k eventlet wsgi:app"])
def test_a_file_that_cannot_be_used_ends_the_start_with_one_line(command, path):
    """At the start, not at the first request, and once."""
    path.write_bytes(b"no database" * 1000)
    ended = run(command, path)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("socket2me: SOCKET2ME_STORE_URL")]
    assert len(lines) == 1, ended.stderr
    assert "file is not a database" in lines[0]
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (1 if "--debug" in command else 3)


def test_a_file_is_another_processs_to_read(path):
    """While the relay runs, SQLite's own tools read it, and a second relay is refused."""
    with start(path) as server:
        made = server.new_with_secret(mailbox=True)
        server.go(made["token"])
        assert count(path) == 1
        code = (
            f"from socket2me_flask.storage import SQLiteStore, sqlite_database as d; d.LOCK_SECONDS = 0; "
            f"SQLiteStore('{path}').start()"
        )
        second = run(f"{sys.executable} -c {shlex.quote(code)}", path)
        assert "another relay has it" in second.stderr
        assert server.go(made["token"]).status_code == 202


# Full disks


class Limited(Server):
    """A relay whose files cannot grow beyond some bytes, as on a disk that is full."""

    @staticmethod
    def command(runner, port):
        command, environment = command_for(runner, port)
        return ["prlimit", f"--fsize={Limited.most_bytes}:", *command], environment

    most_bytes = 4096

    def make_room(self):
        for process in (self.worker_pid, self.process.pid):
            _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
            resource.prlimit(process, resource.RLIMIT_FSIZE, (most, most))


needs_prlimit = pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit")


@needs_prlimit
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_disk_that_is_full_at_the_start_stops_what_writes(path, end):
    """Calls, clients and what is in a mailbox are served, new tokens and events are 503, until there is room."""
    with start(path) as server:
        made, token = server.new_with_secret(mailbox=True, mode="ack"), server.new()
        kept = [server.go(made["token"]).json()["id"] for _ in range(3)]
        server.stop(end)
    with start(path, server=Limited) as server:
        assert not is_ready(server)
        assert "cannot be written" in server.log
        with PythonListener(server, token) as client:
            client.expect("connect")
            assert server.go(token).text == "OK"
            assert client.expect("request")
        for answer in (requests.get(f"{server.url}/v1/new", timeout=5), server.go(made["token"])):
            assert (answer.status_code, error_code(answer)) == (503, "store_unavailable")
        assert events(server, made)["waiting"] == kept
        with Acknowledging(server, made["token"], secret=made["secret"]) as client:
            assert client.event()[1]["id"] == kept[0]
        server.make_room()
        wait_until(lambda: is_ready(server), "it is ready")
        kept.append(server.go(made["token"]).json()["id"])
        with Acknowledging(server, made["token"], secret=made["secret"]) as client:
            for event_id in kept:
                ack_id, request = client.event()
                assert request["id"] == event_id
                client.acknowledge(ack_id)
            wait_until(lambda: not events(server, made)["waiting"], "nothing waits")
        wait_until(lambda: "can be written again" in server.log, "the log says so")
        assert count(path, "tokens") == 2  # others can read it again
        assert "Traceback" not in server.log


def test_a_disk_that_fills_up_is_seen_at_readyz(path):
    """503 from the first write that fails until one succeeds; what only reads goes on."""
    with start(path) as server:
        made = server.new_with_secret(mailbox=True)
        kept = [server.go(made["token"]).json()["id"]]
        _, most = resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (4096, most))
        assert server.go(made["token"]).status_code == 503
        for _ in range(2):
            assert not is_ready(server)
            assert events(server, made)["waiting"] == kept
        resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (most, most))
        assert is_ready(server)
        kept.append(server.go(made["token"]).json()["id"])
        assert events(server, made)["waiting"] == kept
        wait_until(lambda: "can be written again" in server.log, "the log says so")
        assert server.log.count("the database failed") == 1


@needs_prlimit
def test_a_disk_that_is_full_before_there_is_a_file(path):
    """Nothing is known of any token then, so none is said to be gone; and there is a file when there is room."""
    with start(path, server=Limited) as server:
        assert not is_ready(server)
        for url in ("/v1/new", f"/v1/refresh/{'a' * 24}", f"/v1/go/{'a' * 24}"):
            answer = requests.get(f"{server.url}{url}", timeout=5)
            assert (answer.status_code, error_code(answer)) == (503, "store_unavailable")
        server.make_room()
        wait_until(lambda: is_ready(server), "it is ready")
        assert server.go("a" * 24).status_code == 404
        assert requests.get(f"{server.url}/v1/refresh/{server.new()}", timeout=5).ok
        assert "Traceback" not in server.log


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_without_a_free_block(small_disk):
    """As before, on a disk that is full indeed."""
    path = small_disk / "relay.db"
    with start(path) as server:
        made, token = server.new_with_secret(mailbox=True), server.new()
        kept = server.go(made["token"]).json()["id"]
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    with start(path) as server:
        assert not is_ready(server)
        assert requests.get(f"{server.url}/v1/new", timeout=5).status_code == 503
        assert server.go(token).status_code == 503  # no client is connected
        assert events(server, made)["waiting"] == [kept]
        ballast.unlink()
        wait_until(lambda: is_ready(server), "it is ready")
        assert server.go(made["token"]).status_code == 202
        assert "Traceback" not in server.log


# Damage


def damaged_copy(path, folder, number, damage):
    """Return a copy of the file of a relay that was killed after `number` events, and the token."""
    with start(path) as server:
        made = server.new_with_secret(mailbox=True)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM tokens").fetchall()  # so that nothing moves out of the log
            for _ in range(number):
                assert server.go(made["token"]).status_code == 202
            server.stop(signal.SIGKILL)
            copy = folder / "copy.db"
            shutil.copy(path, copy)
            wal = bytearray((path.parent / "relay.db-wal").read_bytes())
    damage(wal)
    (folder / "copy.db-wal").write_bytes(wal)
    return copy, made


def frames_that_end_transactions(wal):
    page_size = int.from_bytes(wal[8:12], "big")
    starts = range(32, len(wal) - page_size, 24 + page_size)
    return [start for start in starts if int.from_bytes(wal[start + 4 : start + 8], "big")]


def test_a_damaged_log_is_not_passed_over_in_silence(path, tmp_path):
    """The line says how many of the events that were accepted are not there, and keeps the log."""

    def damage(wal):
        wal[frames_that_end_transactions(wal)[-5] + 100] ^= 0xFF

    copy, made = damaged_copy(path, tmp_path, 20, damage)
    with start(copy, METRICS_KEY="key") as server:
        waiting = len(events(server, made)["waiting"])
        assert waiting == 15
        metrics = requests.get(f"{server.url}/metrics", headers={"Authorization": "Bearer key"}, timeout=5)
        assert "\nsocket2me_storage_damaged_total 1.0\n" in metrics.text
        assert "5 events that were accepted are not in the database" in server.log
        assert (tmp_path / "copy.db-wal.damaged").stat().st_size > 0
        assert server.go(made["token"]).status_code == 202
        server.stop(signal.SIGKILL)
    with start(copy) as server:
        assert "is damaged" not in server.log


def test_a_log_whose_first_bytes_are_damaged(path, tmp_path):
    """SQLite takes it for no log at all: then all that it held is missing."""

    def damage(wal):
        wal[20] ^= 0xFF

    copy, made = damaged_copy(path, tmp_path, 7, damage)
    with start(copy) as server:
        assert "7 events that were accepted are not in the database" in server.log


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_log_that_was_cut_off_by_a_kill_is_no_damage(path, tmp_path, cut):
    """A transaction that was not finished was not accepted: no line."""
    copy, made = damaged_copy(path, tmp_path, 5, lambda wal: wal.__delitem__(slice(len(wal) - cut, None)))
    with start(copy) as server:
        assert len(events(server, made)["waiting"]) == (5 if not cut else 4)
        assert "damaged" not in server.log


# Copies


def test_after_a_quiet_time_a_plain_copy_has_everything(path, tmp_path):
    """All of the log is in the file then."""
    with start(path) as server:
        made = server.new_with_secret(mailbox=True)
        for _ in range(5):
            server.go(made["token"])
        copy = tmp_path / "copy.db"

        def is_whole():
            shutil.copy(path, copy)
            try:
                return count(copy) == 5
            except sqlite3.Error:
                return False  # the tables were still in the log
            finally:
                for name in ("copy.db-wal", "copy.db-shm"):
                    (tmp_path / name).unlink(missing_ok=True)

        started = time.monotonic()
        wait_until(is_whole, "the file has everything")
        assert time.monotonic() - started < QUIET_SECONDS + 10


def backup(source, target, **environment):
    return run_to_end([BIN / "socket2me", "backup", source, target], **environment)


def test_a_backup_under_load_has_what_was_accepted_before(path, tmp_path):
    """The relay goes on, the copy is whole, and a relay that starts on it delivers what it has."""
    copy = tmp_path / "backup.db"
    with start(path, MAILBOX_MAX_EVENTS=0, MAILBOX_MAX_BYTES=0) as server:  # however long the backups take
        made = server.new_with_secret(mailbox=True)
        accepted, is_over = [], threading.Event()

        def put():
            while not is_over.is_set():
                answer = server.go(made["token"], data=os.urandom(5000))
                assert answer.status_code == 202
                accepted.append(answer.json()["id"])

        threads = [threading.Thread(target=put) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(accepted) >= 30, "events are accepted")
        for _ in range(3):
            before = set(accepted)
            ended = backup(path, copy)
            assert ended.returncode == 0, ended.stderr
            after = len(accepted)
        wait_until(lambda: len(accepted) >= after + 5, "more are accepted")
        is_over.set()
        for thread in threads:
            thread.join()
    assert copy.stat().st_mode & 0o777 == 0o600
    with contextlib.closing(sqlite3.connect(copy)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert before <= {row[0] for row in database.execute("SELECT id FROM events")}
    with start(copy) as server:
        assert before <= set(events(server, made)["waiting"])


def test_a_backup_of_a_relay_that_was_killed(path, tmp_path):
    """What is in the log only is in the copy, too; the file itself is left as it is."""
    with start(path) as server:
        made = server.new_with_secret(mailbox=True)
        server.go(made["token"])
        server.stop(signal.SIGKILL)
    wal = (path.parent / "relay.db-wal").read_bytes()
    ended = backup(path, tmp_path / "backup.db")
    assert "1 URL and 1 request" in ended.stdout
    assert count(tmp_path / "backup.db") == 1
    assert (path.parent / "relay.db-wal").read_bytes() == wal


def test_a_backup_that_cannot_be_made_says_why_in_one_line(path, tmp_path):
    """Nothing is left of it, and a copy that was there stays."""
    other = tmp_path / "other.db"
    other.write_bytes(b"no database" * 1000)
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as foreign:
        foreign.execute("CREATE TABLE a (b)")
    with start(path):
        pass
    kept = tmp_path / "kept.db"
    kept.write_bytes(b"an earlier copy")
    for source, target, reason in (
        (tmp_path / "none.db", kept, "there is no such file"),
        (other, kept, "not a database"),
        (tmp_path / "foreign.db", kept, "no relay's"),
        (path, path, "is the file itself"),
        (path, tmp_path / "no folder" / "backup.db", "No such file"),
    ):
        ended = backup(source, target)
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert reason in line
    assert kept.read_bytes() == b"an earlier copy"
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "none.db").exists()


# Earlier versions


_WRITE = """
import sys
from socket2me_flask.messages import Call
from socket2me_flask.stores.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
store.add("a" * 24, 86400, secret_hash=bytes(32), mode="ack", mailbox=True)
for number in range(5):
    call = Call("a" * 24, "POST", f"/{number}", "q=1", {"x": "y"}, b"z" * 10 ** number, 7.0, id=f"id-{number}")
    store.put(call)
store.acknowledge("a" * 24, "id-4")
store.attempted("a" * 24, "id-1")
store.set_aside("a" * 24, "id-2")
store.close()
"""


def test_a_file_of_the_previous_release_is_brought_up_to_date(path, previous):
    """Tokens and events are as they were, numbers go on where they were, and the file as it was is kept beside."""
    from socket2me_flask.storage import SQLiteStore

    subprocess.run([sys.executable, "-c", _WRITE, str(path)], cwd=previous, check=True)
    before = path.read_bytes()
    store = SQLiteStore(str(path), clock=time.time)
    store.start()
    assert store.get("a" * 24).mode == "ack"
    assert [(e.call.id, e.attempts, e.is_dead_letter) for e in store.mailboxes.summary("a" * 24)] == [
        ("id-0", 0, False),
        ("id-1", 1, False),
        ("id-2", 0, True),
        ("id-3", 0, False),
    ]
    event = store.mailboxes.find("a" * 24, "id-3")
    assert (event.call.path, event.call.headers, event.call.body) == ("/3", {"x": "y"}, b"z" * 1000)
    numbers = "SELECT name, seq FROM sqlite_sequence"
    sequence = store.database.run(lambda: store.database.execute(numbers).fetchall())
    assert sequence == [("events", 5)]
    schema = "SELECT name, sql FROM sqlite_master ORDER BY name"
    migrated = store.database.run(lambda: store.database.execute(schema).fetchall())
    store.close()
    fresh = SQLiteStore(str(path.parent / "fresh.db"))
    fresh.start()
    assert fresh.database.run(lambda: fresh.database.execute(schema).fetchall()) == migrated
    fresh.close()
    copy = path.parent / "relay.db.v1"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert count(copy) == 4
    assert copy.read_bytes()[100:] == before[100:]


def test_a_relay_of_the_previous_release_is_replaced_by_this_one(path, previous):
    """Its tokens and what waits for its clients are served; the log names the copy."""

    with start(path, server=partial(Previous, previous)) as server:
        made = server.new_with_secret(mailbox=True)
        kept = [server.go(made["token"]).json()["id"] for _ in range(3)]
        server.stop(signal.SIGKILL)
    with start(path) as server:
        assert events(server, made)["waiting"] == kept
        assert "relay.db.v1 is as it was" in server.log


_SCHEMA_2 = """
CREATE TABLE tokens (
    token TEXT PRIMARY KEY, ttl_seconds REAL NOT NULL, expires_at REAL NOT NULL, secret_hash BLOB,
    mode TEXT NOT NULL, mailbox INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, token TEXT NOT NULL,
    received_at REAL NOT NULL, size INTEGER NOT NULL, is_legacy INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, is_set_aside INTEGER NOT NULL DEFAULT 0,
    method TEXT NOT NULL, path TEXT NOT NULL, query TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX events_of_token ON events (token, is_set_aside, number);
CREATE INDEX events_by_age ON events (received_at);
PRAGMA user_version = 2;
"""


def test_a_file_whose_events_have_a_column_for_each_field_is_read(path):
    """Every field arrives as it was; those that the file has no place for have their defaults."""
    from socket2me_flask.relay.call import Call
    from socket2me_flask.storage import SQLiteStore

    headers, received_at = {"x": 'a"\xfc', "y": "1,2"}, 1764124866.1234567
    call = Call("a" * 24, "PUT", "/\u20ac", "q=%41", headers, b"\0\xff", received_at, "id-1", is_legacy=True)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executescript(_SCHEMA_2)
        database.execute("INSERT INTO tokens VALUES (?, 60, ?, NULL, 'ack', 1)", (call.token, time.time() + 60))
        row = (call.id, call.token, received_at, call.method, call.path, call.query, json.dumps(headers), call.body)
        database.execute(
            "INSERT INTO events (id, token, received_at, method, path, query, headers, body, is_legacy, size) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 7)",
            row,
        )
    store = SQLiteStore(str(path))
    store.start()
    assert [(event.call, event.size) for event in store.mailboxes.waiting(call.token, 5)] == [(call, 7)]
    store.close()
    assert (path.parent / "relay.db.v2").exists()


def test_a_field_that_a_later_version_adds_is_skipped(path):
    """It needs no other schema, so this version opens the file."""
    from socket2me_flask.storage import SQLiteStore

    store = SQLiteStore(str(path))
    store.start()
    store.add("a" * 24, 60, mode="ack", mailbox=True)
    store.mailboxes.put(call := call_of("a" * 24, b"body"))
    add = "UPDATE events SET content = json_set(content, '$.colour', 'blue')"
    store.database.run(lambda: store.database.execute(add))
    assert store.mailboxes.find(call.token, call.id).call == call
    store.close()


def test_an_update_that_fails_leaves_the_file_as_it_was(path, previous, monkeypatch):
    """The transaction is undone: the next start tries again."""
    from socket2me_flask.errors import ConfigError
    from socket2me_flask.storage import SQLiteStore, sqlite_file

    subprocess.run([sys.executable, "-c", _WRITE, str(path)], cwd=previous, check=True)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setitem(sqlite_file.MIGRATIONS, 1, sqlite_file.MIGRATIONS[1] + "; nonsense")
        with pytest.raises(ConfigError, match="nonsense"):
            SQLiteStore(str(path)).start()
    assert path.read_bytes() == before
    store = SQLiteStore(str(path))
    store.start()
    assert len(store.mailboxes.summary("a" * 24)) == 4
    store.close()
