"""How a text, a time and a size are shown in a terminal."""

import select
import time
from functools import lru_cache
from typing import TextIO


def printable(text: str) -> str:
    """Return text without what a terminal obeys: control characters are shown as their numbers."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def when(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as people read it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def size_of(count: int) -> str:
    """Return a number of bytes as people read it."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1_000_000:.1f} MB"


def is_read(output: TextIO) -> bool:
    """Return whether a line can be written without waiting, as far as the system reports."""
    try:
        poll = _poll(output.fileno())
    except (AttributeError, OSError, ValueError):  # a system without `poll`, or no file
        return False
    try:
        return poll.poll(0) == [(output.fileno(), select.POLLOUT)]
    except RuntimeError:  # another thread asks at this moment
        return False


@lru_cache(maxsize=1)
def _poll(fileno: int) -> "select.poll":
    poll = select.poll()
    poll.register(fileno, select.POLLOUT)
    return poll
