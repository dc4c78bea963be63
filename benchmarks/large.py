"""What a large body does to the others: small requests alone, and beside one caller that sends 2 MB bodies."""

import threading

from harness import Client, Row, Server, load, payload, post, use_load_core

LARGE_BYTES = 2_048_000


def run() -> list[Row]:
    with Server() as relay:
        small_token, large_token = relay.new_tokens(2)
        small_client = Client(relay.port, small_token)
        large_client = Client(relay.port, large_token, '{"body":"raw"}')
        small = post(f"/v1/go/{small_token}", payload())
        large = post(f"/v1/go/{large_token}", bytes(LARGE_BYTES), "application/octet-stream")
        alone = load(relay.port, small, connections=4, seconds=3, clients=[small_client])
        large_ok = 0

        def send_large() -> None:
            nonlocal large_ok
            large_ok = load(relay.port, large, connections=1, requests=30, clients=[large_client]).ok

        sender = threading.Thread(target=send_large)
        sender.start()
        beside = load(relay.port, small, connections=4, seconds=3, clients=[small_client])
        sender.join()
    missing = large_ok * LARGE_BYTES - large_client.attachment_bytes
    return [
        Row("bytes of 30 bodies of 2 MB that did not arrive at a raw client", missing, "bytes", 0),
        Row("longest small request alone", max(alone.latencies) * 1e3, "ms"),
        Row("longest small request beside them", max(beside.latencies) * 1e3, "ms"),
        Row("delay", (max(beside.latencies) - max(alone.latencies)) * 1e3, "ms", 100),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
