"""`socket2me events`: the requests that relays keep."""

import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..client.http_api import RelayApi, Token, is_event_id
from ..exceptions import ClientError, RelayRefused, TokenGone
from ..output.terminal import printable, size_of
from .commands import Group
from .kept_tokens import kept_tokens
from .options import of_server

_T = TypeVar("_T")


def _parse_event_ids(context: click.Context, option: click.Parameter, given: str | tuple[str, ...]) -> Any:
    for text in (given,) if isinstance(given, str) else given:
        if not is_event_id(text):
            raise click.BadParameter(
                printable(f"{text!r} is no id of a request. `socket2me events list` shows those that there are.")
            )
    return given


_event_ids = click.argument("event_ids", metavar="ID...", nargs=-1, required=True, callback=_parse_event_ids)


@click.group(cls=Group)
def events() -> None:
    """Look at the requests that relays keep for your URLs, and retry or drop one.

    A request is `waiting`, `in flight` to a listener, or a `dead letter` after the relay's last attempt.
    """


@events.command("list", example="socket2me events list --server https://relay.example")
@of_server
def list_events(server: str | None) -> None:
    """List the requests that are kept for each URL, oldest first: id, state, attempts, size, age.

    Ends with status 0 if each relay answered, and 1 if one did not.
    """
    has_failed = False
    for kept, api, token in kept_tokens(server):
        click.echo(printable(f"{api.url(token)} -> {kept.target}"))
        try:
            listed = [(event, state) for state, found in api.events(token).items() for event in found]
        except TokenGone:
            click.echo("  gone: it expired, or was deleted")
            continue
        except ClientError as error:
            click.echo(printable(f"  {error}"))
            has_failed = has_failed or not (isinstance(error, RelayRefused) and error.code == "unknown_event")
            continue
        for event, state in sorted(listed, key=lambda each: float(each[0]["received_at"])):
            age = _age(time.time() - float(event["received_at"]))
            size = size_of(int(event["size"]))
            words = state.replace("_", " ").removesuffix("s")
            click.echo(f"  {event['id']}  {words}  tried {event['attempts']}x  {size}  {age}")
        if not listed:
            click.echo("  nothing is kept")
    if has_failed:
        raise SystemExit(1)


@events.command("show", example="socket2me events show 459e7765c1cee03b-2")
@of_server
@click.argument("event_id", metavar="ID", callback=_parse_event_ids)
def show_event(event_id: str, server: str | None) -> None:
    """Show a request whole. A body that is no text is only counted."""
    event = _with_event(server, event_id, RelayApi.event)
    query = f"?{event['query']}" if event["query"] else ""
    click.echo(printable(f"{event['method']} {event['path'] or '/'}{query}"))
    for name, value in event["headers"].items():
        click.echo(printable(f"{name}: {value}"))
    body = b64decode(event["body"])
    try:
        lines = body.decode().splitlines()
    except UnicodeDecodeError:
        lines = [f"({size_of(len(body))} that are no text)"]
    click.echo("\n".join(["", *map(printable, lines)]))
    click.echo(f"\n{event_id}: {event['state'].replace('_', ' ')}, tried {event['attempts']}x", err=True)


@events.command("retry", example="socket2me events retry 459e7765c1cee03b-2")
@of_server
@_event_ids
def retry_events(event_ids: tuple[str, ...], server: str | None) -> None:
    """Send requests again at once, their attempts counted from the start.

    One that a listener has just now is not begun a second time: drop it, to end that.
    """
    for event_id in event_ids:
        _with_event(server, event_id, RelayApi.redeliver)
        click.echo(f"{event_id} is sent again.")


@events.command("drop", example="socket2me events drop 459e7765c1cee03b-2")
@of_server
@_event_ids
def drop_events(event_ids: tuple[str, ...], server: str | None) -> None:
    """Delete requests.

    One that is in flight is not sent again, and `listen` closes its connection to the app, which may have done its
    work all the same.
    """
    for event_id in event_ids:
        _with_event(server, event_id, RelayApi.drop)
        click.echo(f"{event_id} is dropped.")


def _with_event(server: str | None, event_id: str, do: Callable[[RelayApi, Token, str], _T]) -> _T:
    """Do something with an event of one of the kept tokens. Raises `ClientError` if none has it."""
    unseen = []
    for _, api, token in kept_tokens(server):
        try:
            return do(api, token, event_id)
        except RelayRefused as error:
            if error.code not in ("unknown_event", "unknown_token", "unauthorized"):
                unseen.append(str(error))
        except ClientError as error:
            unseen.append(str(error))
    raise ClientError(" ".join([f"No request {event_id} is in the mailbox of a URL of yours.", *unseen]))


def _age(seconds: float) -> str:
    """Return an age as people read it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"
