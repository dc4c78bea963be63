"""The live screen of `socket2me listen`: `screen_view` on the terminal, and the keys that people press.

Where this is not possible `listen` prints lines: in a pipe, with `TERM=dumb`, on Windows, without UTF-8.
"""

import contextlib
import io
import logging
import math
import os
import re
import secrets
import select
import signal
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from ..client.client_token import Notice
from ..exceptions import NotHandled, OutsideTarget
from ..local_app.target import Target
from ..request import Cancellation, Request
from ..saved.request_files import curl_command
from .report import Outcome, Terms, TextReport, sentence, sentences
from .screen_view import View
from .terminal import size_of

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

# How often it is drawn, at most.
FRAME_SECONDS = 0.1

# The notices after which there is no connection.
DISCONNECTED = ("unavailable", "lost", "too_slow", "slept", "token_gone", "name_ended")

# A narrower terminal shows the first columns.
LEAST_COLUMNS = 10

# How many replays the app may have at once.
MAX_REPLAYS = 8

# What is copied, as base64: xterm takes no more in one sequence.
MAX_COPY_CHARACTERS = 100_000

# How long the thread of the screen has to end.
CLOSE_SECONDS = 1.0

_KEY = re.compile(rb"\x1b(?:[\[O][0-9;]*[A-Za-z~])?|.", re.DOTALL)
_MOVES = {
    b"j": 1,
    b"\x1b[B": 1,
    b"\x1bOB": 1,
    b"k": -1,
    b"\x1b[A": -1,
    b"\x1bOA": -1,
    b" ": 10,
    b"\x1b[6~": 10,
    b"\x1b[5~": -10,
    b"g": -(10**9),
    b"\x1b[H": -(10**9),
    b"G": 10**9,
    b"\x1b[F": 10**9,
}

# Another screen, no cursor, and lines that are cut at the right; and back.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"

_HOME, _CLEAR_LINE = "\x1b[H", "\x1b[2K"


def is_possible() -> bool:
    """Say whether this process has a terminal for the screen, and is not in its background."""
    return (
        termios is not None
        and sys.stdin.isatty()
        and sys.stdout.isatty()
        and _is_in_foreground()
        and os.environ.get("TERM", "dumb") != "dumb"
        and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    )


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


class ScreenReport:
    """A report as a screen that shows the last requests, replays and copies them. Several threads may call it.

    Parameters:
        target: what a copied command calls; None: the URL of the relay.

    From `start` until `close` the terminal is the screen's, and what is written to `sys.stderr` is shown in it.
    """

    def __init__(self, target: Target | None) -> None:
        self._target = target
        self._handle: Callable[[Request], object] = lambda request: None
        self._view = View()
        self._lock = threading.Lock()
        self._console = Console(highlight=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_started = self._is_closed = False
        self._is_due = True  # whether something is to be drawn
        self._replays = threading.BoundedSemaphore(MAX_REPLAYS)
        self._wake_reader = self._wake_writer = -1
        self._before: Any = None
        self._stderr: Any = None

    def start(self, handle: Callable[[Request], object]) -> None:
        """Take the terminal. `handle` does with a replayed request what is done with those of the relay.

        Is called by the main thread.
        """
        self._handle = handle
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        signal.signal(signal.SIGWINCH, lambda number, frame: self._wake())
        self._before = termios.tcgetattr(0)
        tty.setcbreak(0, termios.TCSADRAIN)
        modes = termios.tcgetattr(0)
        modes[6][termios.VSUSP] = b"\0"  # Ctrl-Z would leave the shell with this screen
        termios.tcsetattr(0, termios.TCSADRAIN, modes)
        self._stderr, sys.stderr = sys.stderr, _Lines(self._show)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
        self._is_started = True
        self._write(_ENTER)
        self._thread.start()

    def close(self) -> None:
        """Leave the terminal as it was. A signal may interrupt it and call it again: each call does all of it."""
        if not self._is_started:
            return
        self._is_closed = True
        self._interrupt_wait()
        self._thread.join(CLOSE_SECONDS)
        self._write(_LEAVE)
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)
        self._is_started = False
        sys.stderr = self._stderr
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)

    def url(self, url: str, targets: Sequence[str], parallel: int) -> None:
        with self._changing() as view:
            view.url, view.targets = url, ", ".join(targets)

    def inspector(self, url: str) -> None:
        with self._changing() as view:
            view.inspector = url

    def terms(self, terms: Terms) -> None:
        shown = list(sentences(terms))
        if len(shown) > 1:
            self._show(shown[1])

    def ended(self, expires_at: float | None) -> None:
        self.close()
        self._console.print(Text(self._view.url, style="bold green"), soft_wrap=True)
        TextReport().ended(expires_at)

    def slow(self, request: Request, seconds: float) -> None:
        with self._changing() as view:
            view.put(request, is_done=False, status=None, remark=f"no answer yet after {seconds:g} s")

    def retry(self, request: Request, why: str, seconds: float, *, target: str = "") -> None:
        with self._changing() as view:
            view.put(request, target, is_done=False, status=None, remark=f"{why} Trying again in {seconds:.1f} s.")

    def request(self, request: Request, outcome: Outcome) -> None:
        with self._changing() as view:
            view.put(request, is_done=True, **outcome._asdict())

    def notice(self, notice: Notice) -> None:
        with self._changing() as view:
            if notice.what == "connected":
                view.state, view.is_well = "connected", True
            elif notice.what != "token_new":
                view.message = sentence(notice)
            if notice.what in DISCONNECTED:
                view.state, view.is_well = notice.what.replace("_", " "), False

    @contextlib.contextmanager
    def _changing(self) -> Any:
        with self._lock:
            yield self._view
        self._wake()

    def _show(self, message: str) -> None:
        with self._changing() as view:
            view.message = message

    def _wake(self) -> None:
        """Have it drawn. Writes to the pipe once for each frame, however much changes."""
        if not self._is_due:
            self._is_due = True
            self._interrupt_wait()

    def _interrupt_wait(self) -> None:
        if self._wake_writer >= 0:
            with contextlib.suppress(OSError):
                os.write(self._wake_writer, b"!")

    def _run(self) -> None:
        """Draw what has changed, and do what keys say, until it is closed."""
        drawn_at = -math.inf
        while not self._is_closed:
            left = max(0.0, drawn_at + FRAME_SECONDS - time.monotonic()) if self._is_due else None
            watched = [0] if self._is_due else [0, self._wake_reader]
            readable, _, _ = select.select(watched, [], [], left)
            if self._wake_reader in readable:
                os.read(self._wake_reader, 65_536)
            if 0 in readable:
                if not self._read_keys():
                    return
                self._is_due, drawn_at = True, -math.inf
            if self._is_due and time.monotonic() >= drawn_at + FRAME_SECONDS and not self._is_closed:
                self._is_due = False  # what changes from now on is for the next frame
                self._draw()
                drawn_at = time.monotonic()

    def _read_keys(self) -> bool:
        """Do what the keys say that were pressed. Return False if the terminal is gone."""
        try:
            data = os.read(0, 1024)
        except OSError:
            data = b""
        for key in _KEY.findall(data):
            self._press(key)
        if not data:
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(data)

    def _draw(self) -> None:
        width, height = os.get_terminal_size(1)  # not what `COLUMNS` was at the start
        width, height = max(LEAST_COLUMNS, width or 80), height or 24  # some terminals do not know theirs
        self._console.size = ConsoleDimensions(width, height)
        with self._lock:
            lines = self._view.lines(width, height)
        with self._console.capture() as captured:
            for line in lines:
                self._console.print(line, no_wrap=True, overflow="crop", crop=True)
        drawn = captured.get().removesuffix("\n").split("\n")
        self._write(_HOME + "\n".join(_CLEAR_LINE + line for line in drawn))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.file.write(text)
            self._console.file.flush()

    def _press(self, key: bytes) -> None:
        with self._lock:
            view = self._view
            view.message = ""
            row, is_detail = view.selected, view.detail is not None
            if key in _MOVES:
                view.move(_MOVES[key])
            elif key in (b"\r", b"\n"):
                view.open()
            elif is_detail and key in (b"\x1b", b"q", b"\x7f", b"\x08"):
                view.close()
        if key == b"q" and not is_detail:
            os.kill(os.getpid(), signal.SIGTERM)
        elif key == b"r" and row is not None:
            self._replay(row.request)
        elif key == b"c" and row is not None:
            self._copy(row.request)

    def _replay(self, request: Request) -> None:
        if not self._replays.acquire(blocking=False):
            self._show(f"{MAX_REPLAYS} replays have no answer yet: this one was not sent.")
            return
        again = replace(
            request,
            id=f"replay-{secrets.token_hex(8)}",
            received_at=time.time(),
            replay_of=request.id,
            attempt=None,
            deadline=None,
            cancellation=Cancellation(),
        )
        threading.Thread(target=self._send_again, args=[again], daemon=True).start()

    def _send_again(self, request: Request) -> None:
        try:
            with contextlib.suppress(NotHandled):  # its row says why
                self._handle(request)
        finally:
            self._replays.release()

    def _copy(self, request: Request) -> None:
        """Copy a request as a curl command by OSC 52, which most terminals take."""
        try:
            target = self._target or Target(self._view.url, timeout_seconds=1)
            command = curl_command(request, target).encode()
        except OutsideTarget as error:
            self._show(f"Not copied: {error}")
            return
        encoded = b64encode(command).decode()
        if len(encoded) > MAX_COPY_CHARACTERS:
            self._show(f"Not copied: terminals do not take {size_of(len(command))}. --save writes it into a file.")
            return
        self._write(f"\x1b]52;c;{encoded}\x07")
        self._show(f"Copied as curl, {size_of(len(command))}, if this terminal knows OSC 52.")


class _Lines(io.TextIOBase):
    """Shows the last line that is written to it."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        lines = text.strip().splitlines()
        if lines:
            self._show(lines[-1])
        return len(text)
