"""Tokens and mailboxes in a file: they survive the process. Embedded, for one process.

Tokens are read from memory, as in the memory store, and written through, so a call without a mailbox costs what
it costs there. Mailboxes live in the file only. What a method waits for is durable when it returns (WAL, and a
sync for each group of commits).
"""

import contextlib
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..answers import LOG_SECONDS
from ..errors import (
    ConfigError,
    MailboxesFull,
    MailboxFull,
    RelayError,
    StoreUnavailable,
    UnknownEvent,
    UnknownToken,
)
from ..messages import Call
from .jobs import Job
from .memory import MemoryStore
from .record import EVENT_BYTES, MOST_WAITING_BYTES, StoredEvent, TokenRecord, share_of
from .worker import Worker

log = logging.getLogger(__name__)

# How long to wait at the start for a process before this one to let the file go.
LOCK_SECONDS = 10

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    token TEXT PRIMARY KEY, ttl_seconds REAL NOT NULL, expires_at REAL NOT NULL, secret_hash BLOB,
    mode TEXT NOT NULL, mailbox INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, token TEXT NOT NULL,
    received_at REAL NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, query TEXT NOT NULL,
    headers TEXT NOT NULL, body BLOB NOT NULL, is_legacy INTEGER NOT NULL, size INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, is_set_aside INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS events_of_token ON events (token, is_set_aside, number);
CREATE INDEX IF NOT EXISTS events_by_age ON events (received_at);
"""
_SCHEMA_VERSION = 1
_EVENT = "id, token, received_at, method, path, query, headers, body, is_legacy, attempts, is_set_aside, size"
_WITHOUT_CONTENT = "id, token, received_at, '', '', '', '{}', x'', is_legacy, attempts, is_set_aside, size"


class SQLiteStore:
    """Keeps tokens and mailboxes in the file `path`.

    A mailbox has at most `max_events` and `max_bytes`, all together `total_bytes`. 0 is no bound.
    Raises `ConfigError` if the file cannot be opened, is none of this relay's, or is another process's.
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
        # Of the worker's thread, once it runs:
        self._sizes: dict[str, tuple[int, int]] = {}  # token -> events, bytes
        self._size = 0
        try:
            # Bodies and headers of callers are in it: for nobody else to read. SQLite makes its other files alike.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(
                path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"STORE_URL: {path!r} cannot be used: {error}.") from None
        self._failed_at = -math.inf
        self._worker = Worker(self._commit, self._on_failure)

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
        return self._tokens.get(token)

    peek = get

    def attach(self, token: str, client: str, mode: str) -> TokenRecord | None:
        return self._tokens.get(token)

    def detach(self, token: str, client: str) -> None:
        pass

    def refresh(self, token: str) -> TokenRecord | None:
        record = self._tokens.get(token)
        if record is None:
            return None
        renewed = replace(record, expires_at=self._clock() + record.ttl_seconds)
        self._do(lambda: self._write_token(renewed))
        return self._tokens.refresh(token)

    def remove(self, token: str) -> bool:
        if self._tokens.get(token) is None:
            return False
        self._do(lambda: self._drop([token]))  # first: what only memory has forgotten would come back
        return self._tokens.remove(token)

    def pop_expired(self) -> list[str]:
        expired = self._tokens.pop_expired()
        if expired:
            self._worker.submit(lambda: self._drop(expired))
        return expired

    def ping(self) -> None:
        self._do(lambda: self._database.execute("SELECT 1").fetchone())

    def start(self) -> str:
        return f"the file {self._path}, with their mailboxes"

    def close(self) -> None:
        self._worker.stop()
        self._database.close()

    # Mailboxes

    @property
    def mailboxes(self) -> "SQLiteStore":
        return self

    def put(self, call: Call) -> None:
        self._do(lambda: self._put(call))

    def waiting(self, token: str, limit: int) -> list[StoredEvent]:
        return list(self._do(lambda: self._waiting(token, limit)))

    def find(self, token: str, event_id: str) -> StoredEvent:
        found = self._do(lambda: self._select("token = ? AND id = ?", token, event_id))
        if not found:
            raise UnknownEvent
        event: StoredEvent = found[0]
        return event

    def summary(self, token: str) -> list[StoredEvent]:
        return list(self._do(lambda: self._select("token = ? ORDER BY number", token, columns=_WITHOUT_CONTENT)))

    def attempted(self, token: str, event_id: str) -> None:
        self._worker.submit(lambda: self._update("attempts = attempts + 1", event_id, token))

    def acknowledge(self, token: str, event_id: str) -> None:
        self._worker.submit(lambda: self._delete("id = ?", event_id))

    def set_aside(self, token: str, event_id: str) -> None:
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

    def _open(self) -> None:
        execute = self._database.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # what is read from memory must be nobody else's to change
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("BEGIN EXCLUSIVE")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version not in (0, _SCHEMA_VERSION):
            raise ConfigError(f"STORE_URL: {self._path!r} was written by another version of the relay.")
        for statement in _SCHEMA.split(";"):
            execute(statement)
        execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        execute("DELETE FROM events WHERE token NOT IN (SELECT token FROM tokens)")
        execute("COMMIT")
        self._measure()
        for row in execute("SELECT token, ttl_seconds, expires_at, secret_hash, mode, mailbox FROM tokens"):
            self._tokens.restore(TokenRecord(row[0], row[1], row[2], row[3], row[4], bool(row[5])))

    def _do(self, do: Callable[[], Any]) -> Any:
        return self._worker.submit(do).wait()

    def _on_failure(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._failed_at >= LOG_SECONDS:
            self._failed_at = now
            log.error("the database failed: %s", error)

    # On the worker's thread

    def _commit(self, jobs: Sequence[Job]) -> None:
        """Do all jobs in one transaction. If that fails, none was done."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for job in jobs:
                try:
                    job.result = job.what()
                except RelayError as error:  # it was raised before anything was written
                    job.error = error
                except sqlite3.IntegrityError:  # which undoes its statement only
                    job.error = StoreUnavailable()
            self._database.execute("COMMIT")
        except Exception:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            with contextlib.suppress(sqlite3.Error):
                self._measure()
            raise

    def _measure(self) -> None:
        counts = self._database.execute("SELECT token, count(*), sum(size) FROM events GROUP BY token")
        self._sizes = {token: (events, size) for token, events, size in counts}
        self._size = sum(size for _, size in self._sizes.values())

    def _write_token(self, record: TokenRecord) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
            (record.token, record.ttl_seconds, record.expires_at, record.secret_hash, record.mode, record.mailbox),
        )

    def _drop(self, tokens: list[str]) -> None:
        for token in tokens:
            self._database.execute("DELETE FROM tokens WHERE token = ?", (token,))
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
        inserted = self._database.execute(
            "INSERT INTO events (id, token, received_at, method, path, query, headers, body, is_legacy, size) "
            "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM tokens WHERE token = ?)",
            (*row, call.is_legacy, size, call.token),
        )
        if not inserted.rowcount:
            raise UnknownToken  # it ended while the body came
        self._count(call.token, 1, size)

    def _select(self, condition: str, *values: Any, columns: str = _EVENT) -> list[StoredEvent]:
        rows = self._database.execute(f"SELECT {columns} FROM events WHERE {condition}", values)  # noqa: S608
        return [_event(row) for row in rows]

    def _waiting(self, token: str, limit: int) -> list[StoredEvent]:
        """Return the oldest events, but no more than one beyond `MOST_WAITING_BYTES`: the rest is not read."""
        events: list[StoredEvent] = []
        left = MOST_WAITING_BYTES
        rows = self._database.execute(
            f"SELECT {_EVENT} FROM events WHERE token = ? AND NOT is_set_aside ORDER BY number LIMIT ?",  # noqa: S608
            (token, limit),
        )
        with contextlib.closing(rows):
            while left >= 0 and (row := rows.fetchone()) is not None:
                events.append(_event(row))
                left -= events[-1].size
        return events

    def _update(self, change: str, event_id: str, token: str) -> int:
        updated = self._database.execute(
            f"UPDATE events SET {change} WHERE id = ? AND token = ?",  # noqa: S608
            (event_id, token),
        )
        return updated.rowcount

    def _delete(self, condition: str, *values: Any) -> int:
        deleted = self._database.execute(f"DELETE FROM events WHERE {condition} RETURNING token, size", values)  # noqa: S608
        rows = deleted.fetchall()
        for token, size in rows:
            self._count(token, -1, -size)
        return len(rows)

    def _count(self, token: str, events: int, size: int) -> None:
        before_events, before_size = self._sizes.pop(token, (0, 0))
        if before_events + events:
            self._sizes[token] = (before_events + events, before_size + size)
        self._size += size


def _event(row: tuple[Any, ...]) -> StoredEvent:
    event_id, token, received_at, method, path, query, headers, body, is_legacy, *rest = row
    attempts, is_set_aside, size = rest
    call = Call(
        token, method, path, query, json.loads(headers), body, received_at, id=event_id, is_legacy=bool(is_legacy)
    )
    return StoredEvent(call, attempts, bool(is_set_aside), size)
