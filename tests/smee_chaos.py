"""Random faults between a stock smee-client and its relay: does each event that was accepted arrive?

    make smee-chaos ARGS="--store redis --faults 50 --seed 7"

A caller numbers its calls to a channel with a mailbox. The relay is killed and terminated; the connection of the
client is cut, reset and frozen. Of a cluster, the client is led to either of two relays, and so is the caller. The
client is the newest of npm, unmodified, and its target notes what it POSTs.
"""

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tests.support.faults import Caller, kill_relays, parser_of, run_each
from tests.support.local_app import OK, App, Received
from tests.support.redis_server import Redis
from tests.support.servers import Server
from tests.support.smee import Channel, StockClient, path_of
from tests.support.wire import Wire

STORES = ("sqlite", "redis", "cluster")
FAULTS = ("kill_relay", "terminate_relay", "cut", "reset", "freeze", "cut_twice")

SETTINGS = {
    "HOLD_SECONDS": 0,
    "MAILBOX_MAX_EVENTS": 0,
    # An event is acknowledged 2.5 s after it was had, and a silent connection is found to be dead in 2 s.
    "PING_INTERVAL_SECONDS": 1,
    "PING_TIMEOUT_SECONDS": 1,
    "REAPER_INTERVAL_SECONDS": 1,
}

CALL_PAUSE_SECONDS = 0.02

# Within this time everything has arrived when no caller calls any more, and is acknowledged.
END_SECONDS = 30


class Target:
    """The app of the client: notes which numbers it was sent."""

    def __init__(self) -> None:
        self.numbers: Counter[int] = Counter()
        self.app = App()
        self.app.answer = self._note

    def _note(self, received: Received) -> bytes:
        self.numbers[int(received.body)] += 1
        return OK


class Subject:
    """One relay or two, a stock client behind a wire, and a caller."""

    def __init__(self, store: str, folder: Path, seed: int, package: str) -> None:
        self._random = random.Random(seed)
        self._redis = Redis() if store != "sqlite" else None
        url = f"sqlite:///{folder}/relay.db" if self._redis is None else self._redis.url
        self._settings = {**SETTINGS, "STORE_URL": url}
        self.relays = [Server(**self._settings) for _ in range(2 if store == "cluster" else 1)]
        self._channel = Channel(self.relays[0])
        self.relays[0].giveaways.clear()
        self.wire = Wire(self.relays[0].port)
        self.target = Target()
        listening = f"http://127.0.0.1:{self.wire.port}{path_of(self._channel.url)}"
        self.client = StockClient("smee.mjs", package, listening, self.target.app.url)
        self.client.expect("info", after=["channel"])
        self._is_over = threading.Event()
        urls = [f"{relay.url}/v1/go/{self._channel.token}" for relay in self.relays]
        self._caller = Caller(urls, self._is_over, CALL_PAUSE_SECONDS)

    def do(self, name: str) -> None:
        getattr(self, f"_{name}")()

    def _kill_relay(self) -> None:
        self._restart(signal.SIGKILL)

    def _terminate_relay(self) -> None:
        self._restart(signal.SIGTERM)

    def _restart(self, sig: int) -> None:
        number = self._random.randrange(len(self.relays))
        relay = self.relays[number]
        os.killpg(relay.process.pid, sig)
        relay.stop()
        self._lead(self.relays[1 - number] if len(self.relays) > 1 else relay)
        time.sleep(self._random.uniform(0, 1))
        self.relays[number] = Server(port=relay.port, **self._settings)

    def _lead(self, relay: Server) -> None:
        """Have the client connect to a relay from now on."""
        self.wire.target = relay.port

    def _cut(self) -> None:
        self._lead(self._random.choice(self.relays))
        self.wire.cut()

    def _reset(self) -> None:
        self.wire.cut(resets=True)

    def _cut_twice(self) -> None:
        self._cut()
        time.sleep(self._random.uniform(0.9, 1.3))  # about when the client connects again
        self._cut()

    def _freeze(self) -> None:
        # Less than after which an event is acknowledged that the wire has, and the client has not.
        self.wire.freeze(self._random.uniform(0.3, 1.5))

    def pause(self) -> None:
        time.sleep(self._random.uniform(0, 2.5))

    def finish(self) -> str | None:
        """Stop calling, and return what is wrong."""
        self._is_over.set()
        self._caller.join()
        ends_at = time.monotonic() + END_SECONDS
        accepted = set(self._caller.accepted)
        while (lost := accepted - set(self.target.numbers)) and time.monotonic() < ends_at:
            time.sleep(0.05)
        twice = sum(count - 1 for count in self.target.numbers.values())
        print(f"{len(accepted)} accepted, {len(lost)} lost, {twice} twice", flush=True)
        kept, away = self._left()
        while (kept or away) and time.monotonic() < ends_at:
            time.sleep(0.2)
            kept, away = self._left()
        print(f"{kept} kept, {away} listeners that are away", flush=True)
        if lost:
            print("\n".join(self.client.output[-20:]), *(relay.log[-3000:] for relay in self.relays), sep="\n")
            return f"{len(lost)} of {len(accepted)} are lost, such as {sorted(lost)[:5]}"
        if kept:
            print(self._channel.listeners(self.relays[0]))
            return f"{kept} are kept that were delivered"
        for relay in self.relays:
            if "Traceback" in relay.log:
                return relay.log[-3000:]
        return "the client has ended" if self.client.process.poll() is not None else None

    def _left(self) -> tuple[int, int]:
        """Return how many events are kept, and how many listeners are away."""
        relay = self.relays[0]
        return len(self._channel.kept(relay)), sum(not each["connected"] for each in self._channel.listeners(relay))

    def close(self) -> None:
        self._is_over.set()
        self._caller.join()
        self.client.kill()
        self.wire.close()
        self.target.app.close()
        kill_relays(self.relays)
        if self._redis is not None:
            self._redis.stop()


def run(
    store: str, seed: int, faults: int, only: tuple[str, ...] = FAULTS, package: str = "smee-client"
) -> str | None:
    """Do so many faults, print what happened, and return what went wrong."""
    print(f"store {store}, seed {seed}, {package}", flush=True)
    random_ = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(store, Path(folder), seed, package)
        try:
            for number in range(faults):
                name = only[number % len(only)] if faults <= len(only) else random_.choice(only)
                subject.do(name)
                print(f"{number + 1:4} {name}", flush=True)
                subject.pause()
            return subject.finish()
        finally:
            subject.close()


def main() -> None:
    parser = parser_of(__doc__, STORES)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--package", choices=("smee-client", "smee-client-4"), default="smee-client")
    options = parser.parse_args()
    stores = STORES if options.store is None else (options.store,)
    run_each(stores, lambda store: run(store, options.seed, options.faults, package=options.package))


if __name__ == "__main__":
    main()
