"""What the command prints: for people in colour, for pipes plain, or a JSON object on each line."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

from ..request import Request
from .terminal import printable, size_of, when

if TYPE_CHECKING:  # what these import makes the start of any command slower
    from ..client.client_token import Notice
    from ..local_app.target import Answer


@dataclass(frozen=True)
class Terms:
    """What holds for a connection. Times are in seconds, None where the relay does not state them.

    expires_at: when the URL ends, since the epoch.
    timeout_seconds: how long the local app may take, by `--timeout`.
    caller_seconds: how long a caller waits for it.
    handler_seconds: how long it may take before the relay answers by itself, or sends the request again.
    has_mailbox: whether requests are kept until they were handled.
    """

    expires_at: float | None
    timeout_seconds: float
    caller_seconds: float | None
    handler_seconds: float | None
    has_mailbox: bool


class Outcome(NamedTuple):
    """What has become of a request.

    status: that of the answer; None if there was none.
    seconds: how long it took.
    target: the app or the command, if it is not the first one.
    answer: all that it answered.
    """

    status: int | None
    seconds: float
    remark: str = ""
    target: str = ""
    answer: "Answer | None" = None


class Report(Protocol):
    """Shows what happens."""

    def url(self, url: str, targets: Sequence[str], parallel: int) -> None:
        """Show the URL for senders of webhooks, what gets its requests, and how many are handled at once."""

    def inspector(self, url: str) -> None:
        """Show the URL of the inspector on this machine, with its key."""

    def terms(self, terms: Terms) -> None:
        """Show when the URL expires, and how long callers and the relay wait."""

    def ended(self, expires_at: float | None) -> None:
        """Show that the client has stopped, and when the URL expires, in seconds since the epoch."""

    def slow(self, request: Request, seconds: float) -> None:
        """Show that the local app has not answered a request after so long."""

    def retry(self, request: Request, why: str, seconds: float, *, target: str = "") -> None:
        """Show that an attempt failed, and in how many seconds the next one follows; `target` as in `Outcome`."""

    def request(self, request: Request, outcome: Outcome) -> None:
        """Show what has become of a request."""

    def notice(self, notice: "Notice") -> None:
        """Show what has happened to the connection."""

    def start(self, handle: Callable[[Request], object]) -> None:
        """Take the terminal, if it needs that: `listen` begins. `handle` does with a request what `listen` does."""

    def close(self) -> None:
        """Leave the terminal as it was. May be called twice, and without `start`."""


class _Output:
    """Standard output. If it cannot be written, requests go on, and stderr has one line about the lost lines."""

    def __init__(self) -> None:
        self._is_lost = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let what is within write. End the program, as SIGTERM does, when the output is closed."""
        try:
            yield
            self._is_lost = False
        except (BrokenPipeError, SystemExit):  # rich makes the one of the other
            if hasattr(signal, "pthread_kill"):  # not on Windows
                # To the thread that waits: a signal to the process may go to another, which would leave it waiting.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            else:
                os.kill(os.getpid(), signal.SIGTERM)
        except OSError as error:  # a full disk: the app has had the request, which must not come again for this
            if not self._is_lost:
                self._is_lost = True
                why = error.strerror or error
                with suppress(OSError):
                    click.echo(printable(f"Lines of the output are lost: {why}. Requests go on."), err=True)


_output = _Output()


class JsonReport:
    """A JSON object on each line; `event` says which. docs/listen.schema.json describes all of them."""

    def url(self, url: str, targets: Sequence[str], parallel: int) -> None:
        self._print("url", url=url, target=targets[0], targets=targets, parallel=parallel)

    def inspector(self, url: str) -> None:
        self._print("inspector", url=url)

    def terms(self, terms: Terms) -> None:
        self._print("terms", **asdict(terms))

    def ended(self, expires_at: float | None) -> None:
        self._print("ended", expires_at=expires_at)

    def slow(self, request: Request, seconds: float) -> None:
        self._print("slow", **_named(request), seconds=seconds)

    def retry(self, request: Request, why: str, seconds: float, *, target: str = "") -> None:
        self._print("retry", **_named(request), why=why, wait_seconds=round(seconds, 3), target=target or None)

    def request(self, request: Request, outcome: Outcome) -> None:
        self._print(
            "request",
            **_named(request),
            query=request.query,
            size=len(request.body),
            status=outcome.status,
            seconds=round(outcome.seconds, 6),
            remark=outcome.remark,
            target=outcome.target or None,
        )

    def notice(self, notice: "Notice") -> None:
        self._print(notice.what, why=notice.why, wait_seconds=notice.wait_seconds)

    def start(self, handle: Callable[[Request], object]) -> None:
        pass

    def close(self) -> None:
        pass

    def _print(self, event: str, **members: Any) -> None:
        with _output.writing():
            click.echo(json.dumps({"event": event, "time": time.time(), **members}))


def _named(request: Request) -> dict[str, Any]:
    return {"id": request.id, "method": request.method, "path": request.path, "attempt": request.attempt}


# What people read of each notice; `{why}` is more of it.
_SAID = {
    "connected": "Connected.",
    "token_gone": "The relay does not know the token any more. The URL is another from now on:",
    "name_ended": "The name has ended at the relay, and is claimed again:",
    "verify_changed": "The URL is another from now on: --verify is not as it was.",
    "unavailable": "The relay is not available: {why}.",
    "lost": "The connection to the relay was lost.",
    "too_slow": "The relay closed the connection: requests come faster than they are handled.",
    "relay_old": "{why}.",
    "slept": "This machine slept. Connecting again.",
}


class TextReport:
    """Lines for people. What callers sent is printed without its control characters."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._is_plain = not self._console.is_terminal

    def url(self, url: str, targets: Sequence[str], parallel: int) -> None:
        how = f"up to {parallel} at once" if parallel > 1 else "one after another"
        self._print()
        self._print((f"  {url}", "bold green"))
        self._print()
        self._print((f"Requests to it go to {' and '.join(targets)}, {how}. Ctrl-C ends this.", "dim"))

    def inspector(self, url: str) -> None:
        self._print(("The inspector is at ", "dim"), (url, "bold"))

    def terms(self, terms: Terms) -> None:
        for text in sentences(terms):
            self._print((text, "dim"))

    def ended(self, expires_at: float | None) -> None:
        until = f" The URL lives until {when(expires_at)}: start again by then." if expires_at is not None else ""
        self._print((f"Ended.{until}", "dim"))

    def slow(self, request: Request, seconds: float) -> None:
        self._line(request, "...", "yellow", f"no answer yet after {seconds:g} s")

    def retry(self, request: Request, why: str, seconds: float, *, target: str = "") -> None:
        self._line(request, "...", "yellow", f"{target} {why} Trying again in {seconds:.1f} s.".lstrip())

    def request(self, request: Request, outcome: Outcome) -> None:
        status, remark = outcome.status, f"{outcome.target} {outcome.remark}".strip()
        self._line(request, str(status or "---"), style_of(status), remark, f"  {outcome.seconds * 1000:.0f} ms")

    def notice(self, notice: "Notice") -> None:
        if notice.what == "token_new":
            return  # its URL is shown large
        self._print(
            (f"{time.strftime('%H:%M:%S')}  ", "dim"),
            (sentence(notice), "dim" if notice.what == "connected" else "yellow"),
        )

    def start(self, handle: Callable[[Request], object]) -> None:
        pass

    def close(self) -> None:
        pass

    def _line(self, request: Request, status: str, style: str, remark: str, took: str = "") -> None:
        if request.attempt is not None and request.attempt > 1:
            remark = f"{remark} (attempt {request.attempt})".lstrip()
        self._print(
            (f"{time.strftime('%H:%M:%S')}  ", "dim"),
            (f"{request.method:<6} {request.target or '/'}", "bold"),
            (f"  {size_of(len(request.body))}  ", "dim"),
            (status, style),
            (took, "dim"),
            (f"  {remark}" if remark else "", style if style != "green" else ""),
        )

    def _print(self, *parts: tuple[str, str]) -> None:
        if self._is_plain:  # without styles, which take ten times as long
            with _output.writing():
                sys.stdout.write(printable("".join([text for text, _ in parts])) + "\n")
                sys.stdout.flush()
            return
        from rich.text import Text

        text = Text.assemble(*((printable(text), style) for text, style in parts))
        with _output.writing():
            self._console.print(text, soft_wrap=True)


def style_of(status: int | None) -> str:
    """Return the style of a status, of None if there was no answer."""
    return "red" if status is None or status >= 500 else "yellow" if status >= 400 else "green"


def sentence(notice: "Notice") -> str:
    """Return what people read of a notice."""
    text = _SAID[notice.what].format(why=notice.why.rstrip("."))
    return f"{text} Trying again in {notice.wait_seconds:.1f} s." if notice.wait_seconds else text


def sentences(terms: Terms) -> Iterator[str]:
    """Yield what people read of the terms."""
    if terms.expires_at is not None:
        yield f"The URL lives until {when(terms.expires_at)}. Each start and each end of `listen` renews it."
    timeout, caller, handler = terms.timeout_seconds, terms.caller_seconds, terms.handler_seconds
    if handler is not None and timeout > handler:
        yield f"--timeout is {timeout:g} s, but the relay waits less: an answer may take {handler:g} s here."
    if terms.has_mailbox and caller is not None and timeout > caller:
        yield f"Callers wait {caller:g} s. Then they receive 202: the relay keeps the request, and the app goes on."
