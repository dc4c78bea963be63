"""Tokens and mailboxes in a file: they survive the process. Embedded, for one process.

Tokens are read from memory, as in the memory store, and written through, so a call without a mailbox costs what
it costs there. Mailboxes live in the file only. What a method waits for is durable when it returns (WAL, and a
sync for each group of commits). How the file is opened, `sqlite_file.py` says.
"""

import json
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..concurrency.future import Job
from ..errors import (
    ConfigError,
    MailboxesFull,
    MailboxFull,
    RelayError,
    StoreUnavailable,
    UnknownEvent,
    UnknownToken,
)
from ..http.answers import LOG_SECONDS
from ..relay.call import Call
from .memory import MemoryStore
from .record import EVENT_BYTES, MOST_WAITING_BYTES, StoredEvent, TokenRecord, share_of
from .sqlite_file import LOCK_SECONDS, FileLock, checkpoint, is_out_of_room, open_file, write_nothing
from .sqlite_thread import Worker

log = logging.getLogger(__name__)

# After so long without a write, all of the write-ahead log is brought into the file.
QUIET_SECONDS = 1

# How often a file that could not be written when it was opened is opened again.
REOPEN_SECONDS = 1

_STATE = "id, token, received_at, is_legacy, attempts, is_set_aside, size"
_CONTENT = "method, path, query, headers, body"
_NO_CONTENT = ("", "", "", "{}", b"")
_UNWRITABLE = "the database %s cannot be written; what needs it to be is answered 503 until there is room: %s"


class SQLiteStore:
    """Keeps tokens and mailboxes in the file `path`, from `start` to `close`.

    A mailbox has at most `max_events` and `max_bytes`, all together `total_bytes`. 0 is no bound.

    Where the disk is full, what writes raises `StoreUnavailable`, and the rest goes on. If the tokens cannot be
    read at the start for that reason, `get` raises `StoreUnavailable` until they are.
    """

    def __init__(
        self,
        path: str,
        clock: Callable[[], float] = time.time,
        *,
        max_tokens: int = 0,
        max_events: int = 0,
        max_bytes: int = 0,
        total_bytes: int = 0,
    ) -> None:
        self._path = path
        self._clock = clock
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._total_bytes = total_bytes
        self._tokens = MemoryStore(clock, max_tokens=max_tokens)
        self._has_tokens = False  # whether those of the file have been read
        self._lock = FileLock(path)
        self._failed_at = -math.inf
        self._worker = Worker(self._commit, self._on_failure, self._tidy)
        # Of the worker's thread, once it runs:
        self._database: sqlite3.Connection | None = None
        self._is_failing = False  # whether the last write failed
        self._has_probed = False  # whether the present transaction writes though it changes nothing
        self._reopen_at: float | None = None  # when to open the file again
        self._written_at: float | None = None  # when there was a write that is not in the file yet
        self._sizes: dict[str, tuple[int, int]] = {}  # token -> events, bytes
        self._size = 0
        self._changes: list[tuple[str, int, int]] = []  # what the present transaction did to these

    def start(self) -> str:
        """Open the file. Raises `ConfigError` if it cannot be opened, is no relay's, or is another relay's."""
        try:
            self._lock.acquire(LOCK_SECONDS)
            self._open()
        except (ConfigError, sqlite3.Error, OSError) as error:
            if isinstance(error, ConfigError) or not is_out_of_room(error, self._path):
                self._lock.release()
                raise ConfigError(f"SOCKET2ME_STORE_URL: {self._path!r} cannot be used: {error}.") from None
            self._is_failing, self._reopen_at = True, time.monotonic() + REOPEN_SECONDS
            log.error(_UNWRITABLE, self._path, error)
        self._worker.deliver_reports()
        self._worker.start()
        return f"the file {self._path}, with their mailboxes"

    def close(self) -> None:
        self._worker.stop()
        if self._database is not None:
            self._database.close()
            self._database = None
        self._lock.release()

    # Tokens

    def add(
        self,
        token: str,
        ttl_seconds: float,
        *,
        secret_hash: bytes | None = None,
        mode: str = "notify",
        mailbox: bool = False,
    ) -> TokenRecord:
        record = self._tokens.add(token, ttl_seconds, secret_hash=secret_hash, mode=mode, mailbox=mailbox)
        try:
            self._do(lambda: self._write_token(record))
        except RelayError:
            self._tokens.remove(token)
            raise
        return record

    def get(self, token: str) -> TokenRecord | None:
        record = self._tokens.get(token)
        if record is None and not self._has_tokens:
            raise StoreUnavailable
        return record

    get_cached = get

    def attach(self, token: str, client: str, mode: str) -> TokenRecord | None:
        return self.get(token)

    def detach(self, token: str, client: str) -> None:
        pass

    def refresh(self, token: str) -> TokenRecord | None:
        record = self.get(token)
        if record is None:
            return None
        renewed = replace(record, expires_at=self._clock() + record.ttl_seconds)
        self._do(lambda: self._write_token(renewed))
        return self._tokens.refresh(token)

    def remove(self, token: str) -> bool:
        if self.get(token) is None:
            return False
        self._do(lambda: self._drop([token]))  # first: what only memory has forgotten would come back
        return self._tokens.remove(token)

    def pop_expired(self) -> list[str]:
        expired = self._tokens.pop_expired()
        if expired:
            self._worker.submit(lambda: self._drop(expired))
        return expired

    def ping(self) -> None:
        self._do(self._probe)

    # Mailboxes

    @property
    def mailboxes(self) -> "SQLiteStore":
        return self

    def put(self, call: Call) -> None:
        self._do(lambda: self._put(call))

    def waiting(self, token: str, limit: int, known: Collection[str] = ()) -> list[StoredEvent]:
        return list(self._do(lambda: self._waiting(token, limit, known)))

    def find(self, token: str, event_id: str) -> StoredEvent:
        found = self._do(lambda: self._select(f"{_STATE}, {_CONTENT}", "token = ? AND id = ?", token, event_id))
        if not found:
            raise UnknownEvent
        event: StoredEvent = found[0]
        return event

    def summary(self, token: str) -> list[StoredEvent]:
        return list(self._do(lambda: self._select(_STATE, "token = ? ORDER BY number", token)))

    def attempted(self, token: str, event_id: str) -> None:
        self._worker.submit(lambda: self._update("attempts = attempts + 1", event_id, token))

    def acknowledge(self, token: str, event_id: str) -> None:
        self._worker.submit(lambda: self._delete("id = ?", event_id))

    def dead_letter(self, token: str, event_id: str) -> None:
        self._worker.submit(lambda: self._update("is_set_aside = 1", event_id, token))

    def redeliver(self, token: str, event_id: str) -> None:
        if not self._do(lambda: self._update("is_set_aside = 0, attempts = 0", event_id, token)):
            raise UnknownEvent

    def delete(self, token: str, event_id: str) -> None:
        if not self._do(lambda: self._delete("token = ? AND id = ?", token, event_id)):
            raise UnknownEvent

    def drop_older(self, received_before: float) -> int:
        dropped: int = self._do(lambda: self._delete("received_at < ?", received_before))
        return dropped

    def _do(self, do: Callable[[], Any]) -> Any:
        return self._worker.submit(do).wait()

    def _restore(self, records: Sequence[TokenRecord]) -> None:
        for record in records:
            self._tokens.restore(record)
        self._has_tokens = True

    def _on_failure(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._failed_at >= LOG_SECONDS and not isinstance(error, StoreUnavailable):
            self._failed_at = now
            log.error("the database failed: %s", error)

    # On the worker's thread, once it runs

    def _open(self) -> None:
        opened = open_file(self._path)
        self._database = opened.database
        report = self._worker.report
        for note in opened.notes:
            report(partial(log.warning, "%s", note))
        now = time.monotonic()
        if opened.is_writable:
            self._on_written()
            self._reopen_at = None
        else:
            if self._reopen_at is None:
                report(partial(log.error, _UNWRITABLE, self._path, "it was opened for reading"))
            self._is_failing, self._reopen_at = True, now + REOPEN_SECONDS
        counts = self._execute("SELECT token, count(*), sum(size) FROM events GROUP BY token")
        self._sizes = {token: (events, size) for token, events, size in counts}
        self._size = sum(size for _, size in self._sizes.values())
        if not self._has_tokens:
            rows = self._execute("SELECT token, ttl_seconds, expires_at, secret_hash, mode, mailbox FROM tokens")
            report(partial(self._restore, list(map(_token, rows))))

    def _reopen(self) -> None:
        """Open the file again, if there is room by now."""
        self._reopen_at = time.monotonic() + REOPEN_SECONDS
        try:
            if self._database is not None:
                self._transact([Job(self._probe)])
                self._database.close()
                self._database = None
            self._lock.acquire(0)
            self._open()
        except (ConfigError, sqlite3.Error, OSError) as error:
            self._worker.report(partial(self._on_failure, error))

    def _commit(self, jobs: Sequence[Job]) -> None:
        """Do all jobs in one transaction. If that fails, do each in one of its own: what only reads goes on."""
        if self._reopen_at is not None and time.monotonic() >= self._reopen_at:
            self._reopen()
        try:
            self._transact(jobs)
        except Exception:
            if len(jobs) == 1:
                raise
            for job in jobs:
                job.result = job.error = None
                try:
                    self._transact([job])
                except Exception as error:
                    job.error = StoreUnavailable()
                    self._worker.report(partial(self._on_failure, error))

    def _transact(self, jobs: Sequence[Job]) -> None:
        """Do all jobs in one transaction. If that fails, none was done."""
        database = self._database
        if database is None:
            raise StoreUnavailable
        changes_before, self._has_probed = database.total_changes, False
        try:
            database.execute("BEGIN IMMEDIATE")
            for job in jobs:
                try:
                    job.result = job.what()
                except RelayError as error:  # it was raised before anything was written
                    job.error = error
                except sqlite3.IntegrityError:  # which undoes its statement only
                    job.error = StoreUnavailable()
            database.execute("COMMIT")
        except Exception:
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            for token, events, size in self._changes:
                self._resize(token, -events, -size)
            self._changes.clear()
            self._is_failing = True
            raise
        self._changes.clear()
        if database.total_changes != changes_before or self._has_probed:
            self._on_written()

    def _on_written(self) -> None:
        self._written_at = time.monotonic()
        if self._is_failing:
            self._is_failing = False
            self._worker.report(partial(log.warning, "the database %s can be written again", self._path))

    def _tidy(self) -> float | None:
        """Bring the write-ahead log into the file when nothing was written for a while."""
        if self._written_at is None or self._database is None:
            return None
        left = self._written_at + QUIET_SECONDS - time.monotonic()
        if left > 0:
            return left
        try:
            if checkpoint(self._database):
                self._written_at = None
                return None
        except sqlite3.Error as error:
            self._worker.report(partial(self._on_failure, error))
        self._written_at = time.monotonic()
        return QUIET_SECONDS

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self._database is None:
            raise StoreUnavailable
        return self._database.execute(statement, values)

    def _probe(self) -> None:
        """Do nothing, if that can be done; once a write has failed, write nothing."""
        self._execute("SELECT 1")
        if self._is_failing and self._database is not None:
            write_nothing(self._database)
            self._has_probed = True

    def _write_token(self, record: TokenRecord) -> None:
        self._execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
            (record.token, record.ttl_seconds, record.expires_at, record.secret_hash, record.mode, record.mailbox),
        )

    def _drop(self, tokens: list[str]) -> None:
        for token in tokens:
            self._execute("DELETE FROM tokens WHERE token = ?", (token,))
            self._delete("token = ?", token)

    def _put(self, call: Call) -> None:
        headers = json.dumps(call.headers)
        size = len(call.path) + len(call.query) + len(headers) + len(call.body) + EVENT_BYTES
        events, of_token = self._sizes.get(call.token, (0, 0))
        if (self._max_events and events >= self._max_events) or (
            self._max_bytes and of_token + size > self._max_bytes
        ):
            raise MailboxFull
        if self._total_bytes and self._size + size > share_of(self._total_bytes, of_token + size):
            raise MailboxesFull
        row = (call.id, call.token, call.received_at, call.method, call.path, call.query, headers, call.body)
        inserted = self._execute(
            "INSERT INTO events (id, token, received_at, method, path, query, headers, body, is_legacy, size) "
            "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM tokens WHERE token = ?)",
            (*row, call.is_legacy, size, call.token),
        )
        if not inserted.rowcount:
            raise UnknownToken  # it ended while the body came
        self._count(call.token, 1, size)

    def _select(self, columns: str, condition: str, *values: Any) -> list[StoredEvent]:
        rows = self._execute(f"SELECT {columns} FROM events WHERE {condition}", values)  # noqa: S608
        return [_event(row) for row in rows]

    def _waiting(self, token: str, limit: int, known: Collection[str]) -> list[StoredEvent]:
        """Return the oldest events, but no more than one beyond `MOST_WAITING_BYTES`: the rest is not read."""
        events: list[StoredEvent] = []
        left = MOST_WAITING_BYTES
        rows = self._execute(
            f"SELECT {_STATE}, number FROM events WHERE token = ? AND NOT is_set_aside ORDER BY number LIMIT ?",  # noqa: S608
            (token, limit),
        )
        with closing(rows):
            while left >= 0 and (row := rows.fetchone()) is not None:
                *state, number = row
                if state[0] in known:
                    events.append(_event(state))
                    continue
                content = self._execute(f"SELECT {_CONTENT} FROM events WHERE number = ?", (number,)).fetchone()  # noqa: S608
                events.append(_event([*state, *content]))
                left -= events[-1].size
        return events

    def _update(self, change: str, event_id: str, token: str) -> int:
        updated = self._execute(
            f"UPDATE events SET {change} WHERE id = ? AND token = ?",  # noqa: S608
            (event_id, token),
        )
        return updated.rowcount

    def _delete(self, condition: str, *values: Any) -> int:
        deleted = self._execute(f"DELETE FROM events WHERE {condition} RETURNING token, size", values)  # noqa: S608
        rows = deleted.fetchall()
        for token, size in rows:
            self._count(token, -1, -size)
        return len(rows)

    def _count(self, token: str, events: int, size: int) -> None:
        self._changes.append((token, events, size))
        self._resize(token, events, size)

    def _resize(self, token: str, events: int, size: int) -> None:
        before_events, before_size = self._sizes.pop(token, (0, 0))
        if before_events + events:
            self._sizes[token] = (before_events + events, before_size + size)
        self._size += size


def _token(row: Sequence[Any]) -> TokenRecord:
    token, ttl_seconds, expires_at, secret_hash, mode, mailbox = row
    return TokenRecord(token, ttl_seconds, expires_at, secret_hash, mode, bool(mailbox))


def _event(row: Sequence[Any]) -> StoredEvent:
    event_id, token, received_at, is_legacy, attempts, is_dead_letter, size, *content = row
    method, path, query, headers, body = content or _NO_CONTENT
    call = Call(
        token, method, path, query, json.loads(headers), body, received_at, id=event_id, is_legacy=bool(is_legacy)
    )
    return StoredEvent(call, attempts, bool(is_dead_letter), size)
