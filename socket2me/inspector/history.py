"""The history of requests by token: its contract, and the one in memory, short enough to be the specification.

A history is a log of changes. Each change of a token has a position, higher than those before: a request that came,
or an entry of a timeline. So a stream that was cut goes on after the last change that it has sent.

Knows tokens as names only: whether one lives, its owner says by `end`.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple, Protocol

from .errors import UnknownRequest
from .record import Entry, RequestRecord, Update, cost_of


@dataclass(frozen=True)
class Bounds:
    """How much is kept; 0 is no bound. The oldest requests are dropped first.

    max_requests, max_bytes: of one token.
    total_bytes: of all tokens. Above it a token drops its own oldest request if it has more bytes than the token
        of the oldest request of all, and more than one request; else that oldest of all is dropped.
    """

    max_requests: int = 0
    max_bytes: int = 0
    total_bytes: int = 0


class Change(NamedTuple):
    """A change of a history: an entry of the timeline of a request, or None for the request itself."""

    position: int
    record: RequestRecord
    entry: Entry | None


def changes_of(record: RequestRecord, last: int, entries: Sequence[Entry], after: int) -> list[Change]:
    """Return the changes after a position of entries that were written at once; `last` is the position of the last.

    If they are the first of their request, the first stands for the request itself.
    """
    first = last - len(entries) + 1
    return [
        Change(position, record, None if position == record.position else entry)
        for position, entry in enumerate(entries, first)
        if position > after
    ]


class Watch:
    """Waits for changes of one token. `close` ends it, from either side."""

    def __init__(self, watches: "Watches", token: str) -> None:
        self._watches = watches
        self._token = token
        self._has_changed = threading.Event()
        self.is_closed = False

    def wait(self, seconds: float) -> bool:
        """Return whether there was a change since the last wait, or is one in that time; also when it is closed."""
        self._watches.renew(self._token)
        has_changed = self._has_changed.wait(seconds)
        self._has_changed.clear()
        return has_changed

    def notify(self) -> None:
        """Say that there was a change."""
        self._has_changed.set()

    def close(self) -> None:
        """Wait no more."""
        self.is_closed = True
        self._watches.discard(self._token, self)
        self._has_changed.set()


class Watches:
    """Who waits in this process for changes of which token."""

    def __init__(self) -> None:
        self._of_token: dict[str, list[Watch]] = {}

    def __contains__(self, token: str) -> bool:
        return token in self._of_token

    def tokens(self) -> list[str]:
        """Return the tokens that are watched."""
        return list(self._of_token)

    def watch(self, token: str) -> Watch:
        """Return what waits for changes of a token."""
        watch = Watch(self, token)
        self._of_token[token] = [*self._of_token.get(token, ()), watch]
        self.renew(token)
        return watch

    def renew(self, token: str) -> None:
        """Called at the start of each watch and of each wait, for a history that notifies only who asks for it."""

    def notify(self, token: str) -> None:
        """Say that a token's history has changed."""
        for watch in self._of_token.get(token, ()):
            watch.notify()

    def end(self, token: str) -> None:
        """Close whatever watches a token."""
        for watch in self._of_token.get(token, ()):
            watch.close()

    def discard(self, token: str, watch: Watch) -> None:
        """Forget one that was closed."""
        left = [each for each in self._of_token.get(token, ()) if each is not watch]
        if left:
            self._of_token[token] = left
        else:
            self._of_token.pop(token, None)


class History(Protocol):
    """The contract of every history; `tests/unit/test_histories.py` holds each to it.

    watches: is notified of each change.
    lost: how many writes of this process failed.

    `add` and `update` raise nothing: a call does not fail because its history could not be kept. They may return
    before it is kept; what this process reads afterwards has it. The others may raise an error of the store.
    """

    watches: Watches
    lost: int

    @property
    def dropped(self) -> int:
        """How many requests were dropped for a bound by this process."""

    def add(self, token: str, record: RequestRecord) -> None:
        """Keep a request, with what is in its timeline, and drop the oldest ones that are beyond a bound."""

    def update(self, token: str, request_id: str, update: Update) -> None:
        """Keep what has become of a request, if that is kept."""

    def find(self, token: str, request_id: str) -> RequestRecord:
        """Return a request. Raises `UnknownRequest`."""

    def records(
        self, token: str, *, before: str | None = None, oldest_first: bool = False, with_bodies: bool = False
    ) -> Iterator[RequestRecord]:
        """Return the requests one by one, newest first; `before` is the id of one, which is left out with all
        newer ones. Raises `UnknownRequest` at once if that is not kept.

        `timeline` may be empty, and so may `body` and `response` without bodies.
        """

    def position(self, token: str, request_id: str | None = None) -> int:
        """Return the position of the last change, or of a request. Raises `UnknownRequest`."""

    def changes(
        self, token: str, after: int, limit: int, *, with_bodies: bool = False
    ) -> tuple[list[Change], int] | None:
        """Return the changes after a position, in order, and the position to go on from.

        About `limit` of them are returned. None if a request that came after the position was dropped for a bound.
        """

    def dropped_of(self, token: str) -> int:
        """Return how many requests of a token were dropped for a bound, as far as this process knows."""

    def delete(self, token: str, request_id: str | None = None) -> None:
        """Drop a request, or all of a token. Raises `UnknownRequest`."""

    def end(self, token: str) -> None:
        """Drop all of a token that does not live any more, and close what watches it."""

    def drop_older(self, received_before: float) -> int:
        """Drop the requests that were received before then, seconds since the epoch. Return how many there were."""


@dataclass(slots=True)
class _Log:
    """The history of one token.

    writes: of each add and update the position of its last change, the request and the entries. Some may be of
        requests that were dropped, `stale` of them.
    floor: the position of the latest request that was dropped for a bound.
    """

    token: str
    records: "OrderedDict[str, RequestRecord]" = field(default_factory=OrderedDict)
    writes: deque[tuple[int, RequestRecord, Sequence[Entry]]] = field(default_factory=deque)
    position: int = 0
    floor: int = 0
    dropped: int = 0
    stale: int = 0
    bytes: int = 0


# How many writes of dropped requests a log may hold beyond half as many as it has in all.
SPARE_WRITES = 200


class MemoryHistory:
    """Keeps the history in this process's memory, within `bounds`.

    `lock` is held around each step, in which nothing waits.
    """

    def __init__(self, bounds: Bounds, lock: Any = None) -> None:
        self._bounds = bounds
        self._lock = lock or threading.Lock()
        self._logs: dict[str, _Log] = {}
        self._order: OrderedDict[str, _Log] = OrderedDict()  # by request, oldest first
        self.watches = Watches()
        self.dropped = self.lost = 0
        self.bytes = 0

    def add(self, token: str, record: RequestRecord) -> None:
        bounds = self._bounds
        with self._lock:
            log = self._logs.get(token)
            if log is None:
                log = self._logs[token] = _Log(token)
            record.position = log.position + 1
            record.counted = record.cost()
            log.records[record.id] = record
            self._order[record.id] = log
            self._append(log, record, record.timeline)
            self._count(log, record.counted)
            if bounds.max_requests and len(log.records) > bounds.max_requests:
                self._drop_oldest(log)
            self._keep_within(log)
        self.watches.notify(token)

    def update(self, token: str, request_id: str, update: Update) -> None:
        with self._lock:
            log = self._logs.get(token)
            record = log.records.get(request_id) if log is not None else None
            if log is None or record is None:
                return
            record.apply(update)
            self._append(log, record, update.entries)
            cost = cost_of(update)
            record.counted += cost
            self._count(log, cost)
            self._keep_within(log)
        self.watches.notify(token)

    def find(self, token: str, request_id: str) -> RequestRecord:
        log = self._logs.get(token)
        record = log.records.get(request_id) if log is not None else None
        if record is None:
            raise UnknownRequest
        return record

    def records(
        self, token: str, *, before: str | None = None, oldest_first: bool = False, with_bodies: bool = False
    ) -> Iterator[RequestRecord]:
        before_position = None if before is None else self.find(token, before).position
        with self._lock:
            log = self._logs.get(token)
            found = [] if log is None else list(log.records.values())
        if before_position is not None:
            found = [record for record in found if record.position < before_position]
        return iter(found if oldest_first else reversed(found))

    def position(self, token: str, request_id: str | None = None) -> int:
        if request_id is not None:
            return self.find(token, request_id).position
        log = self._logs.get(token)
        return 0 if log is None else log.position

    def changes(
        self, token: str, after: int, limit: int, *, with_bodies: bool = False
    ) -> tuple[list[Change], int] | None:
        with self._lock:
            log = self._logs.get(token)
            if log is None:
                return [], after
            if after < log.floor:
                return None
            newer = list(takewhile(lambda write: write[0] > after, reversed(log.writes)))
            found: list[Change] = []
            start = after
            while newer and len(found) < limit:
                last, record, entries = newer.pop()
                if record.id in log.records:
                    found += changes_of(record, last, entries, start)
                after = last
            return found, after

    def dropped_of(self, token: str) -> int:
        log = self._logs.get(token)
        return 0 if log is None else log.dropped

    def delete(self, token: str, request_id: str | None = None) -> None:
        with self._lock:
            if request_id is not None:
                self.find(token, request_id)
                self._drop(self._logs[token], request_id)
            elif token in self._logs:
                self._clear(self._logs[token])

    def end(self, token: str) -> None:
        with self._lock:
            log = self._logs.pop(token, None)
            if log is not None:
                self._clear(log)
        self.watches.end(token)

    def drop_older(self, received_before: float) -> int:
        dropped = 0
        with self._lock:
            while self._order:
                request_id, log = next(iter(self._order.items()))
                if log.records[request_id].received_at >= received_before:
                    break
                self._drop_oldest(log)
                dropped += 1
        return dropped

    def _append(self, log: _Log, record: RequestRecord, entries: Sequence[Entry]) -> None:
        log.position += len(entries)
        log.writes.append((log.position, record, entries))
        record.writes += 1

    def _count(self, log: _Log, cost: int) -> None:
        log.bytes += cost
        self.bytes += cost

    def _keep_within(self, log: _Log) -> None:
        bounds = self._bounds
        while bounds.max_bytes and log.bytes > bounds.max_bytes and log.records:
            self._drop_oldest(log)
        while bounds.total_bytes and self.bytes > bounds.total_bytes and self._order:
            other = next(iter(self._order.values()))
            self._drop_oldest(log if log.bytes > other.bytes and len(log.records) > 1 else other)

    def _drop_oldest(self, log: _Log) -> None:
        request_id, record = next(iter(log.records.items()))
        log.floor = max(log.floor, record.position)
        self._drop(log, request_id)
        log.dropped += 1
        self.dropped += 1

    def _drop(self, log: _Log, request_id: str) -> None:
        record = log.records.pop(request_id)
        del self._order[request_id]
        self._count(log, -record.counted)
        log.stale += record.writes
        writes = log.writes
        while writes and writes[0][1].id not in log.records:
            writes.popleft()
            log.stale -= 1
        if log.stale > SPARE_WRITES + len(writes) // 2:
            log.writes = deque(write for write in writes if write[1].id in log.records)
            log.stale = 0

    def _clear(self, log: _Log) -> None:
        for request_id in log.records:
            del self._order[request_id]
        self._count(log, -log.bytes)
        log.records.clear()
        log.writes.clear()
        log.stale = 0
