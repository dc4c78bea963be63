"""Whether every caller has its turn: the latency of forwarded requests at 16 and at 256 connections.

And their order: the client must see the requests of each caller as that caller sent them, and all of them in
the order in which they were accepted, which their ids tell.
"""

from harness import Client, Row, Server, load, payload, post, use_load_core


def run() -> list[Row]:
    rows = []
    with Server() as relay:
        token = relay.new_token()
        client = Client(relay.port, token)
        request = post(f"/v1/go/{token}", payload())
        load(relay.port, request, requests=2000, clients=[client])
        client.ids.clear()
        for connections in (16, 256):
            result = load(relay.port, request, connections=connections, requests=20_000, clients=[client])
            p50, p99 = result.percentile(50), result.percentile(99)
            rows += [
                Row(f"p50 at {connections} connections", p50 * 1e3, "ms"),
                Row(f"p99 / p50 at {connections} connections", p99 / p50, "x", 5),
            ]
        out_of_order = sum(later < earlier for earlier, later in zip(client.ids, client.ids[1:], strict=False))
        rows.append(Row(f"out of order, of {len(client.ids)}", out_of_order, "requests", 0))
    return rows


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
