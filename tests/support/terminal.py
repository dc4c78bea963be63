"""The command `socket2me` in a terminal of its own, of which pyte knows what it shows."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

from tests.support.servers import BIN, DEADLINE_SECONDS, clean_environment

# What the screen may make a terminal do: move, colour, clear, switch screen, cursor and wrapping; and copy.
SEQUENCES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]52;c;[A-Za-z0-9+/=]*\x07")


class Terminal:
    """`socket2me` in a terminal. `output` is all that it has written, `lines` what is seen."""

    def __init__(self, home: Path, columns: int, rows: int, *arguments: str, **variables: str) -> None:
        self._control, self._terminal = pty.openpty()
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.output = b""
        self.resize(columns, rows)
        self.modes = self.modes_now()
        self.process = subprocess.Popen(
            # `setsid` makes it the terminal's. A function of Python's between fork and exec would have this process
            # warned by eventlet, which may be loaded here, that it forks.
            ["setsid", "--ctty", BIN / "socket2me", *arguments],
            env={
                **clean_environment(),
                "HOME": str(home),
                "XDG_STATE_HOME": str(home),
                "TERM": "xterm-256color",
                "PYTHONUTF8": "1",
                **variables,
            },
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
        )

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal, of which its processes get a signal."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._control, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes_now(self) -> list:
        """Return the modes of the terminal."""
        return termios.tcgetattr(self._terminal)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._control, keys.encode())

    def until(self, is_so: Callable[[], object], what: str) -> None:
        """Read what is written until something is so."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not is_so():
            left = deadline - time.monotonic()
            assert left > 0, "\n".join([f"not seen: {what}", *self.lines])
            self._read(min(left, 0.1))

    def until_seen(self, text: str) -> None:
        """Read until a line has a text."""
        self.until(lambda: any(text in line for line in self.lines), text)

    def wait(self) -> int:
        """Read until it has ended, and return its status."""
        self.until(lambda: self.process.poll() is not None, "it has ended")
        self._read(0)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        while select.select([self._control], [], [], seconds)[0]:
            data = os.read(self._control, 65_536)
            self.output += data
            self._stream.feed(data)
            seconds = 0

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._control)
        os.close(self._terminal)
