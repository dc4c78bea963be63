"""How far each listener of a mailbox has read it: the table `listeners`. All of it is of the database's thread."""

import time
from collections.abc import Callable, Mapping

from ..errors import TooManyListeners
from ..relay.call import this_process
from .record import MAX_LISTENERS_PER_TOKEN, Position
from .sqlite_database import Database

# `is_dead_letter` is 2 once a listener has failed at an event, and 1 when all have passed it then.
_PASSED = "token = ? AND number <= ? AND is_dead_letter = "


class SQLitePositions:
    """Keeps positions in a database. `delete` drops the events for which a condition holds."""

    def __init__(self, database: Database, delete: Callable[..., int]) -> None:
        self._database = database
        self._delete = delete

    def register(self, token: str, listener: str, after: int | None) -> int:
        """Return the position of a listener, which has one from now on. Raises `TooManyListeners`."""
        execute = self._database.execute
        # Those without ids of their own ended with the process that had them.
        execute(
            "DELETE FROM listeners WHERE token = ? AND id GLOB '~*' AND NOT id GLOB ?",
            (token, f"~{this_process()}.*"),
        )
        found = execute("SELECT position FROM listeners WHERE token = ? AND id = ?", (token, listener)).fetchone()
        if found is not None:
            self.touch(token, {listener: found[0]})
            return int(found[0])
        (others,) = execute("SELECT count(*) FROM listeners WHERE token = ?", (token,)).fetchone()
        if others >= MAX_LISTENERS_PER_TOKEN:
            raise TooManyListeners
        if after is not None:
            position = after
        else:
            last = execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone() if others else None
            position = last[0] if last is not None else 0
        execute("INSERT INTO listeners VALUES (?, ?, ?, ?)", (token, listener, position, time.time()))
        return int(position)

    def unregister(self, token: str, listener: str) -> None:
        """Forget a listener. What only it had not passed is dropped."""
        self._database.execute("DELETE FROM listeners WHERE token = ? AND id = ?", (token, listener))
        self._drop_passed(token)

    def advance(self, token: str, listener: str, number: int) -> None:
        """Move a position forward."""
        self._database.execute(
            "UPDATE listeners SET position = max(position, ?) WHERE token = ? AND id = ?", (number, token, listener)
        )
        self._drop_passed(token)

    def touch(self, token: str, positions: Mapping[str, int]) -> None:
        """Note that listeners are connected, and their positions."""
        for listener, number in positions.items():
            self._database.execute(
                "UPDATE listeners SET position = max(position, ?), seen_at = ? WHERE token = ? AND id = ?",
                (number, time.time(), token, listener),
            )
        self._drop_passed(token)

    def seen(self, token: str, listener: str, seen_at: float) -> None:
        """Note when a listener that is away was there last."""
        self._database.execute(
            "UPDATE listeners SET seen_at = ? WHERE token = ? AND id = ?", (seen_at, token, listener)
        )

    def all_of(self, token: str) -> list[Position]:
        """Return the positions of all listeners."""
        rows = self._database.execute(
            "SELECT id, position, seen_at, (SELECT count(*) FROM events WHERE events.token = listeners.token "
            "AND number > position AND is_dead_letter != 1) FROM listeners WHERE token = ? ORDER BY seen_at",
            (token,),
        )
        return [Position(*row) for row in rows]

    def drop_absent(self, seen_before: float) -> int:
        """Forget listeners that were not seen since then."""
        rows = self._database.execute(
            "DELETE FROM listeners WHERE seen_at < ? RETURNING token", (seen_before,)
        ).fetchall()
        for (token,) in set(rows):
            self._drop_passed(token)
        return len(rows)

    def are_of(self, token: str) -> bool:
        """Say whether the listeners of a token have positions."""
        return self._database.execute("SELECT 1 FROM listeners WHERE token = ?", (token,)).fetchone() is not None

    def drop(self, token: str) -> None:
        """Forget all listeners of a token."""
        self._database.execute("DELETE FROM listeners WHERE token = ?", (token,))

    def _drop_passed(self, token: str) -> None:
        """Drop what all listeners have passed, but for dead letters."""
        (passed,) = self._database.execute(
            "SELECT min(position) FROM listeners WHERE token = ?", (token,)
        ).fetchone()
        if passed is not None:
            self._delete(f"{_PASSED}0", token, passed)
            self._database.execute(f"UPDATE events SET is_dead_letter = 1 WHERE {_PASSED}2", (token, passed))  # noqa: S608
