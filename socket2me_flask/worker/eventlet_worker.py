"""The worker process: configuration, signals, start and end. Imports no eventlet before the fork."""

import faulthandler
import gc
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base_async import AsyncWorker

from ..telemetry import json_logs
from .gunicorn_settings import check_workers
from .json_logger import JSONLogger

if TYPE_CHECKING:
    from .acceptor import Acceptor
    from .serving import Server

# How often this process checks that its master lives, and notifies gunicorn that it lives itself, in seconds.
NOTIFY_SECONDS = 0.5

# How long idle connections may stay open once everything in flight has been answered.
IDLE_SECONDS = 1

# How long a stop without a master may take: without one, a worker that hangs is not killed.
ORPHAN_SECONDS = 1


class EventletWorker(AsyncWorker):  # type: ignore[misc]  # gunicorn carries no types
    """A gunicorn worker whose connections are green threads.

    It counts on gunicorn 27's `AsyncWorker`: `handle_request`, `notify`, and the life of `base.Worker`.
    """

    cfg: Any
    sockets: list[Any]
    wsgi: Any

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse, in one line, a configuration that this worker cannot serve: gunicorn asks at the start."""
        reason = None
        if cfg.preload_app:
            reason = "preload_app is not supported: the application is built in the worker, after the fork."
        elif cfg.http_protocols != ["h1"]:
            reason = "http_protocols is h1 only: HTTP/2 belongs to a proxy in front."
        if reason is not None:
            sys.exit(f"socket2me: {reason}")
        check_workers(cfg.workers)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By default a peer on this machine may set the scheme, SCRIPT_NAME and PATH_INFO by header. No peer may; so
        # gunicorn need not look, for each request, whether the peer is one that could.
        self.cfg.set("secure_scheme_headers", {})
        self.cfg.set("forwarder_headers", "")
        self.cfg.set("forwarded_allow_ips", "*")
        self._is_told_to_quit = False
        self._wants_logs_reopened = False

    def init_process(self) -> None:
        # eventlet announces at import that it is in maintenance; docs/decisions/ records why it is used. This is
        # its own switch for the announcement.
        os.environ["EVENTLET_TESTS"] = "1"
        import eventlet
        from eventlet import hubs
        from eventlet.patcher import original

        del os.environ["EVENTLET_TESTS"]
        eventlet.monkey_patch()
        hubs.use_hub()
        # The sockets that gunicorn opened before the fork, as objects that nothing has patched.
        unpatched = original("socket").socket
        self.sockets = [unpatched(fileno=sock.sock.detach()) for sock in self.sockets]
        super().init_process()

    # Signals. A handler runs on the current green thread, perhaps the hub's: it only sets a flag. The signal also
    # wakes `run`, through the pipe that gunicorn sets up.

    def handle_quit(self, sig: int, frame: object) -> None:
        self.alive = False
        self._is_told_to_quit = True

    def handle_usr1(self, sig: int, frame: object) -> None:
        self._wants_logs_reopened = True

    def handle_abort(self, sig: int, frame: object) -> None:
        """Log the stacks of the process, which has not notified gunicorn for its whole timeout.

        A process that hangs is killed by gunicorn a second later. One that stood still together with gunicorn, on a
        machine that was paused, goes on: the signal wakes `run`, which notifies gunicorn.
        """
        if isinstance(self.log, JSONLogger):
            json_logs.dump_traceback()
        else:
            faulthandler.dump_traceback()
        self.cfg.worker_abort(self)

    def run(self) -> None:
        """Start the application, if it is a relay, and accept connections until the process is to end."""
        from ..errors import ConfigError
        from .acceptor import Acceptor
        from .gunicorn_settings import CachedConfig, add_log_filters
        from .serving import Server, with_connection

        self.booted = False  # so that gunicorn starts no other worker if this one fails to start
        self.cfg = CachedConfig(self.cfg)
        add_log_filters(self.log)
        try:
            server = Server(self)
        except ConfigError as error:
            print(f"socket2me: {error}", file=sys.stderr)
            sys.exit(3)  # to gunicorn: no use to start a worker again
        self.wsgi = with_connection(self.wsgi)
        # What is here now stays as long as the process: the garbage collector need not look at it again.
        gc.collect()
        gc.freeze()
        self.booted = True
        acceptor = Acceptor(self, server)
        acceptor.start()
        self.on_serving()
        is_orphan = False
        while self.alive and not is_orphan:
            self.notify()
            acceptor.wait_for_signal(self.PIPE[0], NOTIFY_SECONDS)
            if self._wants_logs_reopened:
                self._wants_logs_reopened = False
                self.log.reopen_files()
            is_orphan = os.getppid() != self.ppid
        self.alive = False
        if is_orphan:
            self.log.error("The master process is gone: this one ends.")
        if self._is_told_to_quit:
            self.cfg.worker_int(self)
            server.disconnect_clients()
        else:
            self._drain(server, acceptor, ORPHAN_SECONDS if is_orphan else self.cfg.graceful_timeout)
        acceptor.stop()
        server.stop()

    def on_serving(self) -> None:
        """Do nothing: connections are accepted from now on."""

    def _drain(self, server: "Server", acceptor: "Acceptor", seconds: float) -> None:
        """Answer what is in flight, disconnect the clients, stop accepting, then wait for idle connections.

        Until the clients are disconnected new connections are accepted: their calls are answered, if only by 503.
        """
        ends_at = time.monotonic() + seconds
        draining = acceptor.spawn(server.drain)
        self._wait_while(lambda: not draining.dead, ends_at)
        acceptor.stop()
        self._wait_while(lambda: acceptor.connections > 0, min(ends_at, time.monotonic() + IDLE_SECONDS))
        server.close_idle()
        self._wait_while(lambda: acceptor.connections > 0, ends_at)

    def count_request(self) -> None:
        """Count a request against `max_requests`."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def _wait_while(self, condition: Callable[[], bool], ends_at: float) -> None:
        while condition() and not self._is_told_to_quit and time.monotonic() < ends_at:
            self.notify()
            time.sleep(0.02)  # which eventlet has patched
