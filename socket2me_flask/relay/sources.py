"""Where an outlet has its events from, and what is left of them: a mailbox of one client, of all listeners, of one.

A mailbox of one client loses an event when that has acknowledged it. A mailbox of all listeners has the position of
each, which is the number of the event up to which it has acknowledged all; the store drops what all have passed. Of
the events of a mailbox for any one listener, each is claimed by one outlet at a time.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..concurrency.timeout_queue import TimeoutQueue
from ..errors import ClientLeft
from ..storage import StoredEvent
from .call import this_process
from .delivery import Client
from .listeners import wants

if TYPE_CHECKING:
    from .mailbox import Mailboxes
    from .outlet import Outlet
    from .outlets import PositionOutlets, ShareOutlets

# How many events of a mailbox may wait for another attempt while later ones are sent. Above it, the first to become
# due goes next.
MAX_BACKED_OFF = 64


def position_id(client: Client) -> str:
    """Return the id of a listener's position in a store.

    One that has not chosen an id has a position while it is connected. Its process is in this id, so that the
    position has no owner if that process has ended.
    """
    name = client.listener
    return f"~{this_process()}.{name[1:]}" if name.startswith("~") else name


class Source:
    """The events of a mailbox for its only client. What its filter leaves out counts as acknowledged."""

    def __init__(self, mailboxes: "Mailboxes", token: str, client: Client) -> None:
        self._mailboxes = mailboxes
        self._store = mailboxes.store
        self._token = token
        self._client = client

    @property
    def is_alone(self) -> bool:
        """Whether the caller of an event can have no other answer than that of this client."""
        return True

    def waiting(self, limit: int, known: Collection[str]) -> list[StoredEvent]:
        """Return the oldest events, as `MailboxStore.waiting` does."""
        events = self._read(limit, known)
        while self._client.filter is not None:
            passed = [event for event in events if event.call.id not in known and not self._wants(event)]
            for event in passed:
                self.acknowledge(event.call.id)
                if self.is_alone:
                    self._mailboxes.resolve(self._token, event.call.id, ClientLeft())
            wanted = [event for event in events if event not in passed]
            if not passed or any(event.call.id not in known for event in wanted):
                return wanted
            events = self._read(limit, known)
        return events

    def _read(self, limit: int, known: Collection[str]) -> list[StoredEvent]:
        return self._store.waiting(self._token, limit, known)

    def _wants(self, event: StoredEvent) -> bool:
        return wants(self._client, event.call)

    def encoded(self, event_id: str) -> dict[bool, Any] | None:
        """Return what other clients have encoded of the first attempt at an event, which is filled."""
        return None

    def attempted(self, event_id: str) -> None:
        """Count one more attempt to deliver an event."""
        self._store.attempted(self._token, event_id)

    def acknowledge(self, event_id: str) -> None:
        """Have an event sent no more: its client has it."""
        self._store.acknowledge(self._token, event_id)

    def dead_letter(self, event_id: str) -> None:
        """Have an event sent no more, since it cannot be delivered."""
        self._store.dead_letter(self._token, event_id)

    def back_off(self, outlet: "Outlet", event_id: str, timer: TimeoutQueue, *, is_overdue: bool) -> None:
        """Have an event wait for its next attempt. `is_overdue` is whether its client has said nothing of it."""
        outlet.wait(event_id, timer)

    def forget(self, event_id: str) -> None:
        """Know nothing of an event any more: it was dropped."""

    def close(self) -> None:
        """Its client has left."""


class Cursor(Source):
    """The events of a mailbox for one of all its listeners, from its position on."""

    def __init__(
        self, mailboxes: "Mailboxes", token: str, client: Client, position: int, outlets: "PositionOutlets"
    ) -> None:
        super().__init__(mailboxes, token, client)
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
        recent = self._mailboxes.recent
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
        found = self._mailboxes.recent.get(event_id)
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


class Share(Source):
    """The events of a mailbox that one of its listeners claims: one at a time, so that all have their part."""

    def __init__(self, mailboxes: "Mailboxes", token: str, client: Client, outlets: "ShareOutlets") -> None:
        super().__init__(mailboxes, token, client)
        self._outlets = outlets
        self.claimed: set[str] = set()
        self.passed: set[str] = set()  # those that its filter leaves out
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
        tell = self._store.dead_letter if is_dead_letter else self._store.acknowledge
        self._outlets.finished[event_id] = tell
        self.claimed.discard(event_id)
        tell(self._token, event_id)

    def back_off(self, outlet: "Outlet", event_id: str, timer: TimeoutQueue, *, is_overdue: bool) -> None:
        if is_overdue:
            self._client.send_dropped(event_id)  # another may have it next
        outlet.forget(event_id)
        self.claimed.discard(event_id)
        self._outlets.wait(event_id, timer)

    def forget(self, event_id: str) -> None:
        self.claimed.discard(event_id)

    def close(self) -> None:
        self._is_closed = True
        for event_id in self.claimed:
            self._store.release(self._token, event_id)
        self.claimed.clear()
