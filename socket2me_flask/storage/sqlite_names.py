"""The names in the file of the SQLite store: they are held across a restart.

Which name is whose is read from memory (`names.py`), as tokens are, and written through.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from ..errors import ConfigError
from .names import Hold
from .sqlite_database import Database
from .sqlite_file import LOCK_SECONDS, SCHEMA_VERSION


class SQLiteNames:
    """The table of names. Every method is a job of the database."""

    def __init__(self, database: Database, *, grace_seconds: float) -> None:
        self._execute = database.execute
        self._grace_seconds = grace_seconds

    def load(self) -> list[Hold]:
        """Return all names that are held."""
        rows = self._execute("SELECT name, secret_hash, owner, held_until FROM names")
        return [Hold(*row) for row in rows]

    def write(self, hold: Hold) -> None:
        """Hold a name."""
        row = (hold.name, hold.secret_hash, hold.owner, hold.held_until)
        self._execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, 0)", row)

    def extend(self, name: str, expires_at: float) -> None:
        """Hold a name for longer: its token was refreshed."""
        self._execute("UPDATE names SET held_until = ? WHERE name = ?", (expires_at + self._grace_seconds, name))

    def delete(self, name: str) -> None:
        """Let a name go."""
        self._execute("DELETE FROM names WHERE name = ?", (name,))

    def tidy(self, now: float) -> list[str]:
        """Delete the names whose time is over. Return those that the operator has released meanwhile."""
        self._execute("DELETE FROM names WHERE held_until <= ?", (now,))
        return [name for (name,) in self._execute("SELECT name FROM names WHERE is_released")]


def mark_released(path: str, name: str) -> bool:
    """Have the relay that serves a file, or the next one, release a name. Return False if it is not held.

    Not to be called in a relay. Raises `ConfigError` if the file is none of this version's.
    """
    try:
        uri = f"{Path(path).absolute().as_uri()}?mode=rw"  # which makes no file where there is none
        with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS)) as database:
            if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                raise ConfigError(f"{path!r} is no file of this version of the relay.")
            with database:
                found = database.execute("UPDATE names SET is_released = 1 WHERE name = ?", (name,))
            return found.rowcount > 0
    except sqlite3.Error as error:
        raise ConfigError(f"{path!r} cannot be used: {error}.") from None
