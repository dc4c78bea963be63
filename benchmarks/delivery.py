"""What certainty costs: the mailbox in and out, and the time that an acknowledgement or a reply adds to a call.

The file is in a temporary folder; how fast its disk syncs is printed, since the mailbox waits for that.
"""

import os
import statistics
import tempfile
import threading
import time

from harness import AcknowledgingClient, Client, Row, Server, load, payload, post, use_load_core

EVENTS = 3000
CALLS = 1000


def sync_seconds(folder: str) -> float:
    """Return how long the disk takes to make a small write durable."""
    with open(os.path.join(folder, "probe"), "wb") as file:
        times = []
        for _ in range(50):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def run() -> list[Row]:
    body = payload()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"STORE_URL": f"sqlite:///{folder}/relay.db", "MAILBOX_MAX_EVENTS": 0}
        rows = [Row("sync of 4 KB to this disk", sync_seconds(folder) * 1000, "ms")]
        with Server(**settings) as relay:
            rows += in_and_out(relay, body)
            rows += added_latency(relay, body)
            rows += stall(relay, body)
    return rows


def in_and_out(relay: Server, body: bytes) -> list[Row]:
    rows = []
    for window in (1, 100):
        token, auth = relay.new_with_secret(mailbox=True)
        into = load(relay.port, post(f"/v1/go/{token}", body), requests=EVENTS, clients=[])
        if into.answers != {202: EVENTS}:
            raise RuntimeError(into.answers)
        started = time.perf_counter()
        client = AcknowledgingClient(relay.port, token, f'{auth[:-1]}, "window": {window}}}')
        while client.received < EVENTS:
            client.on_readable()
        rate = EVENTS / (time.perf_counter() - started)
        client.close()
        if window == 1:
            rows.append(Row("events into a mailbox, 16 callers", EVENTS / into.seconds, "events/s"))
            rows.append(Row("p99 of a call that is kept", into.percentile(99) * 1000, "ms"))
        rows.append(Row(f"events out of a mailbox, window {window}", rate, "events/s"))
        wrong = sum(later <= earlier for earlier, later in zip(client.ids, client.ids[1:], strict=False))
        rows.append(Row("delivered twice or out of order", wrong, "events", 0))
    return rows


def added_latency(relay: Server, body: bytes) -> list[Row]:
    rows = []
    base = None
    for mode, options in (
        ("notify", {}),
        ("ack", {"mode": "ack"}),
        ("reply", {"mode": "reply"}),
        ("ack with a mailbox", {"mailbox": True}),
    ):
        token, auth = relay.new_with_secret(**options)
        client = AcknowledgingClient(relay.port, token, auth)
        result = load(relay.port, post(f"/v1/go/{token}", body), requests=CALLS, clients=[client], connections=1)
        client.close()
        if result.ok != CALLS:
            raise RuntimeError(result.answers)
        p50 = result.percentile(50) * 1000
        base = base or p50
        rows.append(Row(f"p50 of a call in mode {mode}, one caller", p50, "ms"))
        if mode != "notify":
            rows.append(Row(f"of which {mode} adds", p50 - base, "ms"))
    return rows


def stall(relay: Server, body: bytes) -> list[Row]:
    """How long calls without a mailbox take while one is filled as fast as 16 callers can, and without that."""
    mailbox, _ = relay.new_with_secret(mailbox=True)
    token = relay.new_token()
    client = Client(relay.port, token)
    small, kept = post(f"/v1/go/{token}", body), post(f"/v1/go/{mailbox}", body)
    alone = load(relay.port, small, connections=4, seconds=3, clients=[client])
    filler = threading.Thread(target=load, args=[relay.port, kept], kwargs={"seconds": 4})
    filler.start()
    time.sleep(0.5)
    beside = load(relay.port, small, connections=4, seconds=3, clients=[client])
    filler.join()
    return [
        Row("longest call without a mailbox, alone", max(alone.latencies) * 1000, "ms"),
        Row("longest call without a mailbox, while one is filled", max(beside.latencies) * 1000, "ms"),
        Row("p99 of that", beside.percentile(99) * 1000, "ms"),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
