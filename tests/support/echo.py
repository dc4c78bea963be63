"""A WebSocket server that echoes, of the relay's own parts: what Autobahn's suite tests.

    gunicorn -k socket2me_flask.worker.EventletWorker tests.support.echo:app

Its handshake, frames and connection are the relay's, under the relay's worker; the relay itself echoes nothing.
"""

from functools import cache

from socket2me_flask.concurrency.loop import GreenLoop
from socket2me_flask.engineio import websocket
from socket2me_flask.engineio.websocket_connection import Connection, ConnectionOptions, Owner
from socket2me_flask.limits import Pool

# As large as the largest message of the suite.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_TOTAL_BYTES = 10 * MAX_MESSAGE_BYTES


class Echo(Owner):
    """An owner of a connection that sends back each message."""

    def __init__(self, sock, loop):
        options = ConnectionOptions(loop, MAX_MESSAGE_BYTES, Pool(MAX_TOTAL_BYTES))
        self.connection = Connection(sock, options, loop.lock(), self, "127.0.0.1")

    def on_message(self, opcode, payload):
        self.connection.write(websocket.frame(opcode, payload))


@cache
def loop():
    """Return the loop of this process. It is made in the worker, where eventlet is."""
    return GreenLoop()


def app(environ, start_response):
    """Open a WebSocket (WSGI)."""
    if not websocket.is_wanted(environ):
        start_response("200 OK", [("Content-Length", "0")])
        return []
    answer = websocket.accept(environ)
    echo = Echo(loop().detach_socket(environ), loop())
    echo.connection.write(answer)
    raise loop().watch(echo.connection)
