"""Rates: how often something may be done. Written as the `limits` library reads them, `60/minute`."""

import ipaddress
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from limits import RateLimitItem
from limits.errors import StorageError
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from .errors import StoreUnavailable, TooManyRequests

# How many keys a rate counts in memory, of some 150 bytes each. A peer that has more addresses than this has no
# bound anyway.
MAX_RATE_KEYS = 100_000


class Rate(Protocol):
    """A bound on how often something may be done for each key."""

    def hit(self, key: str) -> int | None:
        """Count one more. Return None if it may be done, else in how many seconds it may."""


def check_rate(rate: Rate, key: str, setting: str, message: str) -> None:
    """Count one more of what `rate` bounds, whose name is `setting`. Raises `TooManyRequests` with `message`."""
    retry_after_seconds = rate.hit(key)
    if retry_after_seconds is not None:
        raise TooManyRequests(setting, message, retry_after_seconds=retry_after_seconds)


def begin_one(at_once: "AtOnce", bounds: Mapping[str, int], setting: str, message: str) -> Callable[[], None]:
    """Begin one more of what `at_once` counts, and return what ends it. Raises `TooManyRequests` with `message`."""
    leave = at_once.enter(bounds)
    if leave is None:
        raise TooManyRequests(setting, message, retry_after_seconds=1)
    return leave


class NoRate:
    """No bound."""

    def hit(self, key: str) -> int | None:
        return None


class SharedRate:
    """A rate kept by the `limits` library where several processes count together.

    Not for its memory storage, of which each hit costs more the more keys there are.
    """

    def __init__(
        self,
        item: RateLimitItem,
        name: str,
        storage: Storage,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` raises `StoreUnavailable` if the storage is known not to answer."""
        self._item = item
        self._name = name
        self._check = check
        self._limiter = FixedWindowRateLimiter(storage)

    def hit(self, key: str) -> int | None:
        """As `Rate.hit`. Raises `StoreUnavailable`."""
        self._check()
        try:
            if self._limiter.hit(self._item, self._name, key):
                return None
            reset_at = self._limiter.get_window_stats(self._item, self._name, key).reset_time
        except StorageError:
            raise StoreUnavailable from None
        return max(1, math.ceil(reset_at - time.time()))


class NearRate:
    """A rate that one process counts as long as that process alone has the key, and all together otherwise."""

    def __init__(self, near: "FastRate", shared: SharedRate, is_near: Callable[[str], bool]) -> None:
        self._near = near
        self._shared = shared
        self._is_near = is_near

    def hit(self, key: str) -> int | None:
        """As `Rate.hit`. Raises `StoreUnavailable`."""
        return (self._near if self._is_near(key) else self._shared).hit(key)


class FastRate:
    """A rate kept in memory: fixed windows that start together, so that the counts of a whole one go at once.

    A window ends early when it has counted `MAX_RATE_KEYS` keys.
    """

    def __init__(self, item: RateLimitItem, clock: Callable[[], float] = time.monotonic) -> None:
        self._amount = item.amount
        self._seconds = item.get_expiry()
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._ends_at = 0.0

    def hit(self, key: str) -> int | None:
        now = self._clock()
        if now >= self._ends_at or len(self._counts) >= MAX_RATE_KEYS:
            self._counts = {}
            self._ends_at = now + self._seconds
        count = self._counts.get(key, 0)
        if count >= self._amount:
            return max(1, math.ceil(self._ends_at - now))
        self._counts[key] = count + 1
        return None


class Pool:
    """A bounded amount that many share. None may have more of it than it leaves free.

    The first one that takes what it may has half, and each further one half of what was left.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._of_key: dict[str, int] = {}

    def has_room(self, key: str, amount: int) -> bool:
        """Say whether so much more is free for `key`."""
        return self._of_key.get(key, 0) + amount <= self._total - self._used

    @property
    def used(self) -> int:
        """How much all have together."""
        return self._used

    def __len__(self) -> int:
        """Return how many have some of it."""
        return len(self._of_key)

    def take(self, key: str, amount: int) -> None:
        """Take what `has_room` said is free."""
        self._of_key[key] = self._of_key.get(key, 0) + amount
        self._used += amount

    def give_back(self, key: str, amount: int) -> None:
        """Give back what was taken. Less than nothing takes more, whether or not there is room."""
        self._used -= amount
        left = self._of_key.pop(key, 0) - amount
        if left:
            self._of_key[key] = left


class AtOnce:
    """Counts for each key how many of something go on at once."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()  # `flask run` serves with threads

    def enter(self, bounds: Mapping[str, int]) -> Callable[[], None] | None:
        """Begin one that counts for each key of `bounds`. Return what ends it, or None if a bound is reached."""
        with self._lock:
            if any(self._counts.get(key, 0) >= bound for key, bound in bounds.items()):
                return None
            for key in bounds:
                self._counts[key] = self._counts.get(key, 0) + 1
        return partial(self._leave, tuple(bounds))

    def _leave(self, keys: tuple[str, ...]) -> None:
        with self._lock:
            for key in keys:
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]


def address_key(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 that an IPv6 host has to itself.

    Some proxies write a port behind the address, and brackets around one of IPv6.
    """
    match = _WITH_PORT(address)
    if match is not None:
        address = match[1] or match[2]
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return address


_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d*)?|([\d.]+):\d*").fullmatch
