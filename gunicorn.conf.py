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
import sys  # noqa: E402

from socket2me_flask.config import from_env  # noqa: E402
from socket2me_flask.errors import ConfigError  # noqa: E402

try:
    _settings = from_env(os.environ)
except ConfigError as error:
    sys.exit(f"socket2me: {error}")

_host = "0.0.0.0" if os.environ.get("PORT") else "127.0.0.1"  # noqa: S104  # as gunicorn itself does it
bind = f"{_host}:{_settings['PORT']}"

worker_class = "eventlet"
# One process holds every client and every token of the memory store. WEB_CONCURRENCY would otherwise set it.
workers = 1

# gunicorn stops accepting at this number, callers included, and says nothing. The relay answers 503 to new
# clients at MAX_CONNECTIONS, so it leaves room for callers above that.
worker_connections = _settings["MAX_CONNECTIONS"] + 5000

# Each connection is an open file.
_, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most_files, _most_files))

# A caller that comes often saves a connection; an idle one goes soon.
keepalive = 15
graceful_timeout = 5

# A relay must pass on any path and header that a provider may send.
limit_request_line = 8190

# By default a peer on this machine may set SCRIPT_NAME and PATH_INFO by header.
forwarder_headers = ""

# Nobody administers the relay over a socket in the home folder.
control_socket_disable = True
