"""The worst inputs that `fuzz.py` has found: each costs the relay's process little, and delays no other call.

They are given as `fuzz.py` prints them: bytes, and how often they are repeated.
"""

# ruff: noqa: E501  # inputs are one a line

import statistics

import pytest

from tests.fuzz import FORM, LONG_SECONDS, PART, Relay, data_of, parsers
from tests.support.attack import NOISE
from tests.support.servers import Server

# The first five took 98, 50, 30, 36 and 17 ms before there were bounds for them; the others are what is left.
PARSED = {
    "what begins as a delimiter": ("multipart/form-data at /go", ((b'--x!\r\nContent-Disposition: form-data; name="a"\r\n\r\n', 1), (b"\r\n-", 680_000), (b"\r\n--x--\r\n", 1))),
    "members": ("application/json at /v1/go", ((b"{", 1), *((b'"%x":0,' % number, 1) for number in range(200_000)), (b'"":0}', 1))),
    "stray percent signs": (f"{FORM.decode()} at /go", ((b"a=%41&", 900), (b"%#e9", 90_000), (b"%xn--a.#e9", 90_000))),
    "a field of control characters": ("multipart/form-data at /v1/go", ((PART, 1), (b"\x01", 2_000_000), (b"\r\n--x--\r\n", 1))),
    "parameters of Content-Type": ("Content-Type", ((b"a", 1), (b';a="', 14_000))),
    "a form of control characters": (f"{FORM.decode()} at /v1/go", ((b"a=", 1), (b"\x01", 2_000_000))),
    "what may begin a boundary": ("multipart/form-data at /go", ((PART, 1), (b"\r\n", 1_000_000), (b"--x--\r\n", 1))),
    "text of control characters": ("text/plain at /go", ((b"\x01\x1e", 1_000_000),)),
    "numbers that become long": ("reply", ((b"[[", 1), (b"1e15,", 52_000), (b"1]]", 1))),
    "small chunks": ("chunks", ((b"1\r\nx\r\n", 10_000),)),
    "what is like a token": ("log line", ((b"a" * 23 + b"+", 2300),)),
}  # fmt: skip

# Of these a whole relay shows what they cost: to answer them, and the connection that they come over.
SENT = {
    "payload": ((b"40/a,\x1e", 400), (b"3", 1)),
    "request": ((b"OPTIONS /v1/go/@TOKEN@/", 1), (b"//", 2000), (b" HTTP/1.1\r\nHost: x\r\n", 1), (b"X-A: b\r\n", 80), (b"\r\n", 1)),
    "packet": ((b"43/@TOKEN@,@ID@[", 1), (b"[1e15],", 30_000), (b"0]", 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSED)
def test_a_parser_is_done_soon(name):
    """No other green thread runs during that time."""
    target_name, runs = PARSED[name]
    target = next(target for target in parsers() if target.name == target_name)
    data = data_of(runs)
    assert len(data) <= max(target.most_bytes, 65_536)
    assert min(target.run(data) for _ in range(5)) < LONG_SECONDS * NOISE


@pytest.fixture(scope="module")
def relay():
    with Server(HOLD_SECONDS=0.2, TRUSTED_PROXY_HOPS=1) as server:
        yield Relay(server)


@pytest.mark.parametrize("name", SENT)
def test_a_relay_has_answered_soon(relay, name):
    """In CPU time of its process, with all that belongs to the connection."""
    data = data_of(SENT[name])
    assert statistics.median(getattr(relay, name)(data) for _ in range(5)) < LONG_SECONDS * NOISE
    relay.check()
