"""Where tokens are kept. The contract is `TokenStore`; `memory` is the embedded default.

A store knows nothing of clients, callers or sockets. Every method costs the same however many tokens there
are, but for `pop_expired`, whose cost follows what expired.
"""

from typing import Protocol

from .memory import MemoryStore

__all__ = ["MemoryStore", "TokenStore"]


class TokenStore(Protocol):
    """The contract that each store keeps; `tests/test_stores.py` holds every store to it."""

    def add(self, token: str, ttl_seconds: float) -> None:
        """Keep a new token that lives `ttl_seconds` from now."""

    def refresh(self, token: str) -> bool:
        """Let a live token live for its whole time again. Return False if it does not live."""

    def is_live(self, token: str) -> bool:
        """Say whether the token was added and has not expired by now, whether or not it was swept."""

    def pop_expired(self) -> list[str]:
        """Remove and return tokens that have expired, each once, at the latest a second after it did."""

    def ping(self) -> None:
        """Return if the store answers. Raises `StoreUnavailable` if it does not."""
