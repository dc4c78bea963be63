"""`socket2me listen`."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..client.client import MAX_PARALLEL, PARALLEL, Client
from ..client.client_token import Notice
from ..client.http_api import RelayApi, is_name, split_url
from ..client.ordering import InOrder, OrderKey
from ..exceptions import Replaced
from ..inspector.filters import Filter
from ..listening.exec_handler import KILL_SECONDS, split_command
from ..listening.exec_handler import Command as ExecCommand
from ..listening.local_forwarder import Forwarder
from ..listening.receivers import Fanout
from ..listening.recorder import Recorder
from ..listening.retries import DEFAULT_RETRIES, DEFAULT_STATUSES, MAX_RETRIES, Statuses
from ..listening.signing_options import LateSigner, fingerprint, parse_verify
from ..local_app.target import Target, check_header
from ..output.report import JsonReport, Outcome, Report, Terms, TextReport
from ..output.terminal import printable
from ..request import Reply, Request
from ..saved import request_files
from ..saved.token_file import SavedToken, SavedTokens
from .commands import Command
from .kept_tokens import secret_of
from .options import (
    api_key,
    bad_parameter,
    check_relay,
    check_target,
    check_url,
    insecure,
    listener,
    only,
    request_filter,
    resign,
    secret,
    timeout,
)
from .receiving import Receivers

# What `listen` ends with when another client took the stream.
REPLACED_STATUS = 3

# How long the client may take to finish, to leave, and to renew its URL, after Ctrl-C.
CLOSE_SECONDS = 5

# The first of them that is free is the inspector's, unless a port is named. ngrok's inspector begins with 4040 too.
PORTS = range(4040, 4050)


def _check_command(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    with bad_parameter():
        if text is not None:
            split_command(text)
    return text


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


def _parse_order(context: click.Context, option: click.Parameter, text: str | None) -> OrderKey | None:
    with bad_parameter():
        return OrderKey.parse(text) if text is not None else None


def _parse_statuses(context: click.Context, option: click.Parameter, text: str | None) -> Statuses | None:
    with bad_parameter():
        return Statuses.parse(text) if text is not None else None


def _parse_ports(context: click.Context, option: click.Parameter, text: str | None) -> range | None:
    """Return the ports of which one is to be taken: that which is named, or without a number one of `PORTS`."""
    if text is None or text == "":
        return None if text is None else PORTS
    if not (text.isascii() and text.isdecimal() and int(text[:6]) < 65_536):
        raise click.BadParameter(f"{printable(text)!r} is no port. TARGET comes before --inspect.")
    return range(int(text), int(text) + 1)


def _prepare_folder(context: click.Context, option: click.Parameter, folder: Path | None) -> Path | None:
    try:
        if folder is not None and not context.resilient_parsing:  # a Tab makes no folder
            request_files.prepare(folder)
    except OSError as error:
        raise click.BadParameter(
            printable(f"nothing can be written to {folder}: {error.strerror or error}.")
        ) from None
    return folder


@click.command(cls=Command, example="socket2me listen http://localhost:3000/hooks --server https://relay.example")
@click.argument("targets", metavar="[TARGET]...", nargs=-1, callback=check_target)
@click.option(
    "--server",
    envvar="SOCKET2ME_SERVER",
    show_envvar=True,
    callback=check_relay,
    help="The relay, https://relay.example.",
)
@click.option(
    "--url",
    callback=check_url,
    help="Take requests to this URL, which the relay's page or an API call made. Its secret is asked for.",
)
@secret
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
    "--order-by",
    callback=_parse_order,
    metavar="header:X-Name|json:$.a.b",
    help="Handle requests in which this header, or this member of the JSON body, is the same one after another.",
)
@click.option(
    "--exec",
    "command_line",
    callback=_check_command,
    metavar="COMMAND",
    help="Run a command for each request. Its exit status 0 acknowledges the request, any other rejects it, and"
    " what it prints is the answer. No shell runs it; the request is in files and variables.",
)
@click.option(
    "--exec-env",
    "variables",
    multiple=True,
    metavar="NAME",
    help="Pass this variable to the command of --exec, beside PATH, HOME and the like; several are possible.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, MAX_RETRIES),
    metavar="N",
    help="Send a request that failed so many times more, with growing pauses, before it is rejected. "
    f"{DEFAULT_RETRIES} with --retry-statuses, else 0.",
)
@click.option(
    "--retry-statuses",
    "statuses",
    callback=_parse_statuses,
    metavar="5xx,429",
    help=f"Answers that do not acknowledge a request. {DEFAULT_STATUSES} with --retries, else none.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Have the URL end with this name, acme-dev. It is yours from then on: its secret is kept with it.",
)
@click.option("--new", "is_new", is_flag=True, help="Ask for a new URL, and keep that one.")
@click.option(
    "--listeners",
    type=click.Choice(["newest", "all", "one"]),
    help="Ask for a URL that several clients may share: all receive each request, or one of them does.",
)
@listener
@request_filter("Receive these requests only; the relay does not send the others here.")
@only("Forward these requests only; several are possible.")
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
@click.option(
    "--plain", is_flag=True, help="Print a line for each request also in a terminal, in place of the screen."
)
def listen(
    targets: tuple[str, ...],
    server: str | None,
    url: str | None,
    secret: str | None,
    api_key: str | None,
    reply: bool,
    parallel: int,
    name: str | None,
    order_by: OrderKey | None,
    command_line: str | None,
    variables: tuple[str, ...],
    retries: int | None,
    statuses: Statuses | None,
    is_new: bool,
    listeners: str | None,
    listener: str | None,
    filter: Filter | None,
    only: list[Filter],
    headers: list[tuple[str, str]],
    verify: dict[str, Any] | None,
    signer: LateSigner | None,
    timeout_seconds: float,
    insecure: bool,
    folder: Path | None,
    ports: range | None,
    as_json: bool,
    plain: bool,
) -> None:
    """Give the app at TARGET, such as http://localhost:3000/hooks or 3000, a public URL.

    Each request to that URL is sent on to TARGET byte for byte: method, path, query, headers but Host and those for
    one connection, and body. The path that follows the URL is appended to that of TARGET. No request and no
    redirect goes anywhere else.

    If the app does not answer, or not within --timeout, the request is rejected: its caller receives 502 or 504. A
    relay that keeps mailboxes sends it again instead, with growing pauses, and answers 202. With --parallel 1,
    those after it wait. Any answer counts, 500 too, unless --retries or --retry-statuses is given.

    With several TARGETs all get each request. The first one answers, and decides whether the request is
    acknowledged; the answers of the others are printed. With --exec, and with or without a TARGET, a command runs
    for each request, and its exit status decides too.

    In a terminal the requests are on a screen: arrow keys, Enter shows one, r sends it again, c copies it, q ends.

    The URL is kept in your folder for such things, and is the same the next time for the same TARGET, relay and
    --verify. With --url it is one that exists, and its secret is kept with it. With --name it is the name that you
    choose, or an error: the relay never gives another name instead.

    With --verify the relay answers 401 to what the provider has not signed, and nothing of it arrives. With
    --resign what waited in a mailbox is signed with the time of now, so that it passes the tolerance of the app.

    Ends with status 0 after Ctrl-C or SIGTERM, 1 after an error, 2 if the command makes no sense, and 3 if another
    client took the stream. A second Ctrl-C or SIGTERM ends it at once, with status 130 or 143.
    """
    receivers = Receivers.check(
        [
            Target(target, timeout_seconds=timeout_seconds, headers=headers, is_insecure=insecure)
            for target in targets
        ],
        _command(command_line, variables, timeout_seconds),
    )
    app = receivers.targets[0] if receivers.targets else None
    report = _report(as_json, plain, app)
    kept_tokens = SavedTokens()
    token = given = None
    if url is not None:
        if verify is not None:
            raise click.UsageError("A URL that exists verifies what it was made for: --url goes without --verify.")
        if is_new:
            raise click.UsageError("A URL that exists is not a new one: --url goes without --new.")
        server, token = split_url(url)
    if server is None:
        raise click.UsageError("Missing option '--server', the relay, or '--url', a URL that it gave.")
    server, target = RelayApi(server).server, receivers.names[0]
    if token is not None:
        if secret is None:
            secret = secret_of(server, token)
        given = SavedToken(server, target, token, secret)
    kept = given if given is not None or is_new else kept_tokens.find(server, target)
    if name is not None:
        if is_new or url is not None:
            raise click.UsageError("A name is a URL of its own: --name goes without --new and --url.")
        kept = kept_tokens.find_token(server, name.lower())
    elif kept is not None and kept.secret is not None and is_name(kept.token):
        name = kept.token
    secret = kept.secret if kept is not None else None
    if kept is not None and kept.verify != fingerprint(verify, secret):
        if name is None:
            report.notice(Notice("verify_changed"))
            secret = None
        kept = None

    kept_tokens.check()
    shown_terms: list[Terms] = []

    def show(notice: Notice) -> None:
        report.notice(notice)
        if notice.what == "token_new" and client.token is not None:
            kept_tokens.keep(
                SavedToken(server, target, client.token, client.secret, fingerprint(verify, client.secret))
            )
            report.url(notice.why, receivers.names, parallel)
            shown_terms.clear()
        if notice.what == "connected" and not shown_terms:
            if given is not None and client.token == given.token:
                kept_tokens.keep(given)  # its secret is right
            shown_terms.append(_terms(client, timeout_seconds))
            report.terms(shown_terms[0])

    client = Client(
        server,
        token=kept.token if kept is not None else None,
        secret=secret,
        name=name,
        api_key=api_key,
        mode="reply" if reply else "ack",
        verify=verify,
        listeners=listeners,
        listener=listener,
        filter=filter.text if filter is not None else None,
        parallel=parallel,
        order_by=order_by,
        on_notice=show,
    )
    closing = threading.Event()
    recorder = Recorder() if ports is not None else None
    if statuses is None and retries is not None:
        statuses = Statuses.parse(DEFAULT_STATUSES)
    receiver = receivers.joined(
        report,
        parallel=parallel,
        is_ordered=order_by is not None or parallel == 1,
        retries=DEFAULT_RETRIES if retries is None else retries,
        statuses=statuses,
        is_closed=closing.is_set,
    )
    forwarder = Forwarder(
        receiver,
        report,
        is_replying=lambda: client.mode == "reply",
        only=only,
        folder=folder,
        saved_for=app,
        signer=signer,
        recorder=recorder,
    )
    if recorder is not None and ports is not None:
        report.inspector(_inspect(recorder, ports, client, forwarder, target))
    if client.url is not None:
        report.url(client.url, receivers.names, parallel)
    handler: Callable[[Request], Reply | None] = forwarder
    if order_by is not None:
        handler = InOrder(
            forwarder, order_by, lambda request, why: report.request(request, Outcome(None, 0, f"Waits: {why}"))
        )

    def close(seconds: float) -> None:
        """Leave the terminal and the commands as they have to be when this ends."""
        report.close()
        if receivers.command is not None:
            receivers.command.close(seconds)

    try:
        report.start(forwarder)
        _until_ended(client, handler, close, closing)
    except Replaced as error:
        report.close()
        click.echo(f"{printable(str(error))} It may be another terminal of yours. This one ends.", err=True)
        raise SystemExit(REPLACED_STATUS) from None
    finally:
        close(KILL_SECONDS)
    if isinstance(receiver, Fanout) and (missing := receiver.close(CLOSE_SECONDS)):
        click.echo(f"Requests that TARGETs after the first have not answered: {missing}.", err=True)
    report.ended(client.expires_at)


def _command(text: str | None, variables: tuple[str, ...], timeout_seconds: float) -> ExecCommand | None:
    if text is None:
        if variables:
            raise click.UsageError("--exec-env is for the command of --exec, which is missing.")
        return None
    return ExecCommand(text, timeout_seconds=timeout_seconds, variables=variables)


def _report(as_json: bool, plain: bool, target: Target | None) -> Report:
    if as_json:
        return JsonReport()
    if not plain and sys.stdout.isatty():
        from ..output import screen  # it takes a while, and needs a terminal

        if screen.is_possible():
            return screen.ScreenReport(target)
    return TextReport()


def _inspect(recorder: Recorder, ports: range, client: Client, forwarder: Forwarder, target: str) -> str:
    """Serve the inspector until the process ends, and return its URL."""
    from ..listening.inspector_server import (
        InspectorServer,  # what it imports makes the start of any command a tenth slower
    )

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


def _until_ended(
    client: Client,
    handler: Callable[[Request], Reply | None],
    close: Callable[[float], None],
    closing: threading.Event,
) -> None:
    """Listen until it fails, or until Ctrl-C or SIGTERM, which set `closing`. Another ends the process at once.

    Before that it calls `close` with the seconds that this may take.

    In a thread of its own: python-engineio takes a KeyboardInterrupt for the error of a handler, and goes on.
    """
    failed: list[Exception] = []
    has_ended = threading.Event()

    def listen() -> None:
        try:
            client.listen(handler)
        except Exception as error:
            failed.append(error)
        has_ended.set()

    def interrupt(number: int, frame: object) -> None:
        for each in _ENDING:
            signal.signal(each, exit_at_once)
        raise KeyboardInterrupt

    def exit_at_once(number: int, frame: object) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        close(0)
        os._exit(128 + number)  # does not wait for threads; the output is flushed

    for number in _ENDING:
        signal.signal(number, interrupt)
    threading.Thread(target=listen, daemon=True).start()
    try:
        while not has_ended.wait(_INTERRUPTED_SECONDS):
            pass
    except KeyboardInterrupt:
        closing.set()
        client.close()
        has_ended.wait(CLOSE_SECONDS)
    if failed:
        raise failed[0]


_ENDING = (signal.SIGINT, signal.SIGTERM)

# On Windows, Ctrl-C does not interrupt a thread that waits: it is seen after this time.
_INTERRUPTED_SECONDS = 0.2 if sys.platform == "win32" else None
