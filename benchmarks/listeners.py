"""CPU of the relay for each listener and event, with 100 listeners of one token on `all`.

A turn is POSTs of 1 KB over 4 keep-alive connections to a token with one listener, and to one with 100: the
difference is what 99 listeners cost. Every event is counted at every listener.
"""

import statistics

from harness import AcknowledgingClient, Client, Row, Server, drain, load, payload, post, use_load_core

LISTENERS = 100
REQUESTS = 500
ROUNDS = 5


def cost(server: Server, token: str, clients: list[Client]) -> float:
    """Return the server's CPU time for each call, in microseconds, until its clients have all of them."""
    before = server.cpu_seconds()
    result = load(
        server.port, post(f"/v1/go/{token}", payload()), requests=REQUESTS, connections=4, clients=clients
    )
    drain(clients, 0.3)
    if result.ok != REQUESTS:
        raise RuntimeError(result.answers)
    return (server.cpu_seconds() - before) / REQUESTS * 1e6


def run() -> list[Row]:
    bounds = {"notify": 15, "ack": None}  # an acknowledgement is received, too
    rows = []
    with Server() as server:
        for mode, client_class in (("notify", Client), ("ack", AcknowledgingClient)):
            sides = []
            for listeners in (1, LISTENERS):
                token, auth = server.new_with_secret(listeners="all", mode=mode)
                sides.append((token, [client_class(server.port, token, auth) for _ in range(listeners)]))
            costs: list[float] = []
            for number in range(ROUNDS + 1):  # the first warms up
                one, many = (cost(server, *side) for side in sides)
                if number:
                    costs.append((many - one) / (LISTENERS - 1))
            events = REQUESTS * (ROUNDS + 1)
            lost = sum(events - client.received for _, clients in sides for client in clients)
            rows += [
                Row(f"CPU per listener and event, mode {mode}", statistics.median(costs), "us", bounds[mode]),
                Row("events that a listener has not had, or twice", abs(lost), "events", 0),
            ]
            for _, clients in sides:
                for client in clients:
                    client.close()
    return rows


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
