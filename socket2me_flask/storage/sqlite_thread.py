"""A native thread that runs jobs in batches: group commit for a database.

Under eventlet a call that blocks stops all green threads. So the database has a native thread, and green threads
wait for it without blocking. The jobs that are submitted during one transaction go into the next: the more there
are, the less each costs.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..concurrency.future import Job
from ..concurrency.native import native
from ..errors import StoreUnavailable

# How many jobs one transaction may hold.
MOST_JOBS = 1000


class Worker:
    """Calls `work` on a native thread with all jobs that have come in, to set their results and errors.

    If it raises, none was done: waiting raises `StoreUnavailable`, and `on_failure` is called with the error.
    `tidy` is called between two of these calls. It returns after how many seconds without jobs it is to be called
    again, or None.

    Neither may touch what eventlet patches, the log for one: a lock that is green cannot be waited for there. What
    is to be done outside goes to `report`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Job]], None],
        on_failure: Callable[[Exception], None],
        tidy: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._work = work
        self._on_failure = on_failure
        self._tidy = tidy
        self._reports: deque[Callable[[], object]] = deque()
        self._queue: Any = native("queue")
        self._jobs: Any = self._queue.SimpleQueue()
        self._write: Any = native("os").write
        self._finished: deque[Job] = deque()
        self._is_stopped = True
        self._is_over = threading.Event()

    def start(self) -> None:
        """Begin to work. Before, nothing is done, as after `stop`."""
        # The native thread may not touch what is green. It writes to a socket, and a green thread reads.
        sender, receiver = socket.socketpair()
        native("threading").Thread(target=self._run, args=[sender], daemon=True).start()
        threading.Thread(target=self._listen, args=[sender, receiver], daemon=True).start()
        self._is_stopped = False

    def submit(self, do: Callable[[], Any], then: Callable[[Job], None] | None = None) -> Job:
        """Have something done, in the order of submission. Whether to wait for it is up to the caller.

        `then` is called when it is done, on a thread of the caller's side.
        After `stop` nothing is done, and waiting raises `StoreUnavailable`.
        """
        job = Job(do, then)
        if self._is_stopped:
            job.error = StoreUnavailable()
            job.finish()
        else:
            self._jobs.put(job)
        return job

    def stop(self) -> None:
        """Do what has been submitted, then end."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._jobs.put(None)
        self._is_over.wait()

    def report(self, do: Callable[[], object]) -> None:
        """Have something done on a thread of the caller's side, soon: called by `work` and `tidy`."""
        self._reports.append(do)

    def deliver_reports(self) -> None:
        """Do what was reported."""
        while self._reports:
            self._reports.popleft()()

    def _run(self, sender: socket.socket) -> None:
        is_last = False
        while not is_last:
            found = self._next_jobs()
            is_last = None in found
            jobs = [job for job in found if job is not None]
            if jobs:
                self._try(jobs)
            self._finished.extend(jobs)
            if is_last or jobs or self._reports:
                try:
                    self._write(sender.fileno(), b"." if is_last else b"!")
                except BlockingIOError:
                    pass  # the other thread will wake up anyway

    def _next_jobs(self) -> list[Job | None]:
        """Return all jobs that are there, waiting for one, or none when it is time to tidy up."""
        try:
            jobs = [self._jobs.get(timeout=self._try_to_tidy())]
        except self._queue.Empty:
            return []
        while len(jobs) < MOST_JOBS and not self._jobs.empty():
            jobs.append(self._jobs.get())
        return jobs

    def _try_to_tidy(self) -> float | None:
        try:
            return self._tidy()
        except Exception as error:
            self.report(partial(self._on_failure, error))
            return None

    def _try(self, jobs: Sequence[Job]) -> None:
        try:
            self._work(jobs)
        except Exception as error:
            for job in jobs:
                job.error = StoreUnavailable()
            self.report(partial(self._on_failure, error))

    def _listen(self, sender: socket.socket, receiver: socket.socket) -> None:
        received = b""
        while b"." not in received:
            received = receiver.recv(4096)
            self.deliver_reports()
            while self._finished:
                self._finished.popleft().finish()
        sender.close()
        receiver.close()
        self._is_over.set()
