"""How gunicorn serves the relay; it reads this file by itself.

Documented at https://docs.gunicorn.org/en/stable/settings.html
"""

import warnings

# eventlet, and gunicorn's worker for it, are in maintenance and say so at every start. The choice is made in
# docs/design.md; whoever starts a relay can do nothing about it.
warnings.filterwarnings("ignore", message=r"\s*(The e|E)ventlet( worker)? is deprecated")

# gunicorn's eventlet worker patches the standard library when it is loaded, which is after this file. What
# is imported below must find it patched.
import eventlet  # noqa: E402

eventlet.monkey_patch()

import os  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

from socket2me_flask import get_services, logs, strict_http  # noqa: E402
from socket2me_flask.config import from_env  # noqa: E402
from socket2me_flask.errors import ConfigError  # noqa: E402

# Each connection is an open file.
_, _open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_open_files, _open_files))

try:
    _settings = from_env(os.environ)
except ConfigError as error:
    sys.exit(f"socket2me: {error}")

_host = "0.0.0.0" if os.environ.get("PORT", "").strip() else "127.0.0.1"  # noqa: S104  # as gunicorn does it
bind = f"{_host}:{_settings['PORT']}"

worker_class = "eventlet"
# One process holds every client and every token of the memory store. WEB_CONCURRENCY would otherwise set it.
workers = 1

# gunicorn stops accepting at this number and says nothing, and a process that runs out of files never accepts
# again. Clients do not count: the relay takes a WebSocket out of gunicorn's hands, and answers 503 at
# MAX_CONNECTIONS. So this is for callers, and for clients that poll.
worker_connections = _open_files - _settings["MAX_CONNECTIONS"] - 50
if worker_connections < 10:
    sys.exit(f"socket2me: this process may open {_open_files} files (ulimit -n), which is too few to serve with.")

# A caller that comes often saves a connection; an idle one goes soon, and so does one that sends its head slowly.
keepalive = _settings["KEEPALIVE_SECONDS"]

# From when gunicorn is told to stop until it kills the worker: longer than that takes to drain, in `front.py`.
graceful_timeout = 10

# What is on its way has been answered then. How long callers who are idle are waited for until they are cut off.
IDLE_SECONDS = 1

# Longer than the default, for webhooks with long queries.
limit_request_line = 8190

# By default a peer on this machine may set the scheme, SCRIPT_NAME and PATH_INFO by header.
secure_scheme_headers = {}
forwarder_headers = ""

# Nobody administers the relay over a socket in the home folder.
control_socket_disable = True


# What HTTP forbids and gunicorn's parsers let pass.
pre_request = strict_http.check


def on_starting(server):
    """Keep tokens out of what gunicorn logs, and what peers do that is no news."""
    for logger in (server.log.error_log, server.log.access_log):
        logger.addFilter(logs.QuietPeers())
        logger.addFilter(logs.Redact())


def post_worker_init(worker):
    """When told to stop, drain before the worker stops accepting: until then calls are answered, if only by 503."""
    is_told = False

    def on_sigterm(signum, frame):
        nonlocal is_told
        is_told = True

    def drain_when_told():
        while worker.alive and not is_told:
            eventlet.sleep(0.1)
        worker.cfg.set("keepalive", 0)  # gunicorn closes each connection after its next answer
        get_services(worker.wsgi).front.drain()
        worker.cfg.set("graceful_timeout", IDLE_SECONDS)
        worker.alive = False

    signal.signal(signal.SIGTERM, on_sigterm)
    eventlet.spawn(drain_when_told)


def worker_exit(server, worker):
    """When all calls have been answered, write what is to be written."""
    if hasattr(worker, "wsgi"):  # it has started
        get_services(worker.wsgi).store.close()
