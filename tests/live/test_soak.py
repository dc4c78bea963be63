"""A few seconds of the soak of listeners: `python -m tests.soak_listeners --seconds 300` does it for longer."""

import random

import pytest

from tests import soak_listeners


@pytest.mark.timeout(180)
def test_listeners_under_faults():
    """Each listener has what it is owed in order, no event is handled by two workers at once, and none is lost."""
    seed = random.randrange(10**6)
    wrong = soak_listeners.run("sqlite", seed, 3)
    assert wrong is None, f"seed {seed}: {wrong}"
