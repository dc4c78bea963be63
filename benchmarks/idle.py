"""What clients cost that only listen: resident memory of each, CPU of all, and what is left when they have gone."""

import time

from harness import Crowd, Row, Server, use_load_core

CLIENTS = 10_000
ROUNDS = 3


def run() -> list[Row]:
    rows = []
    with Server() as relay:
        tokens = relay.new_tokens(CLIENTS)
        Crowd(relay, tokens[:100]).vanish()  # what is loaded at the first client stays
        relay.seconds_until_idle(10)
        start = relay.memory_bytes()
        per_client, left = [], []
        for number in range(ROUNDS):
            crowd = Crowd(relay, tokens)
            relay.seconds_until_idle(10)
            per_client.append((relay.memory_bytes() - start) / CLIENTS / 1024)
            if number == 0:
                before = relay.cpu_seconds()
                time.sleep(30)
                busy = (relay.cpu_seconds() - before) / 30 * 100
            crowd.vanish()
            time.sleep(20)  # what gunicorn keeps of each connection's timeout goes within 15 s
            left.append(relay.memory_bytes() / start)
        rows += [
            Row("resident memory of the relay without clients", start / 1e6, "MB"),
            Row(f"resident memory per idle client, of {CLIENTS:,}", max(per_client), "KB", 40),
            Row(f"CPU of {CLIENTS:,} idle clients, of one core", busy, "%", 10),
        ]
        rows += [
            Row(f"memory 20 s after they left, time {n}, / before", x, "x", 1.2) for n, x in enumerate(left, 1)
        ]
    return rows


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
