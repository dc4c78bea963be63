"""The entry in a checkout: `gunicorn -k eventlet wsgi:app`, and `flask run`, which finds it by its name."""

from socket2me_flask.wsgi import app

__all__ = ["app"]
