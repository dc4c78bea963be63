"""What grows with the number of clients and tokens: nothing may.

CPU of a connect and of a disconnect beside 1,000 and beside 10,000 clients, each with a token of its own; what
callers feel when 10,000 clients vanish at once; what a sweep of expired tokens costs.
"""

import statistics
import threading
import time

from harness import Client, Crowd, Result, Row, Server, load, payload, post, use_load_core

from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import MemoryStore

BATCH = 2000


def connect_and_disconnect(server: Server) -> tuple[float, float]:
    """Return the server's CPU for a connect and for a disconnect, in microseconds."""
    tokens = server.new_tokens(BATCH)
    before = server.cpu_seconds()
    clients = [Client(server.port, token) for token in tokens]
    connected = server.cpu_seconds()
    for client in clients:
        client.close()
    server.seconds_until_idle(10)
    return (connected - before) / BATCH * 1e6, (server.cpu_seconds() - connected) / BATCH * 1e6


def beside(server: Server, count: int) -> tuple[float, float, Crowd]:
    crowd = Crowd(server, server.new_tokens(count))
    connect_and_disconnect(server)
    costs = [connect_and_disconnect(server) for _ in range(3)]
    return statistics.median(c for c, _ in costs), statistics.median(d for _, d in costs), crowd


def sweep_seconds(tokens: int) -> float:
    """Return the time of a sweep that expires ten tokens of a store with so many others."""
    now = 0.0
    store = MemoryStore(lambda: now)
    for number in range(tokens):
        store.add(new_token(), 86_400 + number % 1000)
    sweeps = []
    for _ in range(1000):
        for _ in range(10):
            store.add(new_token(), 1)
        now += 3
        started = time.perf_counter()
        expired = store.pop_expired()
        sweeps.append(time.perf_counter() - started)
        if len(expired) != 10:
            raise RuntimeError("the sweep did not find what had expired")
    return statistics.median(sweeps)


def run() -> list[Row]:
    with Server() as few, Server() as many:
        connect_few, disconnect_few, crowd = beside(few, 1000)
        crowd.vanish()
        connect_many, disconnect_many, crowd = beside(many, 10_000)

        token = many.new_token()
        client = Client(many.port, token)
        request = post(f"/v1/go/{token}", payload())
        result = Result()

        def call() -> None:
            nonlocal result
            result = load(many.port, request, connections=4, seconds=6, clients=[client])

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(1)
        crowd.vanish()
        vanished = time.perf_counter()
        caller.join()
        idle_after = time.perf_counter() - vanished - 0.3  # the load's own end
        many.seconds_until_idle(15)
        idle_after = max(0.0, time.perf_counter() - vanished - 5)  # the load went on for five seconds of it
    sweeps = statistics.median(sweep_seconds(100_000) / sweep_seconds(0) for _ in range(3))
    return [
        Row("CPU per connect beside 1,000 clients", connect_few, "us"),
        Row("CPU per connect beside 10,000 clients / beside 1,000", connect_many / connect_few, "x", 1.3),
        Row("CPU per disconnect beside 1,000 clients", disconnect_few, "us"),
        Row("CPU per disconnect beside 10,000 clients / beside 1,000", disconnect_many / disconnect_few, "x", 1.3),
        Row("p99 of forwarding while 10,000 clients vanish", result.percentile(99) * 1e3, "ms", 100),
        Row("longest", max(result.latencies) * 1e3, "ms"),
        Row("idle again after the load", idle_after, "s", 15),
        Row("a sweep of 10 of 100,010 tokens / of 10 of 10", sweeps, "x", 2),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
