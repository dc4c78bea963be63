"""Tokens in Redis, and which process has the client of each: for several relays that work as one.

What must be atomic is a script in `cluster/redis.lua`; what a process caches is in `cluster/routes.py`. Durable is
what Redis makes durable: docs/scaling.md.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Unpack

from limits.storage import RedisStorage

from socket2me.inspector.history import Bounds

from ..cluster.bus import Bus
from ..cluster.redis_connection import RedisConnection
from ..cluster.routes import Lookup, Route, Routes
from ..config import Settings
from ..errors import NameTaken, StoreUnavailable, TooManyListeners, TooManyNames, TooManyTokens
from ..relay.call import this_process
from ..relay.tokens import is_name
from .names import MAX_NAMES_PER_OWNER, Claim
from .record import (
    MAX_DEAD_PASSED,
    MAX_LISTENERS_PER_TOKEN,
    Counts,
    TokenOptions,
    TokenRecord,
    Totals,
    bounds_of,
    history_bounds_of,
)
from .redis_history import RedisHistory
from .redis_mailboxes import MOST_DROPPED, RedisMailboxes

log = logging.getLogger(__name__)


class RedisStore:
    """Keeps all of it in the Redis at `url`, which many processes may share. Their names differ: `process`.

    `lease_seconds` is how long a process that is silent still has its clients. `bounds` are those of the mailboxes.
    """

    damaged = 0  # Redis itself looks after that

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.time,
        *,
        max_tokens: int = 0,
        name_grace_seconds: float = 0,
        timeout_seconds: float = 2,
        lease_seconds: float = 10,
        verify_tls: bool = True,
        process: str,
        history_bounds: Bounds = Bounds(),  # noqa: B008  # it is frozen
        **bounds: int,
    ) -> None:
        self._clock = clock
        self._max_tokens = max_tokens
        self._name_grace_ms = math.ceil(name_grace_seconds * 1000)
        self._timeout_seconds = timeout_seconds
        self.process = process
        self.connection = RedisConnection(url, timeout_seconds=timeout_seconds, verify_tls=verify_tls)
        self.bus = Bus(self.connection, process, lease_seconds=lease_seconds)
        self.routes = Routes(process, clock)
        self.mailboxes = RedisMailboxes(self.connection, process, **bounds)
        self.history = RedisHistory(self.connection, process, history_bounds)
        self._expired: list[str] = []  # taken out of `routes`, and not looked up yet

    def start(self) -> str:
        self.connection.start()
        self.bus.start(self._timeout_seconds)
        return f"Redis at {self.connection.address}, {self._state()}; this process is {self.process}"

    def _state(self) -> str:
        try:
            self.ping()
            info = self.connection.call("INFO").decode()
        except StoreUnavailable:
            return "which does not answer, and is tried again and again"
        found = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        policy = found.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            log.warning("maxmemory-policy is %s: when Redis is full it drops tokens and events", policy)
        persistence = "append-only file" if found.get("aof_enabled") == "1" else "no append-only file"
        return f"version {found.get('redis_version')}, {persistence}"

    def ping(self) -> None:
        self.bus.check()
        self.connection.call("PING")

    def totals(self) -> Totals:
        tokens, events, size, oldest = self.connection.run_script("totals", MAX_DEAD_PASSED)
        return Totals(tokens, events, int(size or 0), float(oldest) if oldest else None)

    def close(self) -> None:
        self.bus.close()
        self.connection.close()

    def counters(self) -> RedisStorage:
        """Return where processes can count together."""
        return RedisStorage(
            "redis://", connection_pool=self.connection.pool, key_prefix="s2m:rate", wrap_exceptions=True
        )

    # Tokens

    def add(self, token: str, ttl_seconds: float, **options: Unpack[TokenOptions]) -> TokenRecord:
        record = TokenRecord(token, ttl_seconds, self._clock() + ttl_seconds, **options)
        ttl_ms = math.ceil(ttl_seconds * 1000)
        if not self.connection.run_script("add", token, ttl_ms, self._max_tokens, *_pairs(record)):
            raise TooManyTokens
        return record

    # Names

    def claim(self, name: str, ttl_seconds: float, claim: Claim, **options: Any) -> tuple[TokenRecord, bool] | None:
        record = TokenRecord(name, ttl_seconds, self._clock() + ttl_seconds, **options)
        with self.routes.look_up(name) as lookup:
            found = self.connection.run_script(
                "claim_name",
                *(name, self.process, math.ceil(ttl_seconds * 1000), self._max_tokens, self._name_grace_ms),
                *(claim.given_hash or "", claim.new_hash or "", claim.owner, MAX_NAMES_PER_OWNER),
                *_pairs(record),
            )
            if isinstance(found, list) and (live := self.routes.learn(lookup, found)) is not None:
                return live, False
        if found == b"taken":
            raise NameTaken
        if found == b"quota":
            raise TooManyNames
        if found == b"full":
            raise TooManyTokens
        secret_hash = {b"new": claim.new_hash, b"again": claim.given_hash}.get(found)
        return None if secret_hash is None else (replace(record, secret_hash=secret_hash), True)

    def release(self, name: str, secret_hash: bytes | None = None) -> bool:
        is_released = bool(self.connection.run_script("release_name", name, self.process, secret_hash or ""))
        self.routes.invalidate(name)
        return is_released

    # Tokens that live

    def get(self, token: str) -> TokenRecord | None:
        record = self.routes.get_local(token) if self.bus.is_in_sync else None
        return record or self._find("get", token)

    def get_cached(self, token: str) -> TokenRecord | None:
        self.bus.check()
        return self.routes.get_cached(token) or self.get(token)

    def refresh(self, token: str) -> TokenRecord | None:
        record = self.get(token)
        if record is None:
            return None
        return self._find("refresh", token, self._clock() + record.ttl_seconds, self.process)

    def remove(self, token: str) -> bool:
        is_removed = bool(self.connection.run_script("remove", token, self.process))
        self.routes.invalidate(token)
        return is_removed

    def pop_expired(self) -> list[str]:
        self._expired += self.routes.pop_expired()
        expired = []
        try:
            while self._expired:
                token = self._expired[-1]
                # It may have been refreshed, and this process may have missed the message.
                if self._find("get", token) is None:
                    self.connection.run_script("purge", token)
                    expired.append(token)
                elif is_name(token) and not self.routes.has(token):
                    expired.append(token)  # it was taken again meanwhile, and the client here is of before
                self._expired.pop()
            while swept := self.connection.run_script("expired", MOST_DROPPED):
                for token in map(bytes.decode, swept):
                    self.routes.forget(token)
                    expired.append(token)
        except StoreUnavailable:
            if not expired:
                raise  # else the rest is for the next sweep
        return expired

    def count(self, token: str, counts: Counts) -> None:
        """Add to what is counted of a token, soon."""
        last = "" if counts.last_request_at is None else counts.last_request_at
        self.connection.submit_script("count", token, counts.forwarded, counts.refused, last)

    def counts(self, token: str) -> Counts:
        """Return what all processes have counted of a token."""
        found = self.connection.run_script("get", token)
        if not found:
            return Counts()
        return Counts(int(found[8] or 0), int(found[9] or 0), float(found[10]) if found[10] else None)

    # Clients

    def attach(self, token: str, client: str, mode: str) -> TokenRecord | None:
        self.bus.check()
        record = self._find("attach", token, self.process, client, mode, 1)
        if record is None or record.listeners != "newest" or self.routes.has(token):
            return record
        return self.get(token)  # it has changed just now

    def attach_again(self, clients: list[tuple[str, str, str, bytes | None]]) -> list[bool | None]:
        """Attach clients that are still here, after this process may have missed something.

        Of each there is a token, an id, a mode and the hash of the secret that it gave. Return of each True, False
        if another client has come meanwhile, None if the token has ended, or the name is another's by now.
        """
        with ExitStack() as stack:
            attached = [
                (
                    stack.enter_context(self.routes.look_up(token)),
                    self.connection.submit_script("attach", token, self.process, client, mode, 0, secret or ""),
                )
                for token, client, mode, secret in clients
            ]
            return [self._outcome(lookup, job.wait()) for lookup, job in attached]

    def _outcome(self, lookup: Lookup, found: Any) -> bool | None:
        if found == b"replaced":
            return False
        return True if self.routes.learn(lookup, found) is not None else None

    def detach(self, token: str, client: str) -> None:
        self.routes.invalidate(token)
        self.connection.submit_script("detach", token, self.process, client)

    def join(self, token: str, listener: str) -> None:
        if self.connection.run_script("join", token, listener, self.process, MAX_LISTENERS_PER_TOKEN) == b"full":
            raise TooManyListeners

    def claim_listener(self, token: str, listener: str) -> bool:
        return bool(self.connection.run_script("claim_listener", token, listener, self.process))

    def leave(self, token: str, listener: str) -> None:
        self.connection.submit_script("leave", token, listener, self.process)

    def listeners_elsewhere(self, token: str) -> list[str]:
        found = self.connection.run_script("listeners_elsewhere", token, self.process)
        return [listener.decode() for listener in found]

    def has_listener(self, token: str, listener: str) -> bool:
        """Say whether a listener is the one of this process."""
        return bool(self.connection.run_script("place", token, listener) == self.process.encode())

    def groups(self, token: str) -> tuple[str, ...]:
        """Return the other processes that have listeners of a token."""
        self._find("get", token)
        return self.routes.groups(token)

    def forget_group(self, token: str, process: str) -> None:
        """Note that a process has no listeners of a token, unless it can be reached by now."""
        self._find("detach", token, process, "", 1)

    def refresh_route(self, token: str, route: Route, *, unless_alive: bool) -> TokenRecord | None:
        """Look up a client that is not where `route` points. Return None if the token has ended.

        With `unless_alive` it is still there if its process can be reached by now.
        """
        return self._find("detach", token, route.process, route.client, int(unless_alive))

    def watch(self, token: str, wait_seconds: float) -> TokenRecord | None:
        """Have this process notified when a client comes, or learn where one is. Return None if the token ended."""
        self.bus.check()
        return self._find("watch", token, self.process, math.ceil(wait_seconds * 1000))

    def _find(self, script: str, token: str, *args: Any) -> TokenRecord | None:
        """Run a script that returns a token, and cache where its client is."""
        with self.routes.look_up(token) as lookup:
            return self.routes.learn(lookup, self.connection.run_script(script, token, *args))


def _pairs(record: TokenRecord) -> Iterator[Any]:
    """Yield the fields of the hash of a token, each as its name and its value."""
    fields: dict[str, Any] = {
        "ttl": record.ttl_seconds,
        "expires_at": record.expires_at,
        "mode": record.mode,
        "mailbox": int(record.mailbox),
    }
    if record.inspect:
        fields["inspect"] = 1
    if record.secret_hash is not None:
        fields["secret"] = record.secret_hash
    if record.verify is not None:
        fields["verify"] = record.verify
    if record.listeners != "newest":
        fields["listeners"] = record.listeners
    for pair in fields.items():
        yield from pair


def open_store(settings: Settings, clock: Callable[[], float]) -> RedisStore:
    """Return this process's part of the store that the URL names."""
    return RedisStore(
        settings.store_url,
        clock,
        max_tokens=settings.max_tokens,
        name_grace_seconds=settings.name_grace_seconds,
        timeout_seconds=settings.store_timeout_seconds,
        lease_seconds=settings.lease_seconds,
        verify_tls=settings.redis_tls_verify,
        process=this_process(),
        history_bounds=history_bounds_of(settings),
        **bounds_of(settings),
    )


def release_name(settings: Settings, name: str) -> bool:
    """Release a name, at once. Return False if it is not held. Raises `StoreUnavailable`."""
    connection = RedisConnection(
        settings.store_url,
        timeout_seconds=settings.store_timeout_seconds,
        verify_tls=settings.redis_tls_verify,
    )
    connection.start()
    try:
        return bool(connection.run_script("release_name", name, "", ""))
    finally:
        connection.close()
