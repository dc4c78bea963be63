"""Acknowledgements of clients of this process for which callers at other processes wait."""

import threading
from collections.abc import Callable
from functools import partial

from ..concurrency.timeout_queue import NewTimer
from ..errors import RelayError
from ..http.answers import Answer
from ..relay.delivery import Delivery, PendingAck
from .bus import Bus
from .messages import pack_outcome


class RemoteAcks:
    """The acknowledgements that other processes wait for.

    ack_seconds: how long they do.
    new_timer: makes a timeout queue that the engine runs.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        ack_seconds: float,
        new_timer: NewTimer,
    ) -> None:
        self._bus = bus
        self._pending: dict[tuple[str, int], RemotePendingAck] = {}  # by process and number of the request
        self._timeouts = new_timer(ack_seconds, RemotePendingAck.give_up)

    def __len__(self) -> int:
        return len(self._pending)

    def maker(self, process: str, number: int) -> Callable[[str], PendingAck]:
        """Return what makes a pending acknowledgement, in a mode, for a request of another process."""
        return partial(RemotePendingAck, self, process, number)

    def announce(self, ack: "RemotePendingAck", delivery: Delivery) -> None:
        """Notify the other process that its call was delivered and that the outcome will follow."""
        self._bus.post(ack.process, "handed", self._bus.process, ack.number, delivery.mode)
        self._pending[ack.process, ack.number] = ack
        self._timeouts.add(ack)
        ack.announce(delivery.forget)

    def remove(self, ack: "RemotePendingAck", outcome: Answer | RelayError | None) -> None:
        """Send the outcome to the other process; None if it does not wait any more."""
        self._pending.pop((ack.process, ack.number), None)
        self._timeouts.discard(ack)
        if outcome is not None:
            self._bus.post(ack.process, "outcome", ack.number, pack_outcome(outcome))

    def forget(self, process: str, number: int) -> None:
        """Wait no more for the client: the other process does not either."""
        ack = self._pending.get((process, number))
        if ack is not None:
            ack.give_up()


class RemotePendingAck(PendingAck):
    """An acknowledgement that another process waits for. Its outcome is not sent before the call was announced."""

    __slots__ = ("_acks", "_forget", "_is_announced", "_is_done", "_lock", "number", "process")

    def __init__(self, acks: RemoteAcks, process: str, number: int, mode: str) -> None:
        super().__init__(mode)
        self._acks = acks
        self.process = process
        self.number = number
        self._forget: Callable[[], None] = lambda: None
        self._is_announced = self._is_done = False
        self._lock = threading.Lock()

    def resolve(self, outcome: Answer | RelayError) -> None:
        super().resolve(outcome)
        self._send()

    def announce(self, forget: Callable[[], None]) -> None:
        """Send the outcome from now on. `forget` is called if the other process waits no more."""
        self._forget = forget
        self._is_announced = True
        self._send()

    def give_up(self) -> None:
        """Wait no more for the client."""
        self._finish(None)
        self._forget()

    def _send(self) -> None:
        if self._outcomes and self._is_announced:
            self._finish(self._outcomes[0])

    def _finish(self, outcome: Answer | RelayError | None) -> None:
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
        self._acks.remove(self, outcome)
