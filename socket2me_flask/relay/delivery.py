"""The interface of a client, and the delivery of a call to it: a client accepts calls, and may acknowledge them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from socket2me.inspector.filters import Filter

from ..concurrency.latch import Latch
from ..errors import BadReply, ClientLeft, RelayError
from ..http.answers import Answer
from .call import Call
from .replies import ACKNOWLEDGED, from_acknowledgement, rejection_of

# Called with the arguments of an acknowledgement, or with None if the client leaves without one.
OnAck = Callable[[list[Any] | None], None]


class Client(Protocol):
    """A client that is connected for a token.

    sid: an id that no other client has.
    mode: when its callers are answered, one of `storage.MODES`.
    window: how many events of a mailbox may be on their way to it.
    answering: what is known of whether it answers calls to `/go`; None before the first.
    bounds_calls: whether its window is of its own choice, and so holds for calls without a mailbox as well.
    is_silent: it acknowledges nothing until its connection shows that it has it. So an event of a mailbox is not
        sent again to it, and callers do not wait for it.
    number: of the call that was queued last, for `has_lost`.
    listeners: which of the clients of its token receive a call, one of `storage.LISTENERS`.
    listener: the id that it has among the listeners of its token.
    filter: what says which calls it receives; None for all of them.
    since: when it connected, in seconds since the epoch.
    secret_hash: of the secret that it gave; None if its token has none. A name may have another owner by now.
    in_flight: how many acknowledgements of it are awaited.
    """

    sid: str
    mode: str
    window: int
    answering: "Answering | None"
    bounds_calls: bool
    is_silent: bool
    number: int
    listeners: str
    filter: Filter | None
    since: float
    secret_hash: bytes | None

    @property
    def listener(self) -> str: ...

    @property
    def in_flight(self) -> int: ...

    def has_room_for(self, call: Call) -> bool:
        """Say whether it may be sent a call without a mailbox: fewer than its window are not acknowledged.

        Of several listeners, that holds for one that asks for the call.
        """

    def send(
        self,
        call: Call,
        on_ack: OnAck | None = None,
        attempt: int | None = None,
        encoded: dict[bool, Any] | None = None,
    ) -> int | None:
        """Queue a call for the client. If it raises, it was not queued.

        Raises `ClientGone`, `ClientTooSlow` or `EventTooLarge`; for one from a mailbox, which has an `attempt`,
        `NoRoom` as well.
        With `on_ack` it is asked to acknowledge it, and the number to forget that by is returned. `encoded` has the
        event as clients before this one have encoded it for the wire, and is filled.
        """

    def forget(self, ack_id: int | None) -> None:
        """Wait for an acknowledgement no more."""

    def flush(self) -> None:
        """Send what is queued. Raises `ClientGone` if the client proves to have left."""

    def has_lost(self, number: int) -> bool:
        """Say of a client that left whether it was not sent a call. Otherwise it may have received it."""

    def send_dropped(self, event_id: str) -> None:
        """Send the client a `dropped` event: an acknowledgement of this event is not awaited any more."""

    def disconnect(self, final_event: str | None = None) -> None:
        """Disconnect the client; `final_event` is an event that it is sent first."""

    def drop_connection(self) -> None:
        """Close its connection after a moment, without a final event, so that it reconnects."""


# The mode of calls to `/go`, whatever that of their client: `reply`, with replies as the later originals read them.
LEGACY = "legacy"


def mode_for(call: Call, mode: str) -> str:
    """Return the mode of a call, by its client's mode."""
    return LEGACY if call.is_legacy else mode


def outcome_of(mode: str, args: list[Any] | None) -> Answer | RelayError:
    """Return the outcome of an acknowledgement, or of a client that leaves without one."""
    if args is None:
        return ClientLeft()
    rejected = rejection_of(args, mode)
    if rejected is not None:
        return rejected
    if mode not in ("reply", LEGACY):
        return ACKNOWLEDGED
    try:
        return from_acknowledgement(args, is_legacy=mode == LEGACY)
    except BadReply as error:
        return error


class PendingAck:
    """An acknowledgement that is awaited, in a mode. It is its own `OnAck`."""

    __slots__ = ("_is_here", "_mode", "_outcomes")

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._outcomes: list[Answer | RelayError] = []  # in their order, whichever threads they came from
        self._is_here = Latch()

    def __call__(self, args: list[Any] | None) -> None:
        self.resolve(outcome_of(self._mode, args))

    def resolve(self, outcome: Answer | RelayError) -> None:
        """Set the outcome, and end the wait. The first outcome counts: a client may leave just after it."""
        self._outcomes.append(outcome)
        self._is_here.set()

    @property
    def is_resolved(self) -> bool:
        """Whether there is something to know."""
        return self._is_here.is_set

    def wait(self, seconds: float) -> bool:
        """Return whether there is something to know within that time. One thread may wait, once."""
        return self._is_here.wait(seconds)

    def answer(self) -> Answer:
        """Return what the caller receives. Raises `ClientLeft`, `BadReply`, `Rejected`, or an error of a peer."""
        outcome = self._outcomes[0] if self._outcomes else ClientLeft()
        if isinstance(outcome, RelayError):
            raise outcome
        return outcome


@dataclass(slots=True)
class Delivery:
    """A call that was delivered. It is to be acknowledged if `pending_ack`; `forget` ends the wait for that."""

    mode: str
    pending_ack: PendingAck | None = None
    forget: Callable[[], None] = lambda: None


class Answering:
    """Whether a client answers calls to `/go`, which it need not say when it connects.

    Clients of the first version never acknowledge a call, and its callers did not wait. Those of the second reply.
    So the caller of the first call waits; if none comes in time, later ones do not, until a call is acknowledged.
    """

    __slots__ = ("_has_answered", "_probe", "is_silent")

    def __init__(self, *, is_silent: bool = False) -> None:
        self.is_silent = is_silent
        self._has_answered = False
        self._probe: int | None = None  # the one acknowledgement that is still expected of a silent client

    def deliver(self, call: Call, client: Client, pending_ack: PendingAck) -> Callable[[], None]:
        """Send a call whose caller waits. Return what to call when the wait has ended. Raises as `Client.send`."""

        def on_ack(args: list[Any] | None) -> None:
            self._on_ack(args)
            pending_ack(args)

        return partial(self._give_up, client, client.send(call, on_ack))

    def notify(self, call: Call, client: Client) -> None:
        """Send a call to a silent client, which may prove that it is not. Raises as `Client.send`."""
        client.forget(self._probe)
        self._probe = client.send(call, self._on_ack)

    def _on_ack(self, args: list[Any] | None) -> None:
        if args is not None:
            self._has_answered = True
            self.is_silent = False

    def _give_up(self, client: Client, ack_id: int | None) -> None:
        if self._has_answered or self.is_silent:
            client.forget(ack_id)
        else:
            self.is_silent = True
            self._probe = ack_id  # it may come yet


def deliver(call: Call, client: Client, new_pending_ack: Callable[[str], PendingAck] = PendingAck) -> Delivery:
    """Queue a call for a client, in its mode."""
    mode = mode_for(call, client.mode)
    if mode == "notify":
        client.send(call)
        return Delivery(mode)
    if mode == LEGACY:
        return _deliver_legacy(call, client, new_pending_ack)
    pending_ack = new_pending_ack(mode)
    return Delivery(mode, pending_ack, partial(client.forget, client.send(call, pending_ack)))


def _deliver_legacy(call: Call, client: Client, new_pending_ack: Callable[[str], PendingAck]) -> Delivery:
    """Queue a call to `/go`. The caller waits for a client of mode `ack` or `reply`, or one that answers."""
    if client.mode != "notify":
        pending_ack = new_pending_ack(LEGACY)
        return Delivery("reply", pending_ack, partial(client.forget, client.send(call, pending_ack)))
    if client.answering is None:
        client.answering = Answering()
    if client.answering.is_silent:
        client.answering.notify(call, client)
        return Delivery("notify")
    pending_ack = new_pending_ack(LEGACY)
    return Delivery("reply", pending_ack, client.answering.deliver(call, client, pending_ack))
