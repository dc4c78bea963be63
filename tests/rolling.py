"""Relays on one store that are restarted one after the other under load: is every call that was answered delivered?

    python -m tests.rolling --tokens 10000 --clients 5000 --seconds 40

The clients are in mode `ack`, so `200` says that a client has the call. Callers number their calls, and call random
clients at random relays; what is answered 503 or 504, or not at all, they call again at the next relay, with the
same number. Clients whose connection ends come back to the next relay. With `--kill`, one relay is killed and
started again instead.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness import new_tokens

from .crowd import Crowd
from .live import Server, free_port
from .redis_server import Redis

CALLERS = 24
CALLS_PER_SECOND = 150
RETRY_SECONDS = (0.1, 0.3)
PATIENCE_SECONDS = 20  # of a caller, for one call
BACK_SECONDS = 10  # in which each client is back after its relay was told to go
AGAIN = (0, 503, 504)  # 0: refused, or not answered


class Caller(threading.Thread):
    """Calls one random client after the other, at a steady rate, until it is told to end."""

    def __init__(self, rolling: "Rolling", number: int) -> None:
        super().__init__(daemon=True)
        self._rolling = rolling
        self._random = random.Random(f"{rolling.seed} {number}")
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=15) for port in rolling.ports]
        self.sent: dict[int, str] = {}  # the token that a number was sent to
        self.accepted: set[int] = set()
        self.answers: Counter[int] = Counter()
        self.start()

    def run(self) -> None:
        due = time.monotonic() + self._random.uniform(0, CALLERS / CALLS_PER_SECOND)
        while not self._rolling.is_over.wait(max(0, due - time.monotonic())):
            self._call_until_accepted(next(self._rolling.numbers), self._random.choice(self._rolling.called))
            due = max(due + CALLERS / CALLS_PER_SECOND, time.monotonic())
        for connection in self._connections:
            connection.close()

    def _call_until_accepted(self, number: int, token: str) -> None:
        self.sent[number] = token
        relay = self._random.randrange(len(self._connections))
        gives_up = time.monotonic() + PATIENCE_SECONDS
        while (status := self._call(relay, number, token)) in AGAIN and time.monotonic() < gives_up:
            relay = (relay + 1) % len(self._connections)
            time.sleep(self._random.uniform(*RETRY_SECONDS))
        if status == 200:
            self.accepted.add(number)

    def _call(self, relay: int, number: int, token: str) -> int:
        connection = self._connections[relay]
        try:
            body = json.dumps({"n": number})
            connection.request("POST", f"/v1/go/{token}", body, {"Content-Type": "application/json"})
            with connection.getresponse() as answer:  # closed even if its relay dies in the middle
                answer.read()
                status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        self.answers[status] += 1
        return status


class Rolling:
    """The relays, their clients and callers, and what happens to them."""

    def __init__(self, store_url: str, relays: int, seed: int) -> None:
        self.seed = seed
        self.is_over = threading.Event()
        self.numbers = itertools.count()
        self.ports = [free_port() for _ in range(relays)]
        self.wrong: list[str] = []
        self._told: list[tuple[int, float]] = []  # which relay was told to go, and when
        self._store_url = store_url
        self._relays: dict[int, Server] = {}

    def run(self, tokens: int, clients: int, seconds: float, sig: int) -> None:
        """Restart each relay, or kill only the first, under load that goes on so many seconds besides."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start, range(len(self.ports))))
        self.called = new_tokens(self.ports[0], tokens)[:clients]
        restarted = range(len(self.ports)) if sig == signal.SIGTERM else range(1)
        pause_seconds = seconds / (len(restarted) + 1)
        with Crowd(self.ports, self.called, self.seed) as crowd:
            self.callers = [Caller(self, number) for number in range(CALLERS)]
            for relay in restarted:
                time.sleep(pause_seconds)
                self._restart(relay, sig)
            time.sleep(pause_seconds)
            self.is_over.set()
            for caller in self.callers:
                caller.join()
            self.report = crowd.finish()
        self._check_deliveries()
        self._check_outages()

    def stop(self) -> None:
        self.is_over.set()
        for relay in self._relays.values():
            relay.stop(signal.SIGKILL)

    def _start(self, relay: int) -> None:
        settings = {"STORE_URL": self._store_url, "MAX_CONNECTIONS_PER_ADDRESS": 0}
        self._relays[relay] = Server(port=self.ports[relay], **settings)

    def _restart(self, relay: int, sig: int) -> None:
        self._told.append((relay, time.monotonic()))
        status = self._relays[relay].stop(sig)
        if status != (0 if sig == signal.SIGTERM else -sig):
            self.wrong.append(f"a relay ended with status {status}")
        self._start(relay)

    def _check_deliveries(self) -> None:
        received = [(number, token) for token, numbers in self.report.received.items() for number in numbers]
        sent = {item for caller in self.callers for item in caller.sent.items()}
        accepted = {item for caller in self.callers for item in caller.sent.items() if item[0] in caller.accepted}
        answers = sum((caller.answers for caller in self.callers), Counter())
        print(f"of {len(sent)} calls {len(accepted)} were accepted, after {answers.total() - len(sent)} retries")
        print(f"answers: {dict(answers)}; delivered more than once: {len(received) - len(set(received))}")
        lost = accepted - set(received)
        if lost:
            self.wrong.append(f"{len(lost)} were accepted and not delivered, {min(lost)[0]} the first")
        if set(received) - sent:
            self.wrong.append("a client received what was not sent to it")
        if len(accepted) < len(sent):
            self.wrong.append(f"{len(sent) - len(accepted)} were not accepted, however often they were sent")

    def _check_outages(self) -> None:
        print(f"refused clients: {self.report.refusals}; what relays said: {self.report.said}")
        if self.report.away:
            self.wrong.append(f"{self.report.away} clients did not come back")
        since_told, since_lost = [], []
        for relay, lost, back in self.report.outages:
            told = max((when for told, when in self._told if told == relay and when < lost), default=None)
            if told is None:
                self.wrong.append("a client lost its connection to a relay that stayed")
            else:
                since_told.append(back - told)
                since_lost.append(back - lost)
        if not since_told:
            self.wrong.append("no client lost its connection")
            return
        print(f"{len(since_told)} times a client came back; seconds until then, p50, p99 and longest:")
        print(
            f"since its relay was told to go {percentiles(since_told)}; since it was lost {percentiles(since_lost)}"
        )
        if max(since_told) > BACK_SECONDS:
            self.wrong.append(f"a client came back after {max(since_told):.1f} s")


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return ", ".join(f"{ordered[int((len(ordered) - 1) * part)]:.2f}" for part in (0.5, 0.99, 1))


def run(
    tokens: int,
    clients: int,
    seconds: float,
    seed: int,
    *,
    kill: bool = False,
    relays: int = 3,
    store_url: str | None = None,
) -> str | None:
    """Restart relays under load, print what happened, and return what went wrong. By default on a new Redis."""
    print(f"seed {seed}", flush=True)
    with contextlib.ExitStack() as stack:
        if store_url is None:
            store_url = stack.enter_context(Redis()).url
        rolling = Rolling(store_url, relays, seed)
        stack.callback(rolling.stop)
        rolling.run(tokens, clients, seconds, signal.SIGKILL if kill else signal.SIGTERM)
    return "; ".join(dict.fromkeys(rolling.wrong)) or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=40, help="of load, besides the restarts")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--relays", type=int, default=3)
    parser.add_argument("--store", metavar="URL", help="a store that survives the relays, instead of a Redis")
    parser.add_argument("--kill", action="store_true", help="kill the first relay instead of restarting each")
    options = parser.parse_args()
    sys.exit(
        run(
            options.tokens,
            options.clients,
            options.seconds,
            options.seed,
            kill=options.kill,
            relays=options.relays,
            store_url=options.store,
        )
    )


if __name__ == "__main__":
    main()
