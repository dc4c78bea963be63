"""A relay that is older than the command: what the command says of it."""

import shlex

import pytest
from click.testing import CliRunner

from socket2me import __version__
from socket2me.cli import main
from socket2me.relay_version import lacks
from tests.support.command import Command
from tests.support.local_app import call
from tests.support.servers import Server, command_for


class Older(Server):
    """`older.py` under gunicorn."""

    @staticmethod
    def command(runner, port):
        _, environment = command_for(runner, port)
        return shlex.split("gunicorn -k eventlet tests.support.older:app"), environment


def run(home, *arguments):
    result = CliRunner().invoke(main, arguments, env={"XDG_STATE_HOME": str(home)})
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ("0.0.9", f"The relay is of version 0.0.9, older than this command ({__version__})."),
        ("", f"The relay does not state its version, so it is older than this command ({__version__})."),
    ],
)
def test_what_is_said_of_an_older_relay(tmp_path, app, stated, line):
    """`listen` says it and works; `status` says it, and a command that asks for what the relay does not have."""
    with Older(STATED=stated, STORE_URL=f"sqlite:///{tmp_path}/relay.db") as relay:
        command = Command(tmp_path, "listen", app.url, "--server", relay.url, "--json")
        command.expect("url")
        relay.giveaways.add(command.url.rpartition("/")[2])
        said = command.expect("relay_old")["why"]
        assert said.startswith(f"{line} These may not work with it: --verify, ")
        command.expect("connected")
        assert call(relay, command.url, body=b"x")[0] == 200
        app.expect()
        status, shown = run(tmp_path, "status", "--server", relay.url)
        assert said in shown
        status, shown = run(tmp_path, "events", "list", "--server", relay.url)
        assert status == 1
        assert said in shown
        command.end()
        if not stated:
            status, shown = run(tmp_path, "listen", app.url, "--server", relay.url, "--verify", "github=x", "--new")
            assert status == 1
            assert f"nothing else. {said}" in shown
            status, shown = run(tmp_path, "listen", app.url, "--server", relay.url, "--filter", "POST", "--plain")
            assert status == 1
            assert f"window, and nothing else. {said}" in shown


def test_versions():
    """Only an older one is named, and of what it lacks, only what came after it. What is no version is none."""
    features = (("0.2.0", "a"), ("1.10", "b"))
    assert lacks("1.10.0", features, "1.10") == lacks("2.0", features, "1.10") == ""
    assert "not work with it: b." in lacks("1.9.9", features, "1.10")
    assert "not work with it: a, b." in lacks("0.1", features, "1.10")
    assert (
        lacks("1.10rc1", features, "1.10.1") == "The relay is of version 1.10rc1, older than this command (1.10.1)."
    )
    for none in (None, 7, "", "x", "\x1b[2J"):
        assert "does not state its version" in lacks(none, features, "1.10")
