"""One address neither stalls nor stops the relay: attacks from 127.0.0.2, seen by a probe from 127.0.0.1.

`attack.py` has the bounds.
"""

import time

import pytest

from ..live import Server
from .attack import assert_harmless, connect


@pytest.fixture(scope="module")
def relay():
    with Server(HOLD_SECONDS=0) as server:
        yield server


def do_nothing(port, seconds):
    with connect(port):
        time.sleep(seconds)


def test_an_attack_that_does_nothing_is_harmless(relay):
    """What the other tests of this file measure is not the measuring itself."""
    report = assert_harmless(relay, do_nothing, 1)
    assert len(report.waits) > 20
