"""Options that several commands have, and how what is given is refused."""

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..exceptions import BadArgument
from ..output.terminal import printable
from ..request import METHODS

if TYPE_CHECKING:
    from ..inspector.filters import Filter
    from ..listening.signing_options import LateSigner

DEFAULT_TIMEOUT_SECONDS = 20.0


@contextmanager
def bad_parameter() -> Iterator[None]:
    """Have click name the parameter that makes no sense."""
    try:
        yield
    except BadArgument as error:
        raise click.BadParameter(printable(str(error))) from None


def _checked(what: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return the callback of a parameter of texts that are `what`; it refuses each that is not."""

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        with bad_parameter():
            for text in value if isinstance(value, tuple) else [value]:
                _check(what, text)
        return value

    return check


def _check(what: str, text: str) -> None:
    """Raise `BadArgument` unless a text is what is said."""
    from ..client import http_api  # not for --help
    from ..local_app.target import split_target

    if what == "relay":
        http_api.RelayApi(text)
    elif what == "key":
        http_api.check_key(text)
    elif what == "token":
        http_api.check_token(text)
    elif what == "listener":
        http_api.check_listener(text)
    elif what == "url":
        http_api.split_url(text)
    else:
        split_target(text, what)


check_relay = _checked("relay")
check_key = _checked("key")
check_token = _checked("token")
check_url = _checked("url")
check_target = _checked("target")
check_target_url = _checked("URL")

server = click.option(
    "--server",
    required=True,
    envvar="SOCKET2ME_SERVER",
    show_envvar=True,
    callback=check_relay,
    help="The relay, https://relay.example.",
)


class Seconds(click.FloatRange):
    """A number of seconds; `nan` is none, which a range lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


def timeout_option(default: float, meaning: str) -> Callable[[Any], Any]:
    """Return the option `--timeout` of a command."""
    return click.option(
        "--timeout",
        "timeout_seconds",
        type=Seconds(0.1, 3600),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=meaning,
    )


timeout = timeout_option(
    DEFAULT_TIMEOUT_SECONDS,
    "How long an answer may take. The relay's own timeouts may be shorter: `listen` says so.",
)
of_server = click.option(
    "--server",
    envvar="SOCKET2ME_SERVER",
    show_envvar=True,
    callback=check_relay,
    help="Only the URLs of this relay.",
)
insecure = click.option("--insecure", is_flag=True, help="Take any certificate of a target with https.")


api_key = click.option(
    "--api-key",
    envvar="SOCKET2ME_API_KEY",
    show_envvar=True,
    callback=check_key,
    help="What the relay asks for before it gives tokens.",
)


secret = click.option(
    "--secret",
    envvar="SOCKET2ME_SECRET",
    show_envvar=True,
    callback=check_key,
    help="The secret of --url. Other users see what is in a command line: rather set the variable.",
)


listener = click.option(
    "--as",
    "listener",
    metavar="ID",
    callback=_checked("listener"),
    help="The id of this client among several: up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.",
)


def ask_secret() -> str:
    """Ask for the secret of `--url` in the terminal. Raises `BadArgument` if there is none, or it is no secret."""
    if not _has_terminal():
        raise BadArgument("The secret of the URL is not known, and there is no terminal: set SOCKET2ME_SECRET.")
    try:
        secret: str = click.prompt("Secret of the URL", hide_input=True, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # status 130, as at any other time
        raise
    _check("key", secret)
    return secret


def _has_terminal() -> bool:
    """Return whether a secret can be typed and not be shown: into the terminal, or the console of Windows."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return True


def _filter_of(text: str) -> "Filter":
    from ..inspector import filters
    from ..inspector.errors import BadFilter

    word = text.split(maxsplit=1)[0]
    if word.upper() in METHODS:
        text = text.replace(word, word.upper(), 1)
    try:
        return filters.parse(text, knows_outcome=False)
    except BadFilter as error:
        raise click.BadParameter(printable(str(error))) from None


def _parse_filter(context: click.Context, option: click.Parameter, text: str | None) -> "Filter | None":
    return _filter_of(text) if text is not None and text.strip() else None


def _parse_filters(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> "list[Filter]":
    return [_filter_of(text) for text in texts if text.strip()]


def request_filter(meaning: str) -> Callable[[Any], Any]:
    """Return the option `--filter` of a command."""
    return click.option(
        "--filter",
        callback=_parse_filter,
        metavar="'POST /stripe/* body.$.type:invoice.*'",
        help=f"{meaning} The language is that of the inspector's filters, without status: and outcome:.",
    )


def _parse_resign(context: click.Context, option: click.Parameter, text: str | None) -> "LateSigner | None":
    from ..listening.signing_options import LateSigner

    with bad_parameter():
        return LateSigner(text) if text is not None else None


resign = click.option(
    "--resign",
    "signer",
    callback=_parse_resign,
    metavar="'PROVIDER=SECRET'",
    help="Sign what is sent late or again anew, with the time of now: for slack, standard, stripe and zoom.",
)


def only(meaning: str) -> Callable[[Any], Any]:
    """Return the option `--only` of a command."""
    return click.option(
        "--only",
        multiple=True,
        callback=_parse_filters,
        metavar="'POST /github/*'",
        help=f"{meaning} A method, a path, or both; * is any part of a path; or any filter of the inspector.",
    )
