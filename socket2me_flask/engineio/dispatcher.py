"""The green threads that let the application handle what clients sent."""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from .inbox import Inbox

log = logging.getLogger(__name__)

# How many threads there may be. One that waits for a store delays only its own client.
WORKERS = 8


class Dispatcher:
    """Schedules inboxes in the order in which they ask for it. There are threads only while there is work."""

    def __init__(
        self,
        start_thread: Callable[[Callable[[], None]], object],
        sleep: Callable[[float], object],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._start_thread = start_thread
        self._sleep = sleep
        self._lock = lock
        self._inboxes: deque[Inbox] = deque()
        self._workers = 0

    def schedule(self, inbox: Inbox) -> None:
        """Have a thread call `inbox.work`."""
        self._inboxes.append(inbox)
        self._start_worker()

    def run_next(self) -> bool:
        """Do the work of one inbox. Return False if there is none."""
        try:
            inbox = self._inboxes.popleft()
        except IndexError:
            return False
        try:
            inbox.work()
        except Exception:
            log.exception("a message of a client, or the end of its session, was not handled")
        return True

    def _start_worker(self) -> None:
        with self._lock:
            if self._workers == WORKERS:
                return
            self._workers += 1
        self._start_thread(self._run)

    def _run(self) -> None:
        while self.run_next():
            self._sleep(0)  # other green threads run after each inbox, however many wait
        with self._lock:
            self._workers -= 1
        if self._inboxes:  # it was scheduled after the last look and before this thread was counted out
            self._start_worker()
