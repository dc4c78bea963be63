"""One native thread that does what blocks, many things at a time: group commit for a database.

Under eventlet a call that blocks stops every green thread. So the database has a thread of its own, and whoever
waits for it waits green. What has come in while one transaction was written goes into the next, all of it: the more
there is to do, the less each costs.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import StoreUnavailable
from .jobs import Job
from .native import native

# How many jobs one transaction may hold.
MOST_JOBS = 1000


class Worker:
    """Calls `work` on a native thread with all jobs that have come in, to set their results and errors.

    If it raises, none was done: who waits hears `StoreUnavailable`, and `on_failure` is called with what it raised.
    `work` must not touch what eventlet patches, the log for one: a lock that is green cannot be waited for there.
    """

    def __init__(self, work: Callable[[Sequence[Job]], None], on_failure: Callable[[Exception], None]) -> None:
        self._work = work
        self._on_failure = on_failure
        self._failures: deque[Exception] = deque()
        self._jobs: Any = native("queue").SimpleQueue()
        self._write: Any = native("os").write
        self._finished: deque[Job] = deque()
        self._is_stopped = False
        self._is_over = threading.Event()
        # The native thread may not touch what is green. It rings, and a thread of this side hears.
        self._bell, self._ear = socket.socketpair()
        native("threading").Thread(target=self._run, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()

    def submit(self, do: Callable[[], Any]) -> Job:
        """Have something done, in the order of submission. Whether to wait for it is up to the caller.

        After `stop` nothing is done, and whoever waits hears `StoreUnavailable`.
        """
        job = Job(do)
        if self._is_stopped:
            job.error = StoreUnavailable()
            job.finish()
        else:
            self._jobs.put(job)
        return job

    def stop(self) -> None:
        """Do what has been submitted, then end."""
        self._is_stopped = True
        self._jobs.put(None)
        self._is_over.wait()

    def _run(self) -> None:
        is_told = False
        while not is_told:
            jobs = [self._jobs.get()]
            while len(jobs) < MOST_JOBS and not self._jobs.empty():
                jobs.append(self._jobs.get())
            is_told = None in jobs
            jobs = [job for job in jobs if job is not None]
            if jobs:
                self._try(jobs)
            self._finished.extend(jobs)
            try:
                self._write(self._bell.fileno(), b"." if is_told else b"!")
            except BlockingIOError:
                pass  # it rings already

    def _try(self, jobs: Sequence[Job]) -> None:
        try:
            self._work(jobs)
        except Exception as error:
            for job in jobs:
                job.error = StoreUnavailable()
            self._failures.append(error)

    def _listen(self) -> None:
        heard = b""
        while b"." not in heard:
            heard = self._ear.recv(4096)
            while self._failures:
                self._on_failure(self._failures.popleft())
            while self._finished:
                self._finished.popleft().finish()
        self._bell.close()
        self._ear.close()
        self._is_over.set()
