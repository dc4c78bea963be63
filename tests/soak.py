"""Many events through kills and reconnects: is every one that was accepted delivered, in order for each token?

    python -m tests.soak --events 20000 --seed 7 --store redis

Callers number their calls. A relay, and its Redis if it has one, is killed, stopped and started again, its clients
are killed, displaced and started again, at moments that the seed decides. A client writes down what it got before
it acknowledges, so the file knows what arrived even if the client is killed in between.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import requests
import socketio

from .live import ROOT, Server, free_port
from .redis_server import Redis

TOKENS = 6
RELAY_SETTINGS = {"HOLD_SECONDS": 0, "ACK_TIMEOUT_SECONDS": 1, "REDELIVER_SECONDS": 2, "MAILBOX_MAX_EVENTS": 0}


class Caller(threading.Thread):
    """Calls one token again and again, until so many calls were accepted."""

    def __init__(self, soak: "Soak", made: dict, events: int) -> None:
        super().__init__(daemon=True)
        self._soak = soak
        self._made = made
        self._events = events
        self.accepted: list[int] = []
        self.answers: Counter[int] = Counter()
        self.start()

    def run(self) -> None:
        number = 0
        with requests.Session() as session:
            while len(self.accepted) < self._events:
                number += 1
                try:
                    url = f"{self._soak.url}/v1/go/{self._made['token']}"
                    status = session.post(url, json={"n": number}, timeout=15).status_code
                except requests.RequestException:
                    status = 0  # the relay was killed: nobody knows, and nobody was told
                    time.sleep(0.05)
                self.answers[status] += 1
                if status in (200, 202):
                    self.accepted.append(number)


class Soak:
    """A relay, its clients and their callers, and what happens to them."""

    def __init__(self, folder: Path, redis: Redis | None, events: int, seed: int) -> None:
        self._folder = folder
        self._redis = redis
        self._events = events
        self._random = random.Random(seed)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.faults: Counter[str] = Counter()
        self._relay = self._start_relay()
        self._made = [self._relay.new_with_secret(mailbox=True) for _ in range(TOKENS)]
        self._clients = [self._start_client()]

    def run(self) -> list[str]:
        """Return what went wrong."""
        callers = [Caller(self, made, -(-self._events // TOKENS)) for made in self._made]
        while any(caller.is_alive() for caller in callers):
            time.sleep(self._random.uniform(0.1, 1.5))
            faults = [self.kill_the_client, self.kill_the_relay, self.stop_the_relay, self.displace_the_client]
            if self._redis is not None:
                faults += [self.kill_redis, self.cut_connections]
            fault = self._random.choice(faults)
            fault()
            self.faults[fault.__name__] += 1
        self._wait_until_empty()
        for client in self._clients:
            client.kill()
            client.wait()
        self._relay.stop()
        self.answers = sum((caller.answers for caller in callers), Counter())
        return self._compare(callers)

    def kill_the_client(self) -> None:
        for client in self._clients:
            client.kill()
            client.wait()
        self._clients = [self._start_client()]

    def displace_the_client(self) -> None:
        self._clients.append(self._start_client())

    def kill_the_relay(self) -> None:
        self._relay.stop(signal.SIGKILL)
        self._relay = self._start_relay()

    def stop_the_relay(self) -> None:
        assert self._relay.stop(signal.SIGTERM) == 0
        self._relay = self._start_relay()

    def kill_redis(self) -> None:
        self._redis.kill()
        self._redis.start()

    def cut_connections(self) -> None:
        self._redis.cut_connections()

    def _start_relay(self) -> Server:
        url = f"sqlite:///{self._folder}/relay.db" if self._redis is None else self._redis.url
        return Server(port=self._port, STORE_URL=url, **RELAY_SETTINGS)

    def _start_client(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.soak", "--client", self.url, str(self._folder / "received")],
            cwd=ROOT,
            env={**os.environ, "MADE": json.dumps(self._made)},
            stderr=subprocess.DEVNULL,  # of a relay that was killed under it
        )

    def _wait_until_empty(self) -> None:
        if self._clients[-1].poll() is not None or len(self._clients) > 1:
            self.kill_the_client()  # the last to come may have been displaced by one that came back
        deadline = time.monotonic() + 60
        for made in self._made:
            url = f"{self.url}/v1/tokens/{made['token']}/events"
            headers = {"Authorization": f"Bearer {made['secret']}"}
            while any(requests.get(url, headers=headers, timeout=15).json().values()):
                assert time.monotonic() < deadline, "the mailboxes did not become empty"
                time.sleep(0.1)

    def _compare(self, callers: list[Caller]) -> list[str]:
        received: dict[str, list[int]] = {made["token"]: [] for made in self._made}
        for line in (self._folder / "received").read_text().splitlines():
            token, number = line.split()
            received[token].append(int(number))
        self.accepted = sum(len(caller.accepted) for caller in callers)
        self.duplicates = 0
        wrong = []
        for made, caller in zip(self._made, callers, strict=True):
            got = received[made["token"]]
            first = list(dict.fromkeys(got))
            self.duplicates += len(got) - len(first)
            accepted = set(caller.accepted)
            lost = accepted - set(first)
            if lost:
                wrong.append(f"{len(lost)} were accepted and not delivered, {min(lost)} the first")
            in_order = [number for number in first if number in accepted]
            if in_order != sorted(in_order):
                wrong.append("events of one token came out of order")
        return wrong


def listen(url: str, path: str) -> None:
    """Be the client of every token: write down each event, then acknowledge it."""
    received = open(path, "a", buffering=1)  # noqa: SIM115
    clients = []
    for made in json.loads(os.environ["MADE"]):
        client = socketio.Client(reconnection_delay=0.1, reconnection_delay_max=0.5)

        def on_request(request, token=made["token"]):
            received.write(f"{token} {request['body']['n']}\n")

        client.on("request", on_request, namespace=made["namespace"])
        auth = {"secret": made["secret"], "body": "parsed"}
        client.connect(url, namespaces=[made["namespace"]], auth=auth, retry=True, transports=["websocket"])
        clients.append(client)
    for client in clients:
        client.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--client", nargs=2, metavar=("URL", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        listen(*options.client)
        return
    sys.exit(run(options.events, options.seed, options.store))


def run(events: int, seed: int, store: str) -> str | None:
    """Run a soak, print what happened, and return what went wrong."""
    print(f"seed {seed}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Redis() if store == "redis" else nullcontext() as redis:
        soak = Soak(Path(folder), redis, events, seed)
        wrong = soak.run()
    seconds = time.monotonic() - started
    print(f"{soak.accepted} accepted, {soak.duplicates} delivered more than once, in {seconds:.0f} s")
    print("faults:", dict(soak.faults), "answers:", dict(soak.answers), flush=True)
    return "; ".join(wrong) or None


if __name__ == "__main__":
    main()
