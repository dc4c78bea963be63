"""CPU of the server for each forwarded request, against the yardstick, in turns.

    python benchmarks/forwarding.py [ROUNDS]

A round is 20,000 POSTs of 1 KB over 16 keep-alive connections to each server. Every request that the relay
accepted is counted at its client.
"""

import statistics
import sys

from harness import Client, Server, load, payload, post, use_load_core

REQUESTS = 20_000


def cpu_microseconds(server, request, clients=()):
    """Return the server's CPU time for each request of a load."""
    before = server.cpu_seconds()
    result = load(server.port, request, requests=REQUESTS, clients=clients)
    spent = server.cpu_seconds() - before
    assert result.ok == REQUESTS, result.answers
    return spent / REQUESTS * 1e6, result


def main(rounds: int) -> dict[str, object]:
    use_load_core()
    body = payload()
    bare_costs, relay_costs, ratios = [], [], []
    with Server("bare_wsgi:app") as bare, Server() as relay:
        token = relay.new_token()
        client = Client(relay.port, token)
        load(bare.port, post("/", body), requests=2000)
        load(relay.port, post(f"/v1/go/{token}", body), requests=2000, clients=[client])
        client.received = 0
        for _ in range(rounds):
            bare_cost, _ = cpu_microseconds(bare, post("/", body))
            relay_cost, result = cpu_microseconds(relay, post(f"/v1/go/{token}", body), [client])
            bare_costs.append(bare_cost)
            relay_costs.append(relay_cost)
            ratios.append(relay_cost / bare_cost)
        accepted = rounds * REQUESTS
    return {
        "bare us": statistics.median(bare_costs),
        "relay us": statistics.median(relay_costs),
        "ratio": statistics.median(ratios),
        "ratios": sorted(ratios),
        "accepted": accepted,
        "delivered": client.received,
        "rps": REQUESTS / result.seconds,
        "p50": result.percentile(50) * 1e3,
        "p99": result.percentile(99) * 1e3,
    }


if __name__ == "__main__":
    for name, value in main(int(sys.argv[1]) if len(sys.argv) > 1 else 5).items():
        print(f"{name:>10}  {value}")
