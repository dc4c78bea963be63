"""Which answers of the local app acknowledge a request, and how an attempt is repeated before it is rejected."""

import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..exceptions import AnswerRefused, BadArgument, Dropped, NotHandled
from ..local_app.target import Answer
from ..request import Request
from .receivers import Receiver

DEFAULT_RETRIES = 3
DEFAULT_STATUSES = "5xx,429"
MAX_RETRIES = 100

# The pause before the first repetition, and the longest one. Each is twice the one before, less a random part.
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 5.0

# An app that asks by `Retry-After` for a longer pause than this is not sent the request again: where no deadline
# ends the pause, it would take the place of other requests for as long as the app likes.
MAX_RETRY_AFTER_SECONDS = 20.0

# How often a pause looks whether the request was dropped, or the client is closed.
LOOK_SECONDS = 0.1

_is_status = re.compile(r"[1-5](?:\d\d|xx)").fullmatch


@dataclass(frozen=True)
class Statuses:
    """Statuses of HTTP: some by number, some by their first digit."""

    single: frozenset[int]
    classes: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "Statuses":
        """Return the statuses that are written `5xx,429`. Raises `BadArgument`."""
        words = [word.strip().lower() for word in text.split(",")]
        for word in words:
            if _is_status(word) is None:
                raise BadArgument(f"{word!r} is no status, such as 503 or 5xx.")
        return cls(
            frozenset(int(word) for word in words if word.isdecimal()),
            frozenset(int(word[0]) for word in words if not word.isdecimal()),
        )

    def __contains__(self, status: int) -> bool:
        return status in self.single or status // 100 in self.classes


class Retrying:
    """A receiver of which each attempt that fails is repeated, with growing pauses, within the request's deadline.

    Parameters:
        receiver: is sent the requests.
        count: how often an attempt is repeated.
        statuses: the answers that do not acknowledge a request.
        on_retry: called with each failure that is followed by another attempt, and the seconds until that.
        is_closed: says whether the client is about to end: then nothing is repeated.
    """

    def __init__(
        self,
        receiver: Receiver,
        count: int,
        statuses: Statuses,
        on_retry: Callable[[Request, str, float], None],
        is_closed: Callable[[], bool],
    ) -> None:
        self.name = receiver.name
        self.where = receiver.where
        self._receiver = receiver
        self._count = count
        self._statuses = statuses
        self._on_retry = on_retry
        self._is_closed = is_closed

    def send(self, request: Request) -> Answer:
        """Send a request, and again while it fails; return the answer. `Retry-After` of the app is the least pause.

        Beyond `MAX_RETRY_AFTER_SECONDS` of that there is no other attempt, and the failure says why.
        Raises the last failure, `AnswerRefused` if that is an answer; `OutsideTarget` or `Dropped` at once.
        """
        number = 0
        while True:
            result, least = self._attempt(request)
            if isinstance(result, Answer):
                return result
            pause = max(least, _pause(number))
            is_in_time = time.monotonic() + pause < (request.deadline or math.inf)
            if number < self._count and least > MAX_RETRY_AFTER_SECONDS and isinstance(result, AnswerRefused):
                why = (
                    f"{result} Not again: it asks for a pause of {least:.0f} s, over {MAX_RETRY_AFTER_SECONDS:g} s."
                )
                raise AnswerRefused(why, result.answer)
            if number == self._count or not is_in_time or self._is_closed():
                raise result
            number += 1
            self._on_retry(request, result.in_words, pause)
            self._wait(request, pause)

    def _attempt(self, request: Request) -> tuple[Answer | NotHandled, float]:
        """Return the answer, or what failed and how long the app asks to be left alone."""
        try:
            answer = self._receiver.send(request)
        except Dropped:
            raise
        except NotHandled as error:
            return error, 0
        if answer.status in self._statuses:
            return AnswerRefused(f"the app answered {answer.status}.", answer), _retry_after(answer)
        return answer, 0

    def _wait(self, request: Request, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._is_closed():
            if request.cancellation.is_set:
                raise Dropped("it was dropped from its mailbox.")
            time.sleep(min(left, LOOK_SECONDS))


def _pause(number: int) -> float:
    seconds = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**number)
    return seconds * random.uniform(0.5, 1)  # noqa: S311  # spreads attempts, guards nothing


def _retry_after(answer: Answer) -> float:
    for name, value in answer.headers:
        if name.lower() == "retry-after" and value.isascii() and value.isdecimal():
            return float(value[:9])
    return 0.0
