"""The `socket2me` command."""

import logging
import signal
import threading
from pathlib import Path
from typing import Any

import click

from . import files
from .api import RelayApi, Token
from .client import Client, Notice
from .errors import ClientError, Displaced, NotHandled, OutsideTarget, TokenGone
from .forwarder import Forwarder, Pattern
from .kept import Kept, KeptTokens
from .report import JsonReport, TextReport, printable
from .request import Request
from .samples import SAMPLES
from .target import Answer, Target

# What `listen` ends with when another client took the stream.
DISPLACED_STATUS = 3

# How long the relay has to hear that the client leaves.
GOODBYE_SECONDS = 3

# Less than the relay's REDELIVER_SECONDS: an event must not come again while it is being handled.
DEFAULT_TIMEOUT_SECONDS = 20.0

_server = click.option(
    "--server", required=True, envvar="SOCKET2ME_SERVER", show_envvar=True, help="The relay, https://relay.example."
)
_timeout = click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0.1, 3600),
    default=DEFAULT_TIMEOUT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer may take.",
)
_insecure = click.option("--insecure", is_flag=True, help="Take any certificate of a target with https.")


def _parse_pattern(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[Pattern]:
    try:
        return [Pattern.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_header(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    headers = []
    for text in texts:
        name, found, value = text.partition(":")
        if not found or not name.strip() or not text.isprintable() or not text.isascii():
            raise click.BadParameter(f"{text!r} is not like 'X-Name: value'")
        headers.append((name.strip(), value.strip()))
    return headers


class _Group(click.Group):
    """Commands whose errors are a line on stderr, and status 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ClientError as error:
            raise click.ClickException(printable(str(error))) from None


class _PrintableFormatter(logging.Formatter):
    """Shows nothing that a terminal obeys: what a relay or a library says may have it."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).splitlines()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="socket2me", message="%(prog)s %(version)s")
def main() -> None:
    """From a webhook to an app on this machine, through a socket2me relay."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])


@main.command()
@click.argument("target")
@_server
@click.option(
    "--api-key",
    envvar="SOCKET2ME_API_KEY",
    show_envvar=True,
    help="What the relay asks for before it gives tokens.",
)
@click.option("--reply", is_flag=True, help="Answer callers with what the app answers. Without: 200, once it has.")
@click.option("--new", "is_new", is_flag=True, help="Ask for a new URL, and keep that one.")
@click.option(
    "--only",
    multiple=True,
    callback=_parse_pattern,
    metavar="'POST /github/*'",
    help="Forward these requests only; several are possible. A method, a path, or both; * is anything.",
)
@click.option(
    "--header-add",
    "headers",
    multiple=True,
    callback=_parse_header,
    metavar="'NAME: VALUE'",
    help="Set a header on each request, in place of those of that name; several are possible.",
)
@_timeout
@_insecure
@click.option(
    "--save",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each request as a file for `socket2me replay`, and as a curl command.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on each line.")
def listen(
    target: str,
    server: str,
    api_key: str | None,
    reply: bool,
    is_new: bool,
    only: list[Pattern],
    headers: list[tuple[str, str]],
    timeout_seconds: float,
    insecure: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Give the app at TARGET, such as http://localhost:3000/hooks, a public URL.

    Each request to that URL is sent on to TARGET byte for byte, one after another: method, path, query, headers but
    Host and those for one connection, and body. The path that follows the URL is appended to that of TARGET. No
    request and no redirect goes anywhere else.

    If the app does not answer, or not within --timeout, the request is not acknowledged. A relay that keeps
    mailboxes sends it again, with growing pauses, and those after it wait. Any answer counts, 500 too.

    The URL is kept in your folder for such things, and is the same the next time for the same TARGET and relay.

    Ends with status 0 after Ctrl-C or SIGTERM, 1 after an error, 2 if the command makes no sense, and 3 if another
    client took the stream.
    """
    app = Target(target, timeout_seconds=timeout_seconds, headers=headers, is_insecure=insecure)
    report = JsonReport() if as_json else TextReport()
    kept_tokens = KeptTokens()
    server, target = RelayApi(server).server, app.origin + app.path
    kept = None if is_new else kept_tokens.find(server, target)

    def show(notice: Notice) -> None:
        report.notice(notice)
        if notice.what == "token_new" and client.token is not None:
            kept_tokens.keep(Kept(server, target, client.token, client.secret))
            report.url(notice.why, target)

    client = Client(
        server,
        token=kept.token if kept is not None else None,
        secret=kept.secret if kept is not None else None,
        api_key=api_key,
        mode="reply" if reply else "ack",
        on_notice=show,
    )
    if client.url is not None:
        report.url(client.url, target)
    forwarder = Forwarder(app, report, is_replying=lambda: client.mode == "reply", only=only, folder=folder)
    try:
        _until_told(client, forwarder)
    except Displaced as error:
        click.echo(f"{printable(str(error))} It may be another terminal of yours. This one ends.", err=True)
        raise SystemExit(DISPLACED_STATUS) from None


def _until_told(client: Client, forwarder: Forwarder) -> None:
    """Listen until it fails, or until Ctrl-C or SIGTERM.

    In a thread of its own: python-engineio takes a KeyboardInterrupt for the error of a handler, and goes on.
    """
    failed: list[Exception] = []
    has_ended = threading.Event()

    def listen() -> None:
        try:
            client.listen(forwarder)
        except Exception as error:
            failed.append(error)
        has_ended.set()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=listen, daemon=True).start()
    try:
        has_ended.wait()
    except KeyboardInterrupt:
        client.close()
        has_ended.wait(GOODBYE_SECONDS)
    if failed:
        raise failed[0]


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "url", required=True, metavar="URL", help="The app, such as http://localhost:3000/hooks.")
@_timeout
@_insecure
def replay(file: Path, url: str, timeout_seconds: float, insecure: bool) -> None:
    """Send the request in FILE, which `socket2me listen --save` wrote, again, byte for byte.

    Prints the status of the answer and its body. Ends with status 1 if there was no answer.
    """
    _send(files.load(file), Target(url, timeout_seconds=timeout_seconds, is_insecure=insecure))


@main.command()
@click.argument("url")
@click.option("--sample", type=click.Choice(list(SAMPLES)), default="github", show_default=True, help="Whose.")
@click.option(
    "--signing-secret", default="socket2me", show_default=True, help="What the sample is signed with, as they sign."
)
@_timeout
@_insecure
def send(url: str, sample: str, signing_secret: str, timeout_seconds: float, insecure: bool) -> None:
    """Send a sample of what a provider sends to URL, to try a set-up.

    `github` is a push, `stripe` a payment, `slack` a slash command, `standard` an event of standardwebhooks.com.

    Prints the status of the answer and its body. Ends with status 1 if there was no answer.
    """
    target = Target(url, timeout_seconds=timeout_seconds, is_insecure=insecure)
    _send(SAMPLES[sample](signing_secret.encode()), target)


@main.command()
@click.option("--server", envvar="SOCKET2ME_SERVER", show_envvar=True, help="Only those of this relay.")
def status(server: str | None) -> None:
    """Show the URLs that are kept, and what their relays say of each."""
    wanted = RelayApi(server).server if server is not None else None
    kept_tokens = [kept for kept in KeptTokens().all() if wanted in (None, kept.server)]
    if not kept_tokens:
        click.echo("No URL is kept. `socket2me listen` asks for one.")
    for kept in kept_tokens:
        api, token = RelayApi(kept.server), Token(kept.token, kept.secret)
        click.echo(printable(f"{api.url(token)} -> {kept.target}"))
        click.echo(printable(f"  {_state(api, token)}"))


def _state(api: RelayApi, token: Token) -> str:
    if token.secret is None:
        return "a URL without a secret: the relay does not tell"
    try:
        seen = api.inspect(token)
    except TokenGone:
        return "gone: it expired, or was deleted"
    except ClientError as error:
        return str(error)
    words = ["connected" if seen["connected"] else "not connected", f"{seen['forwarded']} requests taken"]
    words += [f"{count} {state.replace('_', ' ')}" for state, count in seen.get("events", {}).items()]
    return ", ".join(words)


def _send(request: Request, target: Target) -> None:
    try:
        answer = target.send(request)
    except (NotHandled, OutsideTarget) as error:
        raise click.ClickException(printable(str(error))) from None
    _show(answer)


def _show(answer: Answer) -> None:
    click.echo(answer.status)
    click.echo(answer.body, nl=not answer.body.endswith(b"\n"))
