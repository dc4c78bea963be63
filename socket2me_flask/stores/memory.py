"""Tokens in this process's memory: gone with it, and fast. Short enough to be the specification."""

import heapq
import math
import time
from collections.abc import Callable
from threading import Lock


class MemoryStore:
    """Keeps tokens in a dict, and in a bucket for each second in which some of them expire.

    `clock` returns seconds and never needs to be the real one.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lifetimes: dict[str, tuple[float, float]] = {}  # token -> (expires at, lives for)
        self._buckets: dict[int, set[str]] = {}  # second -> what expires in the second before it
        self._seconds: list[int] = []  # a heap of the buckets' seconds
        self._lock = Lock()  # `flask run` serves with threads

    def add(self, token: str, ttl_seconds: float) -> None:
        with self._lock:
            self._keep(token, ttl_seconds)

    def refresh(self, token: str) -> bool:
        with self._lock:
            if not self.is_live(token):
                return False
            expires_at, ttl_seconds = self._lifetimes[token]
            self._buckets[math.ceil(expires_at)].discard(token)
            self._keep(token, ttl_seconds)
            return True

    def is_live(self, token: str) -> bool:
        lifetime = self._lifetimes.get(token)
        return lifetime is not None and self._clock() < lifetime[0]

    def pop_expired(self) -> list[str]:
        now = self._clock()
        expired: list[str] = []
        with self._lock:
            while self._seconds and self._seconds[0] <= now:
                expired.extend(self._buckets.pop(heapq.heappop(self._seconds)))
            for token in expired:
                del self._lifetimes[token]
        return expired

    def ping(self) -> None:
        pass

    def _keep(self, token: str, ttl_seconds: float) -> None:
        expires_at = self._clock() + ttl_seconds
        self._lifetimes[token] = (expires_at, ttl_seconds)
        second = math.ceil(expires_at)
        if second not in self._buckets:
            self._buckets[second] = set()
            heapq.heappush(self._seconds, second)
        self._buckets[second].add(token)
