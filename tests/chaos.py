"""Random faults under load: is each event that was accepted delivered, in order, and does every client reconnect?

    make chaos ARGS="--store cluster --faults 100 --seed 7"

Clients of python-socketio, socket.io-client and our library listen at tokens, and callers number their calls.
Relays, workers, masters, clients and Redis are killed, terminated, stopped and continued; connections are cut and
frozen; Redis is full, slow, or failed over to its replica; the disk is full. Which faults come when, two at a time
among them, and how long they last, the seed decides. `chaos_clients.py` has what clients and callers write down.

The tokens have mailboxes, except in the memory store, which has none: there the clients are in mode `ack`.

No token ever has two clients, so each `replaced` is wrong.
"""

import contextlib
import itertools
import os
import random
import resource
import shlex
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from tests.support.chaos_clients import Clients
from tests.support.delivery import bearer
from tests.support.faults import Caller, kill_relays, parser_of, run_each
from tests.support.nginx import NGINX, Nginx
from tests.support.redis_server import Redis
from tests.support.servers import DEADLINE_SECONDS, Server, free_port, wait_until
from tests.support.wire import Wire

STORES = ("memory", "sqlite", "redis", "cluster")
RELAYS = 3  # of a cluster

# The processes of clients: of which kind, and with how many tokens each.
ALL_CLIENTS = (("python", 3), ("python", 3), ("python", 3), ("node", 1), ("node", 1), ("library", 2))
FEW_CLIENTS = (("python", 2), ("node", 1), ("library", 1))

CALL_PAUSE_SECONDS = 0.2

# A short run has few clients that are called more often. No fault is longer than this, and idle connections are
# closed after it.
SHORT_SECONDS = 1
SHORT_CALL_PAUSE_SECONDS = 0.05

RELAY_SETTINGS = {
    "HOLD_SECONDS": 0,
    "ACK_TIMEOUT_SECONDS": 1,
    "REDELIVER_SECONDS": 2,
    "KEEPALIVE_SECONDS": 6,  # longer than nginx keeps its connections to the relays
    "MAILBOX_MAX_EVENTS": 0,
    "MAX_CONNECTIONS_PER_ADDRESS": 0,
}

DEFAULT_SECONDS = 600

# For how long something is stopped or frozen: within a lease, about a lease, longer than one, and longer than
# gunicorn's `timeout`. The short ones are more frequent.
STANDSTILL_SECONDS = {1: 4, 4: 3, 9: 3, 13: 3, 25: 1, 39: 1}
SHORTER_THAN_GUNICORNS_TIMEOUT_SECONDS = 25
FULL_SECONDS = 3
PAUSE_MS = (1000, 3000)

# Within this time all clients are served before the first fault.
START_SECONDS = 60

# A client that has no event acknowledged so long after a fault is deaf.
DEAF_SECONDS = 15
RECOVERY_SECONDS = 10

# nginx answers a caller within its `proxy_read_timeout`, `proxy_connect_timeout`, and what a busy machine takes.
LONGEST_CALL_SECONDS = 20

# Within this time a connection is closed that its client does not use: longer than nginx's `keepalive_timeout`.
IDLE_SECONDS = 20

# Within this time the mailboxes are empty when no caller calls any more.
EMPTY_SECONDS = 20

# What a log says of a fault in the relay's own code. eventlet writes the latter without a traceback.
TRACES = ("Traceback", "[Errno 9]")


class Relay(Server):
    """A relay; with `BROKEN` among its settings, one with the defects of `broken.py` that this names."""

    def __init__(self, port: int, **settings: object) -> None:
        super().__init__("broken" if "BROKEN" in settings else "gunicorn", port, **settings)

    @staticmethod
    def command(runner: str, port: int) -> tuple[list[str], dict[str, str]]:
        app = "tests.support.broken:app" if runner == "broken" else "wsgi:app"
        return shlex.split(f"gunicorn -k eventlet {app}"), {"PORT": str(port)}

    def is_served_by_another(self, than: int) -> bool:
        with contextlib.suppress(IndexError, FileNotFoundError, requests.RequestException):
            return self.worker_pid != than and requests.get(f"{self.url}/healthz", timeout=1).ok
        return False


class Faults:
    """What can be done to `subject`. Each fault returns when its cause has gone.

    near: to clients and their connections; far: to relays, and to what they keep tokens in. One of each may be done
    at the same time.
    """

    def __init__(self, subject: "Chaos", store: str, longest_seconds: float) -> None:
        self._subject = subject
        self._longest_seconds = longest_seconds
        self.near = ["kill_clients", "terminate_clients", "stop_clients", "cut", "cut_one", "freeze"]
        self.far = ["stop_relay", "stop_worker", "stop_master"]
        if store != "memory":  # whose tokens end with the process
            self.far += ["kill_relay", "terminate_relay", "terminate_master", "kill_worker", "terminate_worker"]
            self.far += ["kill_master"]
        if store == "sqlite":
            self.far += ["fill_disk"]
        if store in ("redis", "cluster"):
            self.far += ["kill_redis", "stop_redis", "terminate_redis", "fill_redis", "slow_redis", "fail_over"]
            self.far += ["cut_redis", "freeze_redis"]

    def do(self, name: str, random_: random.Random) -> None:
        fault: Callable[[random.Random], None] = getattr(self, f"_{name}")
        fault(random_)

    def _standstill(self, random_: random.Random, pid: int, *, is_group: bool = False) -> None:
        """Stop a process, or its group, and continue it."""
        send = os.killpg if is_group else os.kill
        send(pid, signal.SIGSTOP)
        time.sleep(self._seconds(random_))
        with contextlib.suppress(ProcessLookupError):  # gunicorn's master has killed its worker meanwhile
            send(pid, signal.SIGCONT)

    def _seconds(self, random_: random.Random) -> float:
        (seconds,) = random_.choices(list(STANDSTILL_SECONDS), list(STANDSTILL_SECONDS.values()))
        return min(seconds, self._longest_seconds) + random_.uniform(0, 1)

    def _stop_relay(self, random_: random.Random) -> None:
        relay = random_.choice(self._subject.relays)
        self._standstill(random_, relay.process.pid, is_group=True)
        wait_until(lambda: relay.is_served_by_another(than=0), "the relay serves")

    def _stop_worker(self, random_: random.Random) -> None:
        relay = random_.choice(self._subject.relays)
        self._standstill(random_, relay.worker_pid)
        wait_until(lambda: relay.is_served_by_another(than=0), "a worker serves")

    def _stop_master(self, random_: random.Random) -> None:
        self._standstill(random_, random_.choice(self._subject.relays).process.pid)

    def _kill_relay(self, random_: random.Random) -> None:
        self._subject.restart(random_, lambda relay: os.killpg(relay.process.pid, signal.SIGKILL))

    def _terminate_relay(self, random_: random.Random) -> None:
        self._subject.restart(random_, lambda relay: os.killpg(relay.process.pid, signal.SIGTERM), status=0)

    def _terminate_master(self, random_: random.Random) -> None:
        self._subject.restart(random_, lambda relay: relay.process.terminate(), status=0)

    def _kill_master(self, random_: random.Random) -> None:
        def kill(relay: Relay) -> None:
            worker = relay.worker_pid
            relay.process.kill()
            wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends without its master")

        self._subject.restart(random_, kill)

    def _kill_worker(self, random_: random.Random) -> None:
        self._end_worker(random_, signal.SIGKILL)

    def _terminate_worker(self, random_: random.Random) -> None:
        self._end_worker(random_, signal.SIGTERM)

    def _end_worker(self, random_: random.Random, sig: int) -> None:
        relay = random_.choice(self._subject.relays)
        old = relay.worker_pid
        os.kill(old, sig)
        wait_until(lambda: relay.is_served_by_another(than=old), "another worker serves")

    def _fill_disk(self, random_: random.Random) -> None:
        worker = random_.choice(self._subject.relays).worker_pid
        _, most = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (random_.choice([0, 50_000]), most))
        time.sleep(min(FULL_SECONDS, self._longest_seconds))
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (most, most))

    def _kill_clients(self, random_: random.Random) -> None:
        self._end_clients(random_, Clients.kill)

    def _terminate_clients(self, random_: random.Random) -> None:
        self._end_clients(random_, Clients.terminate)

    def _end_clients(self, random_: random.Random, end: Callable[[Clients], None]) -> None:
        clients = random_.choice(self._subject.clients)
        end(clients)
        time.sleep(random_.uniform(0, 2))
        clients.start()

    def _stop_clients(self, random_: random.Random) -> None:
        self._standstill(random_, random_.choice(self._subject.clients).process.pid)

    def _cut(self, random_: random.Random) -> None:
        for clients in self._subject.clients:
            clients.wire.cut(resets=random_.random() < 0.5)

    def _cut_one(self, random_: random.Random) -> None:
        random_.choice(self._subject.clients).wire.cut(resets=random_.random() < 0.5)

    def _freeze(self, random_: random.Random) -> None:
        random_.choice(self._subject.clients).wire.freeze(self._seconds(random_))

    def _kill_redis(self, random_: random.Random) -> None:
        self._end_redis(random_, signal.SIGKILL)

    def _terminate_redis(self, random_: random.Random) -> None:
        self._end_redis(random_, signal.SIGTERM)

    def _end_redis(self, random_: random.Random, sig: int) -> None:
        self._subject.redis.kill(sig)
        time.sleep(random_.uniform(0, 5))
        self._subject.redis.start()

    def _stop_redis(self, random_: random.Random) -> None:
        self._standstill(random_, self._subject.redis.process.pid)

    def _cut_redis(self, random_: random.Random) -> None:
        """Cut one relay off, or all."""
        wires = self._subject.redis_wires
        for wire in random_.choice([wires, [random_.choice(wires)]]):
            wire.cut()

    def _freeze_redis(self, random_: random.Random) -> None:
        """Part one relay from its Redis: neither sees the other's end."""
        random_.choice(self._subject.redis_wires).freeze(self._seconds(random_))

    def _fill_redis(self, random_: random.Random) -> None:
        client = self._subject.redis.client
        client.config_set("maxmemory", 1)
        if random_.random() < 0.5:
            self._cut(random_)  # those who connect again meanwhile
        time.sleep(min(FULL_SECONDS, self._longest_seconds))
        client.config_set("maxmemory", 0)

    def _slow_redis(self, random_: random.Random) -> None:
        pause_ms = random_.choice(PAUSE_MS)
        self._subject.redis.client.execute_command("CLIENT", "PAUSE", pause_ms, "ALL")
        time.sleep(pause_ms / 1000)

    def _fail_over(self, random_: random.Random) -> None:
        self._subject.fail_over()


class Chaos:
    """The relays, what is in front of them and behind them, their clients and callers, and the account."""

    def __init__(
        self,
        store: str,
        seed: int,
        folder: Path,
        *,
        broken: str | None = None,
        is_short: bool = False,
    ) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._folder = folder
        kinds = FEW_CLIENTS if is_short else ALL_CLIENTS
        self._kinds = [each for each in kinds if each[0] != "node" or shutil.which("node") is not None]
        self._settings: dict[str, object] = RELAY_SETTINGS | ({"BROKEN": broken} if broken else {})
        self._is_short = is_short
        self._is_over = threading.Event()
        self._logs: list[Relay] = []
        self._nginx: Nginx | None = None
        longest_seconds = max(STANDSTILL_SECONDS) if store != "memory" else SHORTER_THAN_GUNICORNS_TIMEOUT_SECONDS
        self._faults = Faults(self, store, SHORT_SECONDS if is_short else longest_seconds)
        self.redis: Redis | None = None
        self._replica: Redis | None = None
        self.relays: list[Relay] = []
        self.redis_wires: list[Wire] = []
        self.clients: list[Clients] = []
        self.callers: dict[str, Caller] = {}  # by their tokens
        self.faults: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self.deaf: set[str] = set()
        self._last_silent: set[str] = set()
        self.wrong: list[str] = []

    def start(self) -> None:
        is_cluster = self._store == "cluster"
        if self._is_short and not is_cluster:
            self._settings["KEEPALIVE_SECONDS"] = SHORT_SECONDS
        count = RELAYS if is_cluster else 1
        if self._store in ("redis", "cluster"):
            self.redis, self._replica = Redis(), Redis()
            self._replica.follow(self.redis)
            self.redis_wires = [Wire(self.redis.port) for _ in range(count)]
        with ThreadPoolExecutor() as pool:
            self.relays = list(pool.map(self._start_relay, range(count), [free_port() for _ in range(count)]))
        front: Server = self.relays[0]
        if is_cluster:
            self._nginx = front = Nginx(self._folder, self.redis, self.relays)
            if self._is_short:
                self._nginx.configure("keepalive_timeout 15s", f"keepalive_timeout {SHORT_SECONDS}s")
                self._nginx.reload()
        options = {"mode": "ack"} if self._store == "memory" else {"mailbox": True}
        for number, (kind, tokens) in enumerate(self._kinds):
            # nginx chooses a relay by the address of a client.
            wire = Wire(front.port, f"127.0.0.{number + 2}" if self._nginx else "127.0.0.1")
            self.clients.append(Clients(kind, [front.new_with_secret(**options) for _ in range(tokens)], wire))
        pause_seconds = SHORT_CALL_PAUSE_SECONDS if self._is_short else CALL_PAUSE_SECONDS
        self.callers = {
            token: Caller([f"{front.url}/v1/go/{token}"], self._is_over, pause_seconds)
            for each in self.clients
            for token in each.received
        }

    def run(self, faults: int | None, seconds: float, only: list[str] | None = None) -> None:
        """Do so many faults, or as many as fit into the time, or `only` these, and take account."""
        if "BROKEN" not in self._settings:
            assert not self._wait_for_all(START_SECONDS), "a client is silent before the first fault"
        ends_at = time.monotonic() + seconds
        if only is not None:
            for name in only:
                self._do(name)
            self._recover()
        else:
            while self.faults.total() < faults if faults is not None else time.monotonic() < ends_at:
                for _ in range(self._random.randint(1, 3)):
                    near, far = (self._random.choice(names) for names in (self._faults.near, self._faults.far))
                    self._do(*self._random.choice([[near], [far], [far], [near, far]]))
                    time.sleep(self._random.uniform(0, 2))
                self._recover()
        self._is_over.set()
        for caller in self.callers.values():
            caller.join()
        self._check()

    def _do(self, *names: str) -> None:
        """Do faults at the same time."""
        began_at = time.monotonic()
        randoms = [random.Random(self._random.random()) for _ in names]
        with ThreadPoolExecutor() as pool:
            done = [pool.submit(self._faults.do, *each) for each in zip(names, randoms, strict=True)]
        for name, each in zip(names, done, strict=True):
            if each.exception() is not None:
                self.wrong.append(f"after {name}: {each.exception()!r}")
                print(self.wrong[-1], *(relay.log[-3000:] for relay in self.relays), sep="\n", flush=True)
        self.faults.update(names)
        print(f"{self.faults.total():4} {' and '.join(names)}, {time.monotonic() - began_at:.1f} s", flush=True)

    def restart(self, random_: random.Random, end: Callable[[Relay], None], status: int | None = None) -> None:
        """Have `end` end any of the relays, with that `status`, and start another in its place."""
        number = random_.randrange(len(self.relays))
        relay = self.relays[number]
        end(relay)
        ended_with = relay.process.wait(timeout=40)
        if status is not None and ended_with != status:
            self.wrong.append(f"a relay ended with status {ended_with}")
        relay.stop()  # reads the rest of its log
        time.sleep(random_.uniform(0, 2))
        self.relays[number] = self._start_relay(number, relay.port)

    def fail_over(self) -> None:
        """Have Redis and its replica change places, without a loss, as an operator does it.

        Not by `FAILOVER`: after it, Redis 6.2 never ends a `CLIENT PAUSE`.
        """
        old, new = self.redis, self._replica
        wait_until(lambda: new.client.info("replication")["master_link_status"] == "up", "the replica is in sync")
        old.client.execute_command("CLIENT", "PAUSE", PAUSE_MS[-1], "WRITE")

        def has_all() -> bool:
            states = [each.client.info("replication") for each in (old, new)]
            return states[0]["master_repl_offset"] == states[1]["slave_repl_offset"]

        wait_until(has_all, "the replica has all")
        new.client.execute_command("REPLICAOF", "NO", "ONE")
        old.client.execute_command("REPLICAOF", "127.0.0.1", new.port)
        old.client.execute_command("CLIENT", "UNPAUSE")
        time.sleep(1)  # until the address leads to the new one, relays are at the old one, a replica now
        self.redis, self._replica = new, old
        for wire in self.redis_wires:
            wire.target = new.port
            wire.cut()

    def _start_relay(self, number: int, port: int) -> Relay:
        settings = dict(self._settings)
        if self.redis is not None:
            settings["STORE_URL"] = f"redis://127.0.0.1:{self.redis_wires[number].port}/0"
        elif self._store == "sqlite":
            settings["STORE_URL"] = f"sqlite:///{self._folder}/relay.db"
        if self._store == "cluster":
            settings["TRUSTED_PROXY_HOPS"] = 1
        relay = Relay(port, **settings)
        self._logs.append(relay)
        return relay

    # The account

    def _wait_for_all(self, seconds: float) -> set[str]:
        """Wait so long for each client to acknowledge a call that begins from now on.

        Return the tokens of those that have not.
        """
        since = time.monotonic()
        silent = set(self.callers)
        while silent and time.monotonic() < since + seconds:
            time.sleep(0.02)
            silent = {token for token, caller in self.callers.items() if caller.acknowledged_from < since}
            self._last_silent = silent or self._last_silent
        return silent

    def _recover(self) -> None:
        since = time.monotonic()
        silent = self._wait_for_all(DEAF_SECONDS)
        seconds = time.monotonic() - since
        self.recoveries.append(seconds)
        self.deaf |= silent
        if seconds > RECOVERY_SECONDS:
            print(f"     recovery took {seconds:.1f} s", flush=True)
            for clients in self.clients:
                if last := [made for made in clients.made if made["token"] in self._last_silent]:
                    print("\n".join([*map(self._describe, last), clients.describe()]), flush=True)

    def _describe(self, made: dict[str, Any]) -> str:
        """Return what the relay takes for the state of a token."""
        url = f"{(self._nginx or self.relays[0]).url}/v1/tokens/{made['token']}"
        told = [
            requests.get(each, headers=bearer(made), timeout=DEADLINE_SECONDS).text
            for each in (url, f"{url}/events")
        ]
        if self.redis is not None:
            told.append(str(self.redis.client.hgetall(f"s2m:token:{made['token']}")))
        return f"{made['token'][:4]}: {' '.join(told)[:2000]}"

    def _check(self) -> None:
        callers = self.callers.values()
        self.accepted = sum(len(caller.accepted) for caller in callers)
        self.answers = sum((caller.answers for caller in callers), Counter())
        self.longest_seconds = max(caller.longest_seconds for caller in callers)
        self.kept = 0 if self._store == "memory" else self._count_kept()
        self.left_over = self._count_left_over()
        for each in self.clients:
            each.kill()
        received = {token: numbers for each in self.clients for token, numbers in each.received.items()}
        self.lost = self.twice = self.disordered = 0
        for token, caller in self.callers.items():
            first = list(dict.fromkeys(received[token]))
            self.twice += len(received[token]) - len(first)
            accepted = set(caller.accepted)
            self.lost += len(accepted - set(first))
            in_order = [number for number in first if number in accepted]
            self.disordered += sum(later < earlier for earlier, later in itertools.pairwise(in_order))
        self.replaced = sum(each.said["replaced"] for each in self.clients)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Relay.stop, self.relays))
        self.traces = sum(relay.log.count(trace) for relay in self._logs for trace in TRACES)
        self._print_traces()
        for count, what in (
            (self.lost, "were accepted and not delivered"),
            (self.disordered, "came out of order"),
            (len(self.deaf), "clients were deaf"),
            (self.replaced, "clients were wrongly replaced"),
            (self.kept, "are kept that were delivered"),
            (self.left_over, "connections are left over"),
            (self.traces, "tracebacks are in the log"),
        ):
            if count:
                self.wrong.append(f"{count} {what}")
        if max(self.recoveries) > RECOVERY_SECONDS:
            self.wrong.append(f"recovery took {max(self.recoveries):.1f} s")
        if self._nginx is not None and self.longest_seconds > LONGEST_CALL_SECONDS:
            self.wrong.append(f"a caller waited {self.longest_seconds:.1f} s")

    def _print_traces(self) -> None:
        for relay in self._logs:
            for trace in TRACES:
                if trace in relay.log:
                    at = relay.log.index(trace)
                    print(relay.log[max(0, at - 200) : at + 3000])

    def _count_kept(self) -> int:
        """Return how many events are in the mailboxes, when no caller has called for a while."""
        front = self._nginx or self.relays[0]
        ends_at = time.monotonic() + EMPTY_SECONDS
        kept = 0
        for clients in self.clients:
            for made in clients.made:
                url = f"{front.url}/v1/tokens/{made['token']}/events"
                while any(
                    listed := requests.get(url, headers=bearer(made), timeout=DEADLINE_SECONDS).json().values()
                ):
                    if time.monotonic() > ends_at:
                        kept += sum(len(each) for each in listed)
                        print(f"{made['token'][:4]} {clients.kind} {len(clients.received[made['token']])} {listed}")
                        print(clients.describe())
                        break
                    time.sleep(0.1)
        return kept

    def _count_left_over(self) -> int:
        """Return how many connections clients have beyond those that they use, when what ends has ended.

        A client uses one; our library another for the relay's HTTP API, which nginx keeps open for 75 s.
        """
        ends_at = time.monotonic() + IDLE_SECONDS
        while True:
            used = [len(each.made) * (2 if each.kind == "library" else 1) for each in self.clients]
            left = sum(max(0, each.wire.connections - most) for each, most in zip(self.clients, used, strict=True))
            if not left or time.monotonic() > ends_at:
                return left
            time.sleep(0.1)

    def report(self) -> str:
        recoveries = sorted(self.recoveries)
        return (
            f"{self.faults.total()} faults: {dict(self.faults)}\n"
            f"{self.accepted} accepted, {self.lost} lost, {self.twice} twice, {self.disordered} out of order; "
            f"{len(self.deaf)} clients deaf, {self.replaced} wrongly replaced, {self.kept} kept, "
            f"{self.left_over} connections left over, {self.traces} tracebacks\n"
            f"recovery: median {recoveries[len(recoveries) // 2]:.1f} s, worst {recoveries[-1]:.1f} s; "
            f"longest call {self.longest_seconds:.1f} s; answers {dict(self.answers)}"
        )

    def close(self) -> None:
        self._is_over.set()
        for each in self.clients:
            each.close()
            each.wire.close()
        if self._nginx is not None:
            self._nginx.stop()
        kill_relays(self.relays)
        for wire in self.redis_wires:
            wire.close()
        for server in (self.redis, self._replica):
            if server is not None:
                server.stop()


@contextlib.contextmanager
def chaos(store: str, seed: int, **options: Any) -> Iterator[Chaos]:
    with tempfile.TemporaryDirectory() as folder:
        subject = Chaos(store, seed, Path(folder), **options)
        try:
            subject.start()
            yield subject
        finally:
            subject.close()


def run(
    store: str,
    seed: int,
    *,
    faults: int | None = None,
    seconds: float = DEFAULT_SECONDS,
    only: list[str] | None = None,
    **options: Any,
) -> str | None:
    """Do faults, print what happened, and return what went wrong."""
    print(f"store {store}, seed {seed}", flush=True)
    started = time.monotonic()
    with chaos(store, seed, **options) as subject:
        subject.run(faults, seconds, only)
        print(subject.report())
    print(f"in {time.monotonic() - started:.0f} s", flush=True)
    return "; ".join(subject.wrong) or None


def main() -> None:
    parser = parser_of(__doc__, STORES)
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="for all stores together")
    parser.add_argument(
        "--faults", type=int, help="how many for each store, instead of as many as fit into the time"
    )
    parser.add_argument("--only", nargs="+", metavar="FAULT", help="these, in their order, instead of random ones")
    parser.add_argument(
        "--broken", metavar="DEFECTS", help="of the relay, from tests/support/broken.py: the run has to fail"
    )
    options = vars(parser.parse_args())
    stores = STORES if (store := options.pop("store")) is None else [store]
    if NGINX is None and store is None:
        stores = STORES[:-1]
        print("nginx is not here: no cluster")
    options["seconds"] /= len(stores)
    run_each(stores, lambda store: run(store, **options))


if __name__ == "__main__":
    main()
