"""The `socket2me` command."""

import binascii
import errno
import logging
import math
import os
import signal
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from . import __version__, saved_requests
from .backup import back_up
from .canary import check as check_relay
from .client import MAX_PARALLEL, PARALLEL, Client, Notice
from .exceptions import BadArgument, ClientError, NotHandled, OutsideTarget, RelayRefused, Replaced, TokenGone
from .http_api import RelayApi, Token, check_key, is_event_id, split_url
from .local_forwarder import Forwarder, Pattern
from .recorder import Recorder
from .report import JsonReport, Terms, TextReport, printable, size_of, when
from .request import Request
from .samples import SAMPLES
from .saved_tokens import SavedToken, SavedTokens
from .signing_options import LateSigner, fingerprint, parse_verify
from .target import Answer, Target, check_header

_T = TypeVar("_T")

# What `listen` ends with when another client took the stream.
DISPLACED_STATUS = 3

# What a command ends with after Ctrl-C, as shells have it; but `listen`, whose end that is.
INTERRUPTED_STATUS = 128 + signal.SIGINT

# How long the client may take to finish, to leave, and to renew its URL, after Ctrl-C.
CLOSE_SECONDS = 5

DEFAULT_TIMEOUT_SECONDS = 20.0

# The first of them that is free is the inspector's, unless a port is named. ngrok's inspector begins with 4040 too.
PORTS = range(4040, 4050)

# How long `check` may take. Docker ends a health check after 30 s by default.
CHECK_SECONDS = 10.0

_server = click.option(
    "--server", required=True, envvar="SOCKET2ME_SERVER", show_envvar=True, help="The relay, https://relay.example."
)


class _Seconds(click.FloatRange):
    """A number of seconds; `nan` is none, which a range lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


def _timeout_option(default: float, meaning: str) -> Callable[[Any], Any]:
    """Return the option `--timeout` of a command."""
    return click.option(
        "--timeout",
        "timeout_seconds",
        type=_Seconds(0.1, 3600),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=meaning,
    )


_timeout = _timeout_option(
    DEFAULT_TIMEOUT_SECONDS,
    "How long an answer may take. The relay's own timeouts may be shorter: `listen` says so.",
)
_of_server = click.option(
    "--server", envvar="SOCKET2ME_SERVER", show_envvar=True, help="Only the URLs of this relay."
)
_insecure = click.option("--insecure", is_flag=True, help="Take any certificate of a target with https.")


def _parse_pattern(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[Pattern]:
    try:
        return [Pattern.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_verify(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any] | None:
    with _bad_parameter():
        return parse_verify(texts)


def _parse_resign(context: click.Context, option: click.Parameter, text: str | None) -> LateSigner | None:
    with _bad_parameter():
        return LateSigner(text) if text is not None else None


def _parse_header(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    headers = []
    for text in texts:
        name, found, value = text.partition(":")
        if not found or not name.strip():
            raise click.BadParameter(f"{text!r} is not like 'X-Name: value'")
        headers.append((name.strip(), value.strip()))
        with _bad_parameter():
            check_header(*headers[-1])
    return headers


def _check_key(context: click.Context, option: click.Parameter, key: str | None) -> str | None:
    with _bad_parameter():
        if key is not None:
            check_key(key)
    return key


_resign = click.option(
    "--resign",
    "signer",
    callback=_parse_resign,
    metavar="'PROVIDER=SECRET'",
    help="Sign what is sent late or again anew, with the time of now: for slack, standard, stripe and zoom.",
)


@contextmanager
def _bad_parameter() -> Iterator[None]:
    """Have click name the parameter that makes no sense."""
    try:
        yield
    except BadArgument as error:
        raise click.BadParameter(printable(str(error))) from None


def _parse_event_ids(context: click.Context, option: click.Parameter, given: str | tuple[str, ...]) -> Any:
    for text in (given,) if isinstance(given, str) else given:
        if not is_event_id(text):
            raise click.BadParameter(
                printable(f"{text!r} is no id of a request. `socket2me events list` shows those that there are.")
            )
    return given


def _parse_ports(context: click.Context, option: click.Parameter, text: str | None) -> range | None:
    """Return the ports of which one is to be taken: that which is named, or without a number one of `PORTS`."""
    if text is None or text == "":
        return None if text is None else PORTS
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 65_536):
        raise click.BadParameter(f"{printable(text)!r} is no port. TARGET comes before --inspect.")
    return range(int(text), int(text) + 1)


def _prepare_folder(context: click.Context, option: click.Parameter, folder: Path | None) -> Path | None:
    try:
        if folder is not None:
            saved_requests.prepare(folder)
    except OSError as error:
        raise click.BadParameter(
            printable(f"nothing can be written to {folder}: {error.strerror or error}.")
        ) from None
    return folder


class _Command(click.Command):
    """A command whose arguments may prove to make no sense when it runs: then it ends with status 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BadArgument as error:
            raise click.UsageError(printable(str(error)), context) from None


class _Group(click.Group):
    """Commands whose errors are a line on stderr, and status 1; with `SOCKET2ME_DEBUG` set, a traceback."""

    command_class = _Command
    group_class = type

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ClientError as error:
            raise click.ClickException(printable(str(error))) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # another would end in a traceback, amid the exit
            raise click.exceptions.Exit(INTERRUPTED_STATUS) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if _DEBUG or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            raise click.ClickException(_one_line(error)) from None


_DEBUG = bool(os.environ.get("SOCKET2ME_DEBUG"))


def _one_line(error: BaseException | None) -> str:
    return printable(f"socket2me failed: {type(error).__name__}: {error}. SOCKET2ME_DEBUG=1 shows where.")


class _OneLine(logging.Formatter):
    """Log records without tracebacks, and without what a terminal obeys: a relay's text may have it."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}: {_one_line(record.exc_info[1])}"
        return "\n".join(map(printable, text.splitlines()))


def _set_up_output() -> None:
    """Let nothing that a stranger sends, and no defect in a thread, print more than a line."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    if not _DEBUG:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_OneLine())
        threading.excepthook = lambda failed: click.echo(_one_line(failed.exc_value), err=True)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character shows its number
            stream.reconfigure(errors="backslashreplace")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="socket2me", message="%(prog)s %(version)s")
def main() -> None:
    """From a webhook to an app on this machine, through a socket2me relay."""
    _set_up_output()


_api_key = click.option(
    "--api-key",
    envvar="SOCKET2ME_API_KEY",
    show_envvar=True,
    callback=_check_key,
    help="What the relay asks for before it gives tokens.",
)


@main.command()
@click.argument("target")
@click.option("--server", envvar="SOCKET2ME_SERVER", show_envvar=True, help="The relay, https://relay.example.")
@click.option(
    "--url",
    help="Take requests to this URL, which the relay's page or an API call made. Its secret is asked for.",
)
@click.option(
    "--secret",
    envvar="SOCKET2ME_SECRET",
    show_envvar=True,
    help="The secret of --url. Other users see what is in a command line: rather set the variable.",
)
@_api_key
@click.option("--reply", is_flag=True, help="Answer callers with what the app answers. Without: 200, once it has.")
@click.option(
    "--parallel",
    type=click.IntRange(1, MAX_PARALLEL),
    default=PARALLEL,
    show_default=True,
    metavar="N",
    help="How many requests are sent on at once. 1: in strict order, one after another.",
)
@click.option("--new", "is_new", is_flag=True, help="Ask for a new URL, and keep that one.")
@click.option(
    "--only",
    multiple=True,
    callback=_parse_pattern,
    metavar="'POST /github/*'",
    help="Forward these requests only; several are possible. A method, a path, or both; * is any part of a path.",
)
@click.option(
    "--header-add",
    "headers",
    multiple=True,
    callback=_parse_header,
    metavar="'NAME: VALUE'",
    help="Set a header on each request, in place of those of that name; several are possible.",
)
@click.option(
    "--verify",
    multiple=True,
    callback=_parse_verify,
    metavar="'PROVIDER=SECRET'",
    help="Have the relay refuse what this provider has not signed. The secret, @FILE or env:NAME; or JSON, or @FILE"
    " with it. Twice: two secrets, either of which may have signed.",
)
@_resign
@_timeout
@_insecure
@click.option(
    "--save",
    "folder",
    type=click.Path(path_type=Path),
    callback=_prepare_folder,
    metavar="DIR",
    help="Write each request as a file for `socket2me replay`, and as a curl command.",
)
@click.option(
    "--inspect",
    "ports",
    is_flag=False,
    flag_value="",
    callback=_parse_ports,
    metavar="[PORT]",
    help="Show the requests, and what the app answered, on a page on this machine, and send them again from there. "
    f"Without PORT, the first free one from {PORTS[0]} on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on each line.")
def listen(
    target: str,
    server: str | None,
    url: str | None,
    secret: str | None,
    api_key: str | None,
    reply: bool,
    parallel: int,
    is_new: bool,
    only: list[Pattern],
    headers: list[tuple[str, str]],
    verify: dict[str, Any] | None,
    signer: LateSigner | None,
    timeout_seconds: float,
    insecure: bool,
    folder: Path | None,
    ports: range | None,
    as_json: bool,
) -> None:
    """Give the app at TARGET, such as http://localhost:3000/hooks or 3000, a public URL.

    Each request to that URL is sent on to TARGET byte for byte: method, path, query, headers but Host and those for
    one connection, and body. The path that follows the URL is appended to that of TARGET. No request and no
    redirect goes anywhere else.

    If the app does not answer, or not within --timeout, the request is rejected: its caller receives 502 or 504. A
    relay that keeps mailboxes sends it again instead, with growing pauses, and answers 202. With --parallel 1,
    those after it wait. Any answer counts, 500 too.

    The URL is kept in your folder for such things, and is the same the next time for the same TARGET, relay and
    --verify. With --url it is one that exists, and its secret is kept with it.

    With --verify the relay answers 401 to what the provider has not signed, and nothing of it arrives. With
    --resign what waited in a mailbox is signed with the time of now, so that it passes the tolerance of the app.

    Ends with status 0 after Ctrl-C or SIGTERM, 1 after an error, 2 if the command makes no sense, and 3 if another
    client took the stream. A second Ctrl-C or SIGTERM ends it at once, with status 130 or 143.
    """
    app = Target(target, timeout_seconds=timeout_seconds, headers=headers, is_insecure=insecure)
    report = JsonReport() if as_json else TextReport()
    kept_tokens = SavedTokens()
    token = None
    if url is not None:
        if verify is not None:
            raise click.UsageError("A URL that exists verifies what it was made for: --url goes without --verify.")
        server, token = split_url(url)
    if server is None:
        raise click.UsageError("Missing option '--server', the relay, or '--url', a URL that it gave.")
    server, target = RelayApi(server).server, app.origin + app.path
    if token is not None:
        if secret is None:
            secret = click.prompt("Secret of the URL", hide_input=True, err=True)
        check_key(secret)
        kept_tokens.keep(SavedToken(server, target, token, secret))
    kept = None if is_new else kept_tokens.find(server, target)
    if kept is not None and kept.verify != fingerprint(verify, kept.secret):
        report.notice(Notice("verify_changed"))
        kept = None

    told: list[Terms] = []

    def show(notice: Notice) -> None:
        report.notice(notice)
        if notice.what == "token_new" and client.token is not None:
            kept_tokens.keep(
                SavedToken(server, target, client.token, client.secret, fingerprint(verify, client.secret))
            )
            report.url(notice.why, target, parallel)
            told.clear()
        if notice.what == "connected" and not told:
            told.append(_terms(client, timeout_seconds))
            report.terms(told[0])

    client = Client(
        server,
        token=kept.token if kept is not None else None,
        secret=kept.secret if kept is not None else None,
        api_key=api_key,
        mode="reply" if reply else "ack",
        verify=verify,
        parallel=parallel,
        on_notice=show,
    )
    recorder = Recorder() if ports is not None else None
    forwarder = Forwarder(
        app,
        report,
        is_replying=lambda: client.mode == "reply",
        only=only,
        folder=folder,
        signer=signer,
        recorder=recorder,
    )
    if recorder is not None and ports is not None:
        report.inspector(_inspect(recorder, ports, client, forwarder, target))
    if client.url is not None:
        report.url(client.url, target, parallel)
    try:
        _until_told(client, forwarder)
    except Replaced as error:
        click.echo(f"{printable(str(error))} It may be another terminal of yours. This one ends.", err=True)
        raise SystemExit(DISPLACED_STATUS) from None
    report.ended(client.expires_at)


def _inspect(recorder: Recorder, ports: range, client: Client, forwarder: Forwarder, target: str) -> str:
    """Serve the inspector until the process ends, and return its URL."""
    from .inspector_server import InspectorServer  # what it imports makes the start of any command a tenth slower

    def describe() -> dict[str, Any]:
        return {
            "url": client.url,
            "target": target,
            "expires_at": client.expires_at,
            "mode": client.mode,
            "mailbox": client.has_mailbox,
            "connected": client.is_connected,
        }

    try:
        server = InspectorServer(recorder, ports=ports, handle=forwarder, describe=describe)
    except OSError as error:
        which = f"port {ports[0]}" if len(ports) == 1 else f"any port from {ports[0]} to {ports[-1]}"
        raise click.BadParameter(
            printable(f"the inspector cannot have {which}: {error.strerror or error}. 0 is any that is free."),
            param_hint="--inspect",
        ) from None
    server.start()
    return server.url


def _terms(client: Client, timeout_seconds: float) -> Terms:
    return Terms(
        expires_at=client.expires_at,
        timeout_seconds=timeout_seconds,
        caller_seconds=client.caller_seconds,
        handler_seconds=client.handler_seconds,
        has_mailbox=client.has_mailbox,
    )


def _until_told(client: Client, forwarder: Forwarder) -> None:
    """Listen until it fails, or until Ctrl-C or SIGTERM. Another of these ends the process at once.

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

    def interrupt(number: int, frame: object) -> None:
        for each in _ENDING:
            signal.signal(each, _exit_at_once)
        raise KeyboardInterrupt

    for number in _ENDING:
        signal.signal(number, interrupt)
    threading.Thread(target=listen, daemon=True).start()
    try:
        has_ended.wait()
    except KeyboardInterrupt:
        client.close()
        has_ended.wait(CLOSE_SECONDS)
    if failed:
        raise failed[0]


_ENDING = (signal.SIGINT, signal.SIGTERM)


def _exit_at_once(number: int, frame: object) -> None:
    os._exit(128 + number)  # does not wait for threads; the output is flushed


@main.command()
@_server
@_api_key
@_timeout_option(CHECK_SECONDS, "How long all steps together may take.")
def check(server: str, api_key: str | None, timeout_seconds: float) -> None:
    """Send one call through the relay and back, to see that it works: for monitors and health checks.

    Makes a token, connects to it, calls it, verifies that method, path, query and body arrive byte for byte, and
    deletes the token. Prints how many milliseconds each step took.

    Ends with status 0, or with 1 and a line with the step that failed and why.
    """

    def show(step: str, seconds: float) -> None:
        click.echo(f"{step:<8}{seconds * 1000:>8.1f} ms")

    check_relay(server, api_key=api_key, timeout_seconds=timeout_seconds, report=show)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "url", required=True, metavar="URL", help="The app, such as http://localhost:3000/hooks.")
@_resign
@_timeout
@_insecure
def replay(file: Path, url: str, signer: LateSigner | None, timeout_seconds: float, insecure: bool) -> None:
    """Send the request in FILE, which `socket2me listen --save` wrote, again, byte for byte.

    With --resign its signature is another, if it was signed with that secret.

    Prints the status of the answer and its body. Ends with status 1 if there was no answer.
    """
    request = saved_requests.load(file)
    if signer is not None:
        request = signer.saved(request)
    _send(request, Target(url, timeout_seconds=timeout_seconds, is_insecure=insecure, what="URL"))


@main.command()
@click.argument("url")
@click.option("--sample", type=click.Choice(list(SAMPLES)), default="github", show_default=True, help="Whose.")
@click.option(
    "--signing-secret", default="socket2me", show_default=True, help="What the sample is signed with, as they sign."
)
@_timeout
@_insecure
def send(url: str, sample: str, signing_secret: str, timeout_seconds: float, insecure: bool) -> None:
    """Send a sample of what a provider sends to URL, such as that which `listen` printed, to try a set-up.

    `github` is a push, `stripe` a payment, `slack` a slash command, `standard` an event of standardwebhooks.com.

    Prints the status of the answer and its body. Ends with status 1 if there was none, or one of 400 and above.
    """
    target = Target(url, timeout_seconds=timeout_seconds, is_insecure=insecure, what="URL")
    try:
        request = SAMPLES[sample](os.fsencode(signing_secret))
    except binascii.Error as error:
        raise click.BadParameter(f"after whsec_ comes base64: {error}.", param_hint="--signing-secret") from None
    if _send(request, target).status >= 400:
        raise SystemExit(1)


@main.command()
@_of_server
def status(server: str | None) -> None:
    """Show the URLs that are kept, and what their relays say of each.

    Ends with status 0 if each relay answered, be it that a URL is gone, and 1 if one did not.
    """
    has_failed = False
    for kept, api, token in _kept_tokens(server):
        click.echo(printable(f"{api.url(token)} -> {kept.target}"))
        try:
            state = _state(api, token)
        except ClientError as error:
            state, has_failed = str(error), True
        click.echo(printable(f"  {state}"))
    if has_failed:
        raise SystemExit(1)


def _kept_tokens(server: str | None) -> Iterator[tuple[SavedToken, RelayApi, Token]]:
    """Yield the tokens that are kept, of one relay or of all; say so if there is none."""
    wanted = RelayApi(server).server if server is not None else None
    kept_tokens = [kept for kept in SavedTokens().all() if wanted in (None, kept.server)]
    if not kept_tokens:
        of = f" for {wanted}" if wanted is not None else ""
        click.echo(f"No URL is kept{of}. `socket2me listen` asks for one.", err=True)
    for kept in kept_tokens:
        yield kept, RelayApi(kept.server), Token(kept.token, kept.secret)


_event_ids = click.argument("event_ids", metavar="ID...", nargs=-1, required=True, callback=_parse_event_ids)


@main.group()
def events() -> None:
    """Look at the requests that relays keep for your URLs, and retry or drop one.

    A request is `waiting`, `in flight` to a listener, or a `dead letter` after the relay's last attempt.
    """


@events.command("list")
@_of_server
def list_events(server: str | None) -> None:
    """List the requests that are kept for each URL, oldest first: id, state, attempts, size, age.

    Ends with status 0 if each relay answered, and 1 if one did not.
    """
    has_failed = False
    for kept, api, token in _kept_tokens(server):
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


@events.command("show")
@_of_server
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


@events.command("retry")
@_of_server
@_event_ids
def retry_events(event_ids: tuple[str, ...], server: str | None) -> None:
    """Send requests again at once, their attempts counted from the start.

    One that a listener has just now is not begun a second time: drop it, to end that.
    """
    for event_id in event_ids:
        _with_event(server, event_id, RelayApi.redeliver)
        click.echo(f"{event_id} is sent again.")


@events.command("drop")
@_of_server
@_event_ids
def drop_events(event_ids: tuple[str, ...], server: str | None) -> None:
    """Delete requests.

    One that is in flight is not sent again, and `listen` closes its connection to the app, which may have done its
    work all the same.
    """
    for event_id in event_ids:
        _with_event(server, event_id, RelayApi.drop)
        click.echo(f"{event_id} is dropped.")


@main.command()
@click.argument("source", metavar="RELAY_DB", type=click.Path(path_type=Path))
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
def backup(source: Path, target: Path) -> None:
    """Copy a relay's database to FILE, while the relay runs.

    RELAY_DB is the file of its SOCKET2ME_STORE_URL, relay.db for sqlite:///relay.db. The copy has every request
    that the relay accepted before. FILE is replaced when the copy is whole.
    """
    found = back_up(source, target)
    urls = f"{found.urls} URL{'s' if found.urls != 1 else ''}"
    requests = f"{found.requests} request{'s' if found.requests != 1 else ''}"
    click.echo(f"{printable(str(target))} has {urls} and {requests}.")


def _with_event(server: str | None, event_id: str, do: Callable[[RelayApi, Token, str], _T]) -> _T:
    """Do something with an event of one of the kept tokens. Raises `ClientError` if none has it."""
    unseen = []
    for _, api, token in _kept_tokens(server):
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


def _state(api: RelayApi, token: Token) -> str:
    if token.secret is None:
        return "a URL without a secret: the relay does not tell"
    try:
        seen = api.inspect(token)
    except TokenGone:
        return "gone: it expired, or was deleted"
    words = ["connected" if seen["connected"] else "not connected", f"{seen['forwarded']} requests taken"]
    words += [f"{count} {state.replace('_', ' ')}" for state, count in seen.get("events", {}).items()]
    return ", ".join([*words, f"lives until {when(float(seen['expires_at']))}"])


def _send(request: Request, target: Target) -> Answer:
    try:
        answer = target.send(request)
    except NotHandled as error:
        raise click.ClickException(printable(f"{target.origin}: {error}")) from None
    except OutsideTarget as error:
        raise click.ClickException(printable(str(error))) from None
    click.echo(answer.status)
    click.echo(answer.body, nl=not answer.body.endswith(b"\n"))
    return answer
