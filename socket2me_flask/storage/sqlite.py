"""Tokens and mailboxes in a file: they survive the process. Embedded, for one process.

Tokens are read from memory, as in the memory store, and written through, so a call without a mailbox costs what
it costs there. Mailboxes live in the file only.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack
from urllib.parse import unquote, urlsplit

from socket2me.inspector.history import Bounds

from ..config import Settings
from ..errors import RelayError, StoreUnavailable
from ..relay.tokens import is_name
from .memory import MemoryStore
from .names import Claim, Hold
from .only_process import OnlyProcess
from .record import TokenOptions, TokenRecord, Totals, bounds_of, history_bounds_of
from .sqlite_database import Database
from .sqlite_history import SQLiteHistory
from .sqlite_mailboxes import SQLiteMailboxes
from .sqlite_names import SQLiteNames, mark_released


class SQLiteStore(OnlyProcess):
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
        name_grace_seconds: float = 0,
        history_bounds: Bounds = Bounds(),  # noqa: B008  # it is frozen
        **bounds: int,
    ) -> None:
        self._clock = clock
        self._tokens = MemoryStore(clock, max_tokens=max_tokens, name_grace_seconds=name_grace_seconds)
        self._has_tokens = False  # whether those of the file have been read
        self.database = Database(path, self._load)
        self.mailboxes = SQLiteMailboxes(self.database, **bounds)
        self.history = SQLiteHistory(self.database, history_bounds)
        self._names = SQLiteNames(self.database, grace_seconds=name_grace_seconds)

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

    def add(self, token: str, ttl_seconds: float, **options: Unpack[TokenOptions]) -> TokenRecord:
        record = self._tokens.add(token, ttl_seconds, **options)
        try:
            self.database.run(partial(self._write, record))
        except RelayError:
            self._tokens.remove(token)
            raise
        return record

    def claim(self, name: str, ttl_seconds: float, claim: Claim, **options: Any) -> tuple[TokenRecord, bool] | None:
        self.get(name)  # raises while the names of the file have not been read
        names = self._tokens.names
        before = names.get(name)
        found = self._tokens.claim(name, ttl_seconds, claim, **options)
        hold = names.get(name)
        if found is None or not found[1] or hold is None:
            return found
        try:
            self.database.run(partial(self._write_claimed, found[0], hold, is_anew=before is None))
        except RelayError:
            self._tokens.remove(name)
            if before is not None:
                names.restore(before)
            raise
        return found

    def release(self, name: str, secret_hash: bytes | None = None) -> bool:
        self.get(name)  # raises while the names of the file have not been read
        if not self._tokens.names.is_held(name, secret_hash):
            return False
        self.database.run(partial(self._drop_with_name, name))
        return self._tokens.release(name, secret_hash)

    def get(self, token: str) -> TokenRecord | None:
        record = self._tokens.get(token)
        if record is None and not self._has_tokens:
            raise StoreUnavailable
        return record

    get_cached = get

    def refresh(self, token: str) -> TokenRecord | None:
        record = self.get(token)
        if record is None:
            return None
        self.database.run(partial(self._write, replace(record, expires_at=self._clock() + record.ttl_seconds)))
        return self._tokens.refresh(token)

    def remove(self, token: str) -> bool:
        if self.get(token) is None:
            return False
        self.database.run(
            partial(self._drop_with_name, token)
        )  # first: memory is filled from the file at the start
        return self._tokens.remove(token)

    def pop_expired(self) -> list[str]:
        expired = self._tokens.pop_expired()
        if expired:
            self.database.submit(partial(self._drop, expired))
        return expired + self._released()

    def _released(self) -> list[str]:
        """Release the names that the operator has released in the file. Return them."""
        if not self._tokens.names:
            return []
        try:
            names: list[str] = self.database.run(partial(self._names.tidy, self._clock()))
            return [name for name in names if self.release(name)]
        except RelayError:
            return []  # the next sweep does it

    def _restore(self, records: Sequence[TokenRecord], holds: Sequence[Hold]) -> None:
        for record in records:
            self._tokens.restore(record)
        for hold in holds:
            self._tokens.names.restore(hold)
        self._has_tokens = True

    # On the database's thread

    def _load(self) -> None:
        self.mailboxes.load()
        self.history.load()
        if not self._has_tokens:
            columns = "token, ttl_seconds, expires_at, secret_hash, mode, mailbox, inspect, verify, listeners"
            rows = self.database.execute(f"SELECT {columns} FROM tokens")  # noqa: S608
            self.database.report(partial(self._restore, list(map(_token, rows)), self._names.load()))

    def _write(self, record: TokenRecord) -> None:
        row = (record.token, record.ttl_seconds, record.expires_at, record.secret_hash, record.mode, record.mailbox)
        self.database.execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, record.inspect, record.verify, record.listeners),
        )
        if is_name(record.token):
            self._names.extend(record.token, record.expires_at)

    def _write_claimed(self, record: TokenRecord, hold: Hold, *, is_anew: bool) -> None:
        if is_anew:  # an earlier owner may have left a mailbox that was not swept yet
            self._drop([record.token])
        self._write(record)
        self._names.write(hold)

    def _drop_with_name(self, token: str) -> None:
        self._drop([token])
        if is_name(token):
            self._names.delete(token)

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
    return SQLiteStore(
        _path(settings),
        clock,
        max_tokens=settings.max_tokens,
        name_grace_seconds=settings.name_grace_seconds,
        history_bounds=history_bounds_of(settings),
        **bounds_of(settings),
    )


def release_name(settings: Settings, name: str) -> bool:
    """Have the relay that has the file release a name with its next sweep. Return False if it is not held."""
    return mark_released(_path(settings), name)


def _path(settings: Settings) -> str:
    return unquote(urlsplit(settings.store_url).path[1:])
