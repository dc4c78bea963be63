"""The history of calls in a file: a request in `history`, its body beside it, its timeline in `history_changes`.

Positions count through all tokens. A change has that of the last of its entries, which were written at once.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from socket2me.inspector.errors import UnknownRequest
from socket2me.inspector.history import Bounds, Change, changes_of
from socket2me.inspector.record import RequestRecord, Update, cost_of

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
from .sqlite_database import Database

_RECORD = "head, h.position, status, ms, outcome"
_CONTENT = (
    "(SELECT body FROM history_bodies b WHERE b.position = h.position), "
    "(SELECT response FROM history_changes r WHERE r.request = h.position AND response IS NOT NULL)"
)
_NO_CONTENT = "NULL, NULL"


# Above every position.
_LAST = 2**63 - 1


class _Size:
    """What the history of one token holds. `floor` is the position of the latest request dropped for a bound."""

    __slots__ = ("bytes", "dropped", "floor", "requests")

    def __init__(self, requests: int = 0, size: int = 0) -> None:
        self.requests = requests
        self.bytes = size
        self.floor = 0
        self.dropped = 0


class SQLiteHistory(HistoryWrites):
    """Keeps the history in a database. `load` and `end_history` are parts of jobs of its store."""

    def __init__(self, database: Database, bounds: Bounds) -> None:
        super().__init__()
        self._database = database
        self._tables = _Tables(database, bounds)
        self.load = self._tables.load
        self.end_history = self._tables.end_history

    @property
    def dropped(self) -> int:
        """How many requests were dropped for a bound."""
        return self._tables.dropped

    def add(self, token: str, record: RequestRecord) -> None:
        cost = record.cost()
        self.write(token, cost, partial(self._database.submit, partial(self._tables.add, token, record, cost)))

    def update(self, token: str, request_id: str, update: Update) -> None:
        cost = cost_of(update)
        self.write(
            token,
            cost,
            partial(self._database.submit, partial(self._tables.update, token, request_id, update, cost)),
        )

    def find(self, token: str, request_id: str) -> RequestRecord:
        record: RequestRecord | None = self._database.run(partial(self._tables.find, token, request_id))
        if record is None:
            raise UnknownRequest
        return record

    def records(
        self, token: str, *, before: str | None = None, oldest_first: bool = False, with_bodies: bool = False
    ) -> Iterator[RequestRecord]:
        edge = _LAST if before is None else self.position(token, before)
        return self._pages(token, edge, oldest_first, with_bodies)

    def position(self, token: str, request_id: str | None = None) -> int:
        position: int | None = self._database.run(partial(self._tables.position_of, token, request_id))
        if position is None:
            raise UnknownRequest
        return position

    def changes(
        self, token: str, after: int, limit: int, *, with_bodies: bool = False
    ) -> tuple[list[Change], int] | None:
        found: tuple[list[Change], int] | None = self._database.run(
            partial(self._tables.changes, token, after, limit, with_bodies)
        )
        return found

    def dropped_of(self, token: str) -> int:
        return self._tables.dropped_of(token)

    def delete(self, token: str, request_id: str | None = None) -> None:
        if not self._database.run(partial(self._tables.delete, token, request_id)):
            raise UnknownRequest

    def end(self, token: str) -> None:
        self.watches.end(token)  # the store drops its history with the token

    def drop_older(self, received_before: float) -> int:
        dropped: int = self._database.run(partial(self._tables.drop_older, received_before))
        return dropped

    def _pages(self, token: str, before: int, oldest_first: bool, with_bodies: bool) -> Iterator[RequestRecord]:
        after = 0
        while page := self._database.run(
            partial(self._tables.page, token, after, before, oldest_first, with_bodies)
        ):
            yield from page
            if oldest_first:
                after = page[-1].position
            else:
                before = page[-1].position


class _Tables:
    """The tables of the history, and in memory what they hold. Each method is a job, or a part of one."""

    def __init__(self, database: Database, bounds: Bounds) -> None:
        self._database = database
        self._bounds = bounds
        self._sizes: dict[str, _Size] = {}
        self._bytes = 0
        self._position = 0
        self.dropped = 0

    def dropped_of(self, token: str) -> int:
        """Return how many requests of a token were dropped for a bound."""
        size = self._sizes.get(token)
        return size.dropped if size is not None else 0

    def load(self) -> None:
        """Count the requests of a file that was opened."""
        execute = self._database.execute
        rows = execute("SELECT token, count(*), sum(cost) FROM history GROUP BY token")
        self._sizes = {token: _Size(requests, size) for token, requests, size in rows}
        self._bytes = sum(size.bytes for size in self._sizes.values())
        last = execute("SELECT max(position) FROM history_changes").fetchone()[0] or 0
        self._position = max(self._position, last)

    def end_history(self, token: str) -> None:
        """Drop all of a token that ends, as a part of a job."""
        self._drop_all(token)
        size = self._sizes.pop(token, None)
        if size is not None:
            self._database.on_rollback(partial(self._sizes.__setitem__, token, size))

    def page(
        self, token: str, after: int, before: int, oldest_first: bool, with_bodies: bool
    ) -> list[RequestRecord]:
        """Return requests between two positions, no more than one beyond `BYTES_AT_ONCE`."""
        rows = self._database.execute(
            f"SELECT {_RECORD}, {_CONTENT if with_bodies else _NO_CONTENT} FROM history h "  # noqa: S608
            "WHERE token = ? AND position > ? AND position < ? "
            f"ORDER BY position {'ASC' if oldest_first else 'DESC'}",
            (token, after, before),
        )
        found: list[RequestRecord] = []
        left = BYTES_AT_ONCE
        with closing(rows):
            while len(found) < REQUESTS_AT_ONCE and left >= 0 and (row := rows.fetchone()) is not None:
                found.append(unpack_record(*row))
                left -= len(found[-1].body)
        return found

    def find(self, token: str, request_id: str) -> RequestRecord | None:
        execute = self._database.execute
        row = execute(
            f"SELECT {_RECORD}, {_CONTENT} FROM history h WHERE id = ? AND token = ?",  # noqa: S608
            (request_id, token),
        ).fetchone()
        if row is None:
            return None
        record = unpack_record(*row)
        for (entries,) in execute(
            "SELECT entries FROM history_changes WHERE request = ? ORDER BY position", (record.position,)
        ):
            record.apply(Update(unpack_entries(entries)))
        return record

    def position_of(self, token: str, request_id: str | None) -> int | None:
        execute = self._database.execute
        if request_id is None:
            last = execute("SELECT max(position) FROM history_changes WHERE token = ?", (token,)).fetchone()[0]
            return last or self._position
        row = execute("SELECT position FROM history WHERE id = ? AND token = ?", (request_id, token)).fetchone()
        return None if row is None else int(row[0])

    def changes(self, token: str, after: int, limit: int, with_bodies: bool) -> tuple[list[Change], int] | None:
        size = self._sizes.get(token)
        if size is not None and after < size.floor:
            return None
        rows = self._database.execute(
            f"SELECT c.position, entries, {_RECORD}, {_CONTENT if with_bodies else _NO_CONTENT} "  # noqa: S608
            "FROM history_changes c JOIN history h ON h.position = c.request "
            "WHERE c.token = ? AND c.position > ? ORDER BY c.position",
            (token, after),
        )
        found: list[Change] = []
        last, left = after, BYTES_AT_ONCE
        with closing(rows):
            while len(found) < limit and left >= 0 and (row := rows.fetchone()) is not None:
                last, entries, *kept = row
                record = unpack_record(*kept)
                found += changes_of(record, last, unpack_entries(entries), after)
                left -= len(record.body)
        return found, last

    def add(self, token: str, record: RequestRecord, cost: int) -> None:
        execute = self._database.execute
        if execute("SELECT 1 FROM tokens WHERE token = ?", (token,)).fetchone() is None:
            return  # it ended while the call came
        entries, status, ms, outcome, response = change_values(first_update(record))
        position = self._position + 1
        self._position += len(record.timeline)
        execute(
            "INSERT INTO history (position, id, token, received_at, cost, status, ms, outcome, head) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (position, record.id, token, record.received_at, cost, status, ms, outcome, pack_head(record)),
        )
        if record.body:
            execute("INSERT INTO history_bodies VALUES (?, ?)", (position, record.body))
        execute(
            "INSERT INTO history_changes VALUES (?, ?, ?, ?, ?)",
            (self._position, position, token, entries, response),
        )
        self._count(token, 1, cost)
        self._keep_within(token)

    def update(self, token: str, request_id: str, update: Update, cost: int) -> None:
        execute = self._database.execute
        entries, status, ms, outcome, response = change_values(update)
        found = execute(
            "UPDATE history SET cost = cost + ?, status = coalesce(?, status), ms = coalesce(?, ms), "
            "outcome = CASE WHEN ? = 'kept' THEN coalesce(outcome, 'kept') ELSE coalesce(?, outcome) END "
            "WHERE id = ? AND token = ? RETURNING position",
            (cost, status, ms, outcome, outcome, request_id, token),
        ).fetchall()
        if found:
            self._position += len(update.entries)
            execute(
                "INSERT INTO history_changes VALUES (?, ?, ?, ?, ?)",
                (self._position, found[0][0], token, entries, response),
            )
            self._count(token, 0, cost)
            self._keep_within(token)

    def _keep_within(self, token: str) -> None:
        bounds, execute = self._bounds, self._database.execute
        size = self._sizes[token]
        while size.requests and (
            (bounds.max_requests and size.requests > bounds.max_requests)
            or (bounds.max_bytes and size.bytes > bounds.max_bytes)
        ):
            self._drop_oldest(token)
        while bounds.total_bytes and self._bytes > bounds.total_bytes:
            oldest = execute("SELECT token FROM history ORDER BY position LIMIT 1").fetchone()
            if oldest is None:
                return
            own = size.bytes > self._sizes[oldest[0]].bytes and size.requests > 1
            self._drop_oldest(token if own else oldest[0])

    def _drop_oldest(self, token: str) -> None:
        position, cost = self._database.execute(
            "SELECT position, cost FROM history WHERE token = ? ORDER BY position LIMIT 1", (token,)
        ).fetchone()
        size = self._sizes[token]
        self._drop(token, position, cost)
        size.floor = max(size.floor, position)
        size.dropped += 1
        self.dropped += 1

    def _drop(self, token: str, position: int, cost: int) -> None:
        execute = self._database.execute
        execute("DELETE FROM history WHERE position = ?", (position,))
        execute("DELETE FROM history_bodies WHERE position = ?", (position,))
        execute("DELETE FROM history_changes WHERE request = ?", (position,))
        self._count(token, -1, -cost)

    def delete(self, token: str, request_id: str | None) -> bool:
        if request_id is None:
            self._drop_all(token)
            return True
        found = self._database.execute(
            "SELECT position, cost FROM history WHERE id = ? AND token = ?", (request_id, token)
        ).fetchone()
        if found is not None:
            self._drop(token, *found)
        return found is not None

    def _drop_all(self, token: str) -> None:
        if token in self._sizes:
            rows = self._database.execute("SELECT position, cost FROM history WHERE token = ?", (token,)).fetchall()
            for position, cost in rows:
                self._drop(token, position, cost)

    def drop_older(self, received_before: float) -> int:
        rows = self._database.execute(
            "SELECT token FROM history WHERE received_at < ?", (received_before,)
        ).fetchall()
        for (token,) in rows:
            self._drop_oldest(token)
        return len(rows)

    def _count(self, token: str, requests: int, size: int) -> None:
        """Count requests that a job has added or dropped."""
        self._resize(token, requests, size)
        self._database.on_rollback(partial(self._resize, token, -requests, -size))

    def _resize(self, token: str, requests: int, size: int) -> None:
        of_token = self._sizes.setdefault(token, _Size())
        of_token.requests += requests
        of_token.bytes += size
        self._bytes += size
