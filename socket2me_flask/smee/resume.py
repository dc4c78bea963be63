"""Where a stream of a channel with a mailbox goes on: which of the positions in it is that of its client.

A client of an event stream has no name. When it connects again, it says which event it had last.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..errors import UnknownEvent
from ..storage import MailboxStore, Position

# How the ids of streams begin, among those of the listeners of a token. No client can choose such an id.
LISTENER_PREFIX = "smee:"

_WITH_PREDECESSOR = re.compile(rf"{LISTENER_PREFIX}[\w-]+\.(\d+)\.(\d+)").fullmatch


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The connection that a client had before, whose end was not found yet when the client connected again.

    It has a position of its own, which has no owner once its end is found.

    after: the number of the event that the client had last. The position is no farther than that.
    before: when the client connected again, in seconds since the epoch. The connection had no contact later.
    """

    after: int
    before: float

    def find(self, positions: Iterable[Position], connected: Collection[str]) -> str | None:
        """Return the id of the position; of several the farthest, since the client had the most of that."""
        found = [
            each
            for each in positions
            if each.listener.startswith(LISTENER_PREFIX) and each.listener not in connected
            if each.number <= self.after and each.seen_at < self.before
        ]
        return max(found, key=lambda each: each.number).listener if found else None


def new_listener(sid: str, after: int | None = None, now: float = 0) -> str:
    """Return the id of a new position. With `after`, it names a predecessor to each client that takes it over."""
    return LISTENER_PREFIX + (sid if after is None else f"{sid}.{after}.{round(now * 1000)}")


def predecessor_of(listener: str) -> Predecessor | None:
    """Return the predecessor of the client that began a position, if there was one."""
    match = _WITH_PREDECESSOR(listener)
    return None if match is None else Predecessor(int(match[1]), int(match[2]) / 1000)


@dataclass(frozen=True, slots=True)
class Resume:
    """What was found.

    listener: the id of the position that the stream takes over; None for a new one.
    after: the number of the event that the client had last; None if it is not known.
    """

    listener: str | None
    after: int | None


def find_position(store: MailboxStore, token: str, last_event_id: str | None, connected: Collection[str]) -> Resume:
    """Return where a stream goes on; `connected` are the ids of those that have a client.

    A client that says which event it had last takes over the position that is the nearest before that, of those
    whose clients are away. One that says nothing, as a program that was started again, takes over the farthest.

    If the event that it had is not kept any more, all have passed it. Then a new position begins where the first of
    those that are connected is: one of them may be that of the connection that the client has lost, which is not
    found to be dead yet. Raises `StoreUnavailable`.
    """
    positions = [each for each in store.positions(token) if each.listener.startswith(LISTENER_PREFIX)]
    away = [each for each in positions if each.listener not in connected]
    after = _number_of(store, token, last_event_id)
    if after is not None:
        away = [each for each in away if each.number <= after]
    elif last_event_id and positions and not away:
        after = min(each.number for each in positions)
    # Of two as far, one that was begun later: it says that there is the other.
    farthest: Position | None = max(
        away, key=lambda each: (each.number, predecessor_of(each.listener) is not None, each.seen_at), default=None
    )
    return Resume(None if farthest is None else farthest.listener, after)


def _number_of(store: MailboxStore, token: str, event_id: str | None) -> int | None:
    if not event_id:
        return None
    try:
        return store.number_of(token, event_id)
    except UnknownEvent:
        return None
