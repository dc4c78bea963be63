"""Fixtures: the application in this process, and real relays in processes of their own."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient

from socket2me_flask import create_app
from socket2me_flask.storage import SQLiteStore
from socket2me_flask.storage.redis import RedisStore
from tests.support.browser import CHROMIUM
from tests.support.nginx import NGINX
from tests.support.node import HAS_NPM_PACKAGES
from tests.support.redis_server import Redis, redis_server_path
from tests.support.servers import ROOT, WITH_C_PARSER, Server

# No test depends on how fast the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


# The release before this one. Its files have schema 1, its messages between processes no names.
PREVIOUS = "10046b2"


class Clock:
    """A clock that a test moves. `followers` are called with how many seconds."""

    def __init__(self) -> None:
        self._now = 1_000_000.0
        self.followers: list[Callable[[float], None]] = []

    def __call__(self) -> float:
        return self._now

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        for follow in self.followers:
            follow(now - self._now)
        self._now = now


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


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis for tests that do not harm it."""
    with Redis() as redis_server:
        yield redis_server


@pytest.fixture
def redis(redis_server: Redis) -> Redis:
    """The same, with nothing in it."""
    redis_server.client.flushall()
    return redis_server


@pytest.fixture
def open_file(tmp_path, clock):
    """Return what opens the same file again and again, as one relay after another does."""
    yield from one_after_another(partial(SQLiteStore, str(tmp_path / "relay.db"), clock))


@pytest.fixture
def open_redis(redis, clock):
    """The same for a Redis, whose clock moves with the test's: what is to expire comes nearer."""

    def follow(seconds):
        milliseconds = round(seconds * 1000)
        for key in [*redis.client.scan_iter("s2m:token:*"), *redis.client.scan_iter("s2m:name:*")]:
            redis.client.pexpire(key, redis.client.pttl(key) - milliseconds)
        for key in [b"s2m:tokens", *redis.client.scan_iter("s2m:names*")]:
            for token in redis.client.zrange(key, 0, -1):
                redis.client.zincrby(key, -milliseconds, token)

    clock.followers.append(follow)
    yield from one_after_another(lambda **bounds: RedisStore(redis.url, clock, process=f"v{uuid4().hex}", **bounds))


def one_after_another(open_store):
    """Yield what opens a store, and closes the one before."""
    opened = []

    def reopen(**bounds):
        while opened:
            opened.pop().close()
        opened.append(open_store(**bounds))
        opened[0].start()
        return opened[0]

    yield reopen
    while opened:
        opened.pop().close()


@pytest.fixture(scope="session")
def start_once() -> Iterator[Callable[[str], Server]]:
    """Return the relay of a runner at its default settings, which is started when it is first asked for."""
    with ExitStack() as stack:
        yield cache(lambda runner: stack.enter_context(Server(runner)))


@pytest.fixture(params=["gunicorn", WITH_C_PARSER, "procfile", "flask"])
def any_server(start_once: Callable[[str], Server], request: pytest.FixtureRequest) -> Server:
    """A relay run in each of the three ways, under gunicorn with each parser, at its default settings."""
    return start_once(request.param)


@pytest.fixture(params=["gunicorn", "flask"])
def either_server(start_once: Callable[[str], Server], request: pytest.FixtureRequest) -> Server:
    """A relay under each HTTP server, at its default settings: for what the parser of heads does not change."""
    return start_once(request.param)


@pytest.fixture(scope="session")
def server(start_once: Callable[[str], Server]) -> Server:
    """A relay under gunicorn, at its default settings."""
    return start_once("gunicorn")


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the release before this one."""
    folder = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("the history of the code is not here")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what is missing, and how to get it."""
    servers = (("nginx", NGINX), ("redis-server", redis_server_path()), ("chromium", CHROMIUM))
    missing = [name for name, path in servers if path is None]
    if missing:
        terminalreporter.section("skipped")
        terminalreporter.line(f"Not installed: {', '.join(missing)}. Tests that need them were skipped.")
        terminalreporter.line("`make servers` installs them on Debian, as root.")
    if not HAS_NPM_PACKAGES:
        terminalreporter.line(
            "Not installed: Node.js, or the packages of tests/js. `make test` installs the packages."
        )
