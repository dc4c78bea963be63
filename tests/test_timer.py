from socket2me_flask.timer import Timer


def test_a_timer_acts_in_order_and_forgets_what_is_discarded(monkeypatch):
    """Items come due one after the other; a renewed one waits again."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    acted = []
    timer = Timer(10, acted.append)
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
