"""Accepting: a green thread for each listener, and one for each connection."""

import errno
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import eventlet

from ..concurrency.poller import wait_until
from ..limits import address_key
from ..logs import LogInterval
from .serving import Server, Worker

# How long accepting pauses when there is no room: a connection that closes makes some.
FULL_PAUSE_SECONDS = 0.05

# How many connections are accepted before other green threads run. One at a time would have a new one wait as many
# rounds of the hub as there are before it.
BATCH = 64

_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts the connections of one worker. `connections` is how many are open."""

    def __init__(self, worker: Worker, server: Server) -> None:
        self._worker = worker
        self._server = server
        self._threads: list[Any] = []
        self._full_lines = LogInterval()
        self._hosts: Counter[str] = Counter()  # how many connections each address has
        self.connections = 0

    def start(self) -> None:
        """Accept on every listener."""
        self._threads = [eventlet.spawn(self._accept, listener) for listener in self._worker.sockets]

    def stop(self) -> None:
        """Accept no more, and close the listeners."""
        for thread in self._threads:
            thread.kill()
        for listener in self._worker.sockets:
            listener.close()

    def spawn(self, do: Callable[[], object]) -> Any:
        """Do something on a green thread, which is `dead` when it is done."""
        return eventlet.spawn(do)

    def wait_for_signal(self, pipe: int, seconds: float) -> None:
        """Return when a signal arrived, which wrote to a pipe, or after some time."""
        try:
            wait_until(pipe, "read", seconds)
            os.read(pipe, 4096)
        except TimeoutError:
            pass

    def _accept(self, listener: Any) -> None:
        """Accept connections until this green thread is killed. If it fails, the worker ends."""
        try:
            name = listener.getsockname()
            while True:
                wait_until(listener.fileno(), "read", None)
                for _ in range(BATCH):
                    if not self._accept_one(listener, name):
                        break
        except Exception:
            self._worker.log.exception("The acceptor failed: this worker ends.")
            self._worker.alive = False

    def _accept_one(self, listener: Any, name: Any) -> bool:
        """Accept a connection. Return whether another may be waiting."""
        try:
            if self.connections >= self._worker.worker_connections:
                self._log_full("worker_connections are open")
                if not self._server.make_room():
                    eventlet.sleep(FULL_PAUSE_SECONDS)
                    return False
            sock, address = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False  # there is none, or another worker was faster
        except ConnectionError:
            return True  # the peer left while it waited
        except OSError as error:
            if listener.fileno() < 0:
                raise
            # Out of files, or what accept(2) says of the network: it may pass.
            reason = "no file is left" if error.errno in _NO_FILES else "accepting failed"
            self._log_full(f"{reason} ({os.strerror(error.errno or 0)})")
            eventlet.sleep(FULL_PAUSE_SECONDS)
            return False
        host = address_key(address[0]) if isinstance(address, tuple) else ""
        if not self._server.may_connect(host, self._hosts[host]):
            sock.close()
            self._log_full("an address has as many connections as it may")
            return True
        self.connections += 1
        self._hosts[host] += 1
        eventlet.spawn_n(self._serve, sock, address, name, host)
        return True

    def _serve(self, sock: Any, address: Any, listener_name: Any, host: str) -> None:
        try:
            self._server.serve(sock, address, listener_name, host)
        except BaseException:  # nothing that a connection raises may end the green thread of the hub
            self._worker.log.exception("A connection failed.")
        finally:
            self.connections -= 1
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]

    def _log_full(self, reason: str) -> None:
        if self._full_lines.is_due():
            self._worker.log.warning(
                "Connections are not accepted: %s (%d connections of callers are open).", reason, self.connections
            )
