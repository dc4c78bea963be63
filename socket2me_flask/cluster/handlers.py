"""What this process does with the messages of other processes, and after it may have missed some.

Knows the relay and the store in Redis. Responses to the requests of this process are in `requests.py`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from ..concurrency.timeout_queue import NewTimer
from ..errors import ClientGone, ProcessGone, RelayError, StoreUnavailable
from ..relay.call import Call
from ..relay.delivery import Client
from ..relay.hold_queue import PendingDelivery
from ..relay.listing import shown
from ..relay.relay import Relay
from .bus import Listener
from .cluster import Cluster
from .messages import Message, pack_outcome, unpack_outcome
from .remote_acks import RemotePendingAck

log = logging.getLogger(__name__)

# How many clients are looked up at once in a resync.
AT_ONCE = 200

# After this time a token is looked up again whose client may have been replaced.
RECHECK_SECONDS = 0.5


class Handlers(Listener):
    """Carries out for other processes what they ask of `relay`, from when the store is started.

    hold_seconds: how long a call waits for room in its client's window.
    new_timer: makes a timeout queue that the engine runs.
    """

    def __init__(
        self,
        cluster: Cluster,
        relay: Relay,
        *,
        hold_seconds: float,
        new_timer: NewTimer,
    ) -> None:
        mailboxes = relay.mailboxes
        assert mailboxes is not None  # noqa: S101  # a store in Redis has them
        self._store = store = cluster.store
        self._bus = store.bus
        self._relay = relay
        self._presence = relay.presence
        self._mailboxes = mailboxes
        self._requests = requests = cluster.requests
        self._remote_acks = remote_acks = cluster.remote_acks
        self._held = new_timer(hold_seconds, self._presence.give_up)
        self._rechecks = new_timer(RECHECK_SECONDS, self._recheck_soon)
        self._handlers: dict[str, Callable[..., None]] = {
            **requests.handlers,
            "forget": remote_acks.forget,
            "arrived": self._presence.retry_held,
            "displaced": self._on_replaced,
            "replaced": self._on_listener_replaced,
            "refreshed": store.routes.refresh,
            "ended": self._on_ended,
            "kick": self._on_event_kept,
            "left": mailboxes.release,
            "deleted": mailboxes.dropped,
            "retried": mailboxes.retried,
            "dropped": mailboxes.forget,
            "settled": self._on_outcome_of_event,
            "in_flight": self._on_in_flight,
            "listeners": self._on_listeners,
            "changed": store.history.watches.notify,
        }
        store.bus.subscribe(self)
        store.connection.when_up(self._on_up)

    def on_messages(self, messages: Sequence[Message]) -> None:
        calls = [(values[0], values[1], Call(*values[2:])) for kind, *values in messages if kind == "call"]
        if calls:
            self._on_calls(calls)
        for kind, *values in messages:
            if kind in self._handlers:
                try:
                    self._handlers[kind](*values)
                except StoreUnavailable:
                    pass  # whatever was to be looked up is, when Redis is back
                except Exception:
                    log.exception("a message of another process was not handled")

    def on_lost(self, messages: Sequence[Message], is_gone: bool) -> None:
        self._requests.fail(messages, ProcessGone if is_gone else StoreUnavailable)

    def on_heartbeat(self) -> None:
        for token, counts in self._relay.token_counts.take().items():
            self._store.count(token, counts)

    def on_resync(self) -> None:
        """Look up every client of this process: its token may have ended, or another client may have come."""
        self._store.routes.invalidate_all()
        clients = self._presence.clients()
        for start in range(0, len(clients), AT_ONCE):
            self._look_up(clients[start : start + AT_ONCE])
            time.sleep(0)
        self._mailboxes.notify_all(partial(time.sleep, 0))

    def on_in_sync(self) -> None:
        self._presence.retry_all_held()

    def _on_up(self) -> None:
        """Deliver what could not be delivered, or was not known to be acknowledged, while Redis was down."""
        self._mailboxes.spawn(partial(self._mailboxes.notify_all, partial(time.sleep, 0)))

    # Calls

    def _on_calls(self, calls: list[tuple[str, int, Call]]) -> None:
        if not self._bus.is_in_sync:
            for process, number, _ in calls:
                self._bus.post(process, "outcome", number, pack_outcome(StoreUnavailable()))
            return
        taken = self._relay.deliver_for_peers(
            [(call, self._remote_acks.maker(process, number)) for process, number, call in calls]
        )
        notified: dict[str, list[int]] = {}
        for (process, number, _), pending in zip(calls, taken, strict=True):
            if not pending.is_released:
                # A process of the release before skips this, and answers its caller that this one is silent.
                self._bus.post(process, "queued", number)
                self._held.add(pending)
                self._presence.when_released(pending, partial(self._on_released, process, number, pending))
            elif pending.error is None and pending.delivery is not None and pending.delivery.pending_ack is None:
                notified.setdefault(process, []).append(number)
            else:
                self._respond(process, number, pending)
        for process, numbers in notified.items():
            self._bus.post(process, "notified", numbers)

    def _on_released(self, process: str, number: int, held: PendingDelivery) -> None:
        """Respond to a call that waited for room in its client's window."""
        self._held.discard(held)
        self._respond(process, number, held)

    def _respond(self, process: str, number: int, pending: PendingDelivery) -> None:
        try:
            delivery = pending.result()
            if delivery is None:
                raise ClientGone
        except ClientGone:
            self._bus.post(process, "gone", number)
        except RelayError as error:
            self._bus.post(process, "outcome", number, pack_outcome(error))
        except Exception:
            log.exception("a call of another process was not delivered")
            self._bus.post(process, "outcome", number, pack_outcome(RelayError()))
        else:
            if delivery.pending_ack is None:
                self._bus.post(process, "notified", [number])
            else:
                self._remote_acks.announce(cast(RemotePendingAck, delivery.pending_ack), delivery)

    # Clients and tokens

    def _on_replaced(self, token: str, client: str) -> None:
        # Whether another client still has the token is looked up: it may have left at once, as a connection does
        # that its client had given up; and if two came at once, the first may have reached Redis as the last.
        self._store.routes.invalidate(token)
        self._recheck(token)

    def _on_listener_replaced(self, token: str, listener: str) -> None:
        if self._store.has_listener(token, listener):
            return  # it has reconnected here since
        for client in self._presence.attached.of(token):
            if client.listener == listener:
                self._presence.detach(token, client)
                client.disconnect("replaced")

    def _recheck(self, token: str) -> None:
        here = self._presence.get(token)
        if here is not None:
            try:
                self._look_up([(token, here)])
            except StoreUnavailable:
                self._rechecks.add(token)  # Redis may be full, or just lost: asked again until it answers

    def _recheck_soon(self, token: str) -> None:
        self._mailboxes.spawn(partial(self._recheck, token))

    def _look_up(self, clients: list[tuple[str, Client]]) -> None:
        """Disconnect those whose token has ended, and those that are not its newest any more."""
        outcomes = self._store.attach_again(
            [(token, client.sid, client.mode, client.secret_hash) for token, client in clients]
        )
        for (token, client), is_here in zip(clients, outcomes, strict=True):
            if is_here is None:
                self._presence.end(token)
            elif not is_here:
                self._presence.replace_client(token, client.sid)

    def _on_ended(self, token: str) -> None:
        self._store.routes.invalidate(token)
        self._presence.end(token)

    # Mailboxes

    def _on_event_kept(self, token: str, client: str) -> None:
        here = self._presence.get(token)
        if not self._mailboxes.notify(token) and here is None:
            self._store.detach(token, client)  # it left while Redis was down

    def _on_outcome_of_event(self, token: str, event_id: str, packed: dict[str, Any]) -> None:
        self._mailboxes.resolve(token, event_id, unpack_outcome(packed))

    def _on_listeners(self, process: str, number: int, token: str) -> None:
        self._bus.post(process, "answer", number, [shown(client) for client in self._presence.attached.of(token)])

    def _on_in_flight(self, process: str, number: int, token: str) -> None:
        self._bus.post(process, "answer", number, list(self._mailboxes.in_flight(token)))
