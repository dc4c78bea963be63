"""The relay's own gunicorn worker: green threads of eventlet, on gunicorn's public `AsyncWorker`.

gunicorn 26 removed its eventlet worker. This one serves any WSGI application, and forwards the calls of a relay
without WSGI (`accelerator.py`). `gunicorn_conf.py` names it `eventlet`, so that `gunicorn -k eventlet wsgi:app`
finds it; without that configuration it is `gunicorn -k socket2me_flask.worker.EventletWorker wsgi:app`.

gunicorn's master imports `eventlet_worker.py`, and nothing else of this package: eventlet is first imported, and
patches the standard library, in the worker, after the fork. A master whose locks are green dies of a signal that
arrives at the wrong moment.
"""

from .eventlet_worker import EventletWorker

__all__ = ["EventletWorker"]
