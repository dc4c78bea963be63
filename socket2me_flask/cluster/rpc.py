"""The relay as several processes: a call that came to one reaches the client of another.

Knows the relay and the store in Redis. A call goes to the one process that has the token's client; that process
hands it over and says so, and only then does the caller hear `OK`. What it says later, of an acknowledgement or a
reply, comes in the same way. Whatever may have been lost on the way is answered `503`.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from ..concurrency.timeout_queue import TimeoutQueue
from ..errors import ClientGone, ClientLeft, PeerSilent, ProcessGone, RelayError, StoreUnavailable, UnknownToken
from ..http.answers import Answer
from ..relay.call import Call, process_of
from ..relay.delivery import Client, Delivery, PendingAck
from ..relay.hold_queue import HeldCall
from ..relay.mailbox import Mailboxes
from ..relay.relay import Relay, SingleProcess
from ..storage import Counts
from ..storage.redis import RedisStore
from .bus import Listener
from .messages import Message
from .routes import Route

log = logging.getLogger(__name__)

# How many clients are looked after at once when all have to be.
AT_ONCE = 200


# After this time a token is asked for again whose client may have been displaced.
RECHECK_SECONDS = 0.5


class Cluster(SingleProcess, Listener):
    """What this process asks of others, and does for them. Idle before `serve` is called.

    answer_wait_seconds: how long another process may take to confirm that it delivered a call.
    ack_wait_seconds: how long the caller waits for the acknowledgement after that.
    hold_seconds: how long a call waits before that for room in its client's window.
    new_timer: makes a timeout queue that the engine runs.
    note_yield: called when a caller has waited, so that other green threads have run.
    """

    def __init__(
        self,
        store: RedisStore,
        *,
        answer_wait_seconds: float,
        ack_wait_seconds: float,
        hold_seconds: float,
        new_timer: Callable[[float, Callable[[Any], None]], TimeoutQueue],
        note_yield: Callable[[], None],
    ) -> None:
        self._store = store
        self._bus = store.bus
        self._note_yield = note_yield
        self.answer_timeouts = new_timer(answer_wait_seconds, PendingRequest.give_up)
        self.queued = new_timer(answer_wait_seconds + hold_seconds, PendingRequest.give_up)
        self._held = new_timer(hold_seconds, self._give_up_held)
        self._rechecks = new_timer(RECHECK_SECONDS, self._look_again)
        self.ack_timeouts = new_timer(answer_wait_seconds + ack_wait_seconds, RemotePendingAck.give_up)
        self._numbers = count(1)
        self._requests: dict[int, PendingRequest] = {}  # what others are to answer
        self._remote_acks: dict[tuple[str, int], RemotePendingAck] = {}  # what they wait for
        self._relay: Relay
        self._mailboxes: Mailboxes
        self._handlers: dict[str, Callable[..., None]] = {}  # what is done at which kind of message

    def serve(self, relay: Relay) -> None:
        store, mailboxes = self._store, relay.mailboxes
        assert mailboxes is not None  # noqa: S101  # a store in Redis has them
        self._relay, self._mailboxes = relay, mailboxes
        self._handlers = {
            "notified": self._on_notified,
            "handed": self._on_handed,
            "queued": self._on_queued,
            "gone": self._on_gone,
            "outcome": self._on_outcome,
            "forget": self._on_forget,
            "answer": self._on_answer,
            "arrived": relay.presence.retry_held,
            "displaced": self._on_replaced,
            "refreshed": store.routes.refresh,
            "ended": self._on_ended,
            "kick": self._on_notify,
            "left": mailboxes.release,
            "deleted": mailboxes.dropped,
            "retried": mailboxes.retried,
            "dropped": mailboxes.forget,
            "settled": self._on_resolved,
            "in_flight": self._on_in_flight,
        }
        mailboxes.tell = self._tell
        self._bus.subscribe(self)
        store.connection.when_up(self._on_up)

    # What the relay asks

    def deliver(self, call: Call) -> Delivery | None:
        for _ in range(2):  # where it is, and where it is if it is not there any more
            route = self._store.routes.get(call.token)
            if route is None:
                break
            try:
                return self._deliver_to(call, route)
            except ClientGone as error:
                is_process = isinstance(error, ProcessGone)
                if self._store.refresh_route(call.token, route, unless_alive=is_process) is None:
                    raise UnknownToken from None
            except PeerSilent:
                self._store.routes.forget(call.token)  # the next call asks Redis whether that process still lives
                raise
        return None

    def watch(self, token: str, wait_seconds: float) -> bool:
        if self._store.watch(token, wait_seconds) is None:
            raise UnknownToken
        return self._store.routes.get(token) is not None

    def is_connected(self, token: str) -> bool:
        self._store.get(token)
        return self._store.routes.get(token) is not None

    def in_flight(self, token: str) -> set[str]:
        route = self._store.routes.get(token)
        if route is None:
            return set()
        try:
            return set(self._ask(route.process, "in_flight", token).wait())
        except ClientGone:
            return set()

    def counts(self, token: str) -> Counts:
        return self._store.counts(token)

    @property
    def has_waiting_peers(self) -> bool:
        return bool(self._remote_acks)

    def _deliver_to(self, call: Call, route: Route) -> Delivery:
        self._bus.check()
        request = self._ask(
            *(route.process, "call", call.token, call.method, call.path, call.query, call.headers),
            *(call.body, call.received_at, call.id, call.is_legacy),
        )
        mode: str = request.wait()
        self._note_yield()
        if request.pending_ack is None:
            return Delivery(mode)
        return Delivery(mode, request.pending_ack, partial(self._forget, route.process, request))

    def _ask(self, process: str, kind: str, *what: Any) -> "PendingRequest":
        request = PendingRequest(self, next(self._numbers))
        self._requests[request.number] = request
        self.answer_timeouts.add(request)
        self._bus.post(process, kind, self._store.process, request.number, *what)
        return request

    def forget(self, request: "PendingRequest") -> None:
        """Wait no more for what another process says."""
        self._requests.pop(request.number, None)

    def _forget(self, process: str, request: "PendingRequest") -> None:
        self.forget(request)
        self._bus.post(process, "forget", self._store.process, request.number)

    def _tell(self, token: str, event_id: str, outcome: Answer | RelayError) -> None:
        self._bus.post(process_of(event_id), "settled", token, event_id, _pack(outcome))

    # What others say

    def on_messages(self, messages: list[list[Any]]) -> None:
        calls = [(what[0], what[1], Call(*what[2:])) for kind, *what in messages if kind == "call"]
        if calls:
            self._on_calls(calls)
        for kind, *what in messages:
            if kind in self._handlers:  # a newer version may say more
                try:
                    self._handlers[kind](*what)
                except StoreUnavailable:
                    pass  # whatever was to be looked up is, when Redis is back
                except Exception:
                    log.exception("a message of another process was not handled")

    def _on_calls(self, request: list[tuple[str, int, Call]]) -> None:
        if not self._bus.is_in_sync:
            for process, number, _ in request:
                self._bus.post(process, "outcome", number, _pack(StoreUnavailable()))
            return
        taken = self._relay.take(
            [(call, partial(RemotePendingAck, self, process, number)) for process, number, call in request]
        )
        notified: dict[str, list[int]] = {}
        for (process, number, _), outcome in zip(request, taken, strict=True):
            if isinstance(outcome, ClientGone):
                self._bus.post(process, "gone", number)
            elif isinstance(outcome, RelayError):
                self._bus.post(process, "outcome", number, _pack(outcome))
            elif isinstance(outcome, HeldCall):
                # A process of the release before passes over this, and answers its caller that this one is silent.
                self._bus.post(process, "queued", number)
                self._held.add(outcome)
                self._relay.presence.when_released(
                    outcome, partial(self._on_held_released, process, number, outcome)
                )
            elif isinstance(outcome, Delivery):
                if isinstance(outcome.pending_ack, RemotePendingAck):
                    self._announce(process, number, outcome.mode, outcome.pending_ack, outcome.forget)
                else:
                    notified.setdefault(process, []).append(number)
        for process, numbers in notified.items():
            self._bus.post(process, "notified", numbers)

    def _announce(
        self, process: str, number: int, mode: str, remote_ack: "RemotePendingAck", forget: Callable[[], None]
    ) -> None:
        self._bus.post(process, "handed", self._store.process, number, mode)
        remote_ack.announce(forget)

    def _on_held_released(self, process: str, number: int, held: HeldCall) -> None:
        """Tell another process what became of its call, which waited for room in its client's window."""
        self._held.discard(held)
        if held.error is not None:
            error = held.error if isinstance(held.error, RelayError) else RelayError()
            self._bus.post(process, "outcome", number, _pack(error))
        elif held.delivery is None:
            self._bus.post(process, "gone", number)
        elif isinstance(held.delivery.pending_ack, RemotePendingAck):
            self._announce(process, number, held.delivery.mode, held.delivery.pending_ack, held.delivery.forget)
        else:
            self._bus.post(process, "notified", [number])

    def _give_up_held(self, held: HeldCall) -> None:
        self._relay.presence.give_up(held)

    def register(self, remote_ack: "RemotePendingAck") -> None:
        """Take note that another process waits."""
        self._remote_acks[remote_ack.process, remote_ack.number] = remote_ack
        self.ack_timeouts.add(remote_ack)

    def resolve(self, remote_ack: "RemotePendingAck", outcome: Answer | RelayError | None) -> None:
        """Tell another process what became of its call; None if it does not wait any more."""
        self._remote_acks.pop((remote_ack.process, remote_ack.number), None)
        self.ack_timeouts.discard(remote_ack)
        if outcome is not None:
            self._bus.post(remote_ack.process, "outcome", remote_ack.number, _pack(outcome))

    def _on_notified(self, numbers: list[int]) -> None:
        for number in numbers:
            self._on_answer(number, "notify")

    def _on_handed(self, process: str, number: int, mode: str) -> None:
        request = self._requests.get(number)
        if request is None:  # it came too late: its caller was answered
            self._bus.post(process, "forget", self._store.process, number)
        else:
            request.pending_ack = PendingAck(mode)
            request.answer(mode)

    def _on_queued(self, number: int) -> None:
        """A call waits at its client's process: it is silent on purpose, for a while."""
        request = self._requests.get(number)
        if request is not None:
            self.answer_timeouts.discard(request)
            self.queued.add(request)

    def _on_answer(self, number: int, value: Any, error: Exception | None = None) -> None:
        request = self._requests.pop(number, None)
        if request is not None:
            request.answer(value, error)

    def _on_gone(self, number: int) -> None:
        self._on_answer(number, None, ClientGone())

    def _on_outcome(self, number: int, packed: dict[str, Any]) -> None:
        request = self._requests.pop(number, None)
        if request is not None:
            request.resolve(_unpack(packed))

    def _on_forget(self, process: str, number: int) -> None:
        remote_ack = self._remote_acks.get((process, number))
        if remote_ack is not None:
            remote_ack.give_up()

    def _on_notify(self, token: str, client: str) -> None:
        here = self._relay.presence.get(token)
        if not self._mailboxes.notify(token) and here is None:
            self._store.detach(token, client)  # it left while Redis was away

    def _on_replaced(self, token: str, client: str) -> None:
        # Whether another client still has the token is asked again: it may have left at once, as a connection does
        # that its client had given up; and if two came at once, Redis may have heard of the first as the last.
        self._store.routes.invalidate(token)
        self._look_after_one(token)

    def _look_after_one(self, token: str) -> None:
        here = self._relay.presence.get(token)
        if here is not None:
            try:
                self._look_after([(token, here)])
            except StoreUnavailable:
                self._rechecks.add(token)  # Redis may be full, or just lost: asked again until it answers

    def _look_again(self, token: str) -> None:
        self._mailboxes.spawn(partial(self._look_after_one, token))

    def _on_ended(self, token: str) -> None:
        self._store.routes.invalidate(token)
        self._relay.presence.end(token)

    def _on_resolved(self, token: str, event_id: str, packed: dict[str, Any]) -> None:
        self._mailboxes.resolve(token, event_id, _unpack(packed))

    def _on_in_flight(self, process: str, number: int, token: str) -> None:
        self._bus.post(process, "answer", number, list(self._mailboxes.in_flight(token)))

    def on_lost(self, messages: Sequence[Message], is_gone: bool) -> None:
        """Let go who waits for what did not arrive: its process is gone, or Redis is."""
        for kind, *what in messages:
            if kind in ("call", "in_flight"):
                self._on_answer(what[1], None, ProcessGone() if is_gone else StoreUnavailable())

    def on_heartbeat(self) -> None:
        for token, counts in self._relay.token_counts.take().items():
            self._store.count(token, counts)

    def on_in_sync(self) -> None:
        self._relay.presence.retry_all_held()

    def on_resync(self) -> None:
        """Look after every client of this process: its token may have ended, or another client may have come."""
        self._store.routes.invalidate_all()
        clients = self._relay.presence.clients()
        for start in range(0, len(clients), AT_ONCE):
            self._look_after(clients[start : start + AT_ONCE])
            time.sleep(0)
        self._mailboxes.notify_all(partial(time.sleep, 0))

    def _on_up(self) -> None:
        """Deliver what could not be delivered, or was not known to be acknowledged, while Redis was away."""
        self._mailboxes.spawn(partial(self._mailboxes.notify_all, partial(time.sleep, 0)))

    def _look_after(self, clients: list[tuple[str, Client]]) -> None:
        """Send away those whose token has ended, or who are not its newest any more."""
        outcomes = self._store.attach_again([(token, client.sid, client.mode) for token, client in clients])
        for (token, client), is_here in zip(clients, outcomes, strict=True):
            if is_here is None:
                self._relay.presence.end(token)
            elif not is_here:
                self._relay.presence.replace_client(token, client.sid)


class PendingRequest:
    """Something that another process was asked, and what it says. After `delivery` comes, perhaps, an outcome."""

    __slots__ = ("_error", "_is_answered", "_peers", "_value", "_wait", "number", "pending_ack")

    def __init__(self, peers: Cluster, number: int) -> None:
        self._peers = peers
        self.number = number
        self.pending_ack: PendingAck | None = None
        self._value: Any = None
        self._error: Exception | None = None
        self._is_answered = False
        # Held until there is an answer: an Event costs three times as much, and every call to a peer waits here.
        self._wait = threading.Lock()
        self._wait.acquire()

    def wait(self) -> Any:
        """Return what it says. Raises `PeerSilent` if that does not come in time, or what it says went wrong."""
        self._wait.acquire()
        if self._error is not None:
            raise self._error
        return self._value

    def answer(self, value: Any, error: Exception | None = None) -> None:
        """Let go who waits, with what it says, or with what went wrong."""
        if not self._is_answered:
            self._is_answered = True
            self._peers.answer_timeouts.discard(self)
            self._peers.queued.discard(self)
            self._value, self._error = value, error
            self._wait.release()

    def give_up(self) -> None:
        """It did not say anything in time."""
        self._peers.forget(self)
        self.answer(None, PeerSilent())

    def resolve(self, outcome: Answer | RelayError) -> None:
        """Bring the outcome of a call that was handed over; or, if it was not, why."""
        if self.pending_ack is not None:
            self.pending_ack.resolve(outcome)
        elif isinstance(outcome, RelayError):
            self.answer(None, outcome)


class RemotePendingAck(PendingAck):
    """An acknowledgement that another process waits for. It hears first that the call was handed over."""

    __slots__ = ("_forget", "_is_announced", "_is_done", "_lock", "_peers", "number", "process")

    def __init__(self, peers: Cluster, process: str, number: int, mode: str) -> None:
        super().__init__(mode)
        self._peers = peers
        self.process = process
        self.number = number
        self._is_announced = self._is_done = False
        self._lock = threading.Lock()

    def resolve(self, outcome: Answer | RelayError) -> None:
        super().resolve(outcome)
        self._tell()

    def announce(self, forget: Callable[[], None]) -> None:
        """Tell from now on, or `forget`: that the call was handed over was said."""
        self._forget = forget
        self._peers.register(self)
        self._is_announced = True
        self._tell()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._finish(None)
        self._forget()

    def _tell(self) -> None:
        if self.is_resolved and self._is_announced:
            self._finish(self._outcome)

    def _finish(self, outcome: Answer | RelayError | None) -> None:
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
        self._peers.resolve(self, outcome)


def _pack(outcome: Answer | RelayError) -> dict[str, Any]:
    if isinstance(outcome, Answer):
        return {"status": outcome.status, "headers": outcome.headers, "body": outcome.body}
    return {
        "status": outcome.status,
        "code": outcome.code,
        "message": str(outcome),
        "is_temporary": outcome.is_temporary,
        "retry_after_seconds": outcome.retry_after_seconds,
        "setting": outcome.setting,
    }


def _unpack(packed: dict[str, Any]) -> Answer | RelayError:
    if "body" in packed:
        headers = [(name, value) for name, value in packed["headers"]]
        return Answer(packed["status"], headers, packed["body"])
    if packed["code"] == ClientLeft.code:
        return ClientLeft()
    error = RelayError(packed["message"], retry_after_seconds=packed["retry_after_seconds"])
    error.status, error.code = packed["status"], packed["code"]
    error.is_temporary, error.setting = packed["is_temporary"], packed["setting"]
    return error
