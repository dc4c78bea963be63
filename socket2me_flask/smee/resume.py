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

    at_most: the number of an event. The position is no farther than that.
    before: when the client connected again, in seconds since the epoch. The connection had no contact later.
    """

    at_most: int
    before: float

    def find(self, positions: Iterable[Position], connected: Collection[str], settled_seconds: float) -> str | None:
        """Return the id of the position. `settled_seconds` is how long after its last contact an end is found.

        One that had no contact for as long when the client connected again is of another client, which is away.
        """
        since = self.before - settled_seconds
        away = [
            each
            for each in positions
            if each.listener.startswith(LISTENER_PREFIX) and each.listener not in connected
            if each.number <= self.at_most and since <= each.seen_at < self.before
        ]
        found = _farthest(away)
        return None if found is None else found.listener


def new_listener(sid: str, predecessor: Predecessor | None = None) -> str:
    """Return the id of a new position. With it, each client that takes the position over finds the predecessor."""
    if predecessor is None:
        return f"{LISTENER_PREFIX}{sid}"
    return f"{LISTENER_PREFIX}{sid}.{predecessor.at_most}.{round(predecessor.before * 1000)}"


def predecessor_of(listener: str) -> Predecessor | None:
    """Return the predecessor of the client that began a position, if there was one."""
    match = _WITH_PREDECESSOR(listener)
    return None if match is None else Predecessor(int(match[1]), int(match[2]) / 1000)


@dataclass(frozen=True, slots=True)
class Resume:
    """What was found.

    listener: the id of the position that the stream takes over; None for a new one.
    after: the number of the event after which the stream goes on; None if it is not known.
    is_ahead: the position is farther than that, so a new one takes its place.
    at_most: how far the position of a connection may be that the client has lost, if there is a new position.
    """

    listener: str | None
    after: int | None
    is_ahead: bool = False
    at_most: int = 0


def find_position(store: MailboxStore, token: str, last_event_id: str | None, connected: Collection[str]) -> Resume:
    """Return where a stream goes on; `connected` are the ids of those that have a client.

    A client that says which event it had last takes over a position that may be its own, of those whose clients are
    away. If the event that it had is not kept any more, all positions have passed it: each may be its own, and the
    stream goes on after the first of them. One that says nothing, as a program that was started again, takes over
    the farthest that is away.

    Of those that may be its own, a client takes over the farthest: whichever it is, the others are no farther than
    those of their clients were, so that no client misses an event. If the farthest is connected, it may be that of
    the connection that the client has lost, which is not found to be dead yet. Then a new position begins.

    Raises `StoreUnavailable`.
    """
    positions = [each for each in store.positions(token) if each.listener.startswith(LISTENER_PREFIX)]
    away = [each for each in positions if each.listener not in connected]
    after = _number_of(store, token, last_event_id)
    if after is None and (not last_event_id or not positions):
        farthest = _farthest(away)
        return Resume(None if farthest is None else farthest.listener, None)
    numbers = [each.number for each in positions]
    at_most = max(numbers) if after is None else after
    after = min(numbers) if after is None else after
    possible = [each for each in positions if each.number <= at_most]
    farthest = _farthest(each for each in possible if each in away)
    if farthest is None or farthest.number < max(each.number for each in possible):
        return Resume(None, after, at_most=at_most)
    return Resume(farthest.listener, after, is_ahead=farthest.number > after)


def _farthest(positions: Iterable[Position]) -> Position | None:
    """Return the farthest position. Of two as far, one that was begun later: it says that there is the other."""
    return max(
        positions,
        key=lambda each: (each.number, predecessor_of(each.listener) is not None, each.seen_at),
        default=None,
    )


def _number_of(store: MailboxStore, token: str, event_id: str | None) -> int | None:
    if not event_id:
        return None
    try:
        return store.number_of(token, event_id)
    except UnknownEvent:
        return None
