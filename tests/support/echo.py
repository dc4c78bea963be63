"""A WebSocket server that echoes, of the relay's own parts: what Autobahn's suite tests.

    gunicorn -k socket2me_flask.worker.EventletWorker tests.support.echo:app

Its handshake, frames and connection are the relay's, under the relay's worker; the relay itself echoes nothing.
"""

from functools import cache

from socket2me_flask.concurrency.loop import GreenLoop
from socket2me_flask.engineio import websocket
from socket2me_flask.engineio.websocket_connection import Connection

# As large as the largest message of the suite.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Echo:
    """An owner of a connection that sends back each message."""

    def __init__(self):
        self.connection = None

    def on_message(self, opcode, payload):
        self.connection.write(websocket.frame(opcode, payload))

    def on_progress(self):
        pass

    def on_drained(self):
        pass

    def on_limit(self, error):
        pass

    def on_closing(self, reason):
        pass

    def on_closed(self, reason):
        pass


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
    echo = Echo()
    echo.connection = Connection(
        loop().detach_socket(environ), loop(), loop().lock(), echo, max_message_bytes=MAX_MESSAGE_BYTES
    )
    echo.connection.write(answer)
    raise loop().attend(echo.connection)
