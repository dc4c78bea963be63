"""What relays forward that share tokens, presence and mailboxes through Redis, and what that costs.

Redis, the callers and the clients share a core, and the second relay has to share it with them: two relays can't
forward twice as much here as one. What they would on cores of their own follows from the processor time that they
spend on each request, since a core has one second of it a second. That of one relay is the mean of both, each alone
on its core: what shares a cache takes longer. All comparisons are made in turns.

A hop is a call at one relay whose client is connected to the other.
"""

import statistics
import time
from collections.abc import Iterable
from typing import NamedTuple

from harness import (
    LOAD_CORE,
    AcknowledgingClient,
    Crowd,
    Result,
    Row,
    Server,
    load,
    load_all,
    payload,
    post,
    use_load_core,
)

from tests.support.redis_server import Redis

ROUNDS = 15
REQUESTS = 3000
CALLS = 500
EVENTS = 1000
CONNECTIONS = 32  # callers at each relay, and clients of each
CONNECTS = 1000
TOKENS = 10_000
IDLE_CLIENTS = 5000
IDLE_SECONDS = 30  # longer than from ping to ping

Calls = list[tuple[int, list[bytes]]]  # what `load_all` takes


class Place:
    """A relay, some clients that are connected to it, and the requests that reach them."""

    def __init__(self, relay: Server, body: bytes, **options: object) -> None:
        self.relay = relay
        made = [relay.new_with_secret(**options) for _ in range(CONNECTIONS)]
        self.clients = [AcknowledgingClient(relay.port, token, auth) for token, auth in made]
        self.requests = [post(f"/v1/go/{token}", body) for token, _ in made]


class Meter:
    """The processor time that relays together, and Redis, have used since it was made."""

    def __init__(self, redis: Redis, relays: Iterable[Server]) -> None:
        self._redis = redis
        self._relays = list(relays)
        self._start = self._seconds()

    def us(self, count: float) -> tuple[float, float]:
        """Return that of the relays and that of Redis, in microseconds for each of so many."""
        relays, redis = (now - then for now, then in zip(self._seconds(), self._start, strict=True))
        return relays / count * 1e6, redis / count * 1e6

    def _seconds(self) -> tuple[float, float]:
        return sum(relay.cpu_seconds() for relay in self._relays), self._redis.cpu_seconds()


class Cost(NamedTuple):
    """What a forwarded request took of all relays together and of Redis, and how many there were a second."""

    relays_us: float
    redis_us: float
    per_second: float


def callers(relay: Server, *places: Place, count: int = CONNECTIONS) -> Calls:
    """Return callers at a relay who call the clients of the places in turn, each beginning with another."""
    requests = [request for of_each in zip(*(p.requests for p in places), strict=True) for request in of_each]
    return [(relay.port, requests[n:] + requests[:n]) for n in range(count)]


def forward(calls: Calls, places: set[Place], requests: int, **options: float) -> Result:
    """Send requests to clients of the places. Each must be answered 200, and arrive."""
    clients = [client for place in places for client in place.clients]
    before = sum(client.received for client in clients)
    result = load_all(calls, requests=requests, clients=clients, **options)
    received = sum(client.received for client in clients) - before
    if result.ok != requests or received != requests:
        raise RuntimeError(f"of {requests} requests {received} arrived; their callers received {result.answers}")
    return result


def cost(redis: Redis, calls: Calls, places: set[Place], requests: int) -> Cost:
    """Return what a request takes of the relays of the places."""
    meter = Meter(redis, {place.relay for place in places})
    result = forward(calls, places, requests)
    return Cost(*meter.us(requests), requests / result.seconds)


def median(costs: Iterable[Cost]) -> Cost:
    return Cost(*(statistics.median(figure) for figure in zip(*costs, strict=True)))


def cpu_rows(what: str, relays_us: float, redis_us: float, unit: str = "us") -> list[Row]:
    return [Row(f"CPU of the relays {what}", relays_us, unit), Row(f"CPU of Redis {what}", redis_us, unit)]


def throughput(redis: Redis, alone: Place, here: Place, there: Place) -> list[Row]:
    """One relay without Redis, each of two with it, and both together, half of whose calls are hops."""
    setups = [
        (callers(alone.relay, alone), {alone}),
        (callers(here.relay, here), {here}),
        (callers(there.relay, there), {there}),
        (callers(here.relay, here, there) + callers(there.relay, there, here), {here, there}),
    ]
    for calls, places in setups:
        forward(calls, places, 2000)
    rounds = [[cost(redis, *setup, REQUESTS) for setup in setups] for _ in range(ROUNDS)]
    memory, first, second, two = map(median, zip(*rounds, strict=True))
    one_us = (first.relays_us + second.relays_us) / 2
    scaling = statistics.median((a.relays_us + b.relays_us) / both.relays_us for _, a, b, both in rounds)
    of_memory = statistics.median(without.relays_us / a.relays_us for without, a, _, _ in rounds)
    return [
        Row("CPU per request, one relay on memory://", memory.relays_us, "us"),
        *cpu_rows("per request, one relay", one_us, first.redis_us),
        *cpu_rows("per request, two relays, half of it hops", two.relays_us, two.redis_us),
        Row("one relay, on a core of its own", 1e6 / one_us, "requests/s"),
        Row("two relays, on cores of their own", 2e6 / two.relays_us, "requests/s"),
        Row("two relays / one, on cores of their own", scaling, "x", 1.7, at_least=True),
        Row("one relay / one on memory://, on a core of its own", of_memory, "x"),
        Row("bounded by this machine: one relay on memory://", memory.per_second, "requests/s"),
        Row("bounded by this machine: one relay", first.per_second, "requests/s"),
        Row("bounded by this machine: two relays", two.per_second, "requests/s"),
    ]


def latency(here: Place, there: Place) -> list[Row]:
    """Calls at one relay, to its own clients and to the other's: one after the other, and of eight with pauses."""
    rows = []
    for count, pause_seconds in ((1, 0), (8, 0.005)):
        local, hop = Result(), Result()
        for _ in range(5):
            for result, place in ((local, here), (hop, there)):
                calls = callers(here.relay, place, count=count)
                result.latencies += forward(calls, {place}, CALLS, pause_seconds=pause_seconds).latencies
        for percent, bound in ((50, 3), (99, None)):
            local_ms, hop_ms = local.percentile(percent) * 1e3, hop.percentile(percent) * 1e3
            rows += [
                Row(f"p{percent} of a local call, callers: {count}", local_ms, "ms"),
                Row(f"what a hop adds to p{percent}, callers: {count}", hop_ms - local_ms, "ms", bound),
            ]
    return rows


def events(redis: Redis, here: Place, there: Place, body: bytes) -> list[Row]:
    """What an event takes by the way that it goes."""
    kept = Place(there.relay, body, mailbox=True)
    ways = {
        "per local event": (callers(here.relay, here), {here}),
        "per hop": (callers(here.relay, there), {here, there}),
        "per hop through a mailbox": ([(here.relay.port, [request]) for request in kept.requests], {here, kept}),
    }
    rows = []
    for way, (calls, places) in ways.items():
        of_way = median(cost(redis, calls, places, EVENTS) for _ in range(5))
        rows += cpu_rows(way, of_way.relays_us, of_way.redis_us)
    return rows


def connects(redis: Redis, relay: Server) -> list[Row]:
    tokens = relay.new_tokens(CONNECTS)
    meter = Meter(redis, [relay])
    clients = [AcknowledgingClient(relay.port, token, "") for token in tokens]
    for client in clients:
        client.close()
    relay.seconds_until_idle(10)
    return cpu_rows("per connect and disconnect", *meter.us(CONNECTS))


def idle(redis: Redis, *relays: Server) -> tuple[float, float]:
    """Return the processor time of relays without calls, and of Redis, in microseconds a second."""
    meter = Meter(redis, relays)
    time.sleep(IDLE_SECONDS)
    return meter.us(IDLE_SECONDS)


def idling(redis: Redis, here: Server, there: Server, body: bytes) -> list[Row]:
    """What nothing but being there takes, and what Redis holds of tokens, of clients and of events."""

    def used_bytes() -> int:
        here.seconds_until_idle(10)
        return redis.client.info("memory")["used_memory"]

    relays_us, redis_us = idle(redis, here, there)
    start = used_bytes()
    tokens = here.new_tokens(TOKENS)
    with_tokens = used_bytes()
    crowd = Crowd(here, tokens[:IDLE_CLIENTS])
    with_clients = used_bytes()
    relays_crowd_us, redis_crowd_us = idle(redis, here, there)
    crowd.vanish()

    token, _ = here.new_with_secret(mailbox=True)
    without_events = used_bytes()
    kept = load(here.port, post(f"/v1/go/{token}", body), requests=EVENTS)
    if kept.answers != {202: EVENTS}:
        raise RuntimeError(kept.answers)
    thousands = IDLE_CLIENTS / 1000
    return [
        *cpu_rows("while nothing happens, two relays", relays_us, redis_us, "us/s"),
        *cpu_rows(
            "that 1,000 idle clients add",
            (relays_crowd_us - relays_us) / thousands,
            (redis_crowd_us - redis_us) / thousands,
            "us/s",
        ),
        Row("memory of Redis per token", (with_tokens - start) / TOKENS, "bytes"),
        Row("memory of Redis per connected client", (with_clients - with_tokens) / IDLE_CLIENTS, "bytes"),
        Row("memory of Redis per waiting event of 1 KB", (used_bytes() - without_events) / EVENTS, "bytes"),
    ]


def run() -> list[Row]:
    body = payload()
    with Redis() as redis:
        _, redis_alone_us = idle(redis)
        rows = [Row("CPU of Redis while nothing happens, no relay", redis_alone_us, "us/s")]
        shared = {"STORE_URL": redis.url, "MAILBOX_MAX_EVENTS": 0}
        with Server() as alone, Server(**shared) as here, Server(core=LOAD_CORE, **shared) as there:
            rows += idling(redis, here, there, body)
            rows += connects(redis, here)
            places = [Place(relay, body) for relay in (alone, here, there)]
            rows += throughput(redis, *places)
            rows += latency(*places[1:])
            rows += events(redis, *places[1:], body)
    return rows


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
