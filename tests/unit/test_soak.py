"""The account of the soak of listeners finds what it looks for."""

from tests.soak_listeners import LATE_SECONDS, REDELIVER_SECONDS, account_of_all, account_of_one

ACCEPTED = [("c", 0), ("c", 1), ("c", 2)]


def received(*keys, who="ann"):
    return [[float(at), who, 1, "begin", list(key)] for at, key in enumerate(keys)]


def test_what_a_listener_has_not_received_is_lost():
    """Each listener is owed each event that was accepted."""
    assert account_of_all(received(*ACCEPTED), ACCEPTED, ["ann"]) == (0, 0, 0)
    assert account_of_all(received(ACCEPTED[0]), ACCEPTED, ["ann", "bob"]) == (5, 0, 0)


def test_order_is_that_of_the_first_time():
    """What is received again may come at any time."""
    first, second, third = ACCEPTED
    assert account_of_all(received(first, third, second), ACCEPTED, ["ann"]) == (0, 1, 0)
    assert account_of_all(received(first, second, first, third), ACCEPTED, ["ann"]) == (0, 0, 1)


def handled(began_at, ended_at, connection, run="r", closed_at=None):
    lines = [(run, began_at, "w", connection, "begin", ["c", 0]), (run, ended_at, "w", connection, "end", ["c", 0])]
    return lines + ([(run, closed_at, "w", connection, "closed", None)] if closed_at is not None else [])


def test_two_that_handle_an_event_at_once_are_found():
    """Unless the first had lost its connection, was killed, or was silent for as long as the relay waits."""
    account = lambda *lines, ends=(): account_of_one(sum(lines, []), dict(ends), ACCEPTED[:1])  # noqa: E731
    assert account(handled(1.0, 1.2, 1), handled(1.3, 1.4, 2)) == (0, 0, 1)
    assert account(handled(1.0, 1.2, 1), handled(1.1, 1.4, 2)) == (0, 1, 1)
    assert account(handled(1.0, 1.2, 1, closed_at=1.05), handled(1.1, 1.4, 2)) == (0, 0, 1)
    assert account(handled(1.0, 9.0, 1, closed_at=9.0), handled(1.1, 1.4, 2)) == (0, 1, 1)
    ends = [("r", 1.1 + LATE_SECONDS)]
    assert account(handled(1.0, 9.0, 1), handled(1.1, 1.4, 2, run="s"), ends=ends) == (0, 0, 1)
    assert account(handled(1.0, 9.0, 1), handled(1.0 + REDELIVER_SECONDS, 4.0, 2)) == (0, 0, 1)
    assert account([("r", 1.0, "w", 1, "begin", ["c", 0])]) == (1, 0, 0)
