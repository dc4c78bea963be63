"""How gunicorn serves the relay from a checkout; it reads this file by itself."""

from socket2me_flask.worker.gunicorn_conf import *  # noqa: F403
