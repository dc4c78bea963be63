"""Several listeners under faults: does each receive what it is owed, in order, and one each event at a time?

    python -m tests.soak_listeners --store redis --seconds 120 --seed 7

Ten listeners of a token on `all` and ten workers of a token on `one`, with mailboxes, in five processes. Callers
number their calls. The processes are killed, stopped and continued, their connections are cut, each client is
replaced by another with its id, relays are killed, terminated and stopped, and Redis is killed. `redis` is two
relays on one Redis. The seed decides which faults come when. The account is made of what clients and callers have
written down.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from tests.support.delivery import bearer
from tests.support.faults import Caller, kill_relays, parser_of, run_each
from tests.support.redis_server import Redis
from tests.support.servers import Lines, Server, free_port, wait_until

STORES = ("sqlite", "redis")
PROCESSES, EACH = 5, 2  # processes, and how many listeners and workers each has
CALLERS = 2  # of each token
PAUSE_SECONDS = 0.05

REDELIVER_SECONDS = 2
SETTINGS: dict[str, object] = {
    "ACK_TIMEOUT_SECONDS": 1,
    "REDELIVER_SECONDS": REDELIVER_SECONDS,
    "MAX_ATTEMPTS": 1000,
    "MAILBOX_MAX_EVENTS": 0,
    "PING_INTERVAL_SECONDS": 2,
    "PING_TIMEOUT_SECONDS": 3,
    "MAX_CONNECTIONS_PER_ADDRESS": 0,
}

# Within this time all have all after the last call: longer than the longest back-off of a client that is stopped.
EMPTY_SECONDS = 90

# How much later than the relay a client, on a busy machine, may write down that its connection has ended.
LATE_SECONDS = 1.0


class Process:
    """A process of clients, and the lines that it has written since its first start."""

    def __init__(self, clients: list[tuple[list[str], dict[str, Any], str]]) -> None:
        self._clients = clients
        self.lines: list[tuple[str, list[Any]]] = []  # each with the name of this run of the process
        self.ends: dict[str, float] = {}  # when each run ended
        self._runs = itertools.count()
        self.start()

    def start(self) -> None:
        run = self._run = f"{id(self)}.{next(self._runs)}"
        command = [sys.executable, "-m", "tests.support.soak_clients"]
        lines = Lines(
            command, lambda line: self.lines.append((run, json.loads(line))), CLIENTS=json.dumps(self._clients)
        )
        self.process, self.write, self._kill = lines.process, lines.write, lines.kill

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.ends[self._run] = time.monotonic()
        self._kill()


# The number of a caller, and that of its call.
Key = tuple[int, int]


def account_of_all(lines: list[list[Any]], accepted: list[Key], names: list[str]) -> tuple[int, int, int]:
    """Return how many events a listener has not received, received before an earlier one, and received again.

    Each line has the time, the listener, its connection, what happened and the key of the event.
    """
    received: dict[str, list[Key]] = defaultdict(list)
    for _, who, _, what, key in sorted(lines, key=lambda line: line[0]):
        if what == "begin":
            received[who].append(tuple(key))
    lost = sum(len(set(accepted) - set(received[name])) for name in names)
    twice = sum(len(keys) - len(set(keys)) for keys in received.values())
    disordered = 0
    for keys in received.values():
        first = list(dict.fromkeys(keys))
        for caller in {name for name, _ in first}:
            numbers = [number for name, number in first if name == caller]
            disordered += sum(later < earlier for earlier, later in itertools.pairwise(numbers))
    return lost, disordered, twice


def account_of_one(
    lines: list[tuple[Any, ...]], ends: dict[str, float], accepted: list[Key]
) -> tuple[int, int, int]:
    """Return how many events no worker has handled, two have handled at once, and were handled again.

    Each line begins with the run of its process, which ended at the time that `ends` has. An event may go to
    another worker when its first has lost the connection, or has not acknowledged it in time.
    """
    closed: dict[tuple[str, int], float] = {}
    handled: dict[Key, list[list[Any]]] = defaultdict(list)
    for run, at, _, connection, what, key in sorted(lines, key=lambda line: line[1]):
        if what in ("closed", "replaced"):
            closed.setdefault((run, connection), at)
        elif what == "begin":
            handled[tuple(key)].append([at, None, (run, connection)])
        elif what == "end":
            mine = [each for each in handled[tuple(key)] if each[2] == (run, connection)]
            mine[-1][1] = at
    done = {key for key, each in handled.items() if any(ended_at for _, ended_at, _ in each)}
    again = sum(len(each) - 1 for each in handled.values())
    at_once = 0
    for each in handled.values():
        for (began_at, ended_at, place), (next_at, _, _) in itertools.pairwise(each):
            gone_at = min(closed.get(place, float("inf")), ends.get(place[0], float("inf")))
            is_over = ended_at is not None and ended_at <= next_at
            is_gone = gone_at <= next_at + LATE_SECONDS or next_at - began_at >= REDELIVER_SECONDS - 0.1
            at_once += not is_over and not is_gone
    return len(set(accepted) - done), at_once, again


class Soak:
    """The relays, their clients and callers, and the account."""

    def __init__(self, store: str, seed: int, folder: Path) -> None:
        self._random = random.Random(seed)
        self._is_over = threading.Event()
        self.redis = Redis() if store == "redis" else None
        self._store_url = self.redis.url if self.redis is not None else f"sqlite:///{folder}/relay.db"
        self._logs: list[Server] = []
        self.relays = [self._start_relay(free_port()) for _ in range(2 if self.redis is not None else 1)]
        front = self.relays[0]
        self.made = {
            listeners: front.new_with_secret(listeners=listeners, mailbox=True) for listeners in ("all", "one")
        }
        urls = [f"ws://127.0.0.1:{each.port}/socket.io/?EIO=4&transport=websocket" for each in self.relays]
        self.processes = [
            Process(
                [
                    (urls, made, f"{listeners}-{process}-{number}")
                    for listeners, made in self.made.items()
                    for number in range(EACH)
                ]
            )
            for process in range(PROCESSES)
        ]
        for made in self.made.values():
            wait_until(lambda made=made: len(self._state(made)["listeners"]) == PROCESSES * EACH, "all listen")
        self.callers = {
            listeners: [
                Caller(
                    [f"{self.relays[name % len(self.relays)].url}/v1/go/{made['token']}"],
                    self._is_over,
                    PAUSE_SECONDS,
                    lambda number, name=name: (name, number),
                )
                for name in range(CALLERS)
            ]
            for listeners, made in self.made.items()
        }
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []

    def _start_relay(self, port: int) -> Server:
        relay = Server("gunicorn", port, STORE_URL=self._store_url, **SETTINGS)
        self._logs.append(relay)
        return relay

    def _state(self, made: dict[str, Any], path: str = "") -> dict[str, Any]:
        url = f"{self.relays[0].url}/v1/tokens/{made['token']}{path}"
        state: dict[str, Any] = requests.get(url, headers=bearer(made), timeout=15).json()
        return state

    # Faults

    def run(self, seconds: float) -> None:
        """Do faults for so long, and take account."""
        names = ["kill_clients", "stop_clients", "cut", "replace", "kill_relay", "terminate_relay", "stop_relay"]
        names += ["kill_redis"] if self.redis is not None else []
        ends_at = time.monotonic() + seconds
        # Each kind once, then at random: a short run has all of them, too.
        order = itertools.chain(
            self._random.sample(names, len(names)), iter(lambda: self._random.choice(names), None)
        )
        while time.monotonic() < ends_at:
            name = next(order)
            getattr(self, f"_{name}")()
            self.faults[name] += 1
            time.sleep(self._random.uniform(0.2, 1.5))
        self._is_over.set()
        for caller in itertools.chain.from_iterable(self.callers.values()):
            caller.join()
        self._check()

    def _kill_clients(self) -> None:
        process = self._random.choice(self.processes)
        process.kill()
        time.sleep(self._random.uniform(0, 2))
        process.start()

    def _stop_clients(self) -> None:
        process = self._random.choice(self.processes).process
        process.send_signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 6))
        process.send_signal(signal.SIGCONT)

    def _cut(self) -> None:
        self._random.choice(self.processes).write("cut")

    def _replace(self) -> None:
        self._random.choice(self.processes).write("replace")

    def _kill_relay(self) -> None:
        self._restart(signal.SIGKILL)

    def _terminate_relay(self) -> None:
        self._restart(signal.SIGTERM)

    def _restart(self, sig: int) -> None:
        number = self._random.randrange(len(self.relays))
        self.relays[number].stop(sig)
        time.sleep(self._random.uniform(0, 1))
        self.relays[number] = self._start_relay(self.relays[number].port)

    def _stop_relay(self) -> None:
        pid = self._random.choice(self.relays).process.pid
        os.killpg(pid, signal.SIGSTOP)
        time.sleep(self._random.choice([1, 3, 12]))  # longer than a lease, too
        os.killpg(pid, signal.SIGCONT)

    def _kill_redis(self) -> None:
        self.redis.kill()
        time.sleep(self._random.uniform(0, 2))
        self.redis.start()

    # The account

    def _check(self) -> None:
        deadline = time.monotonic() + EMPTY_SECONDS
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.kept = left
        for process in self.processes:
            process.kill()
        self.accepted = {
            listeners: [(name, number) for name, each in enumerate(callers) for number in each.accepted]
            for listeners, callers in self.callers.items()
        }
        lines = [line for process in self.processes for line in process.lines]
        ends = {run: at for process in self.processes for run, at in process.ends.items()}
        names = [f"all-{process}-{number}" for process in range(PROCESSES) for number in range(EACH)]
        of_all = account_of_all([line for _, line in lines if line[1] in names], self.accepted["all"], names)
        self.lost, self.disordered, self.twice = of_all
        of_one = [(run, *line) for run, line in lines if line[1] not in names]
        self.unhandled, self.at_once, self.again = account_of_one(of_one, ends, self.accepted["one"])
        self.refused = sum(line[3] == "refused" for _, line in lines)
        self.traces = sum(relay.log.count("Traceback") for relay in self._logs)
        bad = {
            "kept": self.kept,
            "not received by a listener": self.lost,
            "out of order": self.disordered,
            "not handled by a worker": self.unhandled,
            "handled by two at once": self.at_once,
            "tracebacks": self.traces,
            "refused": self.refused,
        }
        self.wrong += [f"{count} {what}" for what, count in bad.items() if count]

    def _left(self) -> int:
        try:
            return sum(len(ids) for made in self.made.values() for ids in self._state(made, "/events").values())
        except (requests.RequestException, AttributeError):
            return -1

    def report(self) -> str:
        answers = sum((each.answers for callers in self.callers.values() for each in callers), Counter())
        return (
            f"{self.faults.total()} faults: {dict(self.faults)}\nanswers {dict(answers)}\n"
            f"all: {len(self.accepted['all'])} accepted, {self.lost} not received by one of 10, "
            f"{self.disordered} out of order, {self.twice} received again\n"
            f"one: {len(self.accepted['one'])} accepted, {self.unhandled} not handled, {self.at_once} by two "
            f"at once, {self.again} again\nkept {self.kept}, tracebacks {self.traces}, refused {self.refused}"
        )

    def close(self) -> None:
        self._is_over.set()
        for process in self.processes:
            if process.process.poll() is None:
                process.kill()
        kill_relays(self.relays)
        if self.redis is not None:
            self.redis.stop()


@contextlib.contextmanager
def soak(store: str, seed: int) -> Iterator[Soak]:
    with tempfile.TemporaryDirectory() as folder:
        subject = Soak(store, seed, Path(folder))
        try:
            yield subject
        finally:
            subject.close()


def run(store: str, seed: int, seconds: float) -> str | None:
    """Do faults for so long, print what happened, and return what went wrong."""
    print(f"store {store}, seed {seed}, {seconds:g} s", flush=True)
    with soak(store, seed) as subject:
        subject.run(seconds)
        print(subject.report(), flush=True)
    return "; ".join(subject.wrong) or None


def main() -> None:
    parser = parser_of(__doc__, STORES)
    parser.add_argument("--seconds", type=float, default=300)
    options = parser.parse_args()
    stores = STORES if options.store is None else [options.store]
    run_each(stores, lambda store: run(store, options.seed, options.seconds))


if __name__ == "__main__":
    main()
