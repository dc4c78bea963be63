"""Requests to other processes, and the responses to each, which have its number.

Knows the bus, and nothing of the relay.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ..concurrency.timeout_queue import NewTimer
from ..errors import ClientGone, PeerSilent, ProcessGone, RelayError, StoreUnavailable
from ..relay.delivery import PendingAck
from .bus import Bus
from .messages import Message, unpack_outcome

# The kinds of messages that are requests: the number is their second field.
REQUESTS = ("call", "in_flight", "listeners")


class Requests:
    """The requests of this process that are not answered. `handlers` has a method for each kind of response.

    answer_seconds: how long another process may take to respond.
    hold_seconds: how much longer a call may take that waits for room in its client's window.
    new_timer: makes a timeout queue that the engine runs.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        answer_seconds: float,
        hold_seconds: float,
        new_timer: NewTimer,
    ) -> None:
        self._bus = bus
        self._numbers = count(1)
        self._pending: dict[int, PendingRequest] = {}
        self._timeouts = new_timer(answer_seconds, self._give_up)
        self._queued_timeouts = new_timer(answer_seconds + hold_seconds, self._give_up)
        self.handlers: dict[str, Callable[..., None]] = {
            "notified": self._on_notified,
            "handed": self._on_handed,
            "queued": self._on_queued,
            "gone": self._on_gone,
            "outcome": self._on_outcome,
            "answer": self._on_answer,
        }

    def __len__(self) -> int:
        return len(self._pending)

    def send(
        self, process: str, kind: str, *values: Any, new_pending_ack: Callable[[str], PendingAck] = PendingAck
    ) -> "PendingRequest":
        """Send a request. `values` are those of its fields after the process and the number.

        `new_pending_ack` makes what waits for the outcome of a call, for a mode.
        """
        request = PendingRequest(process, next(self._numbers), new_pending_ack)
        self._pending[request.number] = request
        self._timeouts.add(request)
        self._bus.post(process, kind, self._bus.process, request.number, *values)
        return request

    def cancel(self, request: "PendingRequest") -> None:
        """Wait no more for the outcome of a call that was delivered, and notify the other process."""
        self._pending.pop(request.number, None)
        self._send_forget(request.process, request.number)

    def fail(self, messages: Sequence[Message], error: type[ProcessGone | StoreUnavailable]) -> None:
        """Answer with an error the requests among messages that did not arrive."""
        for kind, *values in messages:
            if kind in REQUESTS:
                self._answer(values[1], None, error())

    def _give_up(self, request: "PendingRequest") -> None:
        self._answer(request.number, None, PeerSilent())

    def _answer(self, number: int, value: Any, error: Exception | None = None) -> None:
        request = self._pending.pop(number, None)
        if request is not None:
            self._resolve(request, value, error)

    def _resolve(self, request: "PendingRequest", value: Any, error: Exception | None = None) -> None:
        self._timeouts.discard(request)
        self._queued_timeouts.discard(request)
        request.resolve(value, error)

    def _send_forget(self, process: str, number: int) -> None:
        self._bus.post(process, "forget", self._bus.process, number)

    # Responses

    def _on_notified(self, numbers: list[int]) -> None:
        for number in numbers:
            self._answer(number, "notify")

    def _on_handed(self, process: str, number: int, mode: str) -> None:
        """A call was delivered, and its outcome will follow."""
        request = self._pending.get(number)
        if request is None:  # too late: the caller was answered
            self._send_forget(process, number)
        else:
            request.pending_ack = request.new_pending_ack(mode)
            self._resolve(request, mode)

    def _on_queued(self, number: int) -> None:
        """A call waits for room in its client's window: the response takes longer."""
        request = self._pending.get(number)
        if request is not None:
            self._timeouts.discard(request)
            self._queued_timeouts.add(request)

    def _on_gone(self, number: int) -> None:
        self._answer(number, None, ClientGone())

    def _on_outcome(self, number: int, packed: dict[str, Any]) -> None:
        """The outcome of a call that was delivered; or, if it was not, the reason."""
        request = self._pending.pop(number, None)
        if request is None:
            return
        outcome = unpack_outcome(packed)
        if request.pending_ack is not None:
            request.pending_ack.resolve(outcome)
        elif isinstance(outcome, RelayError):
            self._resolve(request, None, outcome)

    def _on_answer(self, number: int, value: Any) -> None:
        self._answer(number, value)


class PendingRequest:
    """A request to `process` that is not answered. `pending_ack` is set if the outcome of a call will follow."""

    __slots__ = ("_error", "_is_resolved", "_value", "_wait", "new_pending_ack", "number", "pending_ack", "process")

    def __init__(self, process: str, number: int, new_pending_ack: Callable[[str], PendingAck]) -> None:
        self.process = process
        self.number = number
        self.new_pending_ack = new_pending_ack
        self.pending_ack: PendingAck | None = None
        self._value: Any = None
        self._error: Exception | None = None
        self._is_resolved = False
        # Held until there is a response: an Event costs three times as much, and every call to a peer waits here.
        self._wait = threading.Lock()
        self._wait.acquire()

    def wait(self) -> Any:
        """Return the response. Raises `PeerSilent` if there is none in time, or the error that it is."""
        self._wait.acquire()
        if self._error is not None:
            raise self._error
        return self._value

    def resolve(self, value: Any, error: Exception | None) -> None:
        """Let the thread that waits go on. The first response counts."""
        if not self._is_resolved:
            self._is_resolved = True
            self._value, self._error = value, error
            self._wait.release()
