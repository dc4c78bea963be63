"""The life of the process: what starts when, and which states follow which."""

import itertools

import pytest

from socket2me_flask import create_app, get_services
from socket2me_flask.lifecycle import TRANSITIONS, State


@pytest.fixture
def lifecycle():
    return get_services(create_app({"HOLD_SECONDS": 0})).lifecycle


def test_building_an_application_starts_nothing(lifecycle):
    """Neither timers nor the reaper run before something is served."""
    assert lifecycle.state is State.BUILT
    assert not lifecycle.is_draining


def test_the_first_request_starts_what_is_needed():
    """Under any WSGI server, once."""
    app = create_app({"HOLD_SECONDS": 0})
    lifecycle = get_services(app).lifecycle
    assert app.test_client().get("/healthz").status_code == 200
    assert lifecycle.state is State.SERVING
    lifecycle.start()
    assert lifecycle.state is State.SERVING


def test_a_drained_relay_rejects_calls_and_says_so():
    """503 for calls and for `readyz`; `healthz` stays 200 until the end."""
    app = create_app({"HOLD_SECONDS": 0})
    http = app.test_client()
    lifecycle = get_services(app).lifecycle
    lifecycle.start()
    lifecycle.drain()
    assert lifecycle.state is State.CLOSED
    assert http.get("/healthz").status_code == 200
    for path in ("/readyz", "/v1/new", "/v1/go/" + "a" * 24):
        answer = http.get(path)
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "shutting_down")
    lifecycle.drain()
    lifecycle.stop()
    lifecycle.stop()
    assert lifecycle.state is State.STOPPED


def test_a_relay_that_was_never_started_need_not_be_stopped(lifecycle):
    """A worker that fails to load its application stops nothing."""
    lifecycle.drain()
    lifecycle.stop()
    assert lifecycle.state is State.BUILT


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_only_the_transitions_of_the_table_are_possible(lifecycle, before, after):
    """Each other pair of states is an error."""
    lifecycle.state = before
    if after in TRANSITIONS[before]:
        lifecycle.enter(after)
        assert lifecycle.state is after
    else:
        with pytest.raises(RuntimeError, match=f"a process that is {before.value} cannot become {after.value}"):
            lifecycle.enter(after)
