"""CPU of the server for each forwarded request, against the yardstick, in turns.

A round is 20,000 POSTs of 1 KB over 16 keep-alive connections to each server: the yardstick, the relay, and a relay
with a hook of Flask, whose calls take the blueprint. Every request that a relay accepted is counted at its client.
`forwarding.py python` measures all of them with gunicorn's parser in Python, not the one in C.
"""

import statistics
import sys

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


def run(parser: str = "auto", bound: float = 0.95) -> list[Row]:
    body = payload()
    with (
        Server("bare_wsgi:app", parser=parser) as bare,
        Server(parser=parser) as relay,
        Server("hooked:app", parser=parser) as hooked,
    ):
        sides: dict[Server, tuple[bytes, list[Client]]] = {bare: (post("/", body), [])}
        for server in (relay, hooked):
            token = server.new_token()
            sides[server] = post(f"/v1/go/{token}", body), [Client(server.port, token)]
        costs: dict[Server, list[float]] = {server: [] for server in sides}
        throughputs = []
        for server, (request, clients) in sides.items():
            load(server.port, request, requests=2000, clients=clients)
            for client in clients:
                client.received = 0
        for _ in range(ROUNDS):
            for server, (request, clients) in sides.items():
                spent, result = cost(server, request, clients)
                costs[server].append(spent)
                if server is relay:
                    throughputs.append(REQUESTS / result.seconds)
        lost = sum(ROUNDS * REQUESTS - client.received for _, clients in sides.values() for client in clients)

    def ratio(server: Server) -> float:
        return statistics.median(own / yard for own, yard in zip(costs[server], costs[bare], strict=True))

    with_parser = "" if parser == "auto" else f", {parser} parser"
    return [
        Row(f"CPU per request, bare WSGI app{with_parser}", statistics.median(costs[bare]), "us"),
        Row(f"CPU per forwarded request{with_parser}", statistics.median(costs[relay]), "us"),
        Row(f"CPU per forwarded request / bare WSGI app{with_parser}", ratio(relay), "x", bound),
        Row(f"the same by the blueprint / bare WSGI app{with_parser}", ratio(hooked), "x", 2.2),
        Row(f"accepted and not delivered, of {2 * ROUNDS * REQUESTS}", lost, "requests", 0),
        Row("forwarded on one core", statistics.median(throughputs), "requests/s"),
    ]


def run_python() -> list[Row]:
    """Measure the same with gunicorn's parser in Python."""
    return run("python", 1.1)


if __name__ == "__main__":
    use_load_core()
    print(*(run_python() if sys.argv[1:] == ["python"] else run()), sep="\n")
