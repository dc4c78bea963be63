"""Where a stream of a channel with a mailbox goes on: which of the positions in it is that of its client.

A client of an event stream has no name. When it connects again, it says which event it had last.
"""

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import UnknownEvent
from ..storage import MailboxStore, Position

# How the ids of streams begin, among those of the listeners of a token. No client can choose such an id.
LISTENER_PREFIX = "smee:"


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
    farthest: Position | None = max(away, key=lambda each: each.number, default=None)
    return Resume(None if farthest is None else farthest.listener, after)


def _number_of(store: MailboxStore, token: str, event_id: str | None) -> int | None:
    if not event_id:
        return None
    try:
        return store.number_of(token, event_id)
    except UnknownEvent:
        return None
