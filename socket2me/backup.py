"""A copy of the file of a relay with `SOCKET2ME_STORE_URL=sqlite:///...`, while that relay runs or not.

Knows of the file what distinguishes it from another: `socket2me_flask/storage/sqlite_file.py` has the rest.
"""

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from .exceptions import ClientError

# How long another process may keep the file from being read. A relay does not, but for those before this version.
LOCK_SECONDS = 5


@dataclass(frozen=True)
class Backup:
    """What a copy has: how many URLs, and how many requests that wait for their clients or are dead letters."""

    urls: int
    requests: int


def back_up(source: Path, target: Path) -> Backup:
    """Copy the relay's file `source` to `target`, by SQLite's online backup: the relay waits for nothing.

    The copy has every event that was accepted before this is called. It takes the place of `target` when it is
    whole and written to the disk. Raises `ClientError` if it cannot be made; then `target` is as it was.
    """
    if not source.is_file():
        raise ClientError(f"{source}: there is no such file.")
    if target.exists() and target.samefile(source):
        raise ClientError(f"{target} is the file itself.")
    part = target.with_name(f"{target.name}.part")
    try:
        # It has bodies and headers of callers: only its owner may read it.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        found = _copy(source, part)
        _sync(part)
        os.replace(part, target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        hint = " A relay of an earlier version keeps its file to itself." if "locked" in str(error) else ""
        raise ClientError(f"{source} was not copied: {error}.{hint}") from None
    finally:
        with suppress(OSError):
            part.unlink()
    return found


def _copy(source: Path, part: Path) -> Backup:
    # To read only: what a relay that was killed left in its log stays for that relay to find.
    uri = f"{source.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"tokens", "events"} <= tables:
            raise ClientError(f"{source} is a database, but no relay's.")
        with closing(sqlite3.connect(part)) as copy:
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file
            (urls,) = copy.execute("SELECT count(*) FROM tokens").fetchone()
            (requests,) = copy.execute("SELECT count(*) FROM events").fetchone()
    return Backup(urls, requests)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
