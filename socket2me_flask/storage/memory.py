"""Tokens in this process's memory: gone with it, and fast. Short enough to be the specification."""

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from socket2me.inspector.history import Bounds, MemoryHistory

from ..concurrency.native import native
from ..config import Settings
from ..errors import TooManyTokens
from .record import TokenRecord, Totals, history_bounds_of

# How many seconds without a bucket the heap may hold, beyond as many as there are buckets.
SPARE_SECONDS = 1000


class MemoryStore:
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
        with self._lock:
            if self._max_tokens and len(self._records) >= self._max_tokens:
                self._sweep()
                if len(self._records) >= self._max_tokens:
                    raise TooManyTokens
            expires_at = self._clock() + ttl_seconds
            record = TokenRecord(
                token, ttl_seconds, expires_at, secret_hash, mode, mailbox, inspect, verify, listeners
            )
            self._keep(record)
            return record

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
            return record

    def remove(self, token: str) -> bool:
        with self._lock:
            record = self.get(token)
            if record is None:
                return False
            self._forget(record)
            return True

    def pop_expired(self) -> list[str]:
        with self._lock:
            self._sweep()
            expired, self._expired = self._expired, []
        return expired

    def attach(self, token: str, client: str, mode: str) -> TokenRecord | None:
        return self.get(token)

    def detach(self, token: str, client: str) -> None:
        pass

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
    return MemoryStore(clock, max_tokens=settings.max_tokens, history_bounds=history_bounds_of(settings))
