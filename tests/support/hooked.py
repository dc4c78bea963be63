"""The relay with what a developer adds to a Flask application: served by gunicorn for `test_both_ways.py`.

`HOOKED=1` registers a hook, so that every call takes the way through Flask. A call with the header `X-Explode`
meets an unexpected exception on both ways.
"""

import os

from socket2me_flask import get_services
from wsgi import app

if os.environ.get("HOOKED"):

    @app.after_request
    def count(response):
        count.requests += 1
        return response

    count.requests = 0

    @app.get("/hooked")
    def hooked():
        return str(count.requests)


relay = get_services(app).relay
forward = relay.forward


def explode(call, record):
    if "x-explode" in call.headers:
        raise RuntimeError("the secret inside")
    return forward(call, record)


relay.forward = explode
