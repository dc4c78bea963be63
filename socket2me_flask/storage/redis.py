"""Tokens, their clients' whereabouts and mailboxes in Redis: for several relays that work as one.

What must happen as one step is in `redis.lua`. A process remembers the tokens whose clients it has, and serves
their calls without asking: whatever changes such a token anywhere is said on this process's channel, in the same
step. For a call to any other token it remembers where the client was; that process knows whether it still is.

Durable is what Redis makes durable: docs/scaling.md.
"""

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
from limits.storage import RedisStorage

from ..cluster.bus import Bus
from ..cluster.redis_connection import RedisConnection
from ..errors import MailboxesFull, MailboxFull, StoreUnavailable, TooManyTokens, UnknownEvent, UnknownToken
from ..relay.call import Call
from .memory import MemoryStore
from .record import EVENT_BYTES, MOST_WAITING_BYTES, SMALL_MAILBOX_BYTES, Counts, StoredEvent, TokenRecord

log = logging.getLogger(__name__)

# How many tokens' whereabouts are remembered. A call to any other asks Redis.
MOST_ROUTES = 50_000

# No caller waits longer than this for what the client of a mailbox says.
CALLER_WAITS_SECONDS = 3600

# How many tokens or events one step may drop: Redis does nothing else meanwhile.
MOST_DROPPED = 200

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any] | list[Any]).decode

# What is kept of a call beside its body. It is written as the values in this order, as the release before reads it,
# and read so or by name. What is added is a field of its own of the stream's entry.
_CONTENT = ("method", "path", "query", "headers", "received_at", "is_legacy")


@dataclass(frozen=True, slots=True)
class Route:
    """Where the client of a token is: at another process. `mode` is what its callers hear when."""

    record: TokenRecord
    process: str
    client: str
    mode: str


class RedisStore:
    """Keeps all of it in the Redis at `url`, which many processes may share. Their names differ: `process`.

    A mailbox has at most `max_events` and `max_bytes`, all together `total_bytes`. 0 is no bound. `lease_seconds`
    is how long a process that is silent still has its clients.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.time,
        *,
        max_tokens: int = 0,
        max_events: int = 0,
        max_bytes: int = 0,
        total_bytes: int = 0,
        timeout_seconds: float = 2,
        lease_seconds: float = 10,
        verify_tls: bool = True,
        process: str,
    ) -> None:
        self._clock = clock
        self._max_tokens = max_tokens
        self._bounds = (max_events, max_bytes, total_bytes)
        self._timeout_seconds = timeout_seconds
        self.process = process
        self._near = MemoryStore(clock)  # the tokens whose clients this process has, as long as Redis keeps them
        self.routes: dict[str, Route] = {}
        self._questions: dict[str, list[_Question]] = {}  # by token: what is just being asked
        self._expired: list[str] = []  # taken out of `_near`, and not looked up yet
        self._connection = RedisConnection(url, timeout_seconds=timeout_seconds, verify_tls=verify_tls)
        self.bus = Bus(self._connection, self.process, lease_seconds=lease_seconds)

    def start(self) -> str:
        self._connection.start()
        self.bus.start(self._timeout_seconds)
        return f"Redis at {self._connection.address}, {self._state()}; this process is {self.process}"

    def _state(self) -> str:
        try:
            self.ping()
            info = self._connection.call("INFO").decode()
        except StoreUnavailable:
            return "which does not answer, and is tried again and again"
        found = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        policy = found.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            log.warning("maxmemory-policy is %s: when Redis is full it drops tokens and events", policy)
        persistence = "append-only file" if found.get("aof_enabled") == "1" else "no append-only file"
        return f"version {found.get('redis_version')}, {persistence}"

    def on_up(self, do: Callable[[], None]) -> None:
        """Have something done each time that Redis answers again."""
        self._connection.on_up = do

    def check_link(self) -> None:
        """Raise `StoreUnavailable` if Redis is known not to answer."""
        if not self._connection.is_up:
            raise StoreUnavailable

    def counters(self) -> RedisStorage:
        """Return where processes can count together."""
        return RedisStorage(
            "redis://", connection_pool=self._connection.pool, key_prefix="s2m:rate", wrap_exceptions=True
        )

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
        record = TokenRecord(token, ttl_seconds, self._clock() + ttl_seconds, secret_hash, mode, mailbox)
        fields: list[Any] = [
            "ttl",
            ttl_seconds,
            "expires_at",
            record.expires_at,
            "mode",
            mode,
            "mailbox",
            int(mailbox),
        ]
        if secret_hash is not None:
            fields += ["secret", secret_hash]
        if not self._connection.step("add", token, math.ceil(ttl_seconds * 1000), self._max_tokens, *fields):
            raise TooManyTokens
        return record

    def get(self, token: str) -> TokenRecord | None:
        record = self._near.get(token) if self.bus.is_in_sync else None
        return record or self._step("get", token)

    def get_cached(self, token: str) -> TokenRecord | None:
        self.bus.check()
        record = self._near.get(token)
        if record is not None:
            return record
        route = self.routes.get(token)
        # An event for a mailbox is kept by this process, which has to know that the token lives.
        if route is None or route.record.mailbox or self._clock() >= route.record.expires_at:
            return self.get(token)
        return route.record

    def is_remembered(self, token: str) -> bool:
        """Say whether calls to a token are served without asking Redis."""
        return self._near.get(token) is not None or token in self.routes

    def refresh(self, token: str) -> TokenRecord | None:
        record = self.get(token)
        if record is None:
            return None
        return self._step("refresh", token, self._clock() + record.ttl_seconds, self.process)

    def remove(self, token: str) -> bool:
        is_removed = bool(self._connection.step("remove", token, self.process))
        self.invalidate(token)
        return is_removed

    def pop_expired(self) -> list[str]:
        self._expired += self._near.pop_expired()
        expired = []
        try:
            while self._expired:
                token = self._expired[-1]
                # It may have been refreshed, and this process may have missed to hear of it.
                if self._step("get", token) is None:
                    self._connection.step("bury", token)
                    expired.append(token)
                self._expired.pop()
            while swept := self._connection.step("expired", MOST_DROPPED):
                for token in map(bytes.decode, swept):
                    self.forget(token)
                    expired.append(token)
        except StoreUnavailable:
            if not expired:
                raise  # else the rest is for the next sweep
        return expired

    def ping(self) -> None:
        self.bus.check()
        self._connection.call("PING")

    def close(self) -> None:
        self.bus.close()
        self._connection.close()

    # Clients

    def attach(self, token: str, client: str, mode: str) -> TokenRecord | None:
        self.bus.check()
        record = self._step("attach", token, self.process, client, mode, 1)
        if record is None or self.is_remembered(token):
            return record
        return self.get(token)  # there was news just now

    def attach_again(self, clients: list[tuple[str, str, str]]) -> list[bool | None]:
        """Say of tokens, clients and modes that they are still here, after this process may have missed something.

        Return of each True, False if another client has come meanwhile, None if the token has ended.
        """
        attach = partial(self._connection.submit_step, "attach")
        asked = [
            (self._ask(token), attach(token, self.process, client, mode, 0)) for token, client, mode in clients
        ]
        outcomes: list[bool | None] = []
        try:
            for question, job in asked:
                found = job.wait()
                if found == b"displaced":
                    outcomes.append(False)
                else:
                    outcomes.append(None if self._learn(question, found) is None else True)
        finally:
            for question, _ in asked:
                self._close(question)
        return outcomes

    def detach(self, token: str, client: str) -> None:
        self.invalidate(token)
        self._connection.submit_step("detach", token, self.process, client)

    def refreshed(self, token: str) -> None:
        """A token that this process remembers was refreshed elsewhere."""
        self._near.refresh(token)

    def invalidate(self, token: str) -> None:
        """Remember nothing of a token, nor what is just being asked of it: it has changed."""
        for question in self._questions.get(token, ()):
            question.is_stale = True
        self.forget(token)

    def invalidate_all(self) -> None:
        """Remember nothing of any token: something may have changed that this process has not heard of."""
        for questions in list(self._questions.values()):
            for question in questions:
                question.is_stale = True
        self._near = MemoryStore(self._clock)
        self.routes.clear()

    def forget(self, token: str) -> None:
        """Remember nothing of a token any more: ask when it matters."""
        self._near.remove(token)
        self.routes.pop(token, None)

    def refresh_route(self, token: str, route: Route, *, unless_alive: bool) -> TokenRecord | None:
        """Learn anew where a client is, as it is not where `route` says. Return None if the token has ended.

        With `unless_alive` it is still there if its process can be reached by now.
        """
        return self._step("detach", token, route.process, route.client, int(unless_alive))

    def watch(self, token: str, wait_seconds: float) -> TokenRecord | None:
        """Have this process told when a client comes; if there is one, learn where. None if the token has ended."""
        self.bus.check()
        return self._step("watch", token, self.process, math.ceil(wait_seconds * 1000))

    def count(self, token: str, counts: Counts) -> None:
        self._connection.submit_step(
            "count",
            token,
            counts.forwarded,
            counts.refused,
            "" if counts.last_request_at is None else counts.last_request_at,
        )

    def counts(self, token: str) -> Counts:
        found = self._connection.step("get", token)
        if not found:
            return Counts()
        return Counts(int(found[8] or 0), int(found[9] or 0), float(found[10]) if found[10] else None)

    # Mailboxes

    @property
    def mailboxes(self) -> "RedisStore":
        return self

    @property
    def size(self) -> int:
        return int(self._connection.call("GET", "s2m:bytes") or 0)

    def put(self, call: Call) -> str | None:
        content = _encode([getattr(call, name) for name in _CONTENT])
        size = len(content) + len(call.body) + EVENT_BYTES
        answer = self._connection.step(
            "put",
            *(call.token, self.process, CALLER_WAITS_SECONDS * 1000, call.id, call.received_at, size),
            *(content, call.body, *self._bounds, SMALL_MAILBOX_BYTES),
        )
        if answer == b"unknown":
            raise UnknownToken
        if answer == b"full":
            raise MailboxFull
        if answer == b"all full":
            raise MailboxesFull
        return answer[0].decode() if answer else None

    def waiting(self, token: str, limit: int, known: Collection[str] = ()) -> list[StoredEvent]:
        rows = self._connection.step("waiting", token, limit, MOST_WAITING_BYTES, " ".join(known))
        return [_event(token, row) for row in rows]

    def find(self, token: str, event_id: str) -> StoredEvent:
        row = self._connection.step("find", token, event_id)
        if row is None:
            raise UnknownEvent
        return _event(token, row)

    def summary(self, token: str) -> list[StoredEvent]:
        rows = self._connection.step("summary", token)
        return [_event(token, row[:5]) for row in sorted(rows, key=lambda row: row[5])]

    def redeliver(self, token: str, event_id: str) -> None:
        if not self._connection.step("redeliver", token, event_id, self.process):
            raise UnknownEvent

    def delete(self, token: str, event_id: str) -> None:
        if not self._connection.step("delete", token, event_id, self.process):
            raise UnknownEvent

    def drop_older(self, received_before: float) -> int:
        dropped = 0
        while newly := self._connection.step("drop_older", received_before, MOST_DROPPED):
            dropped += newly
        return dropped

    def attempted(self, token: str, event_id: str) -> None:
        self._connection.submit_step("attempted", token, event_id)

    def acknowledge(self, token: str, event_id: str) -> None:
        self._connection.submit_step("acknowledge", token, event_id)

    def dead_letter(self, token: str, event_id: str) -> None:
        self._connection.submit_step("set_aside", token, event_id)

    def _step(self, name: str, token: str, *args: Any) -> TokenRecord | None:
        """Carry out a step that returns the token, and learn from it."""
        question = self._ask(token)
        try:
            found = self._connection.step(name, token, *args)
        finally:
            self._close(question)
        return self._learn(question, found)

    def _ask(self, token: str) -> "_Question":
        question = _Question(token)
        self._questions.setdefault(token, []).append(question)
        return question

    def _close(self, question: "_Question") -> None:
        others = self._questions[question.token]
        others.remove(question)
        if not others:
            del self._questions[question.token]

    def _learn(self, question: "_Question", found: list[Any] | None) -> TokenRecord | None:
        """Return the token that a step has found, and remember where its client is.

        Unless there was news of the token meanwhile: what was found may be older than that.
        """
        token = question.token
        self.forget(token)
        if not found:
            return None
        ttl, expires_at, secret_hash, mode, mailbox, process, client, client_mode, *_, lives_ms = found
        record = TokenRecord(token, float(ttl), float(expires_at), secret_hash, mode.decode(), mailbox == b"1")
        if process is None or question.is_stale:
            return record
        # Redis's clock decides when it expires, not this machine's.
        remembered = replace(record, expires_at=self._clock() + lives_ms / 1000)
        if process.decode() == self.process:
            self._near.restore(remembered)
            return record
        if len(self.routes) >= MOST_ROUTES:
            self.routes.clear()
        self.routes[token] = Route(remembered, process.decode(), client.decode(), client_mode.decode())
        return record


class _Question:
    """What is just being asked of a token, and whether there is news since."""

    __slots__ = ("is_stale", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.is_stale = False


def _event(token: str, row: list[Any]) -> StoredEvent:
    event_id, attempts, is_dead_letter, size, received_at, *kept = row
    if kept:
        content = _decode(kept[0])
        values = content if isinstance(content, dict) else dict(zip(_CONTENT, content, strict=False))
        known = {name: values[name] for name in _CONTENT}
        call = Call(token=token, body=kept[1], id=event_id.decode(), **known)
    else:
        call = Call(token, "", "", "", {}, b"", float(received_at), event_id.decode())
    return StoredEvent(call, attempts, bool(is_dead_letter), size)
