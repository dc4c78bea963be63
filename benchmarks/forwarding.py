"""CPU of the server for each forwarded request, against the yardstick, in turns.

A round is 20,000 POSTs of 1 KB over 16 keep-alive connections to each server. Every request that the relay
accepted is counted at its client.
"""

import statistics

from harness import Client, Result, Row, Server, load, payload, post, use_load_core

REQUESTS = 20_000
ROUNDS = 7


def cost(server: Server, request: bytes, clients: list[Client]) -> tuple[float, Result]:
    """Return the server's CPU time for each request of a load, in microseconds."""
    before = server.cpu_seconds()
    result = load(server.port, request, requests=REQUESTS, clients=clients)
    spent = server.cpu_seconds() - before
    if result.ok != REQUESTS:
        raise RuntimeError(result.answers)
    return spent / REQUESTS * 1e6, result


def run() -> list[Row]:
    body = payload()
    bare_costs, relay_costs, throughputs = [], [], []
    with Server("bare_wsgi:app") as bare, Server() as relay:
        token = relay.new_token()
        client = Client(relay.port, token)
        to_bare, to_relay = post("/", body), post(f"/v1/go/{token}", body)
        for server, request in ((bare, to_bare), (relay, to_relay)):
            load(server.port, request, requests=2000, clients=[client] if server is relay else [])
        client.received = 0
        for _ in range(ROUNDS):
            bare_costs.append(cost(bare, to_bare, [])[0])
            relay_cost, result = cost(relay, to_relay, [client])
            relay_costs.append(relay_cost)
            throughputs.append(REQUESTS / result.seconds)
        lost = ROUNDS * REQUESTS - client.received
    ratios = [relay / bare for relay, bare in zip(relay_costs, bare_costs, strict=True)]
    return [
        Row("CPU per request, bare WSGI app", statistics.median(bare_costs), "us"),
        Row("CPU per forwarded request", statistics.median(relay_costs), "us"),
        Row("CPU per forwarded request / bare WSGI app", statistics.median(ratios), "x", 2.0),
        Row(f"accepted and not delivered, of {ROUNDS * REQUESTS}", lost, "requests", 0),
        Row("forwarded on one core", statistics.median(throughputs), "requests/s"),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
