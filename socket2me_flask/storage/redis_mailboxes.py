"""Mailboxes in Redis. What it keeps of an event, and where, is at the top of `redis.lua`."""

from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

import msgspec

from ..cluster.redis_connection import RedisConnection
from ..errors import MailboxesFull, MailboxFull, TooManyListeners, UnknownEvent, UnknownToken
from ..relay.call import FIELDS, Call, call_from
from .record import (
    EVENT_BYTES,
    MAX_LISTENERS_PER_TOKEN,
    MOST_WAITING_BYTES,
    SMALL_MAILBOX_BYTES,
    Position,
    StoredEvent,
    call_without_content,
)

# No caller waits longer than this for the acknowledgement of a mailbox's client.
CALLER_WAITS_SECONDS = 3600

# How many tokens or events one script may drop: Redis does nothing else meanwhile.
MOST_DROPPED = 200

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any] | list[Any]).decode

# What is kept of a call beside its token, its id and its body, in the entry of the stream: `content` is a list of
# these, in this order, as the release before reads it; `more` has the other fields by name.
_CONTENT = ("method", "path", "query", "headers", "received_at", "is_legacy")
_MORE = tuple(name for name in FIELDS if name not in (*_CONTENT, "token", "id", "body"))


class RedisMailboxes:
    """Keeps events for processes of which this one is named `process`.

    A mailbox has at most `max_events` and `max_bytes`, all together `total_bytes`. 0 is no bound.
    """

    def __init__(
        self,
        connection: RedisConnection,
        process: str,
        *,
        max_events: int = 0,
        max_bytes: int = 0,
        total_bytes: int = 0,
    ) -> None:
        self._run = connection.run_script
        self._submit = connection.submit_script
        self._process = process
        self._bounds = (max_events, max_bytes, total_bytes)

    def put(self, call: Call) -> str | None:
        content = _encode([getattr(call, name) for name in _CONTENT])
        more = _encode({name: getattr(call, name) for name in _MORE})
        size = len(content) + len(more) + len(call.body) + EVENT_BYTES
        answer = self._run(
            "put",
            *(call.token, self._process, CALLER_WAITS_SECONDS * 1000, call.id, call.received_at, size),
            *(content, call.body, more, *self._bounds, SMALL_MAILBOX_BYTES),
        )
        if answer == b"unknown":
            raise UnknownToken
        if answer == b"full":
            raise MailboxFull
        if answer == b"all full":
            raise MailboxesFull
        return answer[0].decode() if answer else None

    def waiting(
        self, token: str, limit: int, known: Collection[str] = (), after: int | None = None
    ) -> list[StoredEvent]:
        first = "" if after is None else after
        rows = self._run("waiting", token, limit, MOST_WAITING_BYTES, " ".join(known), first)
        return [_event(token, row, number) for number, row in rows]

    def claim(self, token: str, limit: int, known: Collection[str]) -> list[StoredEvent]:
        rows = self._run("claim", token, self._process, limit, " ".join(known))
        return [_event(token, row, number) for number, row in rows]

    def release(self, token: str, event_id: str) -> None:
        self._submit("release", token, event_id, self._process)

    def find(self, token: str, event_id: str) -> StoredEvent:
        row = self._run("find", token, event_id)
        if row is None:
            raise UnknownEvent
        return _event(token, row)

    def summary(self, token: str) -> list[StoredEvent]:
        rows = self._run("summary", token)
        return [_event(token, row[:5]) for row in sorted(rows, key=lambda row: row[5])]

    def redeliver(self, token: str, event_id: str) -> None:
        if not self._run("redeliver", token, event_id, self._process):
            raise UnknownEvent

    def delete(self, token: str, event_id: str) -> None:
        if not self._run("delete", token, event_id, self._process):
            raise UnknownEvent

    def drop_older(self, received_before: float) -> int:
        dropped = 0
        while newly := self._run("drop_older", received_before, MOST_DROPPED):
            dropped += newly
        return dropped

    def attempted(self, token: str, event_id: str) -> None:
        self._submit("attempted", token, event_id)

    def acknowledge(self, token: str, event_id: str) -> None:
        self._submit("acknowledge", token, event_id)

    def dead_letter(self, token: str, event_id: str) -> None:
        self._submit("dead_letter", token, event_id)

    def number_of(self, token: str, event_id: str) -> int:
        number = self._run("number_of", token, event_id)
        if number is None:
            raise UnknownEvent
        return int(number)

    def register(self, token: str, listener: str, after: int | None = None) -> int:
        position = self._run("register", token, listener, MAX_LISTENERS_PER_TOKEN, "" if after is None else after)
        if position == b"full":
            raise TooManyListeners
        return int(position)

    def unregister(self, token: str, listener: str) -> None:
        self._submit("unregister", token, listener)

    def advance(self, token: str, listener: str, number: int) -> None:
        self._submit("advance", token, listener, number)

    def touch(self, token: str, positions: Mapping[str, int]) -> None:
        self._submit("touch", token, *chain.from_iterable(positions.items()))

    def seen(self, token: str, listener: str, seen_at: float) -> None:
        self._submit("seen", token, listener, seen_at)

    def fail(self, token: str, event_id: str) -> None:
        self._submit("fail", token, event_id)

    def positions(self, token: str) -> list[Position]:
        rows = self._run("positions", token)
        found = [
            Position(listener.decode(), at, float(seen_at), waiting) for listener, at, seen_at, waiting in rows
        ]
        return sorted(found, key=lambda position: position.seen_at)

    def drop_absent(self, seen_before: float) -> int:
        dropped = 0
        while newly := self._run("drop_absent", seen_before, MOST_DROPPED):
            dropped += newly
        return dropped


def _event(token: str, row: list[Any], number: int = 0) -> StoredEvent:
    event_id, attempts, is_dead_letter, size, received_at, *kept = row
    if not kept:
        call = call_without_content(token, event_id.decode(), float(received_at))
        return StoredEvent(call, attempts, is_dead_letter == 1, size, number)
    content, body, *more = kept
    values = _decode(content)
    if isinstance(values, list):
        values = dict(zip(_CONTENT, values, strict=False))
    for packed in more:
        values |= _decode(packed)
    call = call_from({**values, "token": token, "body": body, "id": event_id.decode()})
    return StoredEvent(call, attempts, is_dead_letter == 1, size, number)
