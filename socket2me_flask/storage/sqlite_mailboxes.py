"""Mailboxes in a file: the table `events`, and the bounds on what it holds."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from ..errors import MailboxesFull, MailboxFull, UnknownEvent, UnknownToken
from ..relay.call import FIELDS, Call, call_from
from .record import (
    EVENT_BYTES,
    MAX_DEAD_PASSED,
    MOST_WAITING_BYTES,
    Position,
    StoredEvent,
    Totals,
    call_without_content,
    share_of,
)
from .sqlite_database import Database
from .sqlite_positions import SQLitePositions

_STATE = "id, token, received_at, attempts, is_dead_letter, size"

# `content` is JSON: the fields of a call that have no column.
_CONTENT = "content, body"
_FIELDS = tuple(name for name in FIELDS if name not in ("id", "token", "received_at", "body"))


class SQLiteMailboxes:
    """Keeps events in a database, and counts them in memory.

    A mailbox has at most `max_events` and `max_bytes`, all together `total_bytes`. 0 is no bound.
    `events` is how many all of them have, `size` what those have, in bytes.
    """

    def __init__(
        self, database: Database, *, max_events: int = 0, max_bytes: int = 0, total_bytes: int = 0
    ) -> None:
        self._database = database
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._total_bytes = total_bytes
        # Of the database's thread:
        self._sizes: dict[str, tuple[int, int]] = {}  # token -> events, bytes
        self.events = self.size = 0
        self._positions = SQLitePositions(database, self._delete)

    def put(self, call: Call) -> None:
        self._database.run(partial(self._put, call))

    def waiting(
        self, token: str, limit: int, known: Collection[str] = (), after: int | None = None
    ) -> list[StoredEvent]:
        return list(self._database.run(partial(self._waiting, token, limit, known, after)))

    def claim(self, token: str, limit: int, known: Collection[str]) -> list[StoredEvent]:
        events = self.waiting(token, limit, known)  # there is no other process
        first = next((at for at, event in enumerate(events) if event.call.id not in known), len(events))
        return events[: first + 1]

    def release(self, token: str, event_id: str) -> None:
        pass

    def find(self, token: str, event_id: str) -> StoredEvent:
        where = "token = ? AND id = ?"
        found = self._database.run(partial(self._select, f"{_STATE}, {_CONTENT}", where, token, event_id))
        if not found:
            raise UnknownEvent
        event: StoredEvent = found[0]
        return event

    def summary(self, token: str) -> list[StoredEvent]:
        return list(self._database.run(partial(self._select, _STATE, "token = ? ORDER BY number", token)))

    def attempted(self, token: str, event_id: str) -> None:
        self._database.submit(partial(self._update, "attempts = attempts + 1", event_id, token))

    def acknowledge(self, token: str, event_id: str) -> None:
        self._database.submit(partial(self._delete, "id = ?", event_id))

    def dead_letter(self, token: str, event_id: str) -> None:
        self._database.submit(partial(self._update, "is_dead_letter = 1", event_id, token))

    def redeliver(self, token: str, event_id: str) -> None:
        if not self._database.run(partial(self._redeliver, event_id, token)):
            raise UnknownEvent

    def delete(self, token: str, event_id: str) -> None:
        if not self._database.run(partial(self._delete, "token = ? AND id = ?", token, event_id)):
            raise UnknownEvent

    def drop_older(self, received_before: float) -> int:
        dropped: int = self._database.run(partial(self._delete, "received_at < ?", received_before))
        return dropped

    def number_of(self, token: str, event_id: str) -> int:
        query = "SELECT number FROM events WHERE token = ? AND id = ?"
        row = self._database.run(lambda: self._database.execute(query, (token, event_id)).fetchone())
        if row is None:
            raise UnknownEvent
        return int(row[0])

    def register(self, token: str, listener: str, after: int | None = None) -> int:
        position: int = self._database.run(partial(self._positions.register, token, listener, after))
        return position

    def unregister(self, token: str, listener: str) -> None:
        self._database.submit(partial(self._positions.unregister, token, listener))

    def advance(self, token: str, listener: str, number: int) -> None:
        self._database.submit(partial(self._positions.advance, token, listener, number))

    def touch(self, token: str, positions: Mapping[str, int]) -> None:
        self._database.submit(partial(self._positions.touch, token, positions))

    def seen(self, token: str, listener: str, seen_at: float) -> None:
        self._database.submit(partial(self._positions.seen, token, listener, seen_at))

    def fail(self, token: str, event_id: str) -> None:
        self._database.submit(partial(self._update, "is_dead_letter = 2", event_id, token))

    def positions(self, token: str) -> list[Position]:
        return list(self._database.run(partial(self._positions.all_of, token)))

    def drop_absent(self, seen_before: float) -> int:
        dropped: int = self._database.run(partial(self._positions.drop_absent, seen_before))
        return dropped

    # On the database's thread

    def load(self) -> None:
        """Count the events of a file that was opened."""
        counts = self._database.execute("SELECT token, count(*), sum(size) FROM events GROUP BY token")
        self._sizes = {token: (events, size) for token, events, size in counts}
        self.events = sum(events for events, _ in self._sizes.values())
        self.size = sum(size for _, size in self._sizes.values())

    def totals(self) -> Totals:
        """Return what the mailboxes hold. This is a job."""
        oldest = self._database.execute(
            "SELECT received_at, is_dead_letter = 1 FROM events ORDER BY received_at LIMIT ?",
            (MAX_DEAD_PASSED + 1,),
        ).fetchall()
        waiting = (received_at for received_at, is_dead_letter in oldest if not is_dead_letter)
        beyond = oldest[-1][0] if len(oldest) > MAX_DEAD_PASSED else None
        return Totals(0, self.events, self.size, next(waiting, beyond))

    def drop_mailbox(self, token: str) -> None:
        """Drop all events of a token, as a part of a job."""
        self._delete("token = ?", token)
        self._positions.drop(token)

    def _put(self, call: Call) -> None:
        content = json.dumps({name: getattr(call, name) for name in _FIELDS})
        size = len(content) + len(call.body) + EVENT_BYTES
        events, of_token = self._sizes.get(call.token, (0, 0))
        if (self._max_events and events >= self._max_events) or (
            self._max_bytes and of_token + size > self._max_bytes
        ):
            raise MailboxFull
        if self._total_bytes and self.size + size > share_of(self._total_bytes, of_token + size):
            raise MailboxesFull
        inserted = self._database.execute(
            "INSERT INTO events (id, token, received_at, size, content, body) "
            "SELECT ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM tokens WHERE token = ?)",
            (call.id, call.token, call.received_at, size, content, call.body, call.token),
        )
        if not inserted.rowcount:
            raise UnknownToken  # it ended while the body came
        self._count(call.token, 1, size)

    def _select(self, columns: str, condition: str, *values: Any) -> list[StoredEvent]:
        rows = self._database.execute(f"SELECT {columns} FROM events WHERE {condition}", values)  # noqa: S608
        return [_event(row) for row in rows]

    def _waiting(
        self, token: str, limit: int, known: Collection[str], after: int | None = None
    ) -> list[StoredEvent]:
        """Return the oldest events, but no more than one beyond `MOST_WAITING_BYTES`: the rest is not read."""
        execute = self._database.execute
        events: list[StoredEvent] = []
        left = MOST_WAITING_BYTES
        # To a listener with a position, what another has failed at is no dead letter yet.
        condition = "NOT is_dead_letter" if after is None else "is_dead_letter != 1 AND number > ?"
        rows = execute(
            f"SELECT {_STATE}, number FROM events WHERE token = ? AND {condition} ORDER BY number LIMIT ?",  # noqa: S608
            (token, limit) if after is None else (token, after, limit),
        )
        with closing(rows):
            while left >= 0 and (row := rows.fetchone()) is not None:
                *state, number = row
                if state[0] in known:
                    events.append(_event(state, number=number))
                    continue
                content = execute(f"SELECT {_CONTENT} FROM events WHERE number = ?", (number,)).fetchone()  # noqa: S608
                events.append(_event([*state, *content], number=number))
                left -= events[-1].size
        return events

    def _redeliver(self, event_id: str, token: str) -> int:
        if self._positions.are_of(token):
            # Listeners have passed it if one has failed at it: it becomes the next event.
            self._database.execute(
                "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'events' AND EXISTS "
                "(SELECT 1 FROM events WHERE id = ? AND token = ? AND is_dead_letter)",
                (event_id, token),
            )
            self._database.execute(
                "UPDATE events SET number = (SELECT seq FROM sqlite_sequence WHERE name = 'events') "
                "WHERE id = ? AND token = ? AND is_dead_letter",
                (event_id, token),
            )
        return self._update("is_dead_letter = 0, attempts = 0", event_id, token)

    def _update(self, change: str, event_id: str, token: str) -> int:
        statement = f"UPDATE events SET {change} WHERE id = ? AND token = ?"  # noqa: S608
        return self._database.execute(statement, (event_id, token)).rowcount

    def _delete(self, condition: str, *values: Any) -> int:
        statement = f"DELETE FROM events WHERE {condition} RETURNING token, size"  # noqa: S608
        rows = self._database.execute(statement, values).fetchall()
        for token, size in rows:
            self._count(token, -1, -size)
        return len(rows)

    def _count(self, token: str, events: int, size: int) -> None:
        """Count events that a job has added or dropped."""
        self._resize(token, events, size)
        self._database.on_rollback(partial(self._resize, token, -events, -size))

    def _resize(self, token: str, events: int, size: int) -> None:
        before_events, before_size = self._sizes.pop(token, (0, 0))
        if before_events + events:
            self._sizes[token] = (before_events + events, before_size + size)
        self.events += events
        self.size += size


def _event(row: Sequence[Any], number: int = 0) -> StoredEvent:
    event_id, token, received_at, attempts, is_dead_letter, size, *kept = row
    if kept:
        content, body = kept
        columns = {"token": token, "body": body, "id": event_id, "received_at": received_at}
        call = call_from({**json.loads(content), **columns})
    else:
        call = call_without_content(token, event_id, received_at)
    return StoredEvent(call, attempts, is_dead_letter == 1, size, number)
