"""`socket2me serve`. The relay is another package: this starts a process of it, and imports nothing of it."""

import os
import sys
from importlib.util import find_spec

import click

from .commands import Command

# What the extra `server` brings; a part of it is none.
SERVER_LIBRARIES = ("eventlet", "flask_socketio", "gunicorn", "limits", "msgspec")

COMMAND = ("-m", "gunicorn", "-k", "eventlet", "-c", "python:socket2me_flask.worker.serve_conf")
APP = "socket2me_flask.wsgi:app"


@click.command(cls=Command, example="socket2me serve --store sqlite:///relay.db --require-secret")
@click.option(
    "--host",
    envvar="SOCKET2ME_BIND",
    show_envvar=True,
    metavar="ADDRESS",
    help="The interface to listen on; 0.0.0.0 is all of IPv4, :: all. Without: 127.0.0.1, this machine only.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    envvar="PORT",
    show_envvar=True,
    metavar="PORT",
    help="The port. Without: 8000.",
)
@click.option(
    "--store",
    envvar=["SOCKET2ME_STORE_URL", "REDIS_URL"],
    show_envvar=True,
    metavar="URL",
    help="Where tokens and mailboxes are kept: sqlite:///relay.db is a file in this folder, redis://host:6379/0 a "
    "Redis. Without: in memory, until the relay ends, and without mailboxes.",
)
@click.option(
    "--require-secret/--no-require-secret",
    default=None,
    envvar="SOCKET2ME_REQUIRE_SECRET",
    show_envvar=True,
    help="Whether every token has a secret.",
)
@click.option(
    "--api-key",
    "api_keys",
    envvar="SOCKET2ME_API_KEYS",
    show_envvar=True,
    metavar="KEYS",
    help="Keys of which new tokens need one, separated by commas. Other users see a command line: rather set the "
    "variable.",
)
def serve(
    host: str | None, port: int | None, store: str | None, require_secret: bool | None, api_keys: str | None
) -> None:
    """Run the relay, until Ctrl-C or SIGTERM.

    Every other setting is a variable, SOCKET2ME_HOLD_SECONDS for one; docs/settings.md has all. GUNICORN_CMD_ARGS
    has options of gunicorn, which serves. Log lines go to stderr.

    Needs the extra `server`. Ends with status 0 after Ctrl-C or SIGTERM, 1 if it cannot serve, and 3 if
    its store cannot be used.
    """
    if sys.platform == "win32":
        raise click.ClickException("The relay needs Linux or macOS. On Windows, run it in WSL or in a container.")
    if any(find_spec(name) is None for name in SERVER_LIBRARIES):
        raise click.ClickException("The relay needs more libraries: pip install 'socket2me[server]'")
    given = {
        "SOCKET2ME_BIND": host,
        "PORT": port,
        "SOCKET2ME_STORE_URL": store,
        "SOCKET2ME_REQUIRE_SECRET": require_secret,
        "SOCKET2ME_API_KEYS": api_keys,
    }
    settings = {variable: str(value) for variable, value in given.items() if value is not None}
    # gunicorn in place of this process: signals, systemd and gunicorn's own restarts find it as they expect it.
    os.execve(sys.executable, [sys.executable, *COMMAND, APP], {**os.environ, **settings})  # noqa: S606
