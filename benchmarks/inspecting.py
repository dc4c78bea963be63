"""CPU of the relay for each forwarded request, with a history and without, against one that has none; in turns.

A turn is 20,000 POSTs of 1 KB over 16 keep-alive connections for a token with a secret, whose history is in memory
and at its bound of 10,000 calls. The last side has a stream that is read as well.
"""

import itertools
import json
import socket
import statistics
import threading

from forwarding import cost
from harness import Client, Row, Server, load, payload, post, use_load_core

ROUNDS = 9


def read_stream(server: Server, token: str, secret: str) -> socket.socket:
    """Return the connection of a stream, which a thread reads until it is closed."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    target = f"/v1/tokens/{token}/requests/stream"
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())

    def read() -> None:
        try:
            while connection.recv(65_536):
                pass
        except OSError:
            pass

    threading.Thread(target=read, daemon=True).start()
    return connection


def run() -> list[Row]:
    body = payload()
    patient = {"PING_INTERVAL_SECONDS": 3600}  # a client answers only while it is its server's turn
    with (
        Server("uninspected:app", **patient) as without,
        Server(**patient) as off,
        Server(**patient) as on,
        Server(**patient) as streamed,
    ):
        sides: dict[Server, tuple[bytes, list[Client]]] = {}
        for server in (without, off, on, streamed):
            token, auth = server.new_with_secret(inspect=server in (on, streamed))
            sides[server] = post(f"/v1/go/{token}", body), [Client(server.port, token, auth)]
        stream = read_stream(streamed, token, json.loads(auth)["secret"])
        costs: dict[Server, list[float]] = {server: [] for server in sides}
        for server, (request, clients) in sides.items():
            load(server.port, request, requests=12_000, clients=clients)
        # Each round in another order: what comes later in a round may find the machine busier.
        orders = itertools.islice(itertools.cycle(itertools.permutations(sides)), 0, None, 5)
        for _, order in zip(range(ROUNDS), orders, strict=False):
            for server in order:
                costs[server].append(cost(server, *sides[server])[0])
        stream.close()

    def ratio(server: Server) -> float:
        return statistics.median(own / bare for own, bare in zip(costs[server], costs[without], strict=True))

    return [
        Row(
            "CPU per forwarded request, token with a secret, no inspector", statistics.median(costs[without]), "us"
        ),
        Row("the same, inspect off / no inspector", ratio(off), "x", 1.01),
        Row("the same, inspect on / no inspector", ratio(on), "x", 1.15),
        Row("the same, inspect on and a stream that is read / no inspector", ratio(streamed), "x"),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
