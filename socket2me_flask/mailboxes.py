"""Mailboxes: an event stays until its client acknowledged it, and is sent again until it does.

At least once, in order for each token. Knows stores and clients; who is connected, `relay.py` says.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from .delivery import Awaited, Client, mode_for
from .errors import ClientGone, ClientTooSlow, RelayError
from .messages import Call
from .replies import OK, Answer, kept
from .stores import MailboxStore, StoredEvent
from .timer import Timer

log = logging.getLogger(__name__)


class Mailboxes:
    """What is delivered from mailboxes, and who waits to hear of it.

    `spawn` runs something in the background; `new_timer` makes a timer that somebody runs.
    """

    def __init__(
        self,
        store: MailboxStore,
        *,
        redeliver_seconds: float,
        max_attempts: int,
        spawn: Callable[[Callable[[], None]], object],
        new_timer: Callable[[float, Callable[[Any], None]], Timer],
    ) -> None:
        self.store = store
        self.max_attempts = max_attempts
        self.spawn = spawn
        self.overdue = new_timer(redeliver_seconds, _Sent.give_up)
        self.retries = new_timer(redeliver_seconds, _Outlet.kick)
        self._outlets: dict[str, _Outlet] = {}  # by token
        self._awaited: dict[str, Awaited] = {}  # by event

    def accept(self, call: Call, timeouts: Mapping[str, float]) -> Answer:
        """Keep a call, and return what its caller hears: what its client said in time, or that it is kept.

        `timeouts` are the seconds to wait in each mode.

        Raises `MailboxFull`, `MailboxesFull` or `StoreUnavailable`: then it is not kept. Raises `BadReply`.
        """
        awaited = self._awaited[call.id] = Awaited()
        try:
            self.store.put(call)
            outlet = self._outlets.get(call.token)
            if outlet is None:
                return kept(call.id)
            outlet.kick()
            mode = mode_for(call, outlet.client)
            if not awaited.wait(timeouts[mode]) or awaited.has_failed:
                return kept(call.id)
            return awaited.reply() if mode == "reply" else OK
        finally:
            self._awaited.pop(call.id, None)

    def open(self, token: str, client: Client) -> None:
        """Deliver to `client`, and to nobody before it any more."""
        before = self._outlets.get(token)
        outlet = self._outlets[token] = _Outlet(self, token, client)
        if before is not None:
            before.close()
        outlet.kick()

    def close(self, token: str, client: Client | None = None) -> None:
        """Deliver no more; with `client`, only if it is to this one."""
        outlet = self._outlets.get(token)
        if outlet is not None and client in (None, outlet.client):
            del self._outlets[token]
            outlet.close()

    def kick(self, token: str) -> None:
        """Look whether there is something to deliver."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.kick()

    def in_flight(self, token: str) -> set[str]:
        """Return the ids of the events that are on their way to a client."""
        outlet = self._outlets.get(token)
        return set(outlet.sent) if outlet is not None else set()

    def settle(self, event_id: str, args: list[Any] | None) -> None:
        """Tell the caller, if it still waits, what its client said: None if it left."""
        awaited = self._awaited.get(event_id)
        if awaited is not None:
            awaited(args)


@dataclass(eq=False, slots=True)
class _Sent:
    """An event that is on its way to a client."""

    outlet: "_Outlet"
    event_id: str
    ack_id: int | None = None

    def give_up(self) -> None:
        """Send it again: its client did not acknowledge it in time."""
        self.outlet.client.forget(self.ack_id)
        if self.outlet.sent.pop(self.event_id, None) is self:
            self.outlet.kick()


class _Outlet:
    """From a mailbox to one client, which is the only one while this is open."""

    def __init__(self, mailboxes: Mailboxes, token: str, client: Client) -> None:
        self.client = client
        self.sent: dict[str, _Sent] = {}  # by event
        self._acknowledged: set[str] = set()  # and perhaps still in the store
        self._mailboxes = mailboxes
        self._token = token
        self._is_open = True
        self._is_running = False
        self._is_kicked = False
        self._lock = threading.Lock()

    def kick(self) -> None:
        """Look for events to send, in the background: there is no thread while there is nothing to do."""
        with self._lock:
            self._is_kicked = True
            if self._is_running or not self._is_open:
                return
            self._is_running = True
        self._mailboxes.spawn(self._run)

    def close(self) -> None:
        """Send no more. What is on its way counts as not delivered, whatever its client says from now on."""
        self._is_open = False
        sent, self.sent = self.sent, {}
        for one in sent.values():
            self._mailboxes.overdue.discard(one)
            self._mailboxes.settle(one.event_id, None)

    def _run(self) -> None:
        while self._may_run():
            try:
                self._fill()
            except (ClientGone, ClientTooSlow):
                self._mailboxes.close(self._token, self.client)
            except RelayError:
                self._mailboxes.retries.add(self)
            except Exception:
                log.exception("a mailbox was not delivered")
                self._mailboxes.retries.add(self)

    def _may_run(self) -> bool:
        with self._lock:
            self._is_running = self._is_open and self._is_kicked
            self._is_kicked = False
            return self._is_running

    def _fill(self) -> None:
        """Send the oldest events, up to the client's window."""
        window = self.client.window
        if len(self.sent) >= window:
            return
        store = self._mailboxes.store
        known = set(self._acknowledged)
        events = store.waiting(self._token, window + len(known))
        # The store has done what it was told before it was asked, unless it failed at it.
        left = known & {event.call.id for event in events}
        self._acknowledged -= known - left
        for event_id in left:
            store.acknowledge(event_id)
            self._mailboxes.retries.add(self)
        for event in events:
            if not self._is_open or len(self.sent) >= window:
                return
            if event.call.id in self.sent or event.call.id in self._acknowledged:
                continue
            if event.attempts >= self._mailboxes.max_attempts:
                store.set_aside(event.call.id)
                log.warning("MAX_ATTEMPTS bites: an event was sent %d times, and is set aside", event.attempts)
                self._is_kicked = True  # there may be room for another
                continue
            self._send(event)

    def _send(self, event: StoredEvent) -> None:
        event_id = event.call.id
        sent = self.sent[event_id] = _Sent(self, event_id)
        try:
            sent.ack_id = self.client.send(event.call, partial(self._on_ack, event_id), event.attempts + 1)
            self.client.flush()
        except Exception:
            self.sent.pop(event_id, None)
            raise
        self._mailboxes.store.attempted(event_id)
        if self.sent.get(event_id) is sent:  # it is not acknowledged yet
            self._mailboxes.overdue.add(sent)

    def _on_ack(self, event_id: str, args: list[Any] | None) -> None:
        if args is None or not self._is_open:
            return  # it left; whoever detaches it closes this
        sent = self.sent.pop(event_id, None)
        if sent is not None:
            self._mailboxes.overdue.discard(sent)
            self._acknowledged.add(event_id)
            self._mailboxes.store.acknowledge(event_id)
            self._mailboxes.settle(event_id, args)
            self.kick()
