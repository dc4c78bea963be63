"""Which client has which token: attach, detach, replace; and the calls that wait for one.

Knows a client only as something that accepts calls (`delivery.Client`). Of a token that may have several, the
client is a `listeners.ListenerGroup`. No Flask, no Socket.IO.

`Relay` sends a call to an attached client by itself, unless the client has chosen its window. All other calls go
through `Presence.deliver_or_hold`, which keeps their order.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial

from socket2me.inspector.history import History

from ..errors import (
    ClientBusy,
    ClientGone,
    NobodyConnected,
    ShuttingDown,
    StoreUnavailable,
    TooManyListeners,
    UnknownToken,
)
from ..storage import MAX_LISTENERS_PER_TOKEN, TokenRecord, TokenStore
from .call import Call
from .delivery import Client, Delivery, deliver
from .hold_queue import HoldQueue, PendingDelivery
from .listeners import Clients
from .mailbox import Mailboxes
from .token_counts import TokenCounts

log = logging.getLogger(__name__)


class Presence:
    """The clients of this process: one a token, the newest wins, or a group of listeners.

    Calls for one token reach its client in the order in which they were accepted; those that were held for it go
    first.
    """

    def __init__(
        self,
        store: TokenStore,
        held: HoldQueue,
        mailboxes: Mailboxes | None,
        counts: TokenCounts,
        history: History | None = None,
    ) -> None:
        self._store = store
        self.held = held
        self.mailboxes = mailboxes
        self._counts = counts
        self._history = history
        self.attached = Clients()  # to look at: attaching and detaching is done here
        self._lock = threading.Lock()  # guards the step from "no client" to "held", and back

    def __contains__(self, token: str) -> bool:
        return token in self.attached

    def __len__(self) -> int:
        return self.attached.count

    def get(self, token: str) -> Client | None:
        """Return the client of a token, if it is attached to this process."""
        return self.attached.get(token)

    def clients(self) -> list[tuple[str, Client]]:
        """Return the tokens whose clients this process has, and what is attached to each."""
        return list(self.attached.items())

    def attach(self, token: str, client: Client) -> None:
        """Make `client` the token's one client, deliver what was held, and disconnect the one before.

        Of a token that may have several it becomes another one, and replaces one with the same id only.
        """
        if client.listeners != "newest":
            self._join(token, client)
            return
        with self._lock:
            replaced = self.attached.get(token)
            if not self._flush_held(token, client):
                return
            self.attached[token] = client
        try:
            record = self._store.attach(token, client.sid, client.mode)
        except StoreUnavailable:
            self._attach_failed(token, client, replaced)
            return
        if replaced is not None:
            replaced.disconnect("replaced")
        if record is None or client.secret_hash not in (None, record.secret_hash):
            self.end(token)  # it ended since the client asked whether it lives; a name may be another's by now
        elif record.mailbox and self.mailboxes is not None:
            with self._lock:
                if self.attached.get(token) is client:
                    self.mailboxes.open(token, client, is_inspected=record.inspect)

    def _join(self, token: str, client: Client) -> None:
        """Add a listener to those of its token. Raises `TooManyListeners` if others came since it was accepted."""
        with self._lock:
            group, replaced = self.attached.join(token, client)
            self._flush_held(token, group)
        try:
            record = self._store.attach(token, group.sid, group.mode)
            if record is not None:
                self._store.join(token, client.listener)
            mailboxes = self.mailboxes if record is not None and record.mailbox else None
            position = mailboxes.register(token, client) if mailboxes is not None else 0
        except TooManyListeners:
            self.detach(token, client)
            raise
        except StoreUnavailable:
            self.detach(token, client)
            for each in filter(None, (client, replaced)):
                each.drop_connection()
            return
        if replaced is not None:
            replaced.disconnect("replaced")
        if record is None or client.secret_hash not in (None, record.secret_hash):
            self.end(token)
        elif mailboxes is not None:
            with self._lock:
                if self.attached.attached_with(token, client) is not None:
                    mailboxes.join(token, client, position, is_inspected=record.inspect)

    def _attach_failed(self, token: str, client: Client, replaced: Client | None) -> None:
        """Leave the token to the client that it had, and have the new one try again."""
        with self._lock:
            if replaced is not None and self.attached.get(token) is client:
                self.attached[token] = replaced
        self.detach(token, client)
        client.drop_connection()

    def detach(self, token: str, client: Client) -> None:
        """Forget `client`, unless another has replaced it."""
        with self._lock:
            attached = self.attached.remove(token, client)
            if self.mailboxes is not None:
                self.mailboxes.close(token, client)
        if client.listeners != "newest" and not self.attached.has(token, client.listener):
            self._store.leave(token, client.listener)
        if attached is not None:
            self._store.detach(token, attached.sid)
            self._retry_bounded(token, attached)

    def replace_client(self, token: str, sid: str) -> None:
        """Disconnect a client, if it is still here: another process has the token's newest."""
        with self._lock:
            client = self.attached.get(token)
            if client is None or client.sid != sid:
                return
            del self.attached[token]
            if self.mailboxes is not None:
                self.mailboxes.close(token, client)
        client.disconnect("replaced")
        self._retry_bounded(token, client)

    def deliver_held(self, token: str, client: Client) -> None:
        """Deliver what waits for room in a client's window."""
        if token in self.held:
            with self._lock:
                attached = self.attached.attached_with(token, client)
                if attached is not None:
                    self._flush_held(token, attached)

    def retry_held(self, token: str) -> None:
        """Have calls that are held go where their client is: it came to another process."""
        with self._lock:
            self.held.release_all(token)

    def retry_all_held(self) -> None:
        """Have all that are held look again for their clients: it may have been missed that one came."""
        for token in self.held.tokens():
            self.retry_held(token)

    def drain(self) -> None:
        """Answer all that wait for a client: this process takes no more."""
        with self._lock:
            for token in self.held.tokens():
                self.held.release_all(token, ShuttingDown())

    def end(self, token: str) -> None:
        """Disconnect the client and release the calls of a token that does not live any more."""
        with self._lock:
            self._counts.forget(token)
            client = self.attached.remove_all(token)
            if self.mailboxes is not None:
                self.mailboxes.end(token)
            self.held.release_all(token, UnknownToken())
        if self._history is not None:
            self._history.end(token)
        if client is not None:
            try:
                client.disconnect()
            except Exception:
                log.exception("a client was not disconnected")

    def deliver_or_hold(
        self, pending: PendingDelivery, *, may_hold: bool = True, needs_client: bool = False
    ) -> None:
        """Queue a call for its client, or hold it until a client is attached, or until there is room in its window.

        Raises `NobodyConnected` or `ClientBusy` if it may not be held, `ClientGone` if it needs a client and none
        is here, and what `HoldQueue.add` and `Client.send` raise.
        """
        token = pending.call.token
        with self._lock:
            client = self.attached.get(token)
            if client is not None and self._may_deliver(pending.call, client):
                try:
                    delivery = self._deliver(pending, client)
                    client.flush()
                    pending.release(delivery)
                    return
                except ClientGone:
                    if needs_client:
                        raise
                    self.attached.remove_all(token)
                    self._store.detach(token, client.sid)
                    client = None
            if client is None and needs_client:
                raise ClientGone
            if not may_hold:
                raise NobodyConnected if client is None else ClientBusy
            self.held.add(pending)

    def when_released(self, held: PendingDelivery, on_released: Callable[[], None]) -> None:
        """Have `on_released` called when a held call waits no more, which may be so already."""
        with self._lock:
            is_watched = held.watch(on_released)
        if not is_watched:
            on_released()

    def give_up(self, held: PendingDelivery) -> None:
        """End the wait of a held call: there was no room in its client's window in time."""
        with self._lock:
            if not held.is_released:
                is_here = held.call.token in self.attached
                self.held.release(held, error=ClientBusy() if is_here else NobodyConnected())

    def stop_holding(self, held: PendingDelivery) -> bool:
        """Take a call out of its queue. Return False if it was released at the last moment."""
        with self._lock:
            if held.is_released:
                return False
            self.held.remove(held)
            return True

    def _flush_held(self, token: str, client: Client) -> bool:
        """Give a client what is held for its token, oldest first, as far as its window. Return False if it left."""
        while (held := self.held.oldest(token)) and client.has_room_for(held.call):
            try:
                delivery = self._deliver(held, client)
                client.flush()
            except ClientGone:
                return False
            except Exception as error:
                self.held.release(held, error=error)  # its caller receives it; the others are not concerned
            else:
                self.held.release(held, delivery)
        return True

    def _retry_bounded(self, token: str, client: Client) -> None:
        """Have calls look for another client that waited for room in the window of one that has gone."""
        if client.bounds_calls and token in self.held:
            self.retry_held(token)

    def _may_deliver(self, call: Call, client: Client) -> bool:
        """Say whether a call may go to a client now: there is room, and none waits for it that came before."""
        return not client.bounds_calls or (call.token not in self.held and client.has_room_for(call))

    def _deliver(self, pending: PendingDelivery, client: Client) -> Delivery:
        """Queue a call for a client. Once its caller waits no more, another has its place in the window."""
        delivery = deliver(pending.call, client, pending.new_pending_ack)
        if not client.bounds_calls:
            return delivery
        forget = partial(self._forget, pending.call.token, client, delivery.forget)
        return Delivery(delivery.mode, delivery.pending_ack, forget)

    def _forget(self, token: str, client: Client, forget: Callable[[], None]) -> None:
        forget()
        self.deliver_held(token, client)


def check_room(presence: Presence, store: TokenStore, record: TokenRecord, client: Client) -> None:
    """Raise `TooManyListeners` if a token has no room for another listener, with those elsewhere or away.

    One with a name has a position from now on, if the token has positions. Raises `StoreUnavailable`.
    """
    token = record.token
    presence.attached.check_room(token, client)
    here = {each.listener for each in presence.attached.of(token)}
    if len({*here, *store.listeners_elsewhere(token)} - {client.listener}) >= MAX_LISTENERS_PER_TOKEN:
        raise TooManyListeners
    if record.mailbox and presence.mailboxes is not None:
        presence.mailboxes.check_room(token, client)
