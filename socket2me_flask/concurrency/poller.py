"""Many sockets watched behind one listener of eventlet's hub.

The hub's own listener for a socket costs 400 bytes, and two system calls each time that a green thread waits; a
crowd that leaves would have the hub call back a thousand of them in a row. Here a socket is registered once.

`eventlet.hubs` (`get_hub`, and the hub's `add`, `remove`, `switch` and `greenlet`) is what eventlet's own sockets
are built on, but not documented as public. It is used here and nowhere else, as eventlet 0.41 has it;
`tests/test_poller.py` fails if it changes. On a system without epoll every socket has a hub listener after all.
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


class Poller:
    """Calls back for each watched socket that can be read.

    Callbacks run on the hub's green thread, which cannot be suspended: they must not wait for anything. One may
    switch to another green thread, which runs until it is suspended; that switches back to here.
    """

    def __init__(self) -> None:
        self._hub = hubs.get_hub()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._watches: dict[int, HubWatch] = {}
        # What epoll has reported and was not served yet. A callback goes with its number: once it is removed, the
        # number may be another socket's.
        self._ready: deque[tuple[int, Callable[[int], None], int]] = deque()
        self._epoll: Any = _select.epoll() if HAS_EPOLL else None
        if self._epoll is not None:
            HubWatch("read", self._epoll.fileno(), self._on_epoll)

    def add(self, fileno: int, callback: Callable[[int], None], flags: int = READABLE) -> None:
        """Watch a socket; `callback` receives the events."""
        self._callbacks[fileno] = callback
        if self._epoll is not None:
            self._epoll.register(fileno, flags)
        else:
            self._watches[fileno] = HubWatch("read", fileno, lambda _: self._call(fileno, callback, READABLE))

    def remove(self, fileno: int) -> None:
        """Watch a socket no more, if it is watched."""
        if self._callbacks.pop(fileno, None) is None:
            return
        if self._epoll is not None:
            self._epoll.unregister(fileno)
        else:
            self._watches.pop(fileno).cancel()

    def repeat(self, fileno: int) -> None:
        """Call back once more, in the next turn, although the socket itself may have nothing to read."""
        if not self._ready:
            call_later(0, self._serve_ready)
        self._ready.append((fileno, self._callbacks[fileno], READABLE))

    def _on_epoll(self, _: int) -> None:
        if not self._ready:  # else its rest is scheduled, and epoll reports again what is still to be read
            for fileno, events in self._epoll.poll(0, BATCH):
                callback = self._callbacks.get(fileno)
                if callback is not None:
                    self._ready.append((fileno, callback, events))
            self._serve_ready()

    def _serve_ready(self) -> None:
        ready = self._ready
        ends_at = time.monotonic() + TURN_SECONDS
        while ready:
            self._call(*ready.popleft())
            if ready and time.monotonic() >= ends_at:
                call_later(0, self._serve_ready)  # the rest is first in the next turn
                break

    def _call(self, fileno: int, callback: Callable[[int], None], events: int) -> None:
        if self._callbacks.get(fileno) is not callback:
            return  # an earlier callback removed it
        try:
            callback(events)
        except BaseException:  # an exception here would end the hub's listener, and with it every watched socket
            log.exception("a connection failed")  # the socket stays watched: only its owner ends it


class HubWatch:
    """A listener of eventlet's hub that calls back on the hub's own green thread. `kind` is `read` or `write`."""

    __slots__ = ("_hub", "_listener")

    def __init__(self, kind: str, fileno: int, callback: Callable[[int], None]) -> None:
        self._hub = hubs.get_hub()
        self._listener = self._hub.add(kind, fileno, callback, _ignore, None)
        # A listener remembers who made it, which would keep a green thread in memory that has ended.
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
