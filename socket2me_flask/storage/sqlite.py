"""Tokens and mailboxes in a file: they survive the process. Embedded, for one process.

Tokens are read from memory, as in the memory store, and written through, so a call without a mailbox costs what
it costs there. Mailboxes live in the file only.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from socket2me.inspector.history import Bounds

from ..config import Settings
from ..errors import RelayError, StoreUnavailable
from .memory import MemoryStore
from .record import TokenRecord, Totals, bounds_of, history_bounds_of
from .sqlite_database import Database
from .sqlite_history import SQLiteHistory
from .sqlite_mailboxes import SQLiteMailboxes


class SQLiteStore:
    """Keeps tokens and mailboxes in the file `path`, from `start` to `close`. `bounds` are those of the mailboxes.

    Where the disk is full, what writes raises `StoreUnavailable`, and the rest goes on. If the tokens cannot be
    read at the start for that reason, `get` raises `StoreUnavailable` until they are.
    """

    def __init__(
        self,
        path: str,
        clock: Callable[[], float] = time.time,
        *,
        max_tokens: int = 0,
        history_bounds: Bounds = Bounds(),  # noqa: B008  # it is frozen
        **bounds: int,
    ) -> None:
        self._clock = clock
        self._tokens = MemoryStore(clock, max_tokens=max_tokens)
        self._has_tokens = False  # whether those of the file have been read
        self.database = Database(path, self._load)
        self.mailboxes = SQLiteMailboxes(self.database, **bounds)
        self.history = SQLiteHistory(self.database, history_bounds)

    @property
    def damaged(self) -> int:
        return self.database.damaged

    def start(self) -> str:
        self.database.start()
        return f"the file {self.database.path}, with their mailboxes"

    def close(self) -> None:
        self.database.close()

    def ping(self) -> None:
        self.database.run(self.database.probe)

    def totals(self) -> Totals:
        mailboxes: Totals = self.database.run(self.mailboxes.totals)
        return replace(mailboxes, tokens=self._tokens.totals().tokens)

    def add(
        self,
        token: str,
        ttl_seconds: float,
        *,
        secret_hash: bytes | None = None,
        mode: str = "notify",
        mailbox: bool = False,
        inspect: bool = False,
        verify: str | None = None,
        listeners: str = "newest",
    ) -> TokenRecord:
        record = self._tokens.add(
            token,
            ttl_seconds,
            secret_hash=secret_hash,
            mode=mode,
            mailbox=mailbox,
            inspect=inspect,
            verify=verify,
            listeners=listeners,
        )
        try:
            self.database.run(partial(self._write, record))
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
        self.database.run(partial(self._write, replace(record, expires_at=self._clock() + record.ttl_seconds)))
        return self._tokens.refresh(token)

    def remove(self, token: str) -> bool:
        if self.get(token) is None:
            return False
        self.database.run(partial(self._drop, [token]))  # first: memory is filled from the file at the next start
        return self._tokens.remove(token)

    def pop_expired(self) -> list[str]:
        expired = self._tokens.pop_expired()
        if expired:
            self.database.submit(partial(self._drop, expired))
        return expired

    def _restore(self, records: Sequence[TokenRecord]) -> None:
        for record in records:
            self._tokens.restore(record)
        self._has_tokens = True

    # On the database's thread

    def _load(self) -> None:
        self.mailboxes.load()
        self.history.load()
        if not self._has_tokens:
            columns = "token, ttl_seconds, expires_at, secret_hash, mode, mailbox, inspect, verify, listeners"
            rows = self.database.execute(f"SELECT {columns} FROM tokens")  # noqa: S608
            self.database.report(partial(self._restore, list(map(_token, rows))))

    def _write(self, record: TokenRecord) -> None:
        row = (record.token, record.ttl_seconds, record.expires_at, record.secret_hash, record.mode, record.mailbox)
        self.database.execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, record.inspect, record.verify, record.listeners),
        )

    def _drop(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            self.database.execute("DELETE FROM tokens WHERE token = ?", (token,))
            self.mailboxes.drop_mailbox(token)
            self.history.end_history(token)


def _token(row: Sequence[Any]) -> TokenRecord:
    token, ttl_seconds, expires_at, secret_hash, mode, mailbox, inspect, *added = row
    return TokenRecord(token, ttl_seconds, expires_at, secret_hash, mode, bool(mailbox), bool(inspect), *added)


def open_store(settings: Settings, clock: Callable[[], float]) -> SQLiteStore:
    """Return the store in the file that the URL names. Without a fourth slash its path is a relative one."""
    path = unquote(urlsplit(settings.store_url).path[1:])
    return SQLiteStore(
        path,
        clock,
        max_tokens=settings.max_tokens,
        history_bounds=history_bounds_of(settings),
        **bounds_of(settings),
    )
