"""What a store keeps of a token."""

from dataclasses import dataclass
from typing import TypedDict

from socket2me.inspector.history import Bounds

from ..config import Settings
from ..relay.call import Call

# What an event counts for beside its bytes.
EVENT_BYTES = 200

# A mailbox that holds no more may use the last tenth of what all may hold, so that a few cannot take all of it.
SMALL_MAILBOX_BYTES = 65_536

# How many bytes of events are read at once for their client, if there is more than one.
MOST_WAITING_BYTES = 4_000_000

# How many dead letters a look for the oldest event that waits may pass over: it costs no more than this.
MAX_DEAD_PASSED = 100

# When a caller is answered, and how: `notify`, OK once the event was delivered to a live client; `ack`, OK when the
# client acknowledged it; `reply`, what the client's acknowledgement says.
MODES = ("notify", "ack", "reply")

# Which of the clients of a token receive a call: `newest`, the one that connected last, and the others are
# disconnected; `all`, each of them; `one`, any one of them.
LISTENERS = ("newest", "all", "one")

# How many listeners a token may have, with those that are away and have a position in its mailbox.
MAX_LISTENERS_PER_TOKEN = 100


def share_of(total_bytes: int, bytes_in_mailbox: int) -> int:
    """Return how many bytes all mailboxes may hold after an event was kept in one that then has so many."""
    return total_bytes if bytes_in_mailbox <= SMALL_MAILBOX_BYTES else total_bytes * 9 // 10


def bounds_of(settings: Settings) -> dict[str, int]:
    """Return the bounds of the mailboxes of a store."""
    return {
        "max_events": settings.mailbox_max_events,
        "max_bytes": settings.mailbox_max_bytes,
        "total_bytes": settings.mailbox_total_bytes,
    }


def history_bounds_of(settings: Settings) -> Bounds:
    """Return the bounds of the histories of a store."""
    return Bounds(
        max_requests=settings.history_max_requests,
        max_bytes=settings.history_max_bytes,
        total_bytes=settings.history_total_bytes,
    )


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token.

    ttl_seconds: how long it lives after it was issued or refreshed.
    expires_at: when that is over, in seconds since the epoch.
    secret_hash: what is kept of its secret; None for a token that needs none.
    mode: when its callers are answered, unless its client says otherwise: one of `MODES`.
    mailbox: whether events wait in a mailbox until they are acknowledged.
    inspect: whether a history of its calls is kept.
    verify: the provider that signs its calls, and its secrets, as `relay/verification.py` writes them; None for a
        token whose calls need no signature.
    listeners: which of its clients receive a call: one of `LISTENERS`.
    """

    token: str
    ttl_seconds: float
    expires_at: float
    secret_hash: bytes | None = None
    mode: str = "notify"
    mailbox: bool = False
    inspect: bool = False
    verify: str | None = None
    listeners: str = "newest"


class TokenOptions(TypedDict, total=False):
    """What a token may be issued with: fields of `TokenRecord`."""

    secret_hash: bytes | None
    mode: str
    mailbox: bool
    inspect: bool
    verify: str | None
    listeners: str


@dataclass
class Counts:
    """What has happened to the calls for a token."""

    forwarded: int = 0
    refused: int = 0
    last_request_at: float | None = None

    def __add__(self, newer: "Counts") -> "Counts":
        return Counts(
            self.forwarded + newer.forwarded,
            self.refused + newer.refused,
            self.last_request_at if newer.last_request_at is None else newer.last_request_at,
        )


def call_without_content(token: str, event_id: str, received_at: float) -> Call:
    """Return the call of an event whose content was not read."""
    return Call(token, "", "", "", {}, b"", received_at, event_id)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a store holds, of all processes that share it.

    tokens: how many tokens, with those that have expired and are not removed yet.
    events, bytes: how many events are in all mailboxes, dead letters too, and what they count for, in bytes.
    oldest_waiting_at: when the oldest event that is no dead letter was received, in seconds since the epoch. None
        if there is none. Of dead letters, no more than `MAX_DEAD_PASSED` are passed over to find it: beyond them, a
        dead letter counts.
    """

    tokens: int
    events: int = 0
    bytes: int = 0
    oldest_waiting_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A call that waits in a mailbox, or is a dead letter.

    attempts: how often it was sent to a client.
    is_dead_letter: whether it is sent no more, unless its owner asks for it.
    size: what it counts for, in bytes.
    number: its place among the events of its mailbox: a later one has a larger number.
    """

    call: Call
    attempts: int
    is_dead_letter: bool
    size: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """How far a listener has read a mailbox.

    listener: its id; one that begins with `~` is that of a listener without an id of its own.
    number: that of the event up to which it has acknowledged all.
    seen_at: when it was last known to be connected, in seconds since the epoch.
    waiting: how many events it has not acknowledged.
    """

    listener: str
    number: int
    seen_at: float
    waiting: int
