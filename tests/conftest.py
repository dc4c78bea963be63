"""Fixtures: the application in this process, and real relays in processes of their own."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from flask import Flask
from flask.testing import FlaskClient

from socket2me_flask import create_app

from .live import Server


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(clock: Clock) -> Flask:
    app = create_app({"HOLD_SECONDS": 0}, clock=clock)
    app.testing = True
    return app


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    return app.test_client()


WITH_C_PARSER = pytest.param(
    "gunicorn-fast",
    marks=pytest.mark.skipif(find_spec("gunicorn_h1c") is None, reason="the extra `fast` is not installed"),
)


@pytest.fixture(scope="session", params=["gunicorn", WITH_C_PARSER, "procfile", "flask"])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A relay run in each of the three ways, under gunicorn with each parser, at its default settings."""
    with Server(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A relay under gunicorn, at its default settings."""
    with Server() as server:
        yield server
