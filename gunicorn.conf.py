"""How gunicorn serves the relay; it reads this file by itself.

Documented at https://docs.gunicorn.org/en/stable/settings.html
"""

import os
import resource
import sys

from gunicorn.workers import SUPPORTED_WORKERS

from socket2me_flask.config import from_env
from socket2me_flask.errors import ConfigError

# gunicorn has no eventlet worker any more. This one is the relay's own.
SUPPORTED_WORKERS["eventlet"] = "socket2me_flask.worker.EventletWorker"
worker_class = "eventlet"

# Each connection is an open file.
_, _open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_open_files, _open_files))

try:
    _settings = from_env(os.environ)
except ConfigError as error:
    sys.exit(f"socket2me: {error}")

_host = "0.0.0.0" if os.environ.get("PORT", "").strip() else "127.0.0.1"  # noqa: S104  # as gunicorn does it
bind = f"{_host}:{_settings['PORT']}"

# One process holds every client and every token of the memory store. WEB_CONCURRENCY would otherwise set it.
workers = 1

# Clients do not count: a WebSocket leaves the worker, and the relay answers 503 at MAX_CONNECTIONS. So this is for
# callers, and for clients that poll.
worker_connections = _open_files - _settings["MAX_CONNECTIONS"] - 50
if worker_connections < 10:
    sys.exit(f"socket2me: this process may open {_open_files} files (ulimit -n), which is too few to serve with.")

# A caller that comes often saves a connection; an idle one goes soon, and so does one that sends its head slowly.
keepalive = _settings["KEEPALIVE_SECONDS"]

# From when gunicorn is told to stop until it kills the worker: longer than that takes to drain, in `lifecycle.py`.
graceful_timeout = 10

# Longer than the default, for webhooks with long queries.
limit_request_line = 8190

# Nobody administers the relay over a socket in the home folder.
control_socket_disable = True
