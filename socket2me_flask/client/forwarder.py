"""What `socket2me listen` does with each request: choose, save, forward, tell, and answer its caller."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from . import files
from .errors import OutsideTarget, TargetDown, TargetSlow
from .report import Report
from .request import Reply, Request
from .target import Answer, Target


@dataclass(frozen=True)
class Pattern:
    """Which requests are meant: a method, any if None, and a path with `*` for anything, slashes too."""

    method: str | None
    path: str

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Return the pattern that is written `POST /github/*`, `/github/*` or `POST *`. Raises `ValueError`."""
        match = re.fullmatch(r"(?:([A-Za-z]+)\s+)?([/*]\S*)", text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not like 'POST /github/*' or '/github/*'")
        return cls(match[1].upper() if match[1] else None, match[2])

    def matches(self, request: Request) -> bool:
        """Say whether it means a request."""
        return self.method in (None, request.method) and fnmatchcase(request.path or "/", self.path)


class Forwarder:
    """The handler of `socket2me listen`.

    Parameters:
        is_replying: says whether callers get the app's answers.
        only: the patterns of which one must match; none: everything is forwarded.
        folder: where each request is saved, if it is.
    """

    def __init__(
        self,
        target: Target,
        report: Report,
        *,
        is_replying: Callable[[], bool],
        only: Sequence[Pattern] = (),
        folder: Path | None = None,
    ) -> None:
        self._target = target
        self._report = report
        self._is_replying = is_replying
        self._only = only
        self._folder = folder

    def __call__(self, request: Request) -> Reply | None:
        """Forward a request. Raises `TargetDown` or `TargetSlow` if that should be tried again."""
        if self._only and not any(pattern.matches(request) for pattern in self._only):
            return self._refuse(request, "not forwarded: --only does not name it")
        if self._folder is not None:
            files.save(self._folder, request, self._target)
        started = time.perf_counter()
        try:
            answer = self._target.send(request)
        except OutsideTarget as error:
            return self._refuse(request, f"not forwarded: {error}")
        except (TargetDown, TargetSlow) as error:
            seconds = time.perf_counter() - started
            fate = "comes again" if request.attempt is not None else "is lost, unless its caller sends it again"
            self._report.request(request, None, seconds, f"{error} The request {fate}.")
            if request.attempt is None and self._is_replying():
                return Reply(502 if isinstance(error, TargetDown) else 504, f"{error}\n")
            raise
        self._report.request(request, answer.status, time.perf_counter() - started, "")
        return _reply(answer) if self._is_replying() else None

    def _refuse(self, request: Request, why: str) -> Reply | None:
        """Take a request without forwarding it: it would be no better the next time."""
        self._report.request(request, None, 0, why)
        return (
            Reply(404, "The app behind this relay does not take this request.\n") if self._is_replying() else None
        )


def _reply(answer: Answer) -> Reply:
    if answer.is_cut:
        return Reply(502, f"The app answered {answer.status} with more than a relay carries back.\n")
    if not 200 <= answer.status <= 599:
        return Reply(502, f"The app answered {answer.status}.\n")
    headers: dict[str, list[str]] = {}
    for name, value in answer.headers:
        headers.setdefault(name, []).append(value)
    return Reply(answer.status, answer.body or None, headers)
