"""Random faults under load: is each event that was accepted delivered, in order, and does every client come back?

    python -m tests.chaos --store cluster --faults 100 --seed 7

Stock clients, most of them python-socketio's, listen at tokens, and callers number their calls.
Relays, workers, masters, clients and Redis are killed, terminated, stopped and continued; connections are cut and
frozen; Redis is full, or slow. Which fault comes when, and how long it lasts, the seed decides. A client writes
down what it received before it acknowledges it, so the account holds even if it is killed in between.

The tokens have mailboxes, except in the memory store, which has none: there the clients are in mode `ack`.

No token ever has two clients, so each `replaced` is wrong.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import socketio

from tests.support.nginx import NGINX, Nginx
from tests.support.redis_server import Redis
from tests.support.servers import ROOT, Server, clean_environment, free_port, wait_until

STORES = ("memory", "sqlite", "redis", "cluster")
RELAYS = 3  # of a cluster

# How many processes of python-socketio's clients there are, how many tokens each has, and how many clients of
# socket.io-client, a process each.
PYTHON_PROCESSES = 3
TOKENS_OF_PROCESS = 3
NODE_PROCESSES = 2

RELAY_SETTINGS = {
    "HOLD_SECONDS": 0,
    "ACK_TIMEOUT_SECONDS": 1,
    "REDELIVER_SECONDS": 2,
    "MAILBOX_MAX_EVENTS": 0,
    "MAX_CONNECTIONS_PER_ADDRESS": 0,
}

DEFAULT_SECONDS = 600
CALL_PAUSE_SECONDS = 0.2
CALL_TIMEOUT_SECONDS = 60

# For how long something is stopped, frozen or full: within a lease, about a lease, and longer than one.
STANDSTILL_SECONDS = (1, 4, 9, 13)
FULL_SECONDS = 3
PAUSE_MS = (1000, 3000)

# A client that has no event acknowledged so long after the last fault is deaf.
DEAF_SECONDS = 15

# Within this time a connection is closed that its client does not use: longer than nginx's `keepalive_timeout`.
IDLE_SECONDS = 20
RECOVERY_SECONDS = 10


class Wire:
    """A TCP proxy whose connections can be cut and frozen. It connects to `port` from the address `source`."""

    def __init__(self, port: int, source: str) -> None:
        self._target = port
        self._source = source
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._pairs)

    def cut(self) -> None:
        for pair in list(self._pairs):
            self._end(pair)

    def freeze(self, seconds: float) -> None:
        self._flows.clear()
        time.sleep(seconds)
        self._flows.set()

    def close(self) -> None:
        self._flows.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=[near], daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._flows.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._target), source_address=(self._source, 0))
        except OSError:
            near.close()
            return
        pair = (near, far)
        self._pairs.add(pair)
        for source, sink in (pair, pair[::-1]):
            threading.Thread(target=self._pump, args=[pair, source, sink], daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        self._flows.wait()
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Clients:
    """A process of clients, and what they said since its first start."""

    def __init__(self, kind: str, made: list[dict[str, Any]], wire: Wire) -> None:
        self._kind = kind
        self.made = made
        self.wire = wire
        self.received: dict[str, list[int]] = {each["token"]: [] for each in made}
        self.said: Counter[str] = Counter()
        self._errors = tempfile.TemporaryFile("w+")
        self.start()

    def start(self) -> None:
        url = f"http://127.0.0.1:{self.wire.port}"
        if self._kind == "python":
            command = [sys.executable, "-m", "tests.chaos", "--clients", url]
            folder = ROOT
        else:
            (made,) = self.made
            options = {"auth": {"secret": made["secret"], "body": "parsed"}, "reply": []}
            command = ["node", "client.mjs", url, made["token"], json.dumps(options)]
            folder = ROOT / "tests" / "js"
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**clean_environment(), "MADE": json.dumps(self.made)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self.process], daemon=True)
        self._reader.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self) -> None:
        self.kill()
        self._errors.close()

    def describe(self) -> str:
        """Return what the clients take for their state, and what they wrote to their standard error."""
        if self._kind == "python" and self.process.poll() is None:
            self.process.stdin.write("state\n")
            self.process.stdin.flush()
            time.sleep(1)
        self._errors.seek(0)
        return self._errors.read()[-3000:]

    def _read(self, process: subprocess.Popen) -> None:
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote
            if said["event"] == "request":
                self.received[said["token"]].append(said["data"][0]["body"]["n"])
            elif said["token"] is not None:
                self.said[said["event"]] += 1


class Caller(threading.Thread):
    """Calls one token again and again, until it is told to end."""

    def __init__(self, url: str, made: dict[str, Any], is_over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/v1/go/{made['token']}"
        self.token = made["token"]
        self._is_over = is_over
        self.accepted: list[int] = []
        self.answers: Counter[int] = Counter()
        self.acknowledged_from = 0.0  # when the latest call began whose client has acknowledged it in time
        self.longest_seconds = 0.0
        self.start()

    def run(self) -> None:
        for number in itertools.count():
            if self._is_over.wait(CALL_PAUSE_SECONDS):
                return
            began_at = time.monotonic()
            try:
                answer = requests.post(self._url, json={"n": number}, timeout=CALL_TIMEOUT_SECONDS)
                status = answer.status_code
            except requests.RequestException:
                status = 0  # nobody knows whether it was accepted, and nobody was told
            self.answers[status] += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began_at)
            if status in (200, 202):
                self.accepted.append(number)
            if status == 200:
                self.acknowledged_from = began_at


class Chaos:
    """The relays, what is in front of them and behind them, their clients and callers, and the faults."""

    def __init__(self, store: str, seed: int, folder: Path) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._folder = folder
        self._is_over = threading.Event()
        self._logs: list[Server] = []
        self._redis = Redis() if store in ("redis", "cluster") else None
        self._nginx: Nginx | None = None
        self._relays: list[Server] = []
        self._wires: list[Wire] = []
        self.clients: list[Clients] = []
        self.callers: list[Caller] = []
        self.faults: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self.wrong: list[str] = []

    def start(self) -> None:
        for _ in range(RELAYS if self._store == "cluster" else 1):
            self._relays.append(self._start_relay(free_port()))
        front = self._relays[0]
        if self._store == "cluster":
            self._nginx = front = Nginx(self._folder, self._redis, self._relays)
        kinds = [("python", TOKENS_OF_PROCESS)] * PYTHON_PROCESSES + [("node", 1)] * NODE_PROCESSES
        if shutil.which("node") is None:
            kinds = kinds[:PYTHON_PROCESSES]
        for number, (kind, tokens) in enumerate(kinds):
            # nginx chooses a relay by the address of a client.
            wire = Wire(front.port, f"127.0.0.{number + 2}" if self._nginx else "127.0.0.1")
            self._wires.append(wire)
            options = {"mode": "ack"} if self._store == "memory" else {"mailbox": True}
            made = [front.new_with_secret(**options) for _ in range(tokens)]
            self.clients.append(Clients(kind, made, wire))
        self.callers = [Caller(front.url, made, self._is_over) for each in self.clients for made in each.made]

    def run(self, faults: int | None, seconds: float, only: list[str] | None = None) -> None:
        """Do so many faults, or as many as fit into the time, or `only` these, and take account."""
        self._recover()
        self.recoveries.clear()  # that was the start
        ends_at = time.monotonic() + seconds
        names = iter(only or ())
        while self.faults.total() < faults if faults is not None else time.monotonic() < ends_at:
            for _ in range(self._random.randint(1, 3)):
                name = next(names, None) if only else self._random.choice(self._possible())
                if name is not None:
                    self._do(name)
                time.sleep(self._random.uniform(0, 2))
            self._recover()
        self._finish()

    def _possible(self) -> list[str]:
        names = ["stop_relay", "kill_clients", "stop_clients", "cut", "freeze"]
        if self._store != "memory":
            names += ["kill_relay", "terminate_relay", "kill_worker", "kill_master"]
        if self._redis is not None:
            names += ["kill_redis", "stop_redis", "cut_redis", "fill_redis", "slow_redis"]
        return names

    def _do(self, name: str) -> None:
        began_at = time.monotonic()
        fault: Callable[[], None] = getattr(self, f"_{name}")
        fault()
        self.faults[name] += 1
        print(f"{self.faults.total():4} {name}, {time.monotonic() - began_at:.1f} s", flush=True)

    def _standstill_seconds(self) -> float:
        return self._random.choice(STANDSTILL_SECONDS) + self._random.uniform(0, 1)

    # The faults. Each returns when its cause has gone.

    def _stop_relay(self) -> None:
        relay = self._random.choice(self._relays)
        os.killpg(relay.process.pid, signal.SIGSTOP)
        time.sleep(self._standstill_seconds())
        os.killpg(relay.process.pid, signal.SIGCONT)

    def _kill_relay(self) -> None:
        self._end_relay(signal.SIGKILL)

    def _terminate_relay(self) -> None:
        self._end_relay(signal.SIGTERM)

    def _end_relay(self, sig: int) -> None:
        number = self._random.randrange(len(self._relays))
        status = self._relays[number].stop(sig)
        if sig == signal.SIGTERM and status != 0:
            self.wrong.append(f"a relay ended with status {status}")
        time.sleep(self._random.uniform(0, 2))
        self._relays[number] = self._start_relay(self._relays[number].port)

    def _kill_worker(self) -> None:
        relay = self._random.choice(self._relays)
        old = relay.worker_pid
        os.kill(old, signal.SIGKILL)

        def is_another() -> bool:
            with contextlib.suppress(IndexError, requests.RequestException):
                return relay.worker_pid != old and requests.get(f"{relay.url}/healthz", timeout=1).ok
            return False

        wait_until(is_another, "another worker serves")

    def _kill_master(self) -> None:
        number = self._random.randrange(len(self._relays))
        relay = self._relays[number]
        worker = relay.worker_pid
        relay.process.kill()
        relay.process.wait()
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends without its master")
        relay.stop()  # reads the rest of its log
        self._relays[number] = self._start_relay(relay.port)

    def _kill_clients(self) -> None:
        clients = self._random.choice(self.clients)
        clients.kill()
        time.sleep(self._random.uniform(0, 2))
        clients.start()

    def _stop_clients(self) -> None:
        process = self._random.choice(self.clients).process
        process.send_signal(signal.SIGSTOP)
        time.sleep(self._standstill_seconds())
        process.send_signal(signal.SIGCONT)

    def _cut(self) -> None:
        for wire in self._wires:
            wire.cut()

    def _freeze(self) -> None:
        self._random.choice(self._wires).freeze(self._standstill_seconds())

    def _kill_redis(self) -> None:
        self._redis.kill()
        time.sleep(self._random.uniform(0, 5))
        self._redis.start()

    def _stop_redis(self) -> None:
        self._redis.process.send_signal(signal.SIGSTOP)
        time.sleep(self._standstill_seconds())
        self._redis.process.send_signal(signal.SIGCONT)

    def _cut_redis(self) -> None:
        self._redis.cut_connections()

    def _fill_redis(self) -> None:
        self._redis.client.config_set("maxmemory", 1)
        if self._random.random() < 0.5:
            self._cut()  # those who connect again meanwhile
        time.sleep(FULL_SECONDS)
        self._redis.client.config_set("maxmemory", 0)

    def _slow_redis(self) -> None:
        self._redis.client.execute_command("CLIENT", "PAUSE", self._random.choice(PAUSE_MS), "ALL")
        self._redis.client.ping()

    # The account

    def _start_relay(self, port: int) -> Server:
        settings = dict(RELAY_SETTINGS)
        if self._redis is not None:
            settings["STORE_URL"] = self._redis.url
        elif self._store == "sqlite":
            settings["STORE_URL"] = f"sqlite:///{self._folder}/relay.db"
        if self._store == "cluster":
            settings["TRUSTED_PROXY_HOPS"] = 1
        relay = Server(port=port, **settings)
        self._logs.append(relay)
        return relay

    def _silent(self, since: float) -> list[str]:
        return [caller.token for caller in self.callers if caller.acknowledged_from < since]

    def _recover(self) -> list[str]:
        """Wait until each client acknowledges again. Return the tokens whose clients do not."""
        since = time.monotonic()
        while (silent := self._silent(since)) and time.monotonic() < since + DEAF_SECONDS:
            time.sleep(0.02)
        seconds = time.monotonic() - since
        self.recoveries.append(seconds)
        if seconds > RECOVERY_SECONDS:
            print(f"     {len(silent)} silent after {seconds:.1f} s", flush=True)
            for clients in self.clients:
                if silent and set(clients.received) & set(silent):
                    print(f"{[token[:4] for token in silent]}\n{clients.describe()}", flush=True)
        return silent

    def _finish(self) -> None:
        deaf = self._recover()
        self._is_over.set()
        for caller in self.callers:
            caller.join()
        self._check(deaf)

    def _check(self, deaf: list[str]) -> None:
        self.deaf = len(deaf)
        self.accepted = sum(len(caller.accepted) for caller in self.callers)
        self.answers = sum((caller.answers for caller in self.callers), Counter())
        self.longest_seconds = max(caller.longest_seconds for caller in self.callers)
        if not deaf and self._store != "memory":
            self._wait_until_empty()
        self.left_over = self._left_over()
        for each in self.clients:
            each.kill()
        received = {token: numbers for each in self.clients for token, numbers in each.received.items()}
        self.lost = self.twice = self.disordered = 0
        for caller in self.callers:
            first = list(dict.fromkeys(received[caller.token]))
            self.twice += len(received[caller.token]) - len(first)
            accepted = set(caller.accepted)
            self.lost += len(accepted - set(first))
            in_order = [number for number in first if number in accepted]
            self.disordered += sum(later < earlier for earlier, later in itertools.pairwise(in_order))
        self.replaced = sum(each.said["replaced"] for each in self.clients)
        for relay in self._relays:
            relay.stop()
        self.tracebacks = sum(relay.log.count("Traceback") for relay in self._logs)
        if self.tracebacks:
            print(
                "".join(
                    relay.log[relay.log.index("Traceback") :][:3000]
                    for relay in self._logs
                    if "Traceback" in relay.log
                )
            )
        for count, what in (
            (self.lost, "were accepted and not delivered"),
            (self.disordered, "came out of order"),
            (self.deaf, "clients are deaf"),
            (self.replaced, "clients were replaced by nobody"),
            (self.left_over, "connections are left over"),
            (self.tracebacks, "tracebacks are in the log"),
        ):
            if count:
                self.wrong.append(f"{count} {what}")
        if max(self.recoveries) > RECOVERY_SECONDS:
            self.wrong.append(f"recovery took {max(self.recoveries):.1f} s")

    def _wait_until_empty(self) -> None:
        front = self._nginx or self._relays[0]
        for made in [made for each in self.clients for made in each.made]:
            url = f"{front.url}/v1/tokens/{made['token']}/events"
            headers = {"Authorization": f"Bearer {made['secret']}"}
            wait_until(
                lambda url=url, headers=headers: (
                    not any(requests.get(url, headers=headers, timeout=15).json().values())
                ),
                "the mailboxes are empty",
            )

    def _left_over(self) -> int:
        """Return how many connections of clients there are beyond one for each, when what ends has ended."""
        ends_at = time.monotonic() + IDLE_SECONDS
        while (left := sum(wire.connections for wire in self._wires) - len(self.callers)) > 0:
            if time.monotonic() > ends_at:
                break
            time.sleep(0.1)
        return max(0, left)

    def report(self) -> str:
        recoveries = sorted(self.recoveries)
        return (
            f"{self.faults.total()} faults: {dict(self.faults)}\n"
            f"{self.accepted} accepted, {self.lost} lost, {self.twice} twice, {self.disordered} out of order; "
            f"{self.deaf} clients deaf, {self.replaced} wrongly replaced, {self.left_over} connections left over, "
            f"{self.tracebacks} tracebacks\n"
            f"recovery: median {recoveries[len(recoveries) // 2]:.1f} s, worst {recoveries[-1]:.1f} s; "
            f"longest call {self.longest_seconds:.1f} s; answers {dict(self.answers)}"
        )

    def close(self) -> None:
        self._is_over.set()
        for each in self.clients:
            each.close()
        for wire in self._wires:
            wire.close()
        if self._nginx is not None:
            self._nginx.stop()
        for relay in self._relays:
            relay.giveaways.clear()
            relay.stop(signal.SIGKILL)
        if self._redis is not None:
            self._redis.stop()


def listen(url: str) -> None:
    """Be python-socketio's client of each token, as its documentation shows it."""
    lock = threading.Lock()

    def say(token: str, event: str, *data: Any) -> None:
        with lock:
            print(json.dumps({"token": token, "event": event, "data": data}), flush=True)

    clients = {made["token"]: socketio.Client() for made in json.loads(os.environ["MADE"])}

    def run(made: dict[str, Any], client: socketio.Client) -> None:
        token = made["token"]

        def on_request(request: dict[str, Any]) -> None:
            say(token, "request", {"body": request["body"]})

        client.on("request", on_request, namespace=made["namespace"])
        for event in ("connect", "disconnect", "connect_error", "replaced"):
            client.on(event, lambda *_, event=event: say(token, event), namespace=made["namespace"])
        while not client.connected:
            with contextlib.suppress(socketio.exceptions.ConnectionError, ValueError):
                client.connect(url, namespaces=[made["namespace"]], auth={"secret": made["secret"]}, retry=True)
                break
            time.sleep(1)
        client.wait()

    for made in json.loads(os.environ["MADE"]):
        threading.Thread(target=run, args=[made, clients[made["token"]]], daemon=True).start()
    for _ in sys.stdin:
        for token, client in clients.items():
            task = client._reconnect_task
            state = (
                f"connected {client.connected}, Engine.IO {client.eio.state}, {len(client.namespaces)} namespaces"
            )
            print(
                token[:4], state, "reconnecting" if task and task.is_alive() else task, file=sys.stderr, flush=True
            )


@contextlib.contextmanager
def chaos(store: str, seed: int) -> Iterator[Chaos]:
    with tempfile.TemporaryDirectory() as folder:
        subject = Chaos(store, seed, Path(folder))
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
) -> str | None:
    """Do faults, print what happened, and return what went wrong."""
    print(f"store {store}, seed {seed}", flush=True)
    started = time.monotonic()
    with chaos(store, seed) as subject:
        subject.run(len(only) if only else faults, seconds, only)
        print(subject.report())
    print(f"in {time.monotonic() - started:.0f} s", flush=True)
    return "; ".join(subject.wrong) or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=STORES, default="cluster" if NGINX else "redis")
    parser.add_argument("--faults", type=int, help="how many, instead of as many as fit into the time")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--clients", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients:
        listen(options.clients)
        return
    sys.exit(run(options.store, options.seed, faults=options.faults, seconds=options.seconds))


if __name__ == "__main__":
    main()
