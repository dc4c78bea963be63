"""Calls for tokens that may have several listeners, which may be attached to several processes.

On `all`, a call goes once to each process that has listeners, which sends it to all that it has. On `one` it goes
to one process, which sends it to one of them.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

from ..errors import ClientGone, ClientLeft, NoListener, PeerSilent, ProcessGone, RelayError, StoreUnavailable
from ..http.answers import Answer
from ..relay.call import Call, values_of
from ..relay.delivery import Delivery, PendingAck
from ..relay.hold_queue import PendingDelivery
from ..relay.presence import Presence
from ..relay.replies import ACKNOWLEDGED
from ..storage.redis import RedisStore
from .requests import PendingRequest, Requests

log = logging.getLogger(__name__)

# How often a call without a mailbox goes to another process whose listener left with it.
MAX_ASSIGNMENTS = 3


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

    def __init__(self, first: "FirstOutcome | _Assigned", mode: str) -> None:
        super().__init__(mode)
        self._first = first

    def resolve(self, outcome: Answer | RelayError) -> None:
        if not self.is_resolved:
            super().resolve(outcome)
            self._first.on_outcome(outcome)


class _Assigned:
    """A call that a listener of some process has. When that has left, one of another process may receive it."""

    def __init__(self, elsewhere: "ListenersElsewhere", call: Call, presence: Presence) -> None:
        self._elsewhere = elsewhere
        self._call = call
        self._presence = presence
        self._pending_ack = PendingAck("ack")
        self._forget: Callable[[], None] = lambda: None
        self._tries = 0
        self._is_forgotten = False

    def deliver(self, processes: Sequence[str]) -> Delivery | None:
        """Deliver the call. Return None and raise as `ListenersElsewhere.deliver` does."""
        delivery = self._elsewhere.deliver_to_one(self._call, processes, self._presence, partial(_Part, self))
        if delivery is None or delivery.pending_ack is None:
            return delivery
        self._call = replace(self._call)  # the relay forgets the body of the other once it was sent
        self._forget = delivery.forget
        return Delivery(delivery.mode, self._pending_ack, self.forget)

    def forget(self) -> None:
        """Wait no more for the answer."""
        self._is_forgotten = True
        self._forget()

    def on_outcome(self, outcome: Answer | RelayError) -> None:
        """Take the answer of a listener, or send the call to another if it has left."""
        if isinstance(outcome, ClientLeft) and not self._is_forgotten and self._tries < MAX_ASSIGNMENTS:
            self._tries += 1
            threading.Thread(target=self._deliver_again, daemon=True).start()  # other processes are waited for
        else:
            self._pending_ack.resolve(outcome)

    def _deliver_again(self) -> None:
        outcome: Answer | RelayError = ClientLeft()
        try:
            delivery = self.deliver(self._elsewhere.processes(self._call.token))
            if delivery is not None and delivery.pending_ack is not None:
                return
            if delivery is not None:
                outcome = ACKNOWLEDGED  # by a listener of mode `notify`
        except RelayError as error:
            outcome = error
        except Exception:
            log.exception("a call was not assigned to another listener")
        self._pending_ack.resolve(outcome)


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
        processes = self.processes(call.token)
        if not processes:
            return None
        if listeners == "one":
            return _Assigned(self, call, presence).deliver(processes)
        return self._deliver_to_all(call, processes, presence)

    def processes(self, token: str) -> tuple[str, ...]:
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

    def deliver_to_one(
        self, call: Call, processes: Sequence[str], presence: Presence, new_pending_ack: Callable[[str], PendingAck]
    ) -> Delivery | None:
        """Deliver a call to one listener, of this process or of these. Return None and raise as `deliver` does."""
        here = presence.get(call.token)
        ways: list[Callable[[], Delivery]] = [
            partial(self._deliver_there, call, process, new_pending_ack) for process in processes
        ]
        if here is not None and here.has_room_for(call):
            ways.append(partial(self._deliver_here, call, presence, new_pending_ack))
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

    def _deliver_there(self, call: Call, process: str, new_pending_ack: Callable[[str], PendingAck]) -> Delivery:
        return self._wait(call.token, self._send(process, call, new_pending_ack))

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
