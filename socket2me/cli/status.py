"""`socket2me status`."""

from typing import Any

import click

from ..client.http_api import RelayApi, Token
from ..exceptions import ClientError, TokenGone
from ..output.terminal import printable, when
from .commands import Command
from .kept_tokens import kept_tokens
from .options import of_server


@click.command(cls=Command, example="socket2me status --server https://relay.example")
@of_server
def status(server: str | None) -> None:
    """Show the URLs that are kept, what their relays say of each, and which relay is older than this command.

    Ends with status 0 if each relay answered, be it that a URL is gone, and 1 if one did not.
    """
    has_failed, ages = False, dict[str, str]()
    for kept, api, token in kept_tokens(server):
        click.echo(printable(f"{api.url(token)} -> {kept.target}"))
        try:
            state = _state(api, token)
        except ClientError as error:
            state, has_failed = str(error), True
        for line in state.splitlines():
            click.echo(printable(f"  {line}"))
        if api.server not in ages:
            ages[api.server] = api.age()
            if ages[api.server]:
                click.echo(printable(f"  {ages[api.server]}"))
    if has_failed:
        raise SystemExit(1)


def _state(api: RelayApi, token: Token) -> str:
    if token.secret is None:
        return "a URL without a secret: the relay does not state it"
    try:
        seen = api.inspect(token)
    except TokenGone:
        return "gone: it expired, or was deleted"
    words = ["connected" if seen["connected"] else "not connected", f"{seen['forwarded']} requests taken"]
    is_shared = seen.get("listener_mode", "newest") != "newest"
    if is_shared:
        words[0] = f"{len(seen['listeners'])} listeners, {seen['listener_mode']}"
    words += [f"{count} {state.replace('_', ' ')}" for state, count in seen.get("events", {}).items()]
    lines = [", ".join([*words, f"lives until {when(float(seen['expires_at']))}"])]
    if is_shared:
        lines += map(listener_line, seen["listeners"])
    return "\n".join(lines)


def listener_line(seen: dict[str, Any]) -> str:
    """Return what is shown of a listener. One that is away has no mode."""
    since = f"since {when(float(seen['since']))}"
    if not seen.get("connected", True):
        return f"{seen['id']}: not connected {since}, {seen['waiting']} waiting"
    return f"{seen['id']}: {since}, {seen['mode']}, {seen['in_flight']} in flight, {seen['waiting']} waiting"
