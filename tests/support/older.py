"""A relay of an earlier version, for `test_older_relay.py`: it says so, and has neither mailboxes to look into
nor options that came later.

`STATED` is the version that it states. Without one, it is from before relays stated any.
"""

import os

from flask import abort, request

import socket2me

socket2me.__version__ = os.environ.get("STATED") or None

from socket2me_flask import api  # noqa: E402  # after the version, which its modules import
from socket2me_flask.sockets.auth import AUTH_VALUES  # noqa: E402
from wsgi import app  # noqa: E402


@app.before_request
def has_not():
    if "/events" in request.path or (not os.environ.get("STATED") and request.path == "/"):
        abort(404)


if not os.environ.get("STATED"):
    parse = api.tokens.parse_options

    def parse_fewer(body):
        options = parse(body)
        if "verify" in options:
            raise api.tokens.BadRequest("The body may have ttl_seconds, mode and mailbox, and nothing else.")
        return options

    api.tokens.parse_options = parse_fewer
    del AUTH_VALUES["filter"]
