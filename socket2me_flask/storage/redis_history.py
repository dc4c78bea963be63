"""The history of calls in Redis, for all processes. What it keeps, and where, is at the top of `redis.lua`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from socket2me.inspector.errors import UnknownRequest
from socket2me.inspector.history import Bounds, Change, Watches, changes_of
from socket2me.inspector.record import RequestRecord, Update, cost_of

from ..cluster.redis_connection import RedisConnection
from ..concurrency.future import Job
from .history_writes import (
    BYTES_AT_ONCE,
    REQUESTS_AT_ONCE,
    HistoryWrites,
    change_values,
    first_update,
    pack_head,
    unpack_entries,
    unpack_record,
)

# How long Redis notifies a process of the changes of a token that it watches, unless it says so again.
WATCH_SECONDS = 60

# How many requests one script may drop because of their age: Redis does nothing else meanwhile.
MOST_DROPPED = 200


class RedisHistory(HistoryWrites):
    """Keeps the history for processes of which this one is named `process`."""

    def __init__(self, connection: RedisConnection, process: str, bounds: Bounds) -> None:
        super().__init__()
        self.dropped = 0
        self._run = connection.run_script
        self._submit = connection.submit_script
        self._process = process
        self._bounds = (bounds.max_requests, bounds.max_bytes, bounds.total_bytes)
        self.watches = _RedisWatches(connection, process)

    def add(self, token: str, record: RequestRecord) -> None:
        cost = record.cost()
        values = (record.id, cost, len(record.timeline), *_texts(first_update(record)))
        content = (pack_head(record), record.body, record.received_at)
        self._write("history_add", token, cost, values + content)

    def update(self, token: str, request_id: str, update: Update) -> None:
        cost = cost_of(update)
        self._write("history_update", token, cost, (request_id, cost, len(update.entries), *_texts(update)))

    def find(self, token: str, request_id: str) -> RequestRecord:
        found = self._run("history_find", token, request_id)
        if not found:
            raise UnknownRequest
        row, *changes = found
        record = _record(row)
        for entries in changes:
            record.apply(Update(unpack_entries(entries)))
        return record

    def records(
        self, token: str, *, before: str | None = None, oldest_first: bool = False, with_bodies: bool = False
    ) -> Iterator[RequestRecord]:
        edge = "+inf" if before is None else f"({self.position(token, before)}"
        return self._pages(token, edge, oldest_first, with_bodies)

    def position(self, token: str, request_id: str | None = None) -> int:
        position = self._run("history_position", token, request_id or "")
        if position is None:
            raise UnknownRequest
        return int(position)

    def changes(
        self, token: str, after: int, limit: int, *, with_bodies: bool = False
    ) -> tuple[list[Change], int] | None:
        found = self._run("history_changes", token, after, limit, int(with_bodies), BYTES_AT_ONCE)
        if found is None:
            return None
        changes: list[Change] = []
        position = after
        for last, entries, row in found:
            position = int(last)
            if row:
                changes += changes_of(_record(row), position, unpack_entries(entries), after)
        return changes, position

    def dropped_of(self, token: str) -> int:
        return int(self._run("history_dropped", token) or 0)

    def delete(self, token: str, request_id: str | None = None) -> None:
        if not self._run("history_delete", token, request_id or ""):
            raise UnknownRequest

    def end(self, token: str) -> None:
        self.watches.end(token)  # the store drops its history with the token

    def drop_older(self, received_before: float) -> int:
        dropped = 0
        while newly := self._run("history_drop_older", received_before, MOST_DROPPED):
            dropped += newly
        self.dropped += dropped
        return dropped

    def _write(self, script: str, token: str, cost: int, values: Sequence[Any]) -> None:
        def submit(then: Callable[[Job], None]) -> None:
            def on_done(job: Job) -> None:
                self.dropped += job.result or 0
                then(job)

            self._submit(script, token, self._process, *self._bounds, *values, then=on_done)

        self.write(token, cost, submit)

    def _pages(self, token: str, before: str, oldest_first: bool, with_bodies: bool) -> Iterator[RequestRecord]:
        after = "-inf"
        while rows := self._run(
            "history_page",
            token,
            after,
            before,
            int(oldest_first),
            REQUESTS_AT_ONCE,
            int(with_bodies),
            BYTES_AT_ONCE,
        ):
            page = [_record(row) for row in rows]
            yield from page
            edge = f"({page[-1].position}"
            after, before = (edge, before) if oldest_first else (after, edge)


class _RedisWatches(Watches):
    """Has Redis notify this process of the changes of the tokens that it watches."""

    def __init__(self, connection: RedisConnection, process: str) -> None:
        super().__init__()
        self._submit = connection.submit_script
        self._process = process

    def renew(self, token: str) -> None:
        self._submit("history_watch", token, self._process, WATCH_SECONDS * 1000)


def _texts(update: Update) -> tuple[Any, ...]:
    """Return what an update changes, as scripts take it: `""` is nothing."""
    return tuple("" if value is None else value for value in change_values(update))


def _record(row: Sequence[Any]) -> RequestRecord:
    head, position, status, ms, outcome, body, response = row
    return unpack_record(
        head,
        int(position),
        int(status) if status else None,
        float(ms) if ms else None,
        outcome.decode() if outcome else None,
        body,
        response,
    )
