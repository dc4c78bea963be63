"""The worker forwards a call by itself only while nothing in the Flask application wants to see it."""

from types import SimpleNamespace

import flask
import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from socket2me_flask import create_app, get_services
from socket2me_flask.errors import UnknownToken
from socket2me_flask.worker.accelerator import Accelerator

TOKEN = "a" * 24


@pytest.fixture
def app():
    return create_app({"HOLD_SECONDS": 0})


def forward(app, target=f"/v1/go/{TOKEN}", method="GET"):
    """Return what the accelerator makes of a request."""
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    request = next(RequestParser(Config(), [head], ("127.0.0.1", 1)))
    return Accelerator(get_services(app)).forward(request, SimpleNamespace(host="127.0.0.1"))


def test_without_hooks_the_worker_answers(app):
    """The relay's own registrations do not count."""
    assert forward(app).status == "404 Not Found"


def test_what_is_no_call_passes_through_flask(app):
    """Other routes, other methods, and what only looks like a call."""
    assert forward(app, "/v1/new") is None
    assert forward(app, f"/v2/go/{TOKEN}") is None
    assert forward(app, method="TRACE") is None


def test_the_originals_urls_can_be_turned_off():
    """`/go` is then no call."""
    assert forward(create_app({"LEGACY_CLIENTS": True}), f"/go/{TOKEN}").status == "404 Not Found"
    assert forward(create_app({"LEGACY_CLIENTS": False}), f"/go/{TOKEN}") is None


HOOKS = {
    "before_request": lambda app: app.before_request(lambda: None),
    "after_request": lambda app: app.after_request(lambda response: response),
    "teardown_request": lambda app: app.teardown_request(lambda error: None),
    "teardown_appcontext": lambda app: app.teardown_appcontext(lambda error: None),
    "url_value_preprocessor": lambda app: app.url_value_preprocessor(lambda endpoint, values: None),
    "an error handler by status": lambda app: app.register_error_handler(404, lambda error: ("", 404)),
    "an error handler by class": lambda app: app.register_error_handler(UnknownToken, lambda error: ("", 404)),
    "an error handler for everything": lambda app: app.register_error_handler(Exception, lambda error: ("", 418)),
    "a wrapped view": lambda app: app.view_functions.update({"forward.forward": lambda tail: ("", 403)}),
    "a replaced dispatch": lambda app: setattr(app, "dispatch_request", lambda: ("", 403)),
    "a subclass": lambda app: setattr(app, "__class__", type("Mine", (flask.Flask,), {})),
    "a route of its own": lambda app: app.add_url_rule("/v1/go/ping", "ping", lambda: "pong"),
    "middleware": lambda app: setattr(app, "wsgi_app", flask.Flask("other").wsgi_app),
    "a blueprint's before_request": lambda app: app.before_request_funcs["forward"].append(lambda: None),
    "a blueprint's after_request": lambda app: app.after_request_funcs["legacy"].append(lambda response: response),
}


@pytest.mark.parametrize("name", HOOKS)
def test_with_a_hook_calls_pass_through_flask(app, name):
    """From the moment at which it is registered."""
    HOOKS[name](app)
    assert forward(app) is None


def test_a_route_elsewhere_does_not_matter(app):
    """Only one that takes calls does."""
    app.add_url_rule("/elsewhere", "elsewhere", lambda: "")
    assert forward(app) is not None


@pytest.mark.parametrize(
    "signal",
    ["request_started", "request_finished", "request_tearing_down", "got_request_exception", "appcontext_pushed"],
)
def test_while_a_signal_has_a_receiver_calls_pass_through_flask(app, signal):
    """And no longer than that."""

    def receive(sender, **kwargs):
        pass

    with getattr(flask, signal).connected_to(receive, app):
        assert forward(app) is None
    assert forward(app) is not None
