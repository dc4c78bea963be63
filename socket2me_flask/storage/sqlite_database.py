"""Transactions on the file of the SQLite store: group commit, and what happens while the file cannot be written.

Knows neither tokens nor mailboxes. `sqlite_file.py` opens the file.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ..concurrency.future import Job
from ..errors import ConfigError, RelayError, StoreUnavailable
from ..logs import LogInterval
from .sqlite_file import LOCK_SECONDS, FileLock, checkpoint, is_out_of_room, open_file, write_nothing
from .sqlite_thread import Worker

log = logging.getLogger(__name__)

# After so long without a write, all of the write-ahead log is brought into the file.
QUIET_SECONDS = 1

# How often a file that could not be written when it was opened is opened again.
REOPEN_SECONDS = 1

_UNWRITABLE = "the database %s cannot be written; what needs it to be is answered 503 until there is room: %s"


class Database:
    """The file `path`, from `start` to `close`. What was done is durable when `run` returns (WAL, and a sync).

    A job is a function that is called on the database's thread, in a transaction. Only there may `execute` and
    `on_rollback` be used. `on_open` is called there each time that the file was opened. `damaged` is how often its
    log was found to be damaged then.
    """

    def __init__(self, path: str, on_open: Callable[[], None]) -> None:
        self.path = path
        self._on_open = on_open
        self._lock = FileLock(path)
        self._failure_lines = LogInterval()
        self.damaged = 0
        self._worker = Worker(self._commit, self._on_failure, self._tidy)
        self.report = self._worker.report
        self.submit = self._worker.submit
        # Of the database's thread, once it runs:
        self._connection: sqlite3.Connection | None = None
        self._undo: list[Callable[[], None]] = []  # what the present transaction changed in memory
        self._is_failing = False  # whether the last write failed
        self._has_probed = False  # whether the present transaction writes though it changes nothing
        self._reopen_at: float | None = None  # when to open the file again
        self._written_at: float | None = None  # when there was a write that is not in the file yet

    def start(self) -> None:
        """Open the file. Raises `ConfigError` if it cannot be opened, is no relay's, or is another relay's."""
        try:
            self._lock.acquire(LOCK_SECONDS)
            self._open()
        except (ConfigError, sqlite3.Error, OSError) as error:
            if isinstance(error, ConfigError) or not is_out_of_room(error, self.path):
                self._lock.release()
                raise ConfigError(f"SOCKET2ME_STORE_URL: {self.path!r} cannot be used: {error}.") from None
            self._is_failing, self._reopen_at = True, time.monotonic() + REOPEN_SECONDS
            log.error(_UNWRITABLE, self.path, error)
        self._worker.deliver_reports()
        self._worker.start()

    def close(self) -> None:
        """Do what was submitted, and close the file."""
        self._worker.stop()
        self._close()
        self._lock.release()

    def run(self, job: Callable[[], Any]) -> Any:
        """Return the result of a job. Raises what it raises, or `StoreUnavailable`; then nothing was changed."""
        return self.submit(job).wait()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Carry out a statement of a job."""
        if self._connection is None:
            raise StoreUnavailable
        return self._connection.execute(statement, values)

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Have something done if the transaction of a job fails: what the job changed in memory is to be undone."""
        self._undo.append(undo)

    def probe(self) -> None:
        """Do nothing, if that can be done; once a write has failed, write nothing. This is a job."""
        self.execute("SELECT 1")
        if self._is_failing and self._connection is not None:
            write_nothing(self._connection)
            self._has_probed = True

    def _on_failure(self, error: Exception) -> None:
        if not isinstance(error, StoreUnavailable) and self._failure_lines.is_due():
            log.error("the database failed: %s", error)

    # On the database's thread, once it runs

    def _open(self) -> None:
        opened = open_file(self.path)
        self._connection = opened.database
        self.damaged += opened.is_damaged
        for note in opened.notes:
            self.report(partial(log.warning, "%s", note))
        if opened.is_writable:
            self._on_written()
            self._reopen_at = None
        else:
            if self._reopen_at is None:
                self.report(partial(log.error, _UNWRITABLE, self.path, "it was opened for reading"))
            self._is_failing, self._reopen_at = True, time.monotonic() + REOPEN_SECONDS
        self._on_open()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _reopen(self) -> None:
        """Open the file again, if there is room by now."""
        self._reopen_at = time.monotonic() + REOPEN_SECONDS
        try:
            if self._connection is not None:
                self._transact([Job(self.probe)])
                self._close()
            self._lock.acquire(0)
            self._open()
        except (ConfigError, sqlite3.Error, OSError) as error:
            self.report(partial(self._on_failure, error))

    def _commit(self, jobs: Sequence[Job]) -> None:
        """Do all jobs in one transaction. If that fails, do each in one of its own: what only reads goes on."""
        if self._reopen_at is not None and time.monotonic() >= self._reopen_at:
            self._reopen()
        try:
            self._transact(jobs)
        except Exception:
            if len(jobs) == 1:
                raise
            for job in jobs:
                job.result = job.error = None
                try:
                    self._transact([job])
                except Exception as error:
                    job.error = StoreUnavailable()
                    self.report(partial(self._on_failure, error))

    def _transact(self, jobs: Sequence[Job]) -> None:
        """Do all jobs in one transaction. If that fails, none was done."""
        connection = self._connection
        if connection is None:
            raise StoreUnavailable
        changes_before, self._has_probed = connection.total_changes, False
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                try:
                    job.result = job.what()
                except RelayError as error:  # it was raised before anything was written
                    job.error = error
                except sqlite3.IntegrityError:  # which undoes its statement only
                    job.error = StoreUnavailable()
            connection.execute("COMMIT")
        except Exception:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for undo in self._undo:
                undo()
            self._is_failing = True
            raise
        finally:
            self._undo.clear()
        if connection.total_changes != changes_before or self._has_probed:
            self._on_written()

    def _on_written(self) -> None:
        self._written_at = time.monotonic()
        if self._is_failing:
            self._is_failing = False
            self.report(partial(log.warning, "the database %s can be written again", self.path))

    def _tidy(self) -> float | None:
        """Bring the write-ahead log into the file when nothing was written for a while."""
        if self._written_at is None or self._connection is None:
            return None
        left = self._written_at + QUIET_SECONDS - time.monotonic()
        if left > 0:
            return left
        try:
            if checkpoint(self._connection):
                self._written_at = None
                return None
        except sqlite3.Error as error:
            self.report(partial(self._on_failure, error))
        self._written_at = time.monotonic()
        return QUIET_SECONDS
