"""The file of the SQLite store: its lock, its schema with the migrations, and what a damaged log has lost.

Knows SQLite, and neither tokens nor mailboxes. Logs nothing: it is called on threads that may not.
"""

import errno
import fcntl
import os
import shutil
import sqlite3
import struct
import time
from contextlib import closing, suppress
from dataclasses import dataclass

from ..errors import ConfigError

# How long to wait at the start for a process before this one to let the file go.
LOCK_SECONDS = 10

# How often that is tried.
_LOCK_POLL_SECONDS = 0.05

SCHEMA_VERSION = 6

_TOKENS = """
CREATE TABLE tokens (
    token TEXT PRIMARY KEY, ttl_seconds REAL NOT NULL, expires_at REAL NOT NULL, secret_hash BLOB,
    mode TEXT NOT NULL, mailbox INTEGER NOT NULL
) WITHOUT ROWID;
"""

# What may be large comes last: SQLite reads a row up to the columns that are asked for.
_EVENTS = """
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, token TEXT NOT NULL,
    received_at REAL NOT NULL, size INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, is_dead_letter INTEGER NOT NULL DEFAULT 0,
    content TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX events_of_token ON events (token, is_dead_letter, number);
CREATE INDEX events_by_age ON events (received_at);
"""

# A change has the position of the last of its entries, which were written at once, and that of its request.
_HISTORY = """
CREATE TABLE history (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, token TEXT NOT NULL, received_at REAL NOT NULL,
    cost INTEGER NOT NULL, status INTEGER, ms REAL, outcome TEXT, head BLOB NOT NULL
);
CREATE INDEX history_of_token ON history (token, position);
CREATE INDEX history_by_age ON history (received_at);
CREATE TABLE history_bodies (position INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE history_changes (
    position INTEGER PRIMARY KEY, request INTEGER NOT NULL, token TEXT NOT NULL, entries BLOB NOT NULL,
    response BLOB
);
CREATE INDEX history_changes_of_token ON history_changes (token, position);
CREATE INDEX history_changes_of_request ON history_changes (request);
"""

# Versions 1 and 2 had a column for each field of a call, in another order.
_EVENTS_FROM_COLUMNS = f"""
ALTER TABLE events RENAME TO events_of_columns;
DROP INDEX events_of_token;
DROP INDEX events_by_age;
{_EVENTS}
INSERT INTO events SELECT number, id, token, received_at, size, attempts, is_set_aside,
    json_object('method', method, 'path', path, 'query', query, 'headers', json(headers),
        'is_legacy', json(CASE WHEN is_legacy THEN 'true' ELSE 'false' END)),
    body FROM events_of_columns;
DELETE FROM sqlite_sequence WHERE name = 'events';
INSERT INTO sqlite_sequence SELECT 'events', seq FROM sqlite_sequence WHERE name = 'events_of_columns';
DROP TABLE events_of_columns;
"""  # noqa: S608  # no value comes from outside

# Versions 1 to 3 kept no history.
_ADD_HISTORY = f"ALTER TABLE tokens ADD COLUMN inspect INTEGER NOT NULL DEFAULT 0;{_HISTORY}"

# Up to version 4, tokens had no signatures.
_ADD_VERIFY = "ALTER TABLE tokens ADD COLUMN verify TEXT;"

# Up to version 5, tokens had no names, and the newest client of a token was its only one. `position` is the number
# of the event up to which a listener has all of them, `seen_at` when it was last known to be connected.
_ADD_NAMES_AND_LISTENERS = """
CREATE TABLE names (
    name TEXT PRIMARY KEY, secret_hash BLOB NOT NULL, owner TEXT NOT NULL, held_until REAL NOT NULL,
    is_released INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX names_by_end ON names (held_until);
CREATE INDEX released_names ON names (name) WHERE is_released;
ALTER TABLE tokens ADD COLUMN listeners TEXT NOT NULL DEFAULT 'newest';
CREATE TABLE listeners (
    token TEXT NOT NULL, id TEXT NOT NULL, position INTEGER NOT NULL, seen_at REAL NOT NULL, PRIMARY KEY (token, id)
) WITHOUT ROWID;
CREATE INDEX listeners_by_age ON listeners (seen_at);
"""

# From each version, the statements that make a file of this one. 0 is an empty file.
MIGRATIONS = {
    0: _TOKENS + _EVENTS + _ADD_HISTORY + _ADD_VERIFY + _ADD_NAMES_AND_LISTENERS,
    1: _EVENTS_FROM_COLUMNS + _ADD_HISTORY + _ADD_VERIFY + _ADD_NAMES_AND_LISTENERS,
    2: _EVENTS_FROM_COLUMNS + _ADD_HISTORY + _ADD_VERIFY + _ADD_NAMES_AND_LISTENERS,
    3: _ADD_HISTORY + _ADD_VERIFY + _ADD_NAMES_AND_LISTENERS,
    4: _ADD_VERIFY + _ADD_NAMES_AND_LISTENERS,
    5: _ADD_NAMES_AND_LISTENERS,
}

_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileLock:
    """Keeps a second relay out of a database, while others may read it: a lock on a file beside it, `.lock`.

    The operating system drops the lock when the process ends, however it ends. The file stays.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{os.path.realpath(path)}.lock"
        self._file: int | None = None

    def acquire(self, seconds: float) -> None:
        """Take the lock, if it is not held. Raises `ConfigError` if another process has it for `seconds`."""
        if self._file is not None:
            return
        deadline = time.monotonic() + seconds
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(file)
                    raise ConfigError("the database is locked: another relay has it") from None
                time.sleep(_LOCK_POLL_SECONDS)
            except OSError:
                os.close(file)
                raise
            else:
                self._file = file
                return

    def release(self) -> None:
        """Let another process have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def is_out_of_room(error: Exception, path: str) -> bool:
    """Say whether a database cannot be used for lack of room on its disk, which may end."""
    if isinstance(error, OSError):
        return error.errno in _FULL_ERRNOS
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more closely what it was
    if code == sqlite3.SQLITE_CANTOPEN:  # also where there is no room for a file beside it
        with suppress(OSError):
            disk = os.statvfs(os.path.dirname(os.path.realpath(path)))
            return not disk.f_bavail or (disk.f_files > 0 and not disk.f_favail)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


@dataclass
class OpenedFile:
    """A database that can be read. `is_writable` is whether it can be written. `notes` are lines for the log.

    `is_damaged` is whether one of those says that its log has lost something.
    """

    database: sqlite3.Connection
    is_writable: bool
    notes: list[str]
    is_damaged: bool


def open_file(path: str) -> OpenedFile:
    """Open the database, which its lock guards, and bring its schema up to date.

    Without room on the disk it is opened for reading, if it has this version's schema. Raises `sqlite3.Error` or
    `OSError` if it cannot be opened, `ConfigError` if it is none of this relay's.
    """
    # Bodies and headers of callers are in it, so no other user may read them. SQLite makes its other files alike.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    damage: list[str] = []
    frames = _read_frames(path)
    try:
        database = _connect(path, "NORMAL")
        try:
            damage = _damage(path, database, frames)
            notes = damage + _bring_up_to_date(path, database)
        except BaseException:
            database.close()
            raise
        return OpenedFile(database, True, notes, is_damaged=bool(damage))
    except (sqlite3.Error, OSError) as error:
        if not is_out_of_room(error, path):
            raise
    # The index of the log is in memory then, so nothing has to be written.
    frames = _read_frames(path)
    database = _connect(path, "EXCLUSIVE")
    try:
        damage = damage or _damage(path, database, frames)
        if _version(path, database) != SCHEMA_VERSION:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except BaseException:
        database.close()
        raise
    return OpenedFile(database, False, damage, is_damaged=bool(damage))


def write_nothing(database: sqlite3.Connection) -> None:
    """Write, and change nothing: it fails where writing does."""
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def checkpoint(database: sqlite3.Connection) -> bool:
    """Bring what is in the log into the database's file. Return whether all of it is there."""
    _, frames, done = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return bool(frames == done)


def _connect(path: str, locking_mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA locking_mode = {locking_mode}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
    except BaseException:
        database.close()
        raise
    return database


def _version(path: str, database: sqlite3.Connection) -> int:
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise ConfigError(f"the file was written by a newer version of the relay (schema {version})")
    if version == 0 and database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise ConfigError("the file is a database, but none of a relay")
    return version


def _bring_up_to_date(path: str, database: sqlite3.Connection) -> list[str]:
    """Change the schema in one transaction, after a copy of the file was made. Return lines for the log."""
    version, notes = _version(path, database), []
    if 0 < version < SCHEMA_VERSION:
        copy = f"{path}.v{version}"
        _copy(database, copy)
        notes.append(f"the database was brought from schema {version} to {SCHEMA_VERSION}; {copy} is as it was")
    database.execute("BEGIN IMMEDIATE")
    try:
        if version < SCHEMA_VERSION:
            for statement in MIGRATIONS[version].split(";"):
                database.execute(statement)
        write_nothing(database)
        for table in ("events", "listeners", "history", "history_changes"):
            database.execute(f"DELETE FROM {table} WHERE token NOT IN (SELECT token FROM tokens)")  # noqa: S608
        database.execute("DELETE FROM history_bodies WHERE position NOT IN (SELECT position FROM history)")
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    return notes


def _copy(database: sqlite3.Connection, path: str) -> None:
    """Write a copy of a database to `path`, all of it or nothing."""
    part = f"{path}.part"
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(part)) as copy:
            database.backup(copy)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


# The write-ahead log: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. SQLite reads it up to the first
# frame whose checksum is wrong, and says nothing of what comes after.

_WAL_HEADER = struct.Struct(">8I")  # magic, version, page size, number of the checkpoint, two salts, two checksums
_FRAME_HEADER = struct.Struct(">6I")  # page, pages in the database if it ends a transaction, salts, checksums
_WAL_MAGIC = 0x377F0682  # the last bit is whether checksums are of big-endian words


@dataclass(frozen=True)
class _Frame:
    """A frame of the log: a page that was written. `offset` is where its content is."""

    ends_transaction: bool
    offset: int


def _wal(path: str) -> str:
    return f"{os.path.realpath(path)}-wal"


def _read_frames(path: str) -> list[_Frame]:
    """Return the frames of the log that belong to its present run, whether or not their checksums are right."""
    frames: list[_Frame] = []
    with suppress(FileNotFoundError), open(_wal(path), "rb") as wal:
        head = wal.read(_WAL_HEADER.size)
        if len(head) < _WAL_HEADER.size:
            return frames
        magic, _, page_size, _, *salts, _, _ = _WAL_HEADER.unpack(head)
        is_sound = magic & ~1 == _WAL_MAGIC and _checksums(head[:24], magic & 1) == struct.unpack(">2I", head[24:])
        if not is_sound:
            first = wal.read(_FRAME_HEADER.size)
            if len(first) < _FRAME_HEADER.size:
                return frames
            salts = list(_FRAME_HEADER.unpack(first)[2:4])
            page_size = _page_size(path)
        offset = _WAL_HEADER.size
        ends_at = os.fstat(wal.fileno()).st_size
        while offset + _FRAME_HEADER.size + page_size <= ends_at:
            found = os.pread(wal.fileno(), _FRAME_HEADER.size, offset)
            _, pages, *frame_salts, _, _ = _FRAME_HEADER.unpack(found)
            if frame_salts == salts:
                frames.append(_Frame(pages > 0, offset + _FRAME_HEADER.size))
            offset += _FRAME_HEADER.size + page_size
    return frames


def _checksums(data: bytes, is_big_endian: int) -> tuple[int, int]:
    first = second = 0
    words = struct.unpack(f"{'>' if is_big_endian else '<'}{len(data) // 4}I", data)
    for at in range(0, len(words), 2):
        first = (first + words[at] + second) & 0xFFFFFFFF
        second = (second + words[at + 1] + first) & 0xFFFFFFFF
    return first, second


def _page_size(path: str) -> int:
    """Return the page size that the database's own header has; SQLite's default if there is none."""
    with open(path, "rb") as file:
        head = file.read(18)
    size = int.from_bytes(head[16:18], "big") if len(head) == 18 else 0
    return 65_536 if size == 1 else size or 4096


def _damage(path: str, database: sqlite3.Connection, frames: list[_Frame]) -> list[str]:
    """Say how many events were in the log beyond where SQLite stopped. A copy of the log is kept.

    The log holds, among the pages that were written, the table with the number of the last event. A transaction
    that was not finished when the process ended has no last frame, and is none of these.
    """
    try:
        _, read, _ = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error:
        return []  # there is no room for what the log holds; it stays as it is
    lost = frames[max(read, 0) :]
    if not any(frame.ends_transaction for frame in lost):
        return []
    kept = f"{path}-wal.damaged"
    try:
        shutil.copyfile(_wal(path), kept, follow_symlinks=False)
        os.chmod(kept, 0o600)
    except OSError as error:
        kept = f"nowhere: {error}"
    page_size = _page_size(path)
    with open(_wal(path), "rb") as wal:
        numbers = [_sequence(os.pread(wal.fileno(), page_size, frame.offset)) for frame in lost]
    try:
        last = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    except sqlite3.OperationalError:
        last = None  # the table itself was in the log
    counted = max((number for number in numbers if number is not None), default=0) - (last[0] if last else 0)
    what = f"{counted} events that were accepted are" if counted > 0 else "what was changed last is"
    return [f"the write-ahead log of {path} is damaged: {what} not in the database (the log is kept: {kept})"]


def _sequence(page: bytes) -> int | None:
    """Return the number of the last event, if this is the page of the table `sqlite_sequence` that has it.

    That is a leaf whose rows are a name and a number, in SQLite's record format.
    """
    try:
        for cell in struct.unpack_from(f">{int.from_bytes(page[3:5], 'big')}H", page, 8) if page[0] == 13 else ():
            record = cell + 2  # after the payload's size and the row's number, a byte each while they are small
            header_size, name_type, number_type = page[record : record + 3]
            if header_size == 3 and name_type == 13 + 2 * 6 and page[record + 3 : record + 9] == b"events":
                if number_type in (8, 9):  # 0 and 1 take no bytes
                    return number_type - 8
                size = (0, 1, 2, 3, 4, 6, 8)[number_type]
                return int.from_bytes(page[record + 9 : record + 9 + size], "big")
    except (IndexError, ValueError, struct.error):
        pass
    return None
