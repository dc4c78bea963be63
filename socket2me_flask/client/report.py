"""What the command prints: for people in colour, for pipes plain, or a JSON object on each line."""

import json
import time
from typing import Any, Protocol

import click
from rich.console import Console
from rich.text import Text

from .client import Notice
from .request import Request


class Report(Protocol):
    """Says what happens."""

    def url(self, url: str, target: str) -> None:
        """Show the URL that whoever sends webhooks is given, and where its requests go."""

    def request(self, request: Request, status: int | None, seconds: float, remark: str) -> None:
        """Tell of a request: what the local app answered, None if it did not, and how long it took."""

    def notice(self, notice: Notice) -> None:
        """Tell of the connection."""


class JsonReport:
    """A JSON object on each line; `event` says which."""

    def url(self, url: str, target: str) -> None:
        self._print("url", url=url, target=target)

    def request(self, request: Request, status: int | None, seconds: float, remark: str) -> None:
        self._print(
            "request",
            id=request.id,
            method=request.method,
            path=request.path,
            query=request.query,
            size=len(request.body),
            attempt=request.attempt,
            status=status,
            seconds=round(seconds, 6),
            remark=remark,
        )

    def notice(self, notice: Notice) -> None:
        self._print(notice.what, why=notice.why, wait_seconds=notice.wait_seconds)

    def _print(self, event: str, **members: Any) -> None:
        click.echo(json.dumps({"event": event, "time": time.time(), **members}))


# What people read of each notice; `{why}` is more of it.
_SAID = {
    "connected": "Connected.",
    "token_gone": "The relay does not know the token any more. The URL is another from now on:",
    "unavailable": "The relay is not available: {why}.",
    "lost": "The connection to the relay was lost.",
    "too_slow": "The relay closed the connection: requests come faster than they are handled.",
    "not_handled": "The relay keeps the request, and sends it again.",
    "slept": "This machine slept. Connecting again.",
}


class TextReport:
    """Lines for people. What strangers sent is printed without its control characters."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def url(self, url: str, target: str) -> None:
        self._print()
        self._print((f"  {url}", "bold green"))
        self._print()
        self._print((f"Requests to it go to {target}. Ctrl-C ends this.", "dim"))

    def request(self, request: Request, status: int | None, seconds: float, remark: str) -> None:
        style = "red" if status is None or status >= 500 else "yellow" if status >= 400 else "green"
        if request.attempt is not None and request.attempt > 1:
            remark = f"{remark} (attempt {request.attempt})".lstrip()
        self._print(
            (f"{time.strftime('%H:%M:%S')}  ", "dim"),
            (f"{request.method:<6} {request.target or '/'}", "bold"),
            (f"  {_size(len(request.body))}  ", "dim"),
            (str(status or "---"), style),
            (f"  {seconds * 1000:.0f} ms", "dim"),
            (f"  {remark}" if remark else "", "" if status else "red"),
        )

    def notice(self, notice: Notice) -> None:
        if notice.what == "token_new":
            return  # its URL is shown large
        text = _SAID[notice.what].format(why=notice.why.rstrip("."))
        if notice.wait_seconds:
            text += f" Trying again in {notice.wait_seconds:.1f} s."
        self._print(
            (f"{time.strftime('%H:%M:%S')}  ", "dim"), (text, "dim" if notice.what == "connected" else "yellow")
        )

    def _print(self, *parts: tuple[str, str]) -> None:
        self._console.print(Text.assemble(*((printable(text), style) for text, style in parts)), soft_wrap=True)


def printable(text: str) -> str:
    """Return text without what a terminal obeys: control characters are shown as their numbers."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _size(count: int) -> str:
    """Return a number of bytes as people read it."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1_000_000:.1f} MB"
