"""The listeners of `soak_listeners.py`, over bare WebSockets: each writes down what it received, then acknowledges.

Each line of the output has the time (the clock is that of all processes), the client, its connection, and what
happened. Lines of the input: `cut` ends all connections, `replace` has every client connect beside itself.
"""

import contextlib
import json
import os
import queue
import random
import sys
import threading
import time
from itertools import count
from typing import Any

import websocket

# Longer than the relay's pings are apart: a connection that is silent for so long is dead.
SILENT_SECONDS = 10

# How long a worker handles an event.
MOST_HANDLING_SECONDS = 0.03

_lock = threading.Lock()
_connections = count()


def say(who: str, connection: int, what: str, key: Any = None) -> None:
    with _lock:
        print(json.dumps([time.monotonic(), who, connection, what, key]), flush=True)


class Client:
    """A listener with an id, which connects again and again, to any of the relays."""

    def __init__(self, urls: list[str], made: dict[str, Any], name: str) -> None:
        self._urls = urls
        self._made = made
        self._name = name
        self._is_worker = made["listeners"] == "one"
        self._sockets: set[websocket.WebSocket] = set()
        self.start()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def cut(self) -> None:
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.sock.close()

    def _run(self) -> None:
        while True:
            number = next(_connections)
            try:
                if self._listen(number) == "replaced":
                    return
            except (OSError, websocket.WebSocketException, AttributeError, ValueError):
                pass
            finally:
                say(self._name, number, "closed")
            time.sleep(0.2)

    def _listen(self, number: int) -> str:
        socket = websocket.create_connection(random.choice(self._urls), timeout=SILENT_SECONDS)
        self._sockets.add(socket)
        events: queue.Queue[tuple[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._handle, args=[socket, number, events], daemon=True).start()
        try:
            token = self._made["token"]
            auth = {"secret": self._made["secret"], "listener": self._name, "listeners": self._made["listeners"]}
            socket.recv()
            socket.send(f"40/{token},{json.dumps(auth)}")
            while True:
                packet = socket.recv()
                if packet == "2":
                    socket.send("3")
                elif packet.startswith("44/"):
                    say(self._name, number, "refused", packet)
                    return "refused"
                elif packet.startswith(("1", "41")) or not packet:
                    return "closed"
                elif packet.startswith("42/"):
                    head, _, rest = packet.partition("[")
                    name, *data = json.loads("[" + rest)
                    if name == "replaced":
                        say(self._name, number, "replaced")
                        return "replaced"
                    if name == "request":
                        events.put((head[2:], data[0]["body"]))
        finally:
            events.put(None)
            self._sockets.discard(socket)
            socket.shutdown()

    def _handle(self, socket: websocket.WebSocket, number: int, events: "queue.Queue[Any]") -> None:
        while (event := events.get()) is not None:
            address, key = event
            say(self._name, number, "begin", key)
            if self._is_worker:
                time.sleep(random.uniform(0, MOST_HANDLING_SECONDS))
            say(self._name, number, "end", key)
            with contextlib.suppress(OSError, websocket.WebSocketException, AttributeError):
                socket.send(f"43{address}[]")


def main() -> None:
    """Be the clients that `CLIENTS` names, until the input ends."""
    clients = [Client(*each) for each in json.loads(os.environ["CLIENTS"])]
    for line in sys.stdin:
        for client in clients:
            client.cut() if line.strip() == "cut" else client.start()


if __name__ == "__main__":
    main()
