"""Where tokens and mailboxes are kept. The contracts are `TokenStore` and `MailboxStore`.

A store knows nothing of callers or sockets, and of a client only its id. Every method costs the same however many
tokens there are, but for `pop_expired`, whose cost follows what expired.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from socket2me.inspector.history import Bounds, History

from ..config import Settings
from ..relay.call import Call, this_process
from .memory import MemoryStore
from .record import MODES, Counts, StoredEvent, TokenRecord
from .sqlite import SQLiteStore

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from .redis import RedisStore

__all__ = [
    "MODES",
    "Counts",
    "MailboxStore",
    "MemoryStore",
    "SQLiteStore",
    "StoredEvent",
    "TokenRecord",
    "TokenStore",
    "is_shared",
    "open_store",
]


class MailboxStore(Protocol):
    """Calls that wait until a client acknowledges them, in order for each token. All of it survives the process.

    Every method may raise `StoreUnavailable`, but `attempted`, `acknowledge` and `dead_letter`: they are done soon,
    and what they would have changed is at worst done again.
    """

    def put(self, call: Call) -> str | None:
        """Keep a call. It is durable when this returns. Raises `MailboxFull`, `MailboxesFull` or `UnknownToken`.

        If another process has the token's client, that process is notified, and the client's mode is returned.
        """

    def waiting(self, token: str, limit: int, known: Collection[str] = ()) -> list[StoredEvent]:
        """Return the oldest events that are not dead letters, oldest first: up to `limit`, fewer if they are large.

        Of those whose ids are `known`, the content is not read: their calls have an id and a time, and perhaps no
        more.
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
        """Send an event no more, unless somebody asks for it."""


class TokenStore(Protocol):
    """The contract that each store keeps; `tests/test_stores.py` holds every store to it.

    Every method but `detach` may raise `StoreUnavailable`.
    """

    @property
    def mailboxes(self) -> MailboxStore | None:
        """The mailboxes of this store, if what it keeps survives the process."""

    @property
    def history(self) -> History:
        """The history of the calls for tokens that are inspected."""

    def start(self) -> str:
        """Be ready to be asked. Return what tokens are kept in, for the log. Raises `ConfigError`.

        Before, no file is opened, no connection made and no thread started.
        """

    def add(
        self,
        token: str,
        ttl_seconds: float,
        *,
        secret_hash: bytes | None = None,
        mode: str = "notify",
        mailbox: bool = False,
        inspect: bool = False,
    ) -> TokenRecord:
        """Keep a new token that lives `ttl_seconds` from now. Raises `TooManyTokens`."""

    def get(self, token: str) -> TokenRecord | None:
        """Return a token that lives. One that has expired by now does not, whether or not it was swept."""

    def get_cached(self, token: str) -> TokenRecord | None:
        """As `get`, for a call. The process that has the client may know better: it says so when it is called."""

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

    def ping(self) -> None:
        """Return if the store answers."""

    def close(self) -> None:
        """Write what is to be written. Nothing may be asked of the store any more."""


def is_shared(store: TokenStore) -> "TypeIs[RedisStore]":
    """Say whether other processes may have the same store."""
    return not isinstance(store, MemoryStore | SQLiteStore)


def open_store(url: str, settings: Settings, clock: Any) -> TokenStore:
    """Return the store that `SOCKET2ME_STORE_URL` names. Raises `ConfigError` if it cannot be used."""
    history_bounds = Bounds(
        max_requests=settings.history_max_requests,
        max_bytes=settings.history_max_bytes,
        total_bytes=settings.history_total_bytes,
    )
    if url == "memory://":
        return MemoryStore(clock, max_tokens=settings.max_tokens, history_bounds=history_bounds)
    bounds = {
        "max_tokens": settings.max_tokens,
        "max_events": settings.mailbox_max_events,
        "max_bytes": settings.mailbox_max_bytes,
        "total_bytes": settings.mailbox_total_bytes,
    }
    if url.startswith("sqlite:"):
        return SQLiteStore(unquote(urlsplit(url).path[1:]), clock, history_bounds=history_bounds, **bounds)
    from .redis import RedisStore  # the library takes memory that only its users should miss

    return RedisStore(
        url,
        clock,
        **bounds,
        history_bounds=history_bounds,
        timeout_seconds=settings.store_timeout_seconds,
        lease_seconds=settings.lease_seconds,
        verify_tls=settings.redis_tls_verify,
        process=this_process(),
    )
