"""Fixtures: a relay that keeps mailboxes, a local app, and `socket2me listen` between them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Command, until_attached
from tests.support.local_app import App
from tests.support.servers import Server


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A relay that keeps mailboxes, and whose names are open."""
    with Server(STORE_URL=f"sqlite:///{tmp_path_factory.mktemp('relay')}/relay.db", OPEN_NAMES=True) as server:
        yield server


@pytest.fixture
def app() -> Iterator[App]:
    with App() as app:
        yield app


@pytest.fixture
def listen(relay: Server, app: App, tmp_path: Path) -> Iterator[Any]:
    """Start `socket2me listen`, for the app unless another target is given, or None; wait until it is connected."""
    commands = []

    def start(*options: str, target: str | None = "", server: Server = relay, home: Path = tmp_path) -> Command:
        targets = [] if target is None else [target or app.url]
        command = Command(home, "listen", *targets, "--server", server.url, "--json", *options)
        commands.append(command)
        command.expect("url")
        command.expect("terms")
        server.giveaways.add(command.url.rpartition("/")[2])
        until_attached(server, command, home)
        return command

    yield start
    for command in commands:
        if not command.process.stdout.closed:
            command.end()
