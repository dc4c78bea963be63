"""Calls for tokens that may have several listeners, which may be attached to several processes.

On `all`, a call goes once to each process that has listeners, which sends it to all that it has. On `one` it goes
to one process, which sends it to one of them.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from ..errors import ClientGone, ClientLeft, NoListener, PeerSilent, ProcessGone, RelayError, StoreUnavailable
from ..http.answers import Answer
from ..relay.call import Call, values_of
from ..relay.delivery import Delivery, PendingAck
from ..relay.hold_queue import PendingDelivery
from ..relay.presence import Presence
from ..storage.redis import RedisStore
from .requests import PendingRequest, Requests


class FirstOutcome(PendingAck):
    """The first answer of several processes; if all fail, the last error."""

    __slots__ = ("_error", "_failed", "_forget", "_is_closed", "_lock", "_parts")

    def __init__(self) -> None:
        super().__init__("ack")
        self._parts = self._failed = 0
        self._error: RelayError = ClientLeft()  # the last of those that failed
        self._is_closed = False
        self._forget: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def part(self, mode: str) -> PendingAck:
        """Return what one process resolves, in its mode."""
        with self._lock:
            self._parts += 1
        return _Part(self, mode)

    def close(self, forget: Callable[[], None]) -> None:
        """All processes have said whether they will answer. `forget` is called once one has."""
        self._forget = forget
        self._is_closed = True
        self._end()
        if self.is_resolved:
            forget()

    def resolve(self, outcome: Answer | RelayError) -> None:
        super().resolve(outcome)
        self._forget()

    def on_outcome(self, outcome: Answer | RelayError) -> None:
        """Take the answer of one process, or its error."""
        if isinstance(outcome, RelayError):
            with self._lock:
                self._failed += 1
                self._error = outcome
            self._end()
        elif not self.is_resolved:
            self.resolve(outcome)

    def _end(self) -> None:
        """Resolve it if no process can answer any more."""
        if self._is_closed and self._failed >= self._parts and not self.is_resolved:
            self.resolve(self._error)


class _Part(PendingAck):
    """What one process resolves. Its first outcome counts, as that of any."""

    __slots__ = ("_first",)

    def __init__(self, first: FirstOutcome, mode: str) -> None:
        super().__init__(mode)
        self._first = first

    def resolve(self, outcome: Answer | RelayError) -> None:
        if not self.is_resolved:
            super().resolve(outcome)
            self._first.on_outcome(outcome)


class ListenersElsewhere:
    """Delivers calls to the listeners of this process and of others."""

    def __init__(self, store: RedisStore, requests: Requests) -> None:
        self._store = store
        self._requests = requests
        self._turns = count()

    def deliver(self, call: Call, listeners: str, presence: Presence) -> Delivery | None:
        """Deliver a call. Return None if no listener could be sent it at once.

        Raises `NoListener`, `PeerSilent`, and what another process answers.
        """
        processes = self._processes(call.token)
        if not processes:
            return None
        if listeners == "one":
            return self._deliver_to_one(call, processes, presence)
        return self._deliver_to_all(call, processes, presence)

    def deliver_again(self, call: Call, presence: Presence) -> Delivery | None:
        """Deliver a call that a listener had when it left to another one. Return None and raise as `deliver`."""
        return self._deliver_to_one(call, self._processes(call.token), presence)

    def _processes(self, token: str) -> tuple[str, ...]:
        """Return the other processes that have listeners of a token."""
        self._store.bus.check()
        return self._store.groups(token)

    def _deliver_to_all(self, call: Call, processes: Sequence[str], presence: Presence) -> Delivery | None:
        first = FirstOutcome()
        asked = [self._send(process, call, first.part) for process in processes]
        deliveries, errors = [], []
        deliver_here = partial(self._deliver_here, call, presence, first.part)
        for deliver in (deliver_here, *(partial(self._wait, call.token, request) for request in asked)):
            try:
                deliveries.append(deliver())
            except (ClientGone, RelayError) as error:
                errors.append(error)
        if not deliveries:
            self._raise_one(errors)
            return None
        awaited = [delivery for delivery in deliveries if delivery.pending_ack is not None]
        if not awaited:
            return Delivery("notify")
        mode = "reply" if any(delivery.mode == "reply" for delivery in awaited) else awaited[0].mode

        def forget() -> None:
            for delivery in awaited:
                delivery.forget()

        first.close(forget)
        return Delivery(mode, first, forget)

    def _deliver_to_one(self, call: Call, processes: Sequence[str], presence: Presence) -> Delivery | None:
        """Deliver a call to one listener, of this process or of these. Return None and raise as `deliver` does."""
        here = presence.get(call.token)
        ways: list[Callable[[], Delivery]] = [partial(self._deliver_there, call, process) for process in processes]
        if here is not None and here.has_room_for(call):
            ways.append(partial(self._deliver_here, call, presence, PendingAck))
        turn = next(self._turns) % max(len(ways), 1)
        errors = []
        for deliver in ways[turn:] + ways[:turn]:
            try:
                return deliver()
            except PeerSilent:
                raise  # it may have arrived
            except (ClientGone, RelayError) as error:
                errors.append(error)
        self._raise_one(errors)
        return None

    def _deliver_there(self, call: Call, process: str) -> Delivery:
        return self._wait(call.token, self._send(process, call, PendingAck))

    def _send(self, process: str, call: Call, new_pending_ack: Callable[[str], PendingAck]) -> PendingRequest:
        return self._requests.send(process, "call", *values_of(call), new_pending_ack=new_pending_ack)

    def _wait(self, token: str, request: PendingRequest) -> Delivery:
        try:
            mode = request.wait()
        except ProcessGone:
            self._store.forget_group(token, request.process)
            raise
        forget = partial(self._requests.cancel, request)
        return Delivery(mode) if request.pending_ack is None else Delivery(mode, request.pending_ack, forget)

    def _deliver_here(
        self, call: Call, presence: Presence, new_pending_ack: Callable[[str], PendingAck]
    ) -> Delivery:
        pending = PendingDelivery(call, new_pending_ack)
        presence.deliver_or_hold(pending, may_hold=False, needs_client=True)
        delivery = pending.result()
        if delivery is None:
            raise ClientGone
        return delivery

    def _raise_one(self, errors: Sequence[Exception]) -> None:
        """Raise the most specific error, if one means that the call need not wait for a listener."""
        relevant = [error for error in errors if isinstance(error, RelayError)]
        for kind in (NoListener, PeerSilent, StoreUnavailable, RelayError):
            for error in relevant:
                if isinstance(error, kind):
                    raise error
