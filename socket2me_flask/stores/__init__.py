"""Where tokens are kept. The contract is `TokenStore`; `memory` is the embedded default.

A store knows nothing of clients, callers or sockets. Every method costs the same however many tokens there
are, but for `pop_expired`, whose cost follows what expired.
"""

from typing import Protocol

from .memory import MemoryStore
from .record import TokenRecord

__all__ = ["MemoryStore", "TokenRecord", "TokenStore"]


class TokenStore(Protocol):
    """The contract that each store keeps; `tests/test_stores.py` holds every store to it."""

    def add(self, token: str, ttl_seconds: float, *, secret_hash: bytes | None = None) -> TokenRecord:
        """Keep a new token that lives `ttl_seconds` from now. Raises `TooManyTokens`."""

    def get(self, token: str) -> TokenRecord | None:
        """Return a token that lives. One that has expired by now does not, whether or not it was swept."""

    def refresh(self, token: str) -> TokenRecord | None:
        """Let a live token live for its whole time again. Return None if it does not live."""

    def remove(self, token: str) -> bool:
        """End a token now. Return False if it does not live."""

    def pop_expired(self) -> list[str]:
        """Remove and return tokens that have expired, each once, at the latest a second after it did."""

    def ping(self) -> None:
        """Return if the store answers. Raises `StoreUnavailable` if it does not."""
