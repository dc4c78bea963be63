"""What `socket2me listen` sends requests to: an app, a command, or several of them."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from ..exceptions import AnswerRefused, NotHandled, OutsideTarget
from ..local_app.target import Answer
from ..output.report import Outcome, Report
from ..request import Request

# Of how many events it is kept which receivers have handled them, so that these are not sent them again.
REMEMBERED_EVENTS = 1000

# How long a request waits for one before it to be answered by a TARGET after the first, and how many may wait so
# for each TARGET. A thread waits for each.
PLACE_SECONDS = 20.0
MAX_WAITING = 100


class Receiver(Protocol):
    """An app or a command. `name` is what people read of it."""

    name: str

    def where(self, request: Request) -> str:
        """Return where a request is sent, for people. Raises `OutsideTarget`."""

    def send(self, request: Request) -> Answer:
        """Send a request and return the answer. Raises `NotHandled` or `OutsideTarget`."""


class _Other:
    """A receiver after the first.

    is_required: whether its failure rejects the request.
    is_waited_for: whether the request is not acknowledged before it has answered.
    events: the ids of those of a mailbox that are on their way to it.
    """

    def __init__(self, receiver: Receiver, is_required: bool, is_waited_for: bool, parallel: int) -> None:
        self.receiver = receiver
        self.is_required = is_required
        self.is_waited_for = is_waited_for
        self.events: set[str] = set()
        self._places = threading.Semaphore(parallel)
        self._waiting = threading.Semaphore(MAX_WAITING)

    @contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """Have one of the places, for which a request may have to wait. Raises `NotHandled` if it gets none."""
        if not self._places.acquire(blocking=False):
            self._wait_for_place(request)
        try:
            yield
        finally:
            self._places.release()

    def _wait_for_place(self, request: Request) -> None:
        if not self._waiting.acquire(blocking=False):
            raise NotHandled(f"not sent: {MAX_WAITING} requests wait for it already, and it does not answer.")
        left = math.inf if request.deadline is None else request.deadline - time.monotonic()
        try:
            has_place = self._places.acquire(timeout=min(PLACE_SECONDS, max(0, left)))
        finally:
            self._waiting.release()
        if not has_place:
            raise NotHandled("not sent: as many requests as may be are on their way to it.")


class Fanout:
    """Several receivers, which all get each request; the first one's answer is the caller's.

    Parameters:
        receivers: at least one.
        required: those after the first whose failure rejects the request too, as that of the first does. That of
            any other is reported, and does not reject the request.
        parallel: how many requests each of the others may have at once. `MAX_WAITING` more wait for that.
        is_ordered: whether all have to answer before the request is acknowledged, and the next one begins.
        report: shows what the others answered.
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
        self._others = [_Other(each, each in required, is_ordered or each in required, parallel) for each in others]
        self._report = report
        self._lock = threading.Lock()
        self._sendings: set[_Sending] = set()
        self._handled: OrderedDict[str, set[str]] = OrderedDict()  # names of receivers, by event of a mailbox

    def send(self, request: Request) -> Answer:
        """Send a request to all, and return what the first answers.

        One that comes again is not sent to those that have handled it, or still have it. Raises what the first one
        raises, or one that is required.
        """
        with self._lock:
            handled = frozenset(self._handled.get(request.id, ()))
            started = [
                _Sending(self, other, request)
                for other in self._others
                if other.receiver.name not in handled and request.id not in other.events
            ]
            if request.attempt is not None:
                for sending in started:
                    sending.other.events.add(request.id)
            for sending in started:
                self._sendings.add(sending)
                sending.thread.start()
        try:
            if self.name in handled:
                answer = Answer(200, [], b"", False)
            else:
                answer = self._first.send(request)
                self._note(request, self._first)
        finally:
            for sending in started:
                if sending.other.is_waited_for:
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
        with self._lock:
            sendings = list(self._sendings)
        for sending in sendings:
            sending.thread.join(max(0, until - time.monotonic()))
        return sum(sending.thread.is_alive() for sending in sendings)

    def _note(self, request: Request, receiver: Receiver) -> None:
        """Note that a receiver has handled an event, which may come again."""
        if request.attempt is None:
            return
        with self._lock:
            self._handled.setdefault(request.id, set()).add(receiver.name)
            if len(self._handled) > REMEMBERED_EVENTS:
                self._handled.popitem(last=False)

    def run(self, sending: "_Sending") -> None:
        """Send a request to one of the others, and report what it answered."""
        other, request = sending.other, sending.request
        started = time.perf_counter()
        status, remark = None, ""
        try:
            with other.place(request):
                started = time.perf_counter()
                answer = other.receiver.send(request)
            status = answer.status
            self._note(request, other.receiver)
        except OutsideTarget as error:
            remark = f"not forwarded: {error}"
        except NotHandled as error:
            sending.failure = error
            status = error.answer.status if isinstance(error, AnswerRefused) else None
            remark = error.in_words + ("" if other.is_required else " That does not reject the request.")
        finally:
            with self._lock:
                other.events.discard(request.id)
        outcome = Outcome(status, time.perf_counter() - started, remark, other.receiver.name)
        self._report.request(request, outcome)
        with self._lock:
            self._sendings.discard(sending)


class _Sending:
    """A request on its way to one of the others."""

    def __init__(self, fanout: Fanout, other: _Other, request: Request) -> None:
        self.other = other
        self.request = request if other.is_waited_for else replace(request, deadline=None)
        self.failure: NotHandled | None = None
        self.thread = threading.Thread(target=fanout.run, args=[self], daemon=True)
