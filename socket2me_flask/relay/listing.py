"""What the owner of a token is shown of its clients."""

from typing import Any

from .delivery import Client
from .relay import Relay


def listeners_of(relay: Relay, token: str) -> list[dict[str, Any]]:
    """Return the clients of a token, those first that came first."""
    return sorted(map(_shown, relay.presence.listeners(token)), key=lambda each: each["since"])


def _shown(client: Client) -> dict[str, Any]:
    return {
        "id": client.listener,
        "since": client.since,
        "mode": client.mode,
        "in_flight": client.in_flight,
        "waiting": 0,
        "connected": True,
    }
