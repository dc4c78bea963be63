"""An event for one thread that waits once."""

import threading

import pytest

from socket2me_flask.concurrency.latch import Latch


@pytest.mark.parametrize("times", [1, 2])
def test_a_latch_that_is_set_needs_no_wait(times):
    """However often it was set before."""
    latch = Latch()
    for _ in range(times):
        latch.set()
    assert latch.is_set and latch.wait(0)


@pytest.mark.parametrize("seconds", [-1, 0, 0.01])
def test_a_latch_that_is_not_set_in_time(seconds):
    """The wait ends, and what sets it later does no harm."""
    latch = Latch()
    assert not latch.wait(seconds)
    latch.set()
    latch.set()
    assert latch.is_set


def test_a_latch_ends_the_wait_of_another_thread():
    """Whether it is set before, while or after the other thread begins to wait, as it happens in 200 runs."""
    for _ in range(200):
        latch, results = Latch(), []
        thread = threading.Thread(target=lambda latch=latch, results=results: results.append(latch.wait(20)))
        thread.start()
        setters = [threading.Thread(target=latch.set) for _ in range(2)]
        for setter in setters:
            setter.start()
        for each in (thread, *setters):
            each.join(20)
        assert results == [True]
