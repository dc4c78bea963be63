"""The entry for servers: `gunicorn -k eventlet wsgi:app`, and `flask run`, which finds it by its name."""

import sys

from socket2me_flask import create_app, get_services, logs
from socket2me_flask.errors import ConfigError

try:
    app = create_app()
except ConfigError as error:
    print(f"socket2me: {error}", file=sys.stderr)
    sys.exit(3)  # to gunicorn: no use to start a worker again

logs.configure(get_services(app).settings["LOG_LEVEL"])
