"""CPU of the relay for each listener and event, with 100 listeners of one token on `all`.

A turn is POSTs of 1 KB over 4 keep-alive connections to a token with one listener, and to one with 100: the
difference is what 99 listeners cost. Every event is counted at every listener. With a mailbox, in SQLite, each
listener's position is written as well.
"""

import statistics
import tempfile

from harness import AcknowledgingClient, Client, Row, Server, drain, load, payload, post, use_load_core

LISTENERS = 100
REQUESTS = 500
ROUNDS = 5

# Of each kind its name, the class of its clients, the options of its token, the calls of a turn, and the bound.
# The first is what sending costs. An acknowledgement is received, too.
KINDS = (
    ("notify", Client, {"mode": "notify"}, REQUESTS, 15),
    ("ack", AcknowledgingClient, {"mode": "ack"}, REQUESTS, None),
    ("ack, with a mailbox", AcknowledgingClient, {"mailbox": True}, REQUESTS // 10, None),
)


def cost(server: Server, token: str, clients: list[Client], requests: int) -> float:
    """Return the server's CPU time for each call, in microseconds, until its clients have all of them."""
    before = server.cpu_seconds()
    result = load(
        server.port, post(f"/v1/go/{token}", payload()), requests=requests, connections=4, clients=clients
    )
    drain(clients, 0.5)
    if result.ok != requests:
        raise RuntimeError(result.answers)
    return (server.cpu_seconds() - before) / requests * 1e6


def run() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder, Server(STORE_URL=f"sqlite:///{folder}/relay.db") as server:
        for name, client_class, options, requests, bound in KINDS:
            sides = []
            for listeners in (1, LISTENERS):
                token, auth = server.new_with_secret(listeners="all", **options)
                sides.append((token, [client_class(server.port, token, auth) for _ in range(listeners)]))
            costs: list[float] = []
            for number in range(ROUNDS + 1):  # the first warms up
                one, many = (cost(server, *side, requests) for side in sides)
                if number:
                    costs.append((many - one) / (LISTENERS - 1))
            events = requests * (ROUNDS + 1)
            lost = sum(events - client.received for _, clients in sides for client in clients)
            rows += [
                Row(f"CPU per listener and event, {name}", statistics.median(costs), "us", bound),
                Row("events that a listener has not had, or twice", abs(lost), "events", 0),
            ]
            for _, clients in sides:
                for client in clients:
                    client.close()
    return rows


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
