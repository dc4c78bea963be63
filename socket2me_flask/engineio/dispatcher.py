"""The green threads that let the application handle what clients sent."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from .protocol import Packet
from .session import Session

log = logging.getLogger(__name__)

# How many threads there may be. One that waits for a store delays only its own client.
WORKERS = 8

# How many packets of one client are handled before other clients and requests are served, and for how long.
WORK_PACKETS = 50
WORK_SECONDS = 0.001


class Dispatcher:
    """Schedules sessions in the order in which they ask for it. There are threads only while there is work.

    `on_packet` has the application handle a packet, and `on_departed` the end of a session.
    """

    def __init__(
        self,
        start_thread: Callable[[Callable[[], None]], object],
        sleep: Callable[[float], object],
        lock: AbstractContextManager[Any],
        *,
        on_packet: Callable[[Session, Packet], None],
        on_departed: Callable[[Session], None],
    ) -> None:
        self._start_thread = start_thread
        self._sleep = sleep
        self._lock = lock
        self._on_packet = on_packet
        self._on_departed = on_departed
        self._sessions: deque[Session] = deque()
        self._workers = 0

    def schedule(self, session: Session) -> None:
        """Have a thread handle what is in the inbox of a session. Called once for each inbox."""
        self._sessions.append(session)
        self._start_worker()

    def run_next(self) -> bool:
        """Handle some packets of one session. Return False if there is none."""
        try:
            session = self._sessions.popleft()
        except IndexError:
            return False
        try:
            self._work(session)
        except Exception:
            log.exception("a message of a client, or the end of its session, was not handled")
        return True

    def _work(self, session: Session) -> None:
        """Let the application handle some packets, in order: no other thread works for this session meanwhile."""
        inbox = session.inbox
        if inbox is None:
            return
        ends_at = time.monotonic() + WORK_SECONDS
        for _ in range(WORK_PACKETS):
            with session.lock:
                if not inbox.packets:
                    session.end_inbox()
                    return
                packet = inbox.take()
            if packet is None:
                self._finish(session)
                return
            self._on_packet(session, packet)
            if time.monotonic() >= ends_at:
                break
        self.schedule(session)

    def _finish(self, session: Session) -> None:
        """Report the end of a session to the application: everything that the client sent was handled."""
        try:
            self._on_departed(session)
        finally:
            session.end_inbox()

    def _start_worker(self) -> None:
        with self._lock:
            if self._workers == WORKERS:
                return
            self._workers += 1
        self._start_thread(self._run)

    def _run(self) -> None:
        while self.run_next():
            self._sleep(0)  # other green threads run after each session, however many wait
        with self._lock:
            self._workers -= 1
        if self._sessions:  # it was scheduled after the last look and before this thread was counted out
            self._start_worker()
