"""A client with socketIO-client-nexus that prints what it receives, as `js/legacy.mjs` does: a JSON line an event.

    python -m tests.support.nexus URL TOKEN TRANSPORTS

It leaves when its input ends. `connect` is said with the transport.
"""

import json
import os
import sys
import threading
from urllib.parse import urlsplit

from socketIO_client_nexus import BaseNamespace, SocketIO


def say(event: str, *data: object) -> None:
    print(json.dumps({"event": event, "data": data}), flush=True)


class Namespace(BaseNamespace):
    """Receives all that the relay sends to a token."""

    def on_connect(self) -> None:
        say("connect", transports.transport_name)

    def on_disconnect(self) -> None:
        say("disconnect")

    def on_error(self, data: object) -> None:
        say("error", data)

    def on_event(self, event: str, *args: object) -> None:
        acknowledge = args[-1] if args and callable(args[-1]) else None
        say(event, *(arg for arg in args if not callable(arg)))
        if acknowledge is not None:
            acknowledge("done")


if __name__ == "__main__":
    url, token, names = sys.argv[1:]
    parts = urlsplit(url)
    transports = SocketIO(
        f"{parts.scheme}://{parts.hostname}", parts.port, transports=names.split(","), wait_for_connection=False
    )
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    transports.define(Namespace, f"/{token}")
    transports.wait()
