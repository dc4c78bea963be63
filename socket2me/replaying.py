"""Which requests `socket2me replay` sends again, and when: those of files, and those of a relay's history."""

import calendar
import math
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from .client.http_api import RelayApi, Token
from .exceptions import BadArgument, ClientError
from .inspector.filters import Filter
from .listening.local_forwarder import is_meant
from .request import Request
from .saved import request_files

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_is_ago = re.compile(r"(\d{1,9})(s|min|m|h|d)").fullmatch
_has_time = re.compile(r"(\d{8}-\d{6})-.*").fullmatch


@dataclass(frozen=True)
class Recorded:
    """A request that can be sent again. `at` is when it was received, in seconds since the epoch.

    name: of its file, or its id.
    load: returns the request. Raises `ClientError` or `OSError`.
    """

    at: float
    name: str
    load: Callable[[], Request]


@dataclass(frozen=True)
class Choice:
    """Which requests are meant: those received from `since` until `until` that match one of `only`, if any."""

    since: float = -math.inf
    until: float = math.inf
    only: Sequence[Filter] = ()

    def has_time(self, at: float) -> bool:
        """Say whether requests of that time are meant."""
        return self.since <= at <= self.until

    def has(self, request: Request) -> bool:
        """Say whether a request is meant, whenever it was received."""
        return is_meant(request, self.only)


def parse_moment(text: str, now: float) -> float:
    """Return a time, in seconds since the epoch, of `90s`, `15m`, `1h` or `2d`, before `now`, or of ISO 8601.

    Without a zone it is local. Raises `BadArgument`.
    """
    match = _is_ago(text.strip())
    if match is not None:
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise BadArgument(f"{text!r} is no time, such as 90s, 15m, 1h, 2d or 2026-01-31T18:00.") from None


def parse_speed(text: str) -> float:
    """Return how many times faster than they came requests are sent; `max` is infinity. Raises `BadArgument`."""
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = math.nan
    if not speed > 0 or (math.isinf(speed) and text != "max"):
        raise BadArgument(f"{text!r} is no speed, such as 1, 10, 0.5 or max.")
    return speed


def from_paths(paths: Sequence[Path], choice: Choice) -> list[Recorded]:
    """Return the requests that are meant, by their times, of files and folders of `listen --save`, earliest first.

    The time of a request is that in the name of its file; that of modification has the part below a second, and
    stands for it in a file of another name. Raises `OSError`.
    """
    found = [
        Recorded(at, file.name, partial(request_files.load, file))
        for path in paths
        for file in (path.glob("*.http") if path.is_dir() else [path])
        if choice.has_time(at := _time_of(file))
    ]
    return sorted(found, key=lambda each: (each.at, each.name))


def from_history(api: RelayApi, token: Token, choice: Choice) -> list[Recorded]:
    """Return the requests that a relay's history has and that are meant, the earliest first.

    The relay chooses those of each filter. Only their times and ids are kept; `load` asks for the rest. Raises
    `ClientError`.
    """
    found: dict[str, Recorded] = {}
    for text in [each.text for each in choice.only] or [""]:
        for each in _summaries(api, token, text, choice.since):
            at, request_id = float(each["received_at"]), each["id"]
            if choice.has_time(at):
                found[request_id] = Recorded(at, request_id, partial(_recorded, api, token, request_id))
    newest_first = found.values()
    return sorted(reversed(newest_first), key=lambda each: each.at)


def _summaries(api: RelayApi, token: Token, text: str, since: float) -> Iterator[dict[str, Any]]:
    """Yield what the history says of the requests of a filter, newest first, at least of those after `since`."""
    before, more = None, True
    while more:
        summaries, more = api.history(token, before, text)
        yield from summaries
        if not summaries or float(summaries[-1]["received_at"]) < since:
            return
        before = summaries[-1]["id"]


def paced(
    recorded: Sequence[Recorded],
    speed: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Recorded]:
    """Yield requests with the gaps between them, divided by `speed`. After a long one the next catch up."""
    began = clock()
    for each in recorded:
        due = began + (each.at - recorded[0].at) / speed
        if (seconds := due - clock()) > 0:
            sleep(seconds)
        yield each


def _time_of(file: Path) -> float:
    modified = file.stat().st_mtime
    match = _has_time(file.name)
    try:
        second = calendar.timegm(time.strptime(match[1], "%Y%m%d-%H%M%S")) if match is not None else None
    except ValueError:
        second = None
    return modified if second is None or math.floor(modified) == second else float(second)


def _recorded(api: RelayApi, token: Token, request_id: str) -> Request:
    return request_of(api.recorded(token, request_id))


def request_of(members: dict[str, Any]) -> Request:
    """Return the request that a relay's history shows. Raises `ClientError` if that is none."""
    headers: dict[str, str] = {}
    try:
        for name, value in members["headers"]:
            key = str(name).lower()
            headers[key] = f"{headers[key]},{value}" if key in headers else str(value)
        return Request(
            str(members["method"]),
            str(members["path"]),
            str(members["query"]),
            headers,
            b64decode(members["body"], validate=True),
            id=str(members["id"]),
            received_at=float(members["received_at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ClientError(f"The relay's history has what is no request: {error!r}.") from None
