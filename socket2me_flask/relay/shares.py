"""The events of a mailbox each of which one of the listeners of its token receives.

An outlet claims an event before it sends it, so that no other listener receives it meanwhile. In the store, a claim
belongs to the process. It is kept during a back-off, and released when the last listener of the process leaves.
"""

import threading
from collections.abc import Callable, Collection

from ..storage import StoredEvent
from .back_off import MAX_BACKED_OFF
from .delivery import Client
from .outlet import Mailboxes, Outlet
from .outlets import Outlets
from .recorder import Recorder
from .sources import Source


class Share(Source):
    """The events of a mailbox that one of its listeners claims: one at a time, so that all have their part.

    claimed: the events that are on their way to the listener, or are about to be.
    passed: the events that its filter leaves out.
    """

    def __init__(self, mailboxes: Mailboxes, token: str, client: Client, outlets: "ShareOutlets") -> None:
        super().__init__(mailboxes.store, token, client, mailboxes.resolve)
        self.shared_back_offs = self._outlets = outlets
        self.claimed: set[str] = set()
        self.passed: set[str] = set()
        self._is_closed = False

    def waiting(self, limit: int, known: Collection[str]) -> list[StoredEvent]:
        while True:
            event, may_go_on = self._claim(known)
            if event is not None or not may_go_on:
                return [] if event is None else [event]

    def _claim(self, known: Collection[str]) -> tuple[StoredEvent | None, bool]:
        """Claim the oldest event that is free. Return it; and if it is not wanted, whether there may be another."""
        outlets = self._outlets
        with outlets.lock:  # no other outlet claims what is being read
            if len(outlets.backed_off) >= MAX_BACKED_OFF:
                return None, False
            finished = set(outlets.finished)
            skipped = {*known, *outlets.claimed(without=self), *outlets.backed_off, *finished, *self.passed}
            events = {each.call.id: each for each in self._store.claim(self._token, len(skipped) + 1, skipped)}
            for event_id in finished:
                if event_id in events:
                    outlets.finished[event_id](self._token, event_id)  # the store has failed at it before
                else:
                    outlets.finished.pop(event_id, None)
            self.passed &= events.keys()
            free = next((each for each in events.values() if each.call.id not in skipped), None)
            if free is None:
                return None, False
            event_id = free.call.id
            if self._is_closed:  # its client has left meanwhile
                self._store.release(self._token, event_id)
                outlets.notify_next()
                return None, False
            if self._client.filter is None or self._wants(free):
                self.claimed.add(event_id)
                outlets.notify_next()
                return free, False
            self.passed.add(event_id)
            self._store.release(self._token, event_id)
        outlets.notify_next(without=self)
        return None, True

    def acknowledge(self, event_id: str) -> None:
        self._finish(event_id, is_dead_letter=False)

    def dead_letter(self, event_id: str) -> None:
        self._finish(event_id, is_dead_letter=True)

    def _finish(self, event_id: str, *, is_dead_letter: bool) -> None:
        end = self._store.dead_letter if is_dead_letter else self._store.acknowledge
        self._outlets.finished[event_id] = end
        self.claimed.discard(event_id)
        end(self._token, event_id)

    def forget(self, event_id: str) -> None:
        self.claimed.discard(event_id)

    def close(self) -> None:
        self._is_closed = True
        for event_id in self.claimed:
            self._store.release(self._token, event_id)
        self.claimed.clear()


class ShareOutlets(Outlets):
    """The outlets of listeners one of which receives each event. A failed event waits here, and not in its outlet.

    lock: held while an outlet claims an event.
    finished: the events that are not to be sent any more, and what the store was asked to do with each.
    """

    def __init__(self, mailboxes: Mailboxes, token: str) -> None:
        super().__init__(mailboxes, token)
        self.lock = threading.Lock()
        self._shares: dict[Outlet, Share] = {}
        self.finished: dict[str, Callable[[str, str], None]] = {}

    def remove(self, client: Client) -> list[str]:
        outlet = self._outlets.get(client)
        unfinished = super().remove(client)
        if outlet is not None:
            del self._shares[outlet]
        self._notify_all()
        return unfinished

    def close(self) -> list[str]:
        backed_off = list(self.backed_off)
        unfinished = super().close()
        for event_id in backed_off:  # no listener of this process is left to send them to
            self._mailboxes.store.release(self._token, event_id)
        return unfinished

    def claimed(self, *, without: Share) -> set[str]:
        """Return the events that others have claimed."""
        return {event_id for share in self._shares.values() if share is not without for event_id in share.claimed}

    def sweep(self) -> None:
        """Look for events that a process had claimed which was killed: nothing notifies of them."""
        self.notify()

    def notify(self) -> None:
        self.notify_next()

    def notify_next(self, without: Share | None = None) -> None:
        """Have one listener claim an event: of those with room in their windows, the one that has claimed least."""
        free = [
            (len(share.claimed), number, outlet)
            for number, (outlet, share) in enumerate(self._shares.items())
            if share is not without and len(share.claimed) < outlet.client.window
        ]
        if free:
            min(free)[2].notify()

    def retry(self, event_id: str) -> None:
        self._mailboxes.store.release(self._token, event_id)
        self._notify_all()

    def start_again(self, event_id: str) -> None:
        self.end_wait(event_id)
        for outlet, share in list(self._shares.items()):
            outlet.send_dropped(event_id)  # another may have it next
            outlet.forget(event_id)
            share.claimed.discard(event_id)
        self.finished.pop(event_id, None)
        self._mailboxes.store.release(self._token, event_id)

    def _notify_all(self) -> None:
        # Each may have to look at what another had: its filter may be the only one that holds.
        for outlet in self._all():
            outlet.notify()

    def _new(self, client: Client, recorder: Recorder | None, position: int) -> Outlet:
        share = Share(self._mailboxes, self._token, client, self)
        outlet = Outlet(self._mailboxes, self._token, client, recorder, share)
        self._shares[outlet] = share
        return outlet
