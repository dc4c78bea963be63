"""Engine.IO 3 clients: four versions, each over three transports, by way of `js/legacy.mjs`."""

import json
from contextlib import closing, contextmanager
from itertools import product

from tests.support.servers import JS, Lines, Listener, with_bytes

VERSIONS = ("1.4.8", "1.7.4", "2.0.4", "2.5.0")
TRANSPORTS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}
EVERY_CLIENT = list(product(VERSIONS, TRANSPORTS))


@contextmanager
def crowd(server, clients, reply=None, **options):
    """Clients in one process of Node, each of a version and a transport and for a token of its own.

    `reply` is what each acknowledges with.
    """
    listeners = [Listener() for _ in clients]
    by_token = {token: listener for (_, _, token), listener in zip(clients, listeners, strict=True)}
    arguments = [
        {
            "version": version,
            "token": token,
            "reply": reply,
            "options": {"transports": TRANSPORTS[transport], **options},
        }
        for version, transport, token in clients
    ]

    def on_line(line):
        said = json.loads(line)
        by_token[said["token"]].record(said["event"], *with_bytes(said["data"]))

    command = ["node", "--no-deprecation", "legacy.mjs", server.url, json.dumps(arguments)]
    with closing(Lines(command, on_line, cwd=JS)):
        yield listeners


@contextmanager
def one(server, version, transport, token):
    """A single client."""
    with crowd(server, [(version, transport, token)]) as (client,):
        yield client


@contextmanager
def everyone(server, tokens, **options):
    """A client of every kind; return them once they are connected. What is said of heartbeats may come first."""
    kinds = [(*kind, token) for kind, token in zip(EVERY_CLIENT, tokens, strict=True)]
    with crowd(server, kinds, **options) as listeners:
        for (_, transport, _), listener in zip(kinds, listeners, strict=True):
            assert listener.expect("connect", after=["pong"]) == TRANSPORTS[transport][-1]
        yield listeners
