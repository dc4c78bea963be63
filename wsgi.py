"""The entry for servers: `gunicorn -k eventlet wsgi:app`, and `flask run`, which finds it by its name."""

import gc
import logging
import sys

from socket2me_flask import create_app, get_services, logs
from socket2me_flask.errors import ConfigError

try:
    app = create_app()
except ConfigError as error:
    print(f"socket2me: {error}", file=sys.stderr)
    sys.exit(3)  # to gunicorn: no use to start a worker again

services = get_services(app)
logs.configure(services.settings["LOG_LEVEL"])
logging.getLogger(__name__).info("tokens are kept in %s", services.store.start())

# What is here now stays as long as the process: the garbage collector need not look at it again and again.
gc.collect()
gc.freeze()

engine = services.sockets.engine
engine.start()
engine.start_background_task(services.reaper.run)
