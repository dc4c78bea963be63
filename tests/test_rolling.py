"""Relays on one Redis that go while they are called: what was answered OK is delivered, and clients come back."""

import random

import pytest

from . import rolling
from .redis_server import redis_server_path

pytestmark = pytest.mark.skipif(redis_server_path() is None, reason="there is no redis-server")


@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM one after the other", "SIGKILL of one"])
def test_relays_that_go(kill):
    """`make rolling` runs it with 10,000 tokens and 5,000 clients on three relays. The seed is printed."""
    seed = random.randrange(10**6)
    wrong = rolling.run(tokens=200, clients=100, seconds=0.6, seed=seed, kill=kill, relays=2)
    assert wrong is None, f"seed {seed}: {wrong}"
