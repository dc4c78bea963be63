"""`socket2me check`."""

import click

from ..canary import check as check_relay
from .commands import Command
from .options import api_key, server, timeout_option

# How long `check` may take. Docker ends a health check after 30 s by default.
CHECK_SECONDS = 10.0


@click.command(cls=Command, example="socket2me check --server https://relay.example --timeout 5")
@server
@api_key
@timeout_option(CHECK_SECONDS, "How long all steps together may take.")
def check(server: str, api_key: str | None, timeout_seconds: float) -> None:
    """Send one call through the relay and back, to see that it works: for monitors and health checks.

    Makes a token, connects to it, calls it, verifies that method, path, query and body arrive byte for byte, and
    deletes the token. Prints how many milliseconds each step took.

    Ends with status 0, or with 1 and a line with the step that failed and why.
    """

    def show(step: str, seconds: float) -> None:
        click.echo(f"{step:<8}{seconds * 1000:>8.1f} ms")

    check_relay(server, api_key=api_key, timeout_seconds=timeout_seconds, report=show)
