"""What the owner of a token is shown of its clients."""

from typing import Any

from ..storage import Position, TokenRecord
from .delivery import Client
from .relay import Relay
from .sources import position_id


def listeners_of(relay: Relay, record: TokenRecord) -> list[dict[str, Any]]:
    """Return the clients of a token, those first that came first, and the listeners that are away.

    Raises `StoreUnavailable`.
    """
    positions: dict[str, Position] = {}
    if record.mailbox and record.listeners == "all" and relay.mailboxes is not None:
        positions = {each.listener: each for each in relay.mailboxes.store.positions(record.token)}
    listed = [
        _shown(client, positions.pop(position_id(client), None))
        for client in relay.presence.attached.of(record.token)
    ]
    listed += [_shown_absent(each) for each in positions.values()]
    return sorted(listed, key=lambda each: float(each["since"]))


def _shown(client: Client, position: Position | None) -> dict[str, Any]:
    return {
        "id": client.listener,
        "since": client.since,
        "mode": client.mode,
        "in_flight": client.in_flight,
        "waiting": position.waiting if position is not None else 0,
        "connected": True,
    }


def _shown_absent(position: Position) -> dict[str, Any]:
    return {
        "id": position.listener,
        "since": position.seen_at,
        "mode": None,
        "in_flight": 0,
        "waiting": position.waiting,
        "connected": False,
    }
