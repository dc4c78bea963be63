"""`socket2me replay`."""

import math
import time
from pathlib import Path
from typing import Any

import click

from ..client.http_api import RelayApi, Token, split_url
from ..exceptions import BadArgument, ClientError, NotHandled, OutsideTarget
from ..inspector.filters import Filter
from ..listening.signing_options import LateSigner
from ..local_app.target import Target
from ..output.terminal import printable, size_of
from ..replaying import Choice, Recorded, from_history, from_paths, paced, parse_moment, parse_speed
from ..request import Request
from ..saved.request_files import load
from .commands import Command
from .kept_tokens import secret_of
from .options import bad_parameter, check_target_url, check_url, insecure, only, resign, secret, timeout
from .sending import send


def _parse_moment(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    with bad_parameter():
        return parse_moment(text, time.time()) if text is not None else None


def _parse_speed(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    with bad_parameter():
        return parse_speed(text) if text is not None else None


@click.command(cls=Command, example="socket2me replay requests --since 1h --to http://localhost:3000/hooks")
@click.argument("sources", metavar="[FILE|DIR]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--to",
    "target_url",
    required=True,
    callback=check_target_url,
    metavar="URL",
    help="The app, such as http://localhost:3000/hooks.",
)
@click.option(
    "--url",
    callback=check_url,
    help="Send requests of the relay's history of this URL. Its secret is that which is kept, or is asked for.",
)
@secret
@click.option(
    "--since",
    callback=_parse_moment,
    metavar="TIME",
    help="Send those received since then: 90s, 15m, 1h or 2d ago, or 2026-01-31T18:00, local time.",
)
@click.option("--until", callback=_parse_moment, metavar="TIME", help="Send those received until then.")
@only("Send these requests only; several are possible.")
@click.option(
    "--speed",
    callback=_parse_speed,
    metavar="1|10|max",
    help="Keep the gaps between the requests, as they were or so many times shorter. Without: one after another.",
)
@resign
@timeout
@insecure
def replay(
    sources: tuple[Path, ...],
    target_url: str,
    url: str | None,
    secret: str | None,
    since: float | None,
    until: float | None,
    only: list[Filter],
    speed: float | None,
    signer: LateSigner | None,
    timeout_seconds: float,
    insecure: bool,
) -> None:
    """Send requests again, byte for byte: those of a FILE or DIR of `listen --save`, or those that a relay has.

    Those of a DIR and of the history of a --url may be chosen by --since, --until and --only. They are sent one
    after another, in the order in which they were received; with --speed 1 as far apart as they were.

    With --resign their signature is another, if they were signed with that secret.

    For one FILE it prints the status of the answer and its body, else a line for each request. Ends with status 1
    if there was no answer to one of them, or there is none to send.
    """
    target = Target(target_url, timeout_seconds=timeout_seconds, is_insecure=insecure, what="URL")
    if bool(sources) == (url is not None):
        raise click.UsageError(
            "Requests are either those of FILE or DIR, or with --url those of a relay's history."
        )
    choice = Choice(-math.inf if since is None else since, math.inf if until is None else until, only)
    if choice == Choice(only=only) and not only and len(sources) == 1 and sources[0].is_file():
        request = load(sources[0])
        send(request if signer is None else signer.saved(request), target)
        return
    if url is None:
        recorded = from_paths(sources, choice)
    else:
        recorded, choice = from_history(*_history_of(url, secret), choice), Choice()  # the relay has chosen
    _send_all(recorded, choice, target, signer, speed or math.inf)


def _history_of(url: str, secret: str | None) -> tuple[RelayApi, Token]:
    server, token = split_url(url)
    api = RelayApi(server)
    if secret is None:
        secret = secret_of(api.server, token)
    return api, Token(token, secret)


def _send_all(
    recorded: list[Recorded], choice: Choice, target: Target, signer: LateSigner | None, speed: float
) -> None:
    sent = failed = 0
    for each in paced(recorded, speed):
        try:
            request = each.load()
        except (ClientError, OSError) as error:
            click.echo(printable(f"{each.name}: {error}"), err=True)
            failed += 1
            continue
        if not choice.has(request):
            continue
        remark = ""
        if signer is not None:
            try:
                request = signer.saved(request)
            except BadArgument:
                remark = "not signed with this secret: sent as it was"
        sent += 1
        failed += not _send_one(each, request, target, remark)
    if not sent and not failed:
        raise ClientError("There is no such request to send.")
    click.echo(f"{sent} sent, {failed} failed.", err=True)
    if failed:
        raise SystemExit(1)


def _send_one(each: Recorded, request: Request, target: Target, remark: str) -> bool:
    """Send a request and print a line. Return whether there was an answer."""
    started = time.perf_counter()
    try:
        status: Any = target.send(request).status
    except (NotHandled, OutsideTarget) as error:
        status, remark = "---", f"{error} {remark}".rstrip()
    took = f"{(time.perf_counter() - started) * 1000:.0f} ms"
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.at))
    line = f"{at}  {request.method:<6} {request.target or '/'}  {size_of(len(request.body))}  {status}  {took}"
    click.echo(printable(f"{line}  {remark}".rstrip()))
    return bool(status != "---")
