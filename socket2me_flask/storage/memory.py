"""Tokens in this process's memory: gone with it, and fast. Short enough to be the specification."""

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any, Unpack

from socket2me.inspector.history import Bounds, MemoryHistory

from ..concurrency.native import native
from ..config import Settings
from ..errors import ConfigError, TooManyTokens
from .names import Claim, Names
from .only_process import OnlyProcess
from .record import TokenOptions, TokenRecord, Totals, history_bounds_of

# How many seconds without a bucket the heap may hold, beyond as many as there are buckets.
SPARE_SECONDS = 1000


class MemoryStore(OnlyProcess):
    """Keeps tokens in a dict, and in a bucket for each second in which some of them expire.

    `clock` returns seconds and never needs to be the real one. `max_tokens` of 0 is no bound.
    """

    mailboxes = None  # an event that is answered 202 has to survive the process
    damaged = 0

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        max_tokens: int = 0,
        name_grace_seconds: float = 0,
        history_bounds: Bounds = Bounds(),  # noqa: B008  # it is frozen
    ) -> None:
        self._clock = clock
        self._max_tokens = max_tokens
        self.history = MemoryHistory(history_bounds, native("threading").Lock())
        self._records: dict[str, TokenRecord] = {}
        self._buckets: dict[int, set[str]] = {}  # second -> what expires in the second before it
        self._seconds: list[int] = []  # a heap of the buckets' seconds, and of some that have no bucket any more
        self._expired: list[str] = []  # removed, and not popped yet
        self._lock = Lock()  # `flask run` serves with threads
        self.names = Names(clock, grace_seconds=name_grace_seconds, max_names=max_tokens)

    def add(self, token: str, ttl_seconds: float, **options: Unpack[TokenOptions]) -> TokenRecord:
        with self._lock:
            if self._max_tokens and len(self._records) >= self._max_tokens:
                self._sweep()
                if len(self._records) >= self._max_tokens:
                    raise TooManyTokens
            expires_at = self._clock() + ttl_seconds
            record = TokenRecord(token, ttl_seconds, expires_at, **options)
            self._keep(record)
            return record

    def claim(self, name: str, ttl_seconds: float, claim: Claim, **options: Any) -> tuple[TokenRecord, bool] | None:
        with self.names.lock:
            secret_hash = self.names.secret_for(name, claim)
            if secret_hash is None:
                return None
            record = self.get(name)
            if record is not None:
                return record, False
            self._discard(name)
            record = self.add(name, ttl_seconds, secret_hash=secret_hash, **options)
            self.names.hold(name, secret_hash, claim.owner, record.expires_at)
            return record, True

    def release(self, name: str, secret_hash: bytes | None = None) -> bool:
        with self.names.lock:
            if not self.names.is_held(name, secret_hash):
                return False
            if not self.remove(name):
                self.names.release(name)
            return True

    def restore(self, record: TokenRecord) -> None:
        """Keep a token that was issued before, whether or not it still lives, and however many there are."""
        with self._lock:
            if record.token in self._records:
                self._forget(self._records[record.token])
            self._keep(record)

    def get(self, token: str) -> TokenRecord | None:
        record = self._records.get(token)
        return record if record is not None and self._clock() < record.expires_at else None

    get_cached = get

    def refresh(self, token: str) -> TokenRecord | None:
        with self._lock:
            record = self.get(token)
            if record is None:
                return None
            self._forget(record)
            record = replace(record, expires_at=self._clock() + record.ttl_seconds)
            self._keep(record)
            self.names.extend(token, record.expires_at)
            return record

    def remove(self, token: str) -> bool:
        with self._lock:
            record = self.get(token)
            if record is None:
                return False
            self._forget(record)
            self.names.release(token)
            return True

    def pop_expired(self) -> list[str]:
        with self._lock:
            self._sweep()
            expired, self._expired = self._expired, []
        return expired

    def ping(self) -> None:
        pass

    def totals(self) -> Totals:
        return Totals(len(self._records))

    def start(self) -> str:
        return "this process's memory, and end with it"

    def close(self) -> None:
        pass

    def _sweep(self) -> None:
        now = self._clock()
        while self._seconds and self._seconds[0] <= now:
            for token in self._buckets.pop(heapq.heappop(self._seconds), ()):
                del self._records[token]
                self._expired.append(token)

    def _discard(self, token: str) -> None:
        """Forget a token that has expired, whether or not it was swept: it begins anew."""
        with self._lock:
            if token in self._records:
                self._forget(self._records[token])
            if token in self._expired:
                self._expired.remove(token)

    def _keep(self, record: TokenRecord) -> None:
        self._records[record.token] = record
        second = math.ceil(record.expires_at)
        if second not in self._buckets:
            self._buckets[second] = set()
            heapq.heappush(self._seconds, second)
            if len(self._seconds) > 2 * len(self._buckets) + SPARE_SECONDS:
                self._seconds = list(self._buckets)
                heapq.heapify(self._seconds)
        self._buckets[second].add(record.token)

    def _forget(self, record: TokenRecord) -> None:
        del self._records[record.token]
        second = math.ceil(record.expires_at)
        self._buckets[second].discard(record.token)
        if not self._buckets[second]:
            del self._buckets[second]


def open_store(settings: Settings, clock: Callable[[], float]) -> MemoryStore:
    """Return the store of this process."""
    return MemoryStore(
        clock,
        max_tokens=settings.max_tokens,
        name_grace_seconds=settings.name_grace_seconds,
        history_bounds=history_bounds_of(settings),
    )


def release_name(settings: Settings, name: str) -> bool:
    """Raise `ConfigError`: no other process reaches the names of one."""
    raise ConfigError(
        "The names of SOCKET2ME_STORE_URL=memory:// are in the relay's own process, and end with it: restart it."
    )
