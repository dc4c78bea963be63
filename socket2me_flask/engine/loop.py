"""How the engine waits: on eventlet's hub under gunicorn, in threads under `flask run`.

On the hub an idle connection costs no green thread: its socket is watched, and a callback runs when there is
something to read or room to write. Callbacks run on the hub itself, so they never block.
"""

import contextlib
import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

log = logging.getLogger(__name__)

# How long reading may go on, from one connection after another, until everything else of the process has a turn. An
# HTTP request needs several turns.
TURN_SECONDS = 0.002


class Watch(Protocol):
    """A socket under watch."""

    def cancel(self) -> None:
        """Watch no more."""


class Reader(Protocol):
    """What reads when it is told that there is something to read."""

    socket: socket.socket
    is_open: bool
    is_paused: bool

    def on_readable(self) -> None:
        """Read what is there. Does not block."""


class Loop(Protocol):
    """What the engine needs of the way in which its process waits."""

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        """Return what keeps two threads from one session at a time."""

    def adopt(self, environ: dict[str, Any]) -> socket.socket:
        """Return the connection of a request that becomes a WebSocket. It does not block."""

    def attend(self, reader: Reader) -> Exception:
        """See that `reader` reads. Return what the request must raise to end without an answer."""

    def pause(self, reader: Reader) -> None:
        """Take note that `reader.is_paused` has changed."""

    def leave(self, reader: Reader) -> None:
        """Attend to `reader` no more: its socket is about to be closed."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back once, after that time."""

    def when_writable(self, connection: socket.socket, callback: Callable[[], bool]) -> Watch:
        """Call back when there is room to write, again and again until it returns False."""

    def on_hangup(
        self, environ: dict[str, Any], callback: Callable[[], None]
    ) -> contextlib.AbstractContextManager[None]:
        """Call back if the peer goes away while its request waits inside of this context."""


_NO_LOCK = contextlib.nullcontext()


class GreenLoop:
    """eventlet's hub, under gunicorn."""

    def __init__(self) -> None:
        from eventlet import hubs

        self._hubs = hubs
        self._readers: _Readers | None = None

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        return _NO_LOCK  # nothing that it would guard gives way to another green thread

    def adopt(self, environ: dict[str, Any]) -> socket.socket:
        # gunicorn closes its own when the request ends, and with it go the green thread and all that it held.
        connection: socket.socket = environ["gunicorn.socket"].fd.dup()
        self._hubs.notify_opened(connection.fileno())
        return connection

    def attend(self, reader: Reader) -> Exception:
        if self._readers is None:
            self._readers = _Readers(self._hubs.get_hub())
        if reader.is_open:
            self._readers.add(reader)
        return StopIteration()

    def pause(self, reader: Reader) -> None:
        if reader.is_paused:
            self.leave(reader)
        else:
            self.attend(reader)

    def leave(self, reader: Reader) -> None:
        if self._readers is not None:
            self._readers.remove(reader)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._hubs.get_hub().schedule_call_global(seconds, callback)

    def when_writable(self, connection: socket.socket, callback: Callable[[], bool]) -> Watch:
        def write(_: int) -> None:
            if not callback():
                watch.cancel()

        watch = _HubWatch(self._hubs.get_hub(), "write", connection, write)
        return watch

    @contextlib.contextmanager
    def on_hangup(self, environ: dict[str, Any], callback: Callable[[], None]) -> Iterator[None]:
        connection = environ["gunicorn.socket"].fd

        def look(_: int) -> None:
            watch.cancel()
            with contextlib.suppress(OSError):
                if connection.recv(1, socket.MSG_PEEK):
                    return  # the peer's next request, which can wait
            callback()

        watch = _HubWatch(self._hubs.get_hub(), "read", connection, look)
        try:
            yield
        finally:
            watch.cancel()


class _Readers:
    """All that is attended to, behind one listener of the hub.

    A listener of its own for each would cost each client 400 bytes, and the hub would call back a thousand of
    them in a row when a crowd leaves. Where there is no epoll, each has one all the same.
    """

    BATCH = 100

    def __init__(self, hub: Any) -> None:
        from eventlet.patcher import original

        select = original("select")  # eventlet takes epoll away from the one that is imported
        self._hub = hub
        self._readers: dict[int, Reader] = {}
        self._watches: dict[int, _HubWatch] = {}
        self._ready: deque[int] = deque()  # what epoll has reported and was not read yet
        self._epoll: Any = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            self._readable = select.EPOLLIN
            _HubWatch(hub, "read", self._epoll, self._on_epoll)

    def add(self, reader: Reader) -> None:
        fileno = reader.socket.fileno()
        self._readers[fileno] = reader
        if self._epoll is not None:
            self._epoll.register(fileno, self._readable)
        else:
            self._watches[fileno] = _HubWatch(self._hub, "read", reader.socket, self._on_readable)

    def remove(self, reader: Reader) -> None:
        fileno = reader.socket.fileno()
        if self._readers.pop(fileno, None) is None:
            return
        if self._epoll is not None:
            self._epoll.unregister(fileno)
        else:
            self._watches.pop(fileno).cancel()

    def _on_epoll(self, _: int) -> None:
        ready = self._ready
        if not ready:
            ready.extend([fileno for fileno, _events in self._epoll.poll(0, self.BATCH)])
        ends = time.monotonic() + TURN_SECONDS
        while ready:
            self._on_readable(ready.popleft())
            if time.monotonic() >= ends:
                break  # the rest is first in the next turn

    def _on_readable(self, fileno: int) -> None:
        reader = self._readers.get(fileno)
        if reader is None:
            return  # one before it in this batch ended it
        try:
            reader.on_readable()
        except Exception:
            log.exception("a connection failed")  # and is read again: it is not the hub's to end it


class _HubWatch:
    """A listener of eventlet's hub that calls back on the hub's own green thread."""

    __slots__ = ("_hub", "_listener")

    def __init__(self, hub: Any, kind: str, connection: Any, callback: Callable[[int], None]) -> None:
        self._hub = hub
        self._listener = hub.add(kind, connection.fileno(), callback, _ignore, None)
        # A listener remembers who made it, which would keep a green thread in memory that has ended.
        self._listener.greenlet = hub.greenlet

    def cancel(self) -> None:
        if self._listener is not None:
            self._hub.remove(self._listener)
            self._listener = None


def _ignore(_: object) -> None:
    pass


class ThreadLoop:
    """A thread for each connection, under Werkzeug's server, which has one for each request anyway."""

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        return threading.RLock()

    def adopt(self, environ: dict[str, Any]) -> socket.socket:
        connection: socket.socket = environ["werkzeug.socket"]
        connection.setblocking(False)
        return connection

    def attend(self, reader: Reader) -> Exception:
        with contextlib.suppress(OSError, ValueError):  # closed by another thread in between
            while reader.is_open:
                if reader.is_paused:
                    time.sleep(0.01)
                elif select.select([reader.socket], [], [], 1)[0]:
                    reader.on_readable()
        return ConnectionError()

    def pause(self, reader: Reader) -> None:
        pass  # `attend` looks

    def leave(self, reader: Reader) -> None:
        pass  # `attend` looks

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, callback)
        timer.daemon = True
        timer.start()

    def when_writable(self, connection: socket.socket, callback: Callable[[], bool]) -> Watch:
        watch = _ThreadWatch(connection, callback)
        threading.Thread(target=watch.run, daemon=True).start()
        return watch

    @contextlib.contextmanager
    def on_hangup(self, environ: dict[str, Any], callback: Callable[[], None]) -> Iterator[None]:
        yield  # the heartbeat finds out


class _ThreadWatch:
    def __init__(self, connection: socket.socket, callback: Callable[[], bool]) -> None:
        self._connection = connection
        self._callback = callback
        self._cancelled = False

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed by another thread in between
            while not self._cancelled:
                if select.select([], [self._connection], [], 1)[1] and not self._callback():
                    return

    def cancel(self) -> None:
        self._cancelled = True
