from socket2me_flask.concurrency.timeout_queue import TimeoutQueue


def test_a_timer_acts_in_order_and_forgets_what_is_discarded(monkeypatch):
    """Items come due one after the other; a renewed one waits again."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    acted = []
    timer = TimeoutQueue(10, acted.append)
    for item in "abcd":
        timer.add(item)
        now[0] += 1
    timer.discard("b")
    timer.add("a")  # at 4
    now[0] = 12
    timer.run(lambda: None)
    assert acted == ["c"]
    now[0] = 14
    timer.run(lambda: None)
    assert acted == ["c", "d", "a"]


def test_items_that_are_postponed_are_due_later():
    """By that time, and in the same order."""
    acted = []
    timer = TimeoutQueue(0, acted.append)
    timer.add("a")
    timer.postpone(3600)
    timer.run(lambda: None)
    assert acted == []
    timer.postpone(-3600)
    timer.add("b")
    timer.run(lambda: None)
    assert acted == ["a", "b"]


def test_the_oldest_items_are_those_that_were_added_first(monkeypatch):
    """No more than are asked for, and none that is younger than asked for."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    timer = TimeoutQueue(10, lambda item: None)
    for item in "abc":
        timer.add(item)
        now[0] += 1
    assert timer.oldest(2, seconds=0) == ["a", "b"]
    assert timer.oldest(9, seconds=2) == ["a", "b"]
    assert timer.oldest(9, seconds=3.5) == []
