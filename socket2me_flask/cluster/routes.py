"""Which process has the client of a token: the cache of one process. It sends no commands.

Redis decides. A process caches the tokens whose clients it has itself: a script that changes such a token for
another process posts a message to it. Of other tokens it caches a route. If a cached route is stale, the target
answers `gone` and the route is refreshed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..storage.memory import MemoryStore
from ..storage.record import TokenRecord

# How many routes are cached. A call to any other token asks Redis.
MOST_ROUTES = 50_000


@dataclass(frozen=True, slots=True)
class Route:
    """The process that has the client of a token, another than this one. `mode` is that of the client."""

    record: TokenRecord
    process: str
    client: str
    mode: str


class Lookup:
    """Redis is being asked for a token. A context manager: the lookup is in progress while it is entered."""

    __slots__ = ("_lookups", "is_stale", "token")

    def __init__(self, lookups: "dict[str, list[Lookup]]", token: str) -> None:
        self._lookups = lookups
        self.token = token
        self.is_stale = False  # whether the token has changed since

    def __enter__(self) -> "Lookup":
        self._lookups.setdefault(self.token, []).append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        in_progress = self._lookups[self.token]
        in_progress.remove(self)
        if not in_progress:
            del self._lookups[self.token]


class Routes:
    """The tokens whose clients the process named `process` has, and routes to others."""

    def __init__(self, process: str, clock: Callable[[], float] = time.time) -> None:
        self._process = process
        self._clock = clock
        self._local = MemoryStore(clock)  # the tokens whose clients are here, as long as Redis keeps them
        self._remote: dict[str, Route] = {}
        self._lookups: dict[str, list[Lookup]] = {}  # by token
        self._groups: dict[str, tuple[str, ...]] = {}  # other processes with listeners, as they were found last

    def groups(self, token: str) -> tuple[str, ...]:
        """Return the other processes that had listeners of a token when it was looked up last."""
        return self._groups.get(token, ())

    def get(self, token: str) -> Route | None:
        """Return the route of a token whose client another process has."""
        return self._remote.get(token)

    def get_local(self, token: str) -> TokenRecord | None:
        """Return a token whose client is here."""
        return self._local.get(token)

    def get_cached(self, token: str) -> TokenRecord | None:
        """Return a token that may be called without asking Redis."""
        record = self._local.get(token)
        if record is not None:
            return record
        route = self._remote.get(token)
        # An event for a mailbox is kept by this process, which must be sure that the token lives.
        if route is None or route.record.mailbox or self._clock() >= route.record.expires_at:
            return None
        return route.record

    def has(self, token: str) -> bool:
        """Say whether it is known which process has the client of a token, and only that."""
        record = self._local.get(token)
        return (record is not None and record.listeners == "newest") or token in self._remote

    def refresh(self, token: str) -> None:
        """Let a token live on whose client is here: it was refreshed at another process."""
        self._local.refresh(token)

    def pop_expired(self) -> list[str]:
        """Remove and return the tokens whose clients are here and that have expired."""
        return self._local.pop_expired()

    def forget(self, token: str) -> None:
        """Cache nothing of a token any more: Redis is asked when it matters."""
        self._local.remove(token)
        self._remote.pop(token, None)
        self._groups.pop(token, None)

    def invalidate(self, token: str) -> None:
        """Cache nothing of a token, nor what lookups in progress find: it has changed."""
        for lookup in self._lookups.get(token, ()):
            lookup.is_stale = True
        self.forget(token)

    def invalidate_all(self) -> None:
        """Do so for every token: a message that says what has changed may have been missed."""
        for lookups in list(self._lookups.values()):
            for lookup in lookups:
                lookup.is_stale = True
        self._local = MemoryStore(self._clock)
        self._remote.clear()
        self._groups.clear()

    def look_up(self, token: str) -> Lookup:
        """Return a lookup, in which Redis is asked for a token and `learn` called with what it returns."""
        return Lookup(self._lookups, token)

    def learn(self, lookup: Lookup, found: list[Any] | None) -> TokenRecord | None:
        """Return the token that a script has found (`record` in `redis.lua`), and cache where its client is.

        If the token has changed since the lookup began, what was found may be older: then nothing is cached.
        """
        token = lookup.token
        self.forget(token)
        if not found:
            return None
        ttl, expires_at, secret_hash, mode, mailbox, process, client, client_mode, _, _, _, lives_ms, *added = found
        inspect, verify, listeners, groups = added
        record = TokenRecord(
            *(token, float(ttl), float(expires_at), secret_hash, mode.decode(), mailbox == b"1", inspect == b"1"),
            verify=verify.decode() if verify is not None else None,
            listeners=listeners.decode() if listeners is not None else "newest",
        )
        # Redis's clock decides when it expires, not this machine's.
        cached = replace(record, expires_at=self._clock() + lives_ms / 1000)
        if groups is not None:
            self._learn_groups(cached, [each.decode() for each in groups[::2]], is_stale=lookup.is_stale)
        if process is None or lookup.is_stale:
            return record
        if process.decode() == self._process:
            self._local.restore(cached)
            return record
        if len(self._remote) >= MOST_ROUTES:
            self._remote.clear()
        self._remote[token] = Route(cached, process.decode(), client.decode(), client_mode.decode())
        return record

    def _learn_groups(self, record: TokenRecord, processes: list[str], *, is_stale: bool) -> None:
        """Cache which processes have listeners of a token. A call asks again: others may have come."""
        if self._process in processes and not is_stale:
            self._local.restore(record)
        if len(self._groups) >= MOST_ROUTES:
            self._groups.clear()
        self._groups[record.token] = tuple(each for each in processes if each != self._process)
