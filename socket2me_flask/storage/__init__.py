"""Where tokens and mailboxes are kept. The contracts are `TokenStore` and `MailboxStore`.

A store is a module with the functions `open_store` and `release_name` of those here, and a line in `config.STORES`.

A store has no reference to callers or sockets, and only the ids of clients. No method costs more if there are more
tokens, but for `pop_expired`, whose cost follows what expired.
"""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any, Protocol, Unpack

from socket2me.inspector.history import History

from ..config import Settings
from ..relay.call import Call
from .memory import MemoryStore
from .names import Claim
from .record import (
    LISTENERS,
    MAX_LISTENERS_PER_TOKEN,
    MODES,
    Counts,
    Position,
    StoredEvent,
    TokenOptions,
    TokenRecord,
    Totals,
)
from .sqlite import SQLiteStore

__all__ = [
    "LISTENERS",
    "MAX_LISTENERS_PER_TOKEN",
    "MODES",
    "Claim",
    "Counts",
    "MailboxStore",
    "MemoryStore",
    "Position",
    "SQLiteStore",
    "StoredEvent",
    "TokenOptions",
    "TokenRecord",
    "TokenStore",
    "Totals",
    "open_store",
    "release_name",
]


class MailboxStore(Protocol):
    """Calls that wait until a client acknowledges them, in order for each token. All of it survives the process.

    Every method may raise `StoreUnavailable`, but those that return nothing and raise nothing else: they are done
    soon, and what they would have changed is at worst done again.
    """

    def put(self, call: Call) -> str | None:
        """Keep a call. It is durable when this returns. Raises `MailboxFull`, `MailboxesFull` or `UnknownToken`.

        If another process has the token's client, that process is notified, and the client's mode is returned.
        """

    def waiting(
        self, token: str, limit: int, known: Collection[str] = (), after: int | None = None
    ) -> list[StoredEvent]:
        """Return the oldest events that are not dead letters, oldest first: up to `limit`, fewer if they are large.

        With `after`, only those with a larger number. Of those whose ids are `known`, the content is not read:
        their calls have an id and a time, and perhaps no more.
        """

    def find(self, token: str, event_id: str) -> StoredEvent:
        """Return an event. Raises `UnknownEvent`."""

    def summary(self, token: str) -> list[StoredEvent]:
        """Return all events of a token, oldest first. Their calls have an id and a time, and perhaps no more."""

    def redeliver(self, token: str, event_id: str) -> None:
        """Let an event be sent as if it never was. Raises `UnknownEvent`."""

    def delete(self, token: str, event_id: str) -> None:
        """Drop an event. Raises `UnknownEvent`."""

    def drop_older(self, received_before: float) -> int:
        """Drop the events that were received before then, seconds since the epoch. Return how many there were."""

    def attempted(self, token: str, event_id: str) -> None:
        """Count one more attempt to deliver an event."""

    def acknowledge(self, token: str, event_id: str) -> None:
        """Drop an event: its client has it."""

    def dead_letter(self, token: str, event_id: str) -> None:
        """Send an event no more, unless its owner asks for it."""

    # Of a token all of whose listeners receive each event

    def number_of(self, token: str, event_id: str) -> int:
        """Return the place of an event in its mailbox. Raises `UnknownEvent`."""

    def register(self, token: str, listener: str, after: int | None = None) -> int:
        """Return the position of a listener: the number of the event up to which it has acknowledged all.

        A new one begins after the event with the number `after`; without that, with the next event, or with the
        oldest if there is no other. An id that begins with `~` is that of a process, up to a dot, and ends with it.
        Raises `TooManyListeners`.
        """

    def unregister(self, token: str, listener: str) -> None:
        """Forget the position of a listener."""

    def advance(self, token: str, listener: str, number: int) -> None:
        """Move the position of a listener forward, and drop the events that no listener needs any more."""

    def touch(self, token: str, positions: Mapping[str, int]) -> None:
        """Note that listeners are connected now, and their positions."""

    def seen(self, token: str, listener: str, seen_at: float) -> None:
        """Note when a listener that is away was there last, if it has a position."""

    def fail(self, token: str, event_id: str) -> None:
        """Have an event be a dead letter once all listeners have passed it."""

    def positions(self, token: str) -> list[Position]:
        """Return the positions of all listeners."""

    def drop_absent(self, seen_before: float) -> int:
        """Forget the positions of listeners that were not seen since then. Return how many there were."""

    # Of a token one of whose listeners receives each event

    def claim(self, token: str, limit: int, known: Collection[str]) -> list[StoredEvent]:
        """Return the oldest events up to the first that is not known, which this process claims.

        What another process has claimed is left out.
        """

    def release(self, token: str, event_id: str) -> None:
        """Let other processes claim an event."""


class TokenStore(Protocol):
    """The contract that each store keeps; `tests/unit/test_stores.py` holds every store to it.

    Every method but `detach` and `leave` may raise `StoreUnavailable`.
    """

    @property
    def mailboxes(self) -> MailboxStore | None:
        """The mailboxes of this store, if what it keeps survives the process."""

    @property
    def damaged(self) -> int:
        """How often this process found what the store keeps to be damaged when it opened it."""

    @property
    def history(self) -> History:
        """The history of the calls for tokens that are inspected."""

    def start(self) -> str:
        """Be ready to be asked. Return what tokens are kept in, for the log. Raises `ConfigError`.

        Before, no file is opened, no connection made and no thread started.
        """

    def add(self, token: str, ttl_seconds: float, **options: Unpack[TokenOptions]) -> TokenRecord:
        """Keep a new token that lives `ttl_seconds` from now. Raises `TooManyTokens`."""

    def claim(self, name: str, ttl_seconds: float, claim: Claim, **options: Any) -> tuple[TokenRecord, bool] | None:
        """Let a name be the asker's, and return its token and whether that is new.

        A name that lives and has the secret that comes with the claim is returned as it is. One that is free, or in
        its grace and has that secret, begins to live, with the `options` of `add`. Returns None for a free one that
        the asker may not have. Raises `NameTaken`, `TooManyNames` or `TooManyTokens`.
        """

    def release(self, name: str, secret_hash: bytes | None = None) -> bool:
        """Release a name that is held, and end its token, if it has that secret or none is given.

        Return False otherwise. `remove` releases a name, too; when a token expires, its name is held for the grace.
        """

    def get(self, token: str) -> TokenRecord | None:
        """Return a token that lives. One that has expired by now does not, whether or not it was swept."""

    def get_cached(self, token: str) -> TokenRecord | None:
        """As `get`, for a call. The answer may be stale: then the process that has the client answers `gone`."""

    def refresh(self, token: str) -> TokenRecord | None:
        """Let a live token live for its whole time again. Return None if it does not live."""

    def remove(self, token: str) -> bool:
        """End a token now, and its mailbox. Return False if it does not live."""

    def pop_expired(self) -> list[str]:
        """Remove and return tokens that have expired, each once, at the latest a second after it did.

        Of several processes, one returns a token, and so does the one that has its client.
        """

    def attach(self, token: str, client: str, mode: str) -> TokenRecord | None:
        """Have a client, by its id, be the token's one. Return None if the token does not live."""

    def detach(self, token: str, client: str) -> None:
        """A client is not the token's any more, unless another has become it."""

    def join(self, token: str, listener: str) -> None:
        """Have a listener, by its id, be one of a token's. One with the same id at another process is replaced.

        Raises `TooManyListeners` if all processes have too many of them.
        """

    def claim_listener(self, token: str, listener: str) -> bool:
        """Have a listener be one of this process before it joins. Return False if another process has it.

        Of several processes that ask at once, one may have it. It is released by `leave`.
        """

    def leave(self, token: str, listener: str) -> None:
        """A listener has left this process."""

    def listeners_elsewhere(self, token: str) -> list[str]:
        """Return the ids of the listeners that other processes have."""

    def ping(self) -> None:
        """Return if the store answers."""

    def totals(self) -> Totals:
        """Return what the store holds, for the metrics."""

    def close(self) -> None:
        """Write what is pending. The store may not be used after this."""


def open_store(settings: Settings, clock: Callable[[], float]) -> TokenStore:
    """Return the store that `SOCKET2ME_STORE_URL` names. Raises `ConfigError` if it cannot be used."""
    store: TokenStore = _module(settings).open_store(settings, clock)
    return store


def release_name(settings: Settings, name: str) -> bool:
    """Release a name for the operator, from outside the relay. Return False if it is not held.

    Raises `ConfigError` if the store cannot be reached from outside, or `StoreUnavailable`.
    """
    is_released: bool = _module(settings).release_name(settings, name)
    return is_released


def _module(settings: Settings) -> Any:
    # Only when it is used: the library for Redis takes memory.
    return import_module(f".{settings.store.module}", __name__)
