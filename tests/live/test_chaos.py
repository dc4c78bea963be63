"""A few faults each, under load, with the account of `make chaos`: it does many, at random."""

import random

import pytest

from tests import chaos
from tests.support.nginx import NGINX
from tests.support.redis_server import redis_server_path
from tests.support.servers import wait_until

needs_cluster = [
    pytest.mark.skipif(redis_server_path() is None, reason="there is no redis-server"),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("store", "faults"),
    [
        ("sqlite", ["kill_relay", "kill_clients", "fill_disk"]),
        pytest.param("cluster", ["stop_relay", "kill_worker", "fail_over", "freeze_redis"], marks=needs_cluster),
    ],
)
def test_a_few_faults(store, faults):
    """Nothing that was accepted is lost, each client is back, and none receives `replaced`."""
    seed = random.randrange(10**6)
    wrong = chaos.run(store, seed, only=faults, is_short=True)
    assert wrong is None, f"seed {seed}: {wrong}"


def test_defects_are_found(monkeypatch):
    """Events that are lost or late, clients that are forgotten or receive `replaced`, and logged exceptions."""
    monkeypatch.setattr(chaos, "DEAF_SECONDS", 2)
    with chaos.chaos("memory", seed=1, broken="delay,lose,trace,replace,deafen", is_short=True) as subject:
        wait_until(lambda: "each defect was met" in subject.relays[0].log, "each defect was met")
        subject.run(1, 60, ["stop_worker"])
    assert min(subject.lost, subject.disordered, subject.traces, len(subject.deaf), subject.replaced) > 0
    assert len(subject.wrong) == 5
