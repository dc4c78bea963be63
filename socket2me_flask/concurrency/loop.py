"""How the engine waits: on eventlet's hub under gunicorn, in threads under `flask run`.

On the hub an idle connection costs no green thread: its socket is watched, and a callback runs when there is
something to read or room to write. Callbacks run on the hub itself, so they never block.
"""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from ..errors import BadRequest


class Watch(Protocol):
    """A socket under watch."""

    def cancel(self) -> None:
        """Watch no more."""


class Reader(Protocol):
    """Reads from a socket whenever there is something to read."""

    socket: socket.socket
    is_open: bool
    is_paused: bool

    @property
    def has_pending(self) -> bool:
        """Whether something was read from the socket, by TLS, for which the socket is not readable any more."""

    def on_readable(self, events: int = 0) -> None:
        """Read what is there. Does not block."""


class Loop(Protocol):
    """What the engine needs of the way in which its process waits."""

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        """Return what keeps two threads from one session at a time."""

    def detach_socket(self, environ: dict[str, Any]) -> socket.socket:
        """Take the socket of a request that becomes a WebSocket out of its server. It does not block.

        Raises `BadRequest` where the server gives none away.
        """

    def watch(self, reader: Reader) -> Exception:
        """Watch the socket of `reader`, so that it reads.

        Return what the request must raise to end without an answer."""

    def pause(self, reader: Reader) -> None:
        """Take note that `reader.is_paused` has changed."""

    def leave(self, reader: Reader) -> None:
        """Stop watching the socket of `reader`: its socket is about to be closed."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back once, after that time."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back once, after what can be read by now was read; where there is no such moment, at once."""

    def when_writable(self, connection: socket.socket, callback: Callable[[], bool]) -> Watch:
        """Call back when there is room to write, again and again until it returns False."""

    def on_hangup(
        self, environ: dict[str, Any], callback: Callable[[], None]
    ) -> contextlib.AbstractContextManager[None]:
        """Call back if the peer closes the connection while its request waits inside of this context."""

    def has_hung_up(self, environ: dict[str, Any]) -> bool:
        """Return whether the peer is known to have closed the connection of a request."""


_NO_LOCK = contextlib.nullcontext()


class GreenLoop:
    """eventlet's hub, under the relay's own gunicorn worker."""

    def __init__(self) -> None:
        from .poller import HubWatch, Poller, call_later  # eventlet, which threads do without

        self._call_later = call_later
        self._new_watch = HubWatch
        self._poller = Poller()

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        return _NO_LOCK  # nothing that it would guard yields to another green thread

    def detach_socket(self, environ: dict[str, Any]) -> socket.socket:
        if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
            environ["socket2me.connection"].close_after_response()
            raise BadRequest("A handshake has no body.")
        try:
            connection: socket.socket = environ["socket2me.connection"].detach()
        except ConnectionError as error:
            raise BadRequest(str(error)) from None
        return connection

    def watch(self, reader: Reader) -> Exception:
        if reader.is_open:
            fileno = reader.socket.fileno()
            reads_ahead = hasattr(reader.socket, "pending")  # TLS does
            self._poller.add(fileno, partial(self._read_all, reader) if reads_ahead else reader.on_readable)
            if reader.has_pending:
                self._poller.repeat(fileno)
        return StopIteration()

    def _read_all(self, reader: Reader, events: int) -> None:
        fileno = reader.socket.fileno()
        reader.on_readable(events)
        if reader.has_pending:
            self._poller.repeat(fileno)

    def pause(self, reader: Reader) -> None:
        if reader.is_paused:
            self.leave(reader)
        else:
            self.watch(reader)

    def leave(self, reader: Reader) -> None:
        self._poller.remove(reader.socket.fileno())

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._call_later(seconds, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._call_later(0, callback)

    def when_writable(self, connection: socket.socket, callback: Callable[[], bool]) -> Watch:
        def write(_: int) -> None:
            if not callback():
                watch.cancel()

        watch = self._new_watch("write", connection.fileno(), write)
        return watch

    def on_hangup(
        self, environ: dict[str, Any], callback: Callable[[], None]
    ) -> contextlib.AbstractContextManager[None]:
        watched: contextlib.AbstractContextManager[None] = environ["socket2me.connection"].on_hangup(callback)
        return watched

    def has_hung_up(self, environ: dict[str, Any]) -> bool:
        return bool(environ["socket2me.connection"].has_hung_up())


class ThreadLoop:
    """A thread for each connection, under Werkzeug's server, which has one for each request anyway."""

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        return threading.RLock()

    def detach_socket(self, environ: dict[str, Any]) -> socket.socket:
        if "werkzeug.socket" not in environ:
            raise BadRequest("This server takes no WebSockets.")
        connection: socket.socket = environ["werkzeug.socket"]
        connection.setblocking(False)
        return connection

    def watch(self, reader: Reader) -> Exception:
        with contextlib.suppress(OSError, ValueError):  # closed by another thread in between
            while reader.is_open:
                if reader.is_paused:
                    time.sleep(0.01)
                elif reader.has_pending or select.select([reader.socket], [], [], 1)[0]:
                    reader.on_readable()
        return ConnectionError()

    def pause(self, reader: Reader) -> None:
        pass  # `watch` looks

    def leave(self, reader: Reader) -> None:
        pass  # `watch` looks

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, callback)
        timer.daemon = True
        timer.start()

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def when_writable(self, connection: socket.socket, callback: Callable[[], bool]) -> Watch:
        watch = _ThreadWatch(connection, callback)
        threading.Thread(target=watch.run, daemon=True).start()
        return watch

    @contextlib.contextmanager
    def on_hangup(self, environ: dict[str, Any], callback: Callable[[], None]) -> Iterator[None]:
        yield  # the heartbeat finds out

    def has_hung_up(self, environ: dict[str, Any]) -> bool:
        return False  # the heartbeat finds out


class _ThreadWatch:
    def __init__(self, connection: socket.socket, callback: Callable[[], bool]) -> None:
        self._connection = connection
        self._callback = callback

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed by another thread in between
            while not select.select([], [self._connection], [], 1)[1] or self._callback():
                pass

    def cancel(self) -> None:
        pass  # the connection is closed, which ends `run`
