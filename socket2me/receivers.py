"""What `socket2me listen` sends requests to: an app, a command, or several of them."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .exceptions import AnswerRefused, NotHandled, OutsideTarget
from .report import Outcome, Report
from .request import Request
from .target import Answer

# Of how many events it is kept which receivers have handled them, so that these are not sent them again.
REMEMBERED_EVENTS = 1000

# How long a request waits for one before it to be answered by a TARGET after the first.
PLACE_SECONDS = 20.0


class Receiver(Protocol):
    """An app or a command. `name` is what people read of it."""

    name: str

    def where(self, request: Request) -> str:
        """Return where a request is sent, for people. Raises `OutsideTarget`."""

    def send(self, request: Request) -> Answer:
        """Send a request and return the answer. Raises `NotHandled` or `OutsideTarget`."""


@dataclass(frozen=True)
class _Other:
    """A receiver after the first. Its `places` are how many requests it may have at once."""

    receiver: Receiver
    is_required: bool
    places: threading.Semaphore


class Fanout:
    """Several receivers, which all get each request; the first one's answer is the caller's.

    Parameters:
        receivers: at least one.
        required: those after the first whose failure rejects the request too, as that of the first does. That of
            any other is told, and does not reject the request.
        parallel: how many requests each of the others may have at once.
        is_ordered: whether all have to answer before the request is acknowledged, and the next one begins.
        report: is told of the others.
    """

    def __init__(
        self,
        receivers: Sequence[Receiver],
        *,
        required: Collection[Receiver],
        parallel: int,
        is_ordered: bool,
        report: Report,
    ) -> None:
        self._first, *others = receivers
        self.name = self._first.name
        self.where = self._first.where
        self._parallel = parallel
        self._others = [_Other(each, each in required, threading.Semaphore(parallel)) for each in others]
        self._is_ordered = is_ordered
        self._report = report
        self._lock = threading.Lock()
        self._handled: OrderedDict[str, set[str]] = OrderedDict()  # names of receivers, by event of a mailbox

    def send(self, request: Request) -> Answer:
        """Send a request to all, and return what the first answers.

        One that comes again is not sent to those that have handled it. Raises what the first one raises, or one
        that is required.
        """
        with self._lock:
            handled = frozenset(self._handled.get(request.id, ()))
        started = [self._start(other, request) for other in self._others if other.receiver.name not in handled]
        try:
            if self.name in handled:
                answer = Answer(200, [], b"", False)
            else:
                answer = self._first.send(request)
                self._note(request, self._first)
        finally:
            for sending in started:
                if self._is_ordered or sending.other.is_required:
                    sending.thread.join()
        for sending in started:
            if sending.other.is_required and sending.failure is not None:
                raise sending.failure
        with self._lock:
            if not any(sending.thread.is_alive() for sending in started):
                self._handled.pop(request.id, None)
        return answer

    def close(self, seconds: float) -> int:
        """Wait until the others have answered, but not longer than that. Return how many answers are missing."""
        until = time.monotonic() + seconds
        places = [other.places for other in self._others for _ in range(self._parallel)]
        return sum(not each.acquire(timeout=max(0, until - time.monotonic())) for each in places)

    def _start(self, other: _Other, request: Request) -> "_Sending":
        is_waited_for = self._is_ordered or other.is_required
        deadline = request.deadline or math.inf
        seconds = min(PLACE_SECONDS, max(0, deadline - time.monotonic()))
        has_place = other.places.acquire(timeout=seconds)
        sending = _Sending(self, other, request if is_waited_for else replace(request, deadline=None), has_place)
        sending.thread.start()
        return sending

    def _note(self, request: Request, receiver: Receiver) -> None:
        """Note that a receiver has handled an event, which may come again."""
        if request.attempt is None:
            return
        with self._lock:
            self._handled.setdefault(request.id, set()).add(receiver.name)
            if len(self._handled) > REMEMBERED_EVENTS:
                self._handled.popitem(last=False)

    def run(self, sending: "_Sending") -> None:
        """Send a request to one of the others, and tell what it answered."""
        receiver, request = sending.other.receiver, sending.request
        started = time.perf_counter()
        status, remark = None, ""
        try:
            if not sending.has_place:
                raise NotHandled("not sent: as many requests as may be are on their way to it.")
            answer = receiver.send(request)
            status = answer.status
            self._note(request, receiver)
        except OutsideTarget as error:
            remark = f"not forwarded: {error}"
        except NotHandled as error:
            sending.failure = error
            status = error.answer.status if isinstance(error, AnswerRefused) else None
            remark = error.in_words + ("" if sending.other.is_required else " That does not reject the request.")
        finally:
            if sending.has_place:
                sending.other.places.release()
        self._report.request(request, Outcome(status, time.perf_counter() - started, remark, receiver.name))


class _Sending:
    """A request on its way to one of the others."""

    def __init__(self, fanout: Fanout, other: _Other, request: Request, has_place: bool) -> None:
        self.other = other
        self.request = request
        self.has_place = has_place
        self.failure: NotHandled | None = None
        self.thread = threading.Thread(target=fanout.run, args=[self], daemon=True)
