"""The outlets of the listeners of a token, which are one outlet to `mailbox.py`."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .delivery import Client
from .listeners import common_mode
from .outlet import HasBackedOff, Outlet
from .recorder import Recorder
from .sources import Cursor, Share

if TYPE_CHECKING:
    from .mailbox import Mailboxes


class Outlets(HasBackedOff):
    """An outlet for each listener of a token that is attached to this process."""

    def __init__(self, mailboxes: "Mailboxes", token: str) -> None:
        super().__init__()
        self._mailboxes = mailboxes
        self._token = token
        self._outlets: dict[Client, Outlet] = {}

    def __len__(self) -> int:
        return len(self._outlets)

    def get(self, client: Client) -> Outlet | None:
        """Return the outlet of a listener."""
        return self._outlets.get(client)

    @property
    def mode(self) -> str:
        """The mode of the callers."""
        return common_mode(self._outlets)

    @property
    def sent(self) -> set[str]:
        """The ids of the events that are on their way to some listener."""
        return {event_id for outlet in self._all() for event_id in outlet.sent}

    def open(self, client: Client, recorder: Recorder | None, position: int) -> None:
        """Deliver to one more listener, and no longer to one with the same id."""
        for other in list(self._outlets):
            if other.listener == client.listener:
                self.remove(other)
        self._outlets[client] = self._new(client, recorder, position)
        self.notify()

    def remove(self, client: Client) -> list[str]:
        """Deliver no more to a listener. Return the ids of what it has not acknowledged."""
        outlet = self._outlets.pop(client, None)
        return outlet.close() if outlet is not None else []

    def close(self) -> list[str]:
        """Deliver no more. Return the ids of what is not acknowledged."""
        unfinished = [event_id for client in list(self._outlets) for event_id in self.remove(client)]
        for event_id in list(self.backed_off):
            self.end_wait(event_id)
        return unfinished

    def notify(self) -> None:
        """Look for events to deliver."""
        for outlet in self._all():
            outlet.notify()

    def send_dropped(self, event_id: str) -> None:
        """Send `dropped` to the listeners that have an event which they did not acknowledge."""
        for outlet in self._all():
            outlet.send_dropped(event_id)

    def drop(self, event_id: str) -> None:
        """Know nothing of an event any more: it was dropped."""
        self.end_wait(event_id)
        for outlet in self._all():
            outlet.drop(event_id)

    def start_again(self, event_id: str) -> None:
        """Let an event be sent again at once."""
        for outlet in self._all():
            outlet.start_again(event_id)

    def _all(self) -> list[Outlet]:
        return list(self._outlets.values())

    def _new(self, client: Client, recorder: Recorder | None, position: int) -> Outlet:
        raise NotImplementedError


class PositionOutlets(Outlets):
    """The outlets of listeners each of which receives all events."""

    def positions(self) -> dict[str, int]:
        """Return up to which event each listener has all of them."""
        cursors = (outlet.source for outlet in self._all())
        return {cursor.id: cursor.position for cursor in cursors if isinstance(cursor, Cursor)}

    def _new(self, client: Client, recorder: Recorder | None, position: int) -> Outlet:
        source = Cursor(self._mailboxes, self._token, client, position, self)
        return Outlet(self._mailboxes, self._token, client, recorder, source)


class ShareOutlets(Outlets):
    """The outlets of listeners one of which receives each event. `lock` is held while one claims an event."""

    def __init__(self, mailboxes: "Mailboxes", token: str) -> None:
        super().__init__(mailboxes, token)
        self.lock = threading.Lock()
        self._shares: dict[Outlet, Share] = {}
        # What is not to be sent any more, and what the store was asked to do with it.
        self.finished: dict[str, Callable[[str, str], None]] = {}

    def remove(self, client: Client) -> list[str]:
        outlet = self._outlets.get(client)
        unfinished = super().remove(client)
        if outlet is not None:
            del self._shares[outlet]
        self._notify_all()
        return unfinished

    def claimed(self, *, without: Share) -> set[str]:
        """Return the events that others have claimed."""
        return {event_id for share in self._shares.values() if share is not without for event_id in share.claimed}

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
