"""`socket2me wait`."""

import json

import click

from ..client.http_api import RelayApi, Token
from ..inspector.filters import Filter
from ..output.terminal import printable
from ..request import Request
from ..saved.token_file import SavedTokens
from ..waiting import Wait, described
from .commands import Command
from .options import Seconds, api_key, check_key, check_token, listener, request_filter, server

# What `wait` ends with when not all requests came in time, as `timeout` of GNU coreutils has it.
TIMEOUT_STATUS = 124


@click.command(
    cls=Command,
    example="socket2me wait --server https://relay.example --filter 'POST /stripe' --count 2 --timeout 60",
)
@server
@click.option(
    "--token",
    callback=check_token,
    help="The token to wait at, or a name. Without: one of its own, whose URL is printed to stderr.",
)
@click.option(
    "--secret",
    envvar="SOCKET2ME_SECRET",
    show_envvar=True,
    callback=check_key,
    help="The secret of --token, if it is not kept here. Other users see a command line: rather set the variable.",
)
@api_key
@listener
@request_filter("Which requests count.")
@click.option(
    "--count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many requests to wait for.",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=Seconds(0.1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for all of them.",
)
def wait(
    server: str,
    token: str | None,
    secret: str | None,
    api_key: str | None,
    listener: str | None,
    filter: Filter | None,
    count: int,
    timeout_seconds: float,
) -> None:
    """Wait for requests to a URL, and print each as a JSON object on a line: for tests, CI jobs and agents.

    Without --token, it asks for a URL and prints that to stderr, as the first line, once it is connected: nothing
    that is sent to it from then on is missed. The URL ends with the command.

    With --token, what came to its mailbox since it was made counts, the oldest first. What is printed is taken out
    of the mailbox, and so is what came before it and --filter does not ask for: how many that are is said at the
    end. A client that is connected is replaced. Of a token with listeners "all" or "one" it is not, and with "one"
    what --filter does not ask for stays for the others.

    Ends with status 0 once N requests were printed, 124 if they did not come within --timeout, 1 after an error,
    and 2 if the command makes no sense. What came is printed in any case. A relay that does not answer is tried
    again until the time is over, since it may be about to start; a host that does not exist is an error at once.
    """
    given = None
    if token is not None:
        if secret is None:
            kept = SavedTokens().find_token(RelayApi(server).server, token)
            secret = kept.secret if kept is not None else None
        given = Token(token, secret)

    def show(request: Request) -> None:
        click.echo(json.dumps(described(request)))

    waiting = Wait(
        server,
        given,
        api_key=api_key,
        listener=listener,
        filter=filter,
        count=count,
        show=show,
        show_url=lambda url: click.echo(url, err=True),
    )
    is_done = waiting.run(timeout_seconds)
    if waiting.passed:
        click.echo(f"Requests that --filter does not ask for, and that are not kept: {waiting.passed}.", err=True)
    if not is_done:
        click.echo(printable(_why_not(waiting, timeout_seconds)), err=True)
        raise SystemExit(TIMEOUT_STATUS)


def _why_not(waiting: Wait, seconds: float) -> str:
    """Return what is said when the time is over: also, if the relay was not there."""
    why = waiting.unavailable
    if not waiting.was_connected:
        return f"Never connected to the relay within {seconds:g} s: {why or 'it has not answered'}."
    return f"Not all came within {seconds:g} s." + (f" The relay is away: {why}." if why else "")
