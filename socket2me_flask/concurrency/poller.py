"""Many sockets watched behind one listener of eventlet's hub.

The hub's own listener for a socket costs 400 bytes, and two system calls each time that a green thread waits; a
crowd that leaves would have the hub call back a thousand of them in a row. Here a socket is registered once.

`eventlet.hubs` (`get_hub`, and the hub's `add`, `remove`, `switch` and `greenlet`) is what eventlet's own sockets
are built on, but not documented as public. It is used here and nowhere else, as eventlet 0.41 has it;
`tests/unit/test_poller.py` fails if it changes. On a system without epoll every socket has a hub listener.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from eventlet import greenthread, hubs
from eventlet.patcher import original

log = logging.getLogger(__name__)

_select = original("select")  # eventlet takes epoll away from the module that is imported

HAS_EPOLL = hasattr(_select, "epoll")

# The events that a callback receives. Without epoll it only receives `READABLE`.
READABLE: int = _select.EPOLLIN if HAS_EPOLL else 1
HUNG_UP: int = _select.EPOLLRDHUP | _select.EPOLLHUP | _select.EPOLLERR if HAS_EPOLL else 2

# Flags for `add`: report what changes once, and not again and again until it was read.
ON_CHANGE: int = _select.EPOLLIN | _select.EPOLLRDHUP | _select.EPOLLET if HAS_EPOLL else 1

# How many sockets are asked for at once, and for how long they are served, one after another, until everything else
# of the process has a turn. An HTTP request needs several turns.
BATCH = 100
TURN_SECONDS = 0.001


class _Watched:
    """A socket under watch, and what was reported of it that its callback has not received yet."""

    __slots__ = ("callback", "events", "key")

    def __init__(self, callback: Callable[[int], None], key: str) -> None:
        self.callback: Callable[[int], None] | None = callback  # None once the socket is removed
        self.key = key
        self.events = 0


class Poller:
    """Calls back for each watched socket that can be read.

    Sockets are watched under keys, which have turns: one that has a thousand sockets with something to read delays
    another by one callback, not by a thousand.

    Callbacks run on the hub's green thread, which cannot be suspended: they must not wait for anything. One may
    switch to another green thread, which runs until it is suspended; that switches back to here.
    """

    def __init__(self) -> None:
        self._hub = hubs.get_hub()
        self._sockets: dict[int, _Watched] = {}
        self._watches: dict[int, HubWatch] = {}
        # What was reported and not served yet, by key, and the keys in the order of their turns.
        self._ready: dict[str, deque[_Watched]] = {}
        self._turns: deque[str] = deque()
        self._is_scheduled = False
        self._epoll: Any = _select.epoll() if HAS_EPOLL else None
        if self._epoll is not None:
            HubWatch("read", self._epoll.fileno(), self._on_epoll)

    def add(self, fileno: int, callback: Callable[[int], None], flags: int = READABLE, key: str = "") -> None:
        """Watch a socket; `callback` receives the events."""
        watched = self._sockets[fileno] = _Watched(callback, key)
        if self._epoll is not None:
            self._epoll.register(fileno, flags)
        else:
            self._watches[fileno] = HubWatch("read", fileno, lambda _: self._call(watched, READABLE))

    def remove(self, fileno: int) -> None:
        """Watch a socket no more, if it is watched."""
        watched = self._sockets.pop(fileno, None)
        if watched is None:
            return
        watched.callback = None
        if self._epoll is not None:
            self._epoll.unregister(fileno)
        else:
            self._watches.pop(fileno).cancel()

    def repeat(self, fileno: int) -> None:
        """Call back once more, in the next turn, although the socket itself may have nothing to read."""
        self._add_ready(self._sockets[fileno], READABLE)
        self._schedule()

    def _add_ready(self, watched: _Watched, events: int) -> None:
        if not watched.events:
            ready = self._ready.get(watched.key)
            if ready is None:
                ready = self._ready[watched.key] = deque()
                self._turns.append(watched.key)
            ready.append(watched)
        watched.events |= events

    def _on_epoll(self, _: int) -> None:
        reported = self._epoll.poll(0, BATCH)
        if len(reported) == 1 and not self._turns:  # as nearly always: it needs no queue
            watched = self._sockets.get(reported[0][0])
            if watched is not None:
                self._call(watched, reported[0][1])
            return
        for fileno, events in reported:
            watched = self._sockets.get(fileno)
            if watched is not None:
                self._add_ready(watched, events)
        if not self._is_scheduled:  # else they are served in this round of the hub anyway
            self._serve_ready()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            call_later(0, self._serve_scheduled)

    def _serve_scheduled(self) -> None:
        self._is_scheduled = False
        self._serve_ready()

    def _serve_ready(self) -> None:
        turns = self._turns
        ends_at = time.monotonic() + TURN_SECONDS
        while turns:
            key = turns.popleft()
            ready = self._ready[key]
            watched = ready.popleft()
            if ready:
                turns.append(key)
            else:
                del self._ready[key]
            events, watched.events = watched.events, 0
            self._call(watched, events)
            if turns and time.monotonic() >= ends_at:
                self._schedule()  # the rest is first in the next round
                break

    def _call(self, watched: _Watched, events: int) -> None:
        if watched.callback is None:
            return  # an earlier callback removed it
        try:
            watched.callback(events)
        except BaseException:  # an exception here would end the hub's listener, and with it every watched socket
            log.exception("a connection failed")  # the socket stays watched: only its owner ends it


class HubWatch:
    """A listener of eventlet's hub that calls back on the hub's own green thread. `kind` is `read` or `write`."""

    __slots__ = ("_hub", "_listener")

    def __init__(self, kind: str, fileno: int, callback: Callable[[int], None]) -> None:
        self._hub = hubs.get_hub()
        self._listener = self._hub.add(kind, fileno, callback, _ignore, None)
        # A listener refers to the green thread that added it, and would keep one in memory that has ended.
        self._listener.greenlet = self._hub.greenlet

    def cancel(self) -> None:
        if self._listener is not None:
            self._hub.remove(self._listener)
            self._listener = None


def _ignore(_: object) -> None:
    pass


def call_later(seconds: float, callback: Callable[[], None]) -> None:
    """Call back on the hub's green thread after some time."""
    hubs.get_hub().schedule_call_global(seconds, callback)


def yield_to_others() -> None:
    """Let every other green thread that is ready run first."""
    greenthread.sleep(0)


def switch_to_hub() -> None:
    """Suspend the current green thread until another switches back to it."""
    hubs.get_hub().switch()


def wait_until(fileno: int, kind: str, seconds: float | None) -> None:
    """Suspend the current green thread until a socket can be `read` or `write`. Raises `TimeoutError`."""
    hubs.trampoline(
        fileno, read=kind == "read", write=kind == "write", timeout=seconds, timeout_exc=TimeoutError("timed out")
    )
