"""Where tokens and mailboxes are kept. The contracts are `TokenStore` and `MailboxStore`.

A store knows nothing of clients, callers or sockets. Every method costs the same however many tokens there
are, but for `pop_expired`, whose cost follows what expired.
"""

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ..messages import Call
from .memory import MemoryStore
from .record import MODES, StoredEvent, TokenRecord
from .sqlite import SQLiteStore

__all__ = [
    "MODES",
    "MailboxStore",
    "MemoryStore",
    "SQLiteStore",
    "StoredEvent",
    "TokenRecord",
    "TokenStore",
    "open_store",
]


class MailboxStore(Protocol):
    """Calls that wait until a client acknowledges them, in order for each token. All of it survives the process.

    Every method may raise `StoreUnavailable`, but those that return nothing and take no token: they are done soon,
    and what they would have changed is at worst done again.
    """

    def put(self, call: Call) -> None:
        """Keep a call. It is durable when this returns. Raises `MailboxFull`, `MailboxesFull` or `UnknownToken`."""

    def waiting(self, token: str, limit: int) -> list[StoredEvent]:
        """Return the oldest events that are not set aside, oldest first."""

    def find(self, token: str, event_id: str) -> StoredEvent:
        """Return an event. Raises `UnknownEvent`."""

    def summary(self, token: str) -> list[StoredEvent]:
        """Return all events of a token, oldest first, without their bodies."""

    def redeliver(self, token: str, event_id: str) -> None:
        """Let an event be sent as if it never was. Raises `UnknownEvent`."""

    def delete(self, token: str, event_id: str) -> None:
        """Drop an event. Raises `UnknownEvent`."""

    def drop_older(self, received_before: float) -> int:
        """Drop the events that were received before then, seconds since the epoch. Return how many there were."""

    def attempted(self, event_id: str) -> None:
        """Count one more attempt to deliver an event."""

    def acknowledge(self, event_id: str) -> None:
        """Drop an event: its client has it."""

    def set_aside(self, event_id: str) -> None:
        """Send an event no more, unless somebody asks for it."""


class TokenStore(Protocol):
    """The contract that each store keeps; `tests/test_stores.py` holds every store to it."""

    @property
    def mailboxes(self) -> MailboxStore | None:
        """The mailboxes of this store, if what it keeps survives the process."""

    def add(
        self,
        token: str,
        ttl_seconds: float,
        *,
        secret_hash: bytes | None = None,
        mode: str = "notify",
        mailbox: bool = False,
    ) -> TokenRecord:
        """Keep a new token that lives `ttl_seconds` from now. Raises `TooManyTokens` or `StoreUnavailable`."""

    def get(self, token: str) -> TokenRecord | None:
        """Return a token that lives. One that has expired by now does not, whether or not it was swept."""

    def refresh(self, token: str) -> TokenRecord | None:
        """Let a live token live for its whole time again. Return None if it does not live."""

    def remove(self, token: str) -> bool:
        """End a token now, and its mailbox. Return False if it does not live."""

    def pop_expired(self) -> list[str]:
        """Remove and return tokens that have expired, each once, at the latest a second after it did."""

    def ping(self) -> None:
        """Return if the store answers. Raises `StoreUnavailable` if it does not."""

    def close(self) -> None:
        """Write what is to be written. Nothing may be asked of the store any more."""


def open_store(url: str, settings: Mapping[str, Any], clock: Any) -> TokenStore:
    """Return the store that `STORE_URL` names. Raises `ConfigError` if it cannot be used."""
    if url == "memory://":
        return MemoryStore(clock, max_tokens=settings["MAX_TOKENS"])
    return SQLiteStore(
        unquote(urlsplit(url).path[1:]),
        clock,
        max_tokens=settings["MAX_TOKENS"],
        max_events=settings["MAILBOX_MAX_EVENTS"],
        max_bytes=settings["MAILBOX_MAX_BYTES"],
        total_bytes=settings["MAILBOX_TOTAL_BYTES"],
    )
