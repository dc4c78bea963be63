"""`socket2me listen`."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import click

from .. import saved_requests
from ..client import MAX_PARALLEL, PARALLEL, Client, Notice
from ..exceptions import Replaced
from ..http_api import RelayApi, check_key, is_name, split_url
from ..local_forwarder import Forwarder, Pattern
from ..recorder import Recorder
from ..report import JsonReport, Terms, TextReport
from ..saved_tokens import SavedToken, SavedTokens
from ..signing_options import LateSigner, fingerprint, parse_verify
from ..target import Target, check_header
from ..terminal import printable
from .commands import Command
from .options import api_key, bad_parameter, insecure, resign, timeout

# What `listen` ends with when another client took the stream.
DISPLACED_STATUS = 3

# How long the client may take to finish, to leave, and to renew its URL, after Ctrl-C.
CLOSE_SECONDS = 5

# The first of them that is free is the inspector's, unless a port is named. ngrok's inspector begins with 4040 too.
PORTS = range(4040, 4050)


def _parse_pattern(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[Pattern]:
    try:
        return [Pattern.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_verify(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any] | None:
    with bad_parameter():
        return parse_verify(texts)


def _parse_header(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    headers = []
    for text in texts:
        name, found, value = text.partition(":")
        if not found or not name.strip():
            raise click.BadParameter(f"{text!r} is not like 'X-Name: value'")
        headers.append((name.strip(), value.strip()))
        with bad_parameter():
            check_header(*headers[-1])
    return headers


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


@click.command(cls=Command, example="socket2me listen http://localhost:3000/hooks --server https://relay.example")
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
@api_key
@click.option("--reply", is_flag=True, help="Answer callers with what the app answers. Without: 200, once it has.")
@click.option(
    "--parallel",
    type=click.IntRange(1, MAX_PARALLEL),
    default=PARALLEL,
    show_default=True,
    metavar="N",
    help="How many requests are sent on at once. 1: in strict order, one after another.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Have the URL end with this name, acme-dev. It is yours from then on: its secret is kept with it.",
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
@resign
@timeout
@insecure
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
    name: str | None,
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
    --verify. With --url it is one that exists, and its secret is kept with it. With --name it is the name that you
    choose, or an error: the relay never gives another name instead.

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
    if name is not None:
        if is_new or url is not None:
            raise click.UsageError("A name is a URL of its own: --name goes without --new and --url.")
        kept = kept_tokens.find_name(server, name.lower())
    elif kept is not None and kept.secret is not None and is_name(kept.token):
        name = kept.token
    secret = kept.secret if kept is not None else None
    if kept is not None and kept.verify != fingerprint(verify, secret):
        if name is None:
            report.notice(Notice("verify_changed"))
            secret = None
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
        secret=secret,
        name=name,
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
    from ..inspector_server import InspectorServer  # what it imports makes the start of any command a tenth slower

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
