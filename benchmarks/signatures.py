"""What a verified call costs more than one for a token without `verify`, in turns on one relay.

A turn is 800 POSTs of 1 KB over 16 keep-alive connections: signed as GitHub signs for a token that verifies it,
the same for a token that does not, and as Stripe signs, with a time, for one that verifies that.
"""

import hashlib
import hmac
import statistics
import time

from harness import Client, Row, Server, load, payload, post, use_load_core

REQUESTS = 800
ROUNDS = 40
SECRET = "whsec_test_secret"  # noqa: S105  # an example


def signed(path: str, body: bytes) -> bytes:
    """Return a call as both providers would have signed it."""
    now = int(time.time())
    github = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    stripe = hmac.new(SECRET.encode(), b"%d.%b" % (now, body), hashlib.sha256).hexdigest()
    request = post(path, body).replace(b"d" * 64, github.encode())
    return request.replace(
        b"Content-Type", b"Stripe-Signature: t=%d,v1=%b\r\nContent-Type" % (now, stripe.encode())
    )


def run() -> list[Row]:
    body = payload()
    with Server() as relay:
        sides: dict[str, tuple[str, list[Client]]] = {}
        for name in ("plain", "github", "stripe"):
            options = {} if name == "plain" else {"verify": {"provider": name, "secrets": [SECRET]}}
            token, auth = relay.new_with_secret(**options)
            sides[name] = token, [Client(relay.port, token, auth)]
        costs: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS + 1):  # the first warms up
            for name, (token, clients) in sides.items():
                request = signed(f"/v1/go/{token}", body)
                before = relay.cpu_seconds()
                result = load(relay.port, request, requests=REQUESTS, clients=clients)
                if result.ok != REQUESTS:
                    raise RuntimeError(result.answers)
                if number:
                    costs[name].append((relay.cpu_seconds() - before) / REQUESTS * 1e6)
        lost = sum((ROUNDS + 1) * REQUESTS - client.received for _, clients in sides.values() for client in clients)

    def ratio(name: str) -> float:
        return statistics.median(own / plain for own, plain in zip(costs[name], costs["plain"], strict=True))

    return [
        Row("CPU per call that is not verified", statistics.median(costs["plain"]), "us"),
        Row("CPU per call verified as GitHub's / not verified", ratio("github"), "x", 1.15),
        Row("CPU per call verified as Stripe's / not verified", ratio("stripe"), "x", 1.15),
        Row("accepted and not delivered", lost, "requests", 0),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
