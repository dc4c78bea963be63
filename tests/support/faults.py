"""What the programs share that do random faults: `tests.chaos`, `tests.smee_chaos` and `tests.soak_listeners`."""

import argparse
import itertools
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import requests

from tests.support.servers import Server

CALL_TIMEOUT_SECONDS = 60


class Caller(threading.Thread):
    """Calls one URL after the other, again and again, until `is_over`. Each call has the next number.

    body_of: returns the body of the call with a number, for JSON.
    """

    def __init__(
        self,
        urls: Sequence[str],
        is_over: threading.Event,
        pause_seconds: float,
        body_of: Callable[[int], object] = lambda number: number,
    ) -> None:
        super().__init__(daemon=True)
        self._urls = itertools.cycle(urls)
        self._is_over = is_over
        self._pause_seconds = pause_seconds
        self._body_of = body_of
        self.accepted: list[int] = []  # the numbers of the calls that were answered 2xx
        self.answers: Counter[int] = Counter()
        self.acknowledged_from = 0.0  # when the latest call began whose client has acknowledged it in time
        self.longest_seconds = 0.0
        self.start()

    def run(self) -> None:
        for number in itertools.count():
            if self._is_over.wait(self._pause_seconds):
                return
            began_at = time.monotonic()
            try:
                body = self._body_of(number)
                status = requests.post(next(self._urls), json=body, timeout=CALL_TIMEOUT_SECONDS).status_code
            except requests.RequestException:
                status = 0  # whether it was accepted is not known
            self.answers[status] += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began_at)
            if 200 <= status < 300:
                self.accepted.append(number)
            if status == 200:
                self.acknowledged_from = began_at


def kill_relays(relays: Iterable[Server]) -> None:
    """End the relays of a run, whatever their logs show."""
    for relay in relays:
        relay.giveaways.clear()
        relay.stop(signal.SIGKILL)


def parser_of(doc: str, stores: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of the options that all programs have."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--store", choices=stores, help="by default each, one after the other")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    return parser


def run_each(stores: Iterable[str], run: Callable[[str], str | None]) -> None:
    """Run with one store after the other, and exit with what went wrong."""
    wrong = {store: what for store in stores if (what := run(store)) is not None}
    sys.exit("\n".join(f"{store}: {what}" for store, what in wrong.items()) or None)
