"""A few faults each, under load, with the account of `make chaos`: it does many, at random."""

import random

import pytest

from tests import chaos
from tests.support.nginx import NGINX
from tests.support.redis_server import redis_server_path

needs_redis = pytest.mark.skipif(redis_server_path() is None, reason="there is no redis-server")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("store", "faults"),
    [
        ("memory", ["cut", "kill_clients"]),
        ("sqlite", ["kill_relay", "terminate_relay", "kill_clients", "kill_master"]),
        pytest.param("redis", ["kill_redis", "kill_relay", "cut_redis", "kill_worker"], marks=needs_redis),
        pytest.param(
            "cluster",
            ["terminate_relay", "kill_relay", "fill_redis", "slow_redis"],
            marks=[needs_redis, needs_nginx],
        ),
    ],
)
def test_a_few_faults(store, faults):
    """Nothing that was accepted is lost, each client is back, and none is told that it was replaced."""
    seed = random.randrange(10**6)
    wrong = chaos.run(store, seed, only=faults)
    assert wrong is None, f"seed {seed}: {wrong}"


def test_a_loss_is_seen():
    """An event that is accounted as accepted and never came makes the run fail."""
    with chaos.chaos("memory", seed=1) as subject:
        subject.callers[0].accepted.append(-1)
        subject.run(1, 60, ["cut"])
    assert subject.lost == 1
    assert "1 were accepted and not delivered" in subject.wrong
