"""The events of a mailbox each of which all listeners of its token receive.

The mailbox has the position of each listener, which is the number of the event up to which it has acknowledged all.
The store drops what all have passed. A listener passes an event, too, when its filter leaves it out, and when its
last attempt has failed. In the last case the event is a dead letter once all listeners have passed it.

Each outlet counts its own attempts, from 1 for each connection of a listener. The store counts none.
"""

from collections.abc import Collection
from typing import Any

from ..storage import StoredEvent
from .call import this_process
from .delivery import Client
from .outlet import Mailboxes, Outlet
from .outlets import Outlets
from .recorder import Recorder
from .sources import Source


def position_id(client: Client) -> str:
    """Return the id by which a store knows the position of a listener.

    One that has not chosen an id has a position while it is connected. Its process is in this id, so that the
    position has no owner if that process has ended.
    """
    name = client.listener
    return f"~{this_process()}.{name[1:]}" if name.startswith("~") else name


class Cursor(Source):
    """The events of a mailbox for one of all its listeners, from its position on.

    position: the number of the event up to which the listener has passed all.
    """

    def __init__(
        self, mailboxes: Mailboxes, token: str, client: Client, position: int, outlets: "PositionOutlets"
    ) -> None:
        super().__init__(mailboxes.store, token, client, mailboxes.resolve)
        self._recent = mailboxes.recent
        self._outlets = outlets
        self.id = position_id(client)
        self.position = position
        self._read_up_to = position  # all events up to here were read
        self._numbers: dict[str, int] = {}  # of those of them that are not done, in their order
        self._done: dict[str, int] = {}  # of those that are, but have one before them that is not

    @property
    def is_alone(self) -> bool:
        return len(self._outlets) == 1

    def _read(self, limit: int, known: Collection[str]) -> list[StoredEvent]:
        recent = self._recent
        without_content = {*known, *self._done, *recent.ids()}
        read = self._store.waiting(self._token, limit + len(self._done), without_content, after=self.position)
        ids = {event.call.id for event in read}
        # What is missing before the last that was read was dropped for its age, or has become a dead letter.
        up_to = read[-1].number if read else self._read_up_to
        for event_id in [each for each, number in self._numbers.items() if number <= up_to and each not in ids]:
            self._finish(event_id)
        for event in read:
            if event.number > self._read_up_to:
                self._numbers.pop(event.call.id, None)  # it was redelivered, and has another number
                self._numbers[event.call.id] = self._read_up_to = event.number
        self._advance()
        events = []
        for event in read:
            event_id = event.call.id
            if event_id not in self._numbers:
                continue
            if event_id not in without_content:
                recent.add(event.call)
            found = recent.get(event_id)
            if found is None and event_id not in known and event_id in without_content:
                return self._read(limit, known)  # it is not remembered any more
            call = event.call if found is None else found.call
            # Each listener counts its own attempts.
            events.append(StoredEvent(call, 0, is_dead_letter=False, size=event.size, number=event.number))
        return events

    def encoded(self, event_id: str) -> dict[bool, Any] | None:
        found = self._recent.get(event_id)
        return found.encoded if found is not None else None

    def attempted(self, event_id: str) -> None:
        pass

    def acknowledge(self, event_id: str) -> None:
        self._finish(event_id)
        self._advance()

    def dead_letter(self, event_id: str) -> None:
        self._store.fail(self._token, event_id)
        self.acknowledge(event_id)

    def forget(self, event_id: str) -> None:
        self.acknowledge(event_id)

    def close(self) -> None:
        if self.id.startswith("~"):
            self._store.unregister(self._token, self.id)
        else:
            self._store.touch(self._token, {self.id: self.position})

    def _finish(self, event_id: str) -> None:
        number = self._numbers.pop(event_id, None)
        if number is not None:
            self._done[event_id] = number

    def _advance(self) -> None:
        """Move the position to before the first event that is not done, and have the store do so."""
        position = next(iter(self._numbers.values()), self._read_up_to + 1) - 1
        if position > self.position:
            self.position = position
            self._done = {event_id: number for event_id, number in self._done.items() if number > position}
            self._store.advance(self._token, self.id, position)


class PositionOutlets(Outlets):
    """The outlets of listeners each of which receives all events."""

    def __init__(self, mailboxes: Mailboxes, token: str) -> None:
        super().__init__(mailboxes, token)
        self._cursors: dict[Client, Cursor] = {}

    def remove(self, client: Client) -> list[str]:
        unfinished = super().remove(client)
        self._cursors.pop(client, None)
        return unfinished

    def sweep(self) -> None:
        """Have the store note that the listeners are connected, and up to which event each has all of them."""
        positions = {cursor.id: cursor.position for cursor in list(self._cursors.values())}
        self._mailboxes.store.touch(self._token, positions)

    def _new(self, client: Client, recorder: Recorder | None, position: int) -> Outlet:
        cursor = self._cursors[client] = Cursor(self._mailboxes, self._token, client, position, self)
        return Outlet(self._mailboxes, self._token, client, recorder, cursor)
