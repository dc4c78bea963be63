"""How gunicorn serves the relay: what `gunicorn.conf.py` of a checkout and `serve_conf.py` import.

Documented at https://docs.gunicorn.org/en/stable/settings.html
"""

import errno
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

from gunicorn.workers import SUPPORTED_WORKERS

from ..config import exposure_warning, from_env
from ..errors import ConfigError
from ..telemetry import log_setup
from .gunicorn_settings import check_workers

# gunicorn has no eventlet worker any more. This one is the relay's own.
SUPPORTED_WORKERS["eventlet"] = "socket2me_flask.worker.EventletWorker"
worker_class = "eventlet"

# Each connection is an open file.
_, _open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_open_files, _open_files))

# Before anything can fail: a refusal to start is a line of the log, too.
if log_setup.configure_at_start():
    logger_class = "socket2me_flask.worker.json_logger.JSONLogger"

try:
    settings = from_env(os.environ)
except ConfigError as error:
    sys.exit(f"socket2me: {error}")

bind = settings.bind_address

# One process holds every client and every token of the memory store. WEB_CONCURRENCY would otherwise set it.
workers = 1

# Clients do not count: a WebSocket leaves the worker, and the relay answers 503 at SOCKET2ME_MAX_CONNECTIONS. So
# this is for callers, and for clients that poll.
worker_connections = _open_files - settings.max_connections - 50
if worker_connections < 10:
    sys.exit(f"socket2me: this process may open {_open_files} files (ulimit -n), which is too few to serve with.")

# A caller that comes often saves a connection; an idle one goes soon, and so does one that sends its head slowly.
keepalive = settings.keepalive_seconds

# From SIGTERM until gunicorn kills the worker: longer than the worker takes to drain (`lifecycle.py`).
graceful_timeout = 10

# Longer than the default, for webhooks with long queries.
limit_request_line = 8190

# The relay is not administered over a socket in the home folder.
control_socket_disable = True

# How long a port may be in use before the start ends: a relay that is being replaced needs a moment to stop.
PORT_WAIT_SECONDS = 3

# In a worker that was just forked, the handlers of its master would take these and forget them. gunicorn sets
# others later, and for a moment has those that end a process at once.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


def _unblock_stop_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


os.register_at_fork(after_in_parent=_unblock_stop_signals)


def pre_fork(server: Any, worker: Any) -> None:
    """Have signals to stop wait: in the master until it has forked, in the worker until it has loaded."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)


def post_worker_init(worker: Any) -> None:
    """Let a worker, of any class, have the signals to stop that have waited: its handlers are set up."""
    _unblock_stop_signals()


def on_starting(server: Any) -> None:
    """End the start with one line if the workers, of any class, would not share a store, or if a port is in use.

    Sockets that are inherited are not looked at.
    """
    check_workers(server.cfg.workers)
    if server.cfg.reuse_port or "GUNICORN_FD" in os.environ or "LISTEN_FDS" in os.environ:
        return
    for address in server.cfg.address:
        if not isinstance(address, tuple):
            continue
        ends_at = time.monotonic() + PORT_WAIT_SECONDS
        while not _is_free(*address):
            if time.monotonic() >= ends_at:
                host, port = address
                free = next((other for other in range(port + 1, port + 100) if _is_free(host, other)), None)
                hint = f"PORT={free} is free." if free is not None else "Set PORT to another."
                sys.exit(f"socket2me: port {port} of {host} is in use. {hint}")
            time.sleep(0.2)


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    """Keep to one worker with a store of one process: SIGTTIN would add a relay of its own."""
    if old is not None and new > 1 and not settings.store.is_shared:
        server.log.warning("One worker serves: several need SOCKET2ME_STORE_URL=redis://..., which they share.")
        server.num_workers = 1


def when_ready(server: Any) -> None:
    """Say what it means if others than this machine reach the relay."""
    for address in server.cfg.bind:
        warning = exposure_warning(address, settings)
        if warning is not None:
            server.log.warning(warning)


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True
