"""CPU of the relay for each forwarded request: not counted, with metrics off, and scraped; in turns.

A turn is 20,000 POSTs of 1 KB over 16 keep-alive connections. Then the cost of a scrape beside 10,000 clients.
"""

import itertools
import statistics
import threading
import urllib.request

from forwarding import cost
from harness import Client, Crowd, Row, Server, load, payload, post, use_load_core

ROUNDS = 5
SCRAPE_SECONDS = 5  # Prometheus asks every 15 s or less often
CLIENTS = 10_000
SCRAPES = 50
KEY = "a-key-of-the-metrics"

# A client answers pings during the turns of its relay only, which take long on a busy machine.
PATIENT = {"PING_INTERVAL_SECONDS": 3600}


def scrape(server: Server) -> None:
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        answer.read()


def run_calls() -> list[Row]:
    body = payload()
    with (
        Server("uncounted:app", **PATIENT) as uncounted,
        Server(**PATIENT) as off,
        Server(METRICS_KEY=KEY, **PATIENT) as on,
    ):
        sides: dict[Server, tuple[bytes, list[Client]]] = {}
        for server in (uncounted, off, on):
            token = server.new_token()
            sides[server] = post(f"/v1/go/{token}", body), [Client(server.port, token)]
        costs: dict[Server, list[float]] = {server: [] for server in sides}
        for server, (request, clients) in sides.items():
            load(server.port, request, requests=2000, clients=clients)
        ends = threading.Event()

        def keep_scraping() -> None:
            while not ends.wait(SCRAPE_SECONDS):
                scrape(on)

        scraper = threading.Thread(target=keep_scraping, daemon=True)
        scraper.start()
        # Each round in another order: what comes later in a round may find the machine busier.
        for _, order in zip(range(ROUNDS), itertools.cycle(itertools.permutations(sides)), strict=False):
            for server in order:
                costs[server].append(cost(server, *sides[server])[0])
        ends.set()
        scraper.join()

    def ratio(server: Server) -> float:
        return statistics.median(own / bare for own, bare in zip(costs[server], costs[uncounted], strict=True))

    return [
        Row("CPU per forwarded request, not counted", statistics.median(costs[uncounted]), "us"),
        Row("the same, metrics off / not counted", ratio(off), "x", 1.02),
        Row(f"the same, metrics on, scraped every {SCRAPE_SECONDS} s / not counted", ratio(on), "x", 1.02),
    ]


def run_scrapes() -> list[Row]:
    with Server(METRICS_KEY=KEY, MAX_CONNECTIONS_PER_ADDRESS=CLIENTS) as server:
        crowd = Crowd(server, server.new_tokens(CLIENTS))
        server.seconds_until_idle(30)
        scrape(server)
        before = server.cpu_seconds()
        for _ in range(SCRAPES):
            scrape(server)
        spent = server.cpu_seconds() - before
        crowd.vanish()
    return [Row(f"CPU of a scrape beside {CLIENTS} clients", spent / SCRAPES * 1e3, "ms", 20)]


def run() -> list[Row]:
    return run_calls() + run_scrapes()


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
