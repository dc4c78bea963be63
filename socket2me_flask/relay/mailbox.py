"""Mailboxes: an event stays until its client has acknowledged it, and is sent again until then.

Knows which callers wait for the outcome of an event, and which outlet has the events of a token: an `Outlet` for
`newest`, `PositionOutlets` for `all`, `ShareOutlets` for `one`. What is sent when is known to `outlet.py`.
`presence.py` has the attached clients.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..concurrency.timeout_queue import NewTimer
from ..errors import ClientLeft, EventDropped, RelayError, UnknownToken
from ..http.answers import Answer
from ..storage import MAX_LISTENERS_PER_TOKEN, MailboxStore
from .call import Call, process_of, this_process
from .delivery import Client, PendingAck, mode_for
from .outlet import Attempts, Outlet
from .outlets import Outlets
from .positions import PositionOutlets, position_id
from .recent_events import RecentEvents
from .recorder import Recorder
from .replies import kept
from .shares import ShareOutlets
from .sources import Source

log = logging.getLogger(__name__)


class Mailboxes:
    """What is delivered from mailboxes, and which callers wait for its outcome.

    `spawn` runs something in the background; `new_timer` makes a timer that the engine runs. `send_outcome` is
    called with the token, the id and the outcome of an event whose caller another process has. `recorder` records
    what becomes of the events of tokens that are inspected.
    """

    def __init__(
        self,
        store: MailboxStore,
        *,
        redeliver_seconds: float,
        max_attempts: int,
        spawn: Callable[[Callable[[], None]], object],
        new_timer: NewTimer,
        send_outcome: Callable[[str, str, Answer | RelayError], None],
        recorder: Recorder | None = None,
    ) -> None:
        self.store = store
        self.recorder = recorder
        self._send_outcome = send_outcome
        self.spawn = spawn
        self.attempts = Attempts(new_timer, most=max_attempts, redeliver_seconds=redeliver_seconds)
        self.recent = RecentEvents()
        self._outlets: dict[str, Outlet | Outlets] = {}  # by token
        self._several: dict[str, Outlets] = {}  # those of them that have several listeners
        self._awaited: dict[str, dict[str, PendingAck]] = {}  # by token and event
        self.listeners_forgotten = 0  # how many were away for too long
        self.aged_out = 0  # how many were dropped since they were too old

    def accept(self, call: Call, timeouts: Mapping[str, float]) -> Answer:
        """Store a call as an event, and return the answer for its caller: the client's in time, or `202`.

        `202` comes at once if no client is connected, if all clients are streams, if the client leaves, or if it
        rejects the event and no other may acknowledge it. `timeouts` are the seconds to wait in each mode.

        Raises what `MailboxStore.put` raises: then the event is not stored. Raises `BadReply`, `EventDropped` or
        `UnknownToken` if that comes of the event meanwhile.
        """
        pending_ack, trace = PendingAck("ack"), call.trace
        if trace is not None:
            trace.write()  # before any process can send it
        self._awaited.setdefault(call.token, {})[call.id] = pending_ack
        try:
            mode = self.store.put(call)
            call.body = b""  # the store has it, and many calls may wait here
            if trace is not None:
                trace.wait("queued", "in the mailbox")
            outlet = self._outlets.get(call.token)
            if outlet is not None:
                mode = outlet.mode if mode is None or outlet.mode != "notify" else mode
                outlet.notify()
            # A client of mode `notify` is a stream, which acknowledges later than a caller would wait.
            if mode not in (None, "notify") and pending_ack.wait(timeouts[mode_for(call, mode)]):
                with suppress(ClientLeft):
                    return pending_ack.answer()
            if trace is not None:
                trace.keep()
            return kept(call.id)
        finally:
            of_token = self._awaited[call.token]
            del of_token[call.id]
            if not of_token:
                del self._awaited[call.token]

    def notify(self, token: str) -> bool:
        """Look for events to deliver: another process has kept one. Return whether they go anywhere from here."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.notify()
        return outlet is not None

    def notify_all(self, yield_to_others: Callable[[], None]) -> None:
        """Do so for all, and yield now and then: the store was away, or a notification may have been missed."""
        for number, token in enumerate(list(self._outlets), 1):
            self.notify(token)
            if number % 100 == 0:
                yield_to_others()

    def open(self, token: str, client: Client, *, is_inspected: bool = False) -> None:
        """Deliver to `client`, and no longer to the one before."""
        self.close(token)
        recorder = self.recorder if is_inspected else None
        outlet = self._outlets[token] = Outlet(
            self, token, client, recorder, Source(self.store, token, client, self.resolve)
        )
        outlet.notify()

    def register(self, token: str, client: Client) -> int:
        """Return the position of a listener, if its token has positions.

        Raises `TooManyListeners` or `StoreUnavailable`.
        """
        return self.store.register(token, position_id(client)) if client.listeners == "all" else 0

    def check_room(self, token: str, client: Client) -> None:
        """Raise `TooManyListeners` if there is no room for the position of a listener.

        One with an id has a position from now on, for when it reconnects. Raises `StoreUnavailable`.
        """
        has_id = not client.listener.startswith("~")
        if client.listeners == "all" and (has_id or len(self.store.positions(token)) >= MAX_LISTENERS_PER_TOKEN):
            self.register(token, client)  # which forgets those of processes that have ended first
            if not has_id:
                self.store.unregister(token, position_id(client))

    def join(self, token: str, client: Client, position: int, *, is_inspected: bool = False) -> None:
        """Deliver to one more listener, from its position on."""
        outlets = self._several.get(token)
        if outlets is None:
            outlets = (PositionOutlets if client.listeners == "all" else ShareOutlets)(self, token)
            self._outlets[token] = self._several[token] = outlets
        outlets.open(client, self.recorder if is_inspected else None, position)

    def sweep(self, max_age_seconds: float, listener_ttl_seconds: float) -> None:
        """Drop events that are older, and forget listeners that were away for longer. Raises `StoreUnavailable`."""
        dropped = self.store.drop_older(time.time() - max_age_seconds)
        if dropped:
            self.aged_out += dropped
            log.warning("MAILBOX_MAX_AGE_SECONDS reached: %d events were dropped", dropped)
        for outlet in list(self._outlets.values()):
            outlet.sweep()
        forgotten = self.store.drop_absent(time.time() - listener_ttl_seconds)
        if forgotten:
            self.listeners_forgotten += forgotten
            log.warning("SOCKET2ME_LISTENER_TTL_SECONDS reached: %d listeners were forgotten", forgotten)

    def close(self, token: str, client: Client | None = None) -> None:
        """Deliver no more, and release the callers that wait; with `client`, only if it is to this one."""
        outlet = self._outlets.get(token)
        if outlet is not None and (client is None or outlet.detach(client)):
            self._close(token, ClientLeft())

    def end(self, token: str) -> None:
        """Deliver no more: the token does not live any more, and neither do its events."""
        self._close(token, UnknownToken())

    def _close(self, token: str, error: RelayError) -> None:
        outlet = self._outlets.pop(token, None)
        self._several.pop(token, None)
        for event_id in outlet.close() if outlet is not None else ():
            self.resolve(token, event_id, error)
        self.release(token, error)

    def drain(self) -> None:
        """Release the callers that wait: what is in the mailboxes stays there."""
        for token in list(self._awaited):
            self.release(token)

    def redeliver(self, token: str, event_id: str) -> None:
        """Send an event as if it never was. Raises `UnknownEvent` or `StoreUnavailable`.

        An acknowledgement of an earlier attempt still counts.
        """
        self.store.redeliver(token, event_id)
        self.retried(token, event_id)

    def retried(self, token: str, event_id: str) -> None:
        """Send an event again at once that the store has as new."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.start_again(event_id)
            outlet.notify()

    def delete(self, token: str, event_id: str) -> None:
        """Drop an event, whatever its state. Raises `UnknownEvent` or `StoreUnavailable`."""
        self.store.delete(token, event_id)
        self.resolve(token, event_id, EventDropped())
        self.dropped(token, event_id)

    def dropped(self, token: str, event_id: str) -> None:
        """Forget an event that was dropped from the store, and send `dropped` to a client that has it."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.send_dropped(event_id)
        self.forget(token, event_id)

    def forget(self, token: str, event_id: str) -> None:
        """Know nothing of an event any more: it was dropped, or is to be sent as if it never was."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.drop(event_id)
            outlet.notify()

    def in_flight(self, token: str) -> set[str]:
        """Return the ids of the events that are on their way to a client."""
        outlet = self._outlets.get(token)
        return set(outlet.sent) if outlet is not None else set()

    def resolve(self, token: str, event_id: str, outcome: Answer | RelayError) -> None:
        """Answer the caller, if it still waits, with the outcome of its event."""
        pending_ack = self._awaited.get(token, {}).get(event_id)
        if pending_ack is not None:
            pending_ack.resolve(outcome)
        elif process_of(event_id) != this_process():
            self._send_outcome(token, event_id, outcome)

    def release(self, token: str, error: RelayError | None = None) -> None:
        """Answer the callers that wait: by default that the client has left, so that their events are kept."""
        for pending_ack in list(self._awaited.get(token, {}).values()):
            pending_ack.resolve(error or ClientLeft())
