"""What a store keeps of a token."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token.

    ttl_seconds: how long it lives after it was issued or refreshed.
    expires_at: when that is over, in seconds since the epoch.
    secret_hash: what is kept of its secret; None for a token that whoever knows it may use.
    """

    token: str
    ttl_seconds: float
    expires_at: float
    secret_hash: bytes | None = None
