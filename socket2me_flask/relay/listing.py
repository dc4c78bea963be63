"""What the owner of a token is shown of its clients."""

from typing import Any

from ..storage import Position, TokenRecord
from .delivery import Client
from .positions import position_id
from .relay import Relay


def listeners_of(relay: Relay, record: TokenRecord) -> list[dict[str, Any]]:
    """Return the clients of a token, those first that came first, and the listeners that are away.

    Raises `StoreUnavailable`.
    """
    positions: dict[str, Position] = {}
    if record.mailbox and record.listeners == "all" and relay.mailboxes is not None:
        positions = {each.listener: each for each in relay.mailboxes.store.positions(record.token)}
    listed = [shown(client) for client in relay.presence.attached.of(record.token)] + relay.peers.listeners(
        record.token
    )
    for each in listed:
        position = positions.pop(each.pop("position", ""), None)
        each["waiting"] = position.waiting if position is not None else 0
    listed += [_shown_absent(each) for each in positions.values()]
    return sorted(listed, key=lambda each: float(each["since"]))


def in_flight_of(relay: Relay, token: str) -> set[str]:
    """Return the ids of the events of a mailbox that are on their way to a client of any process."""
    here = relay.mailboxes.in_flight(token) if relay.mailboxes is not None else set()
    return here | relay.peers.in_flight(token)


def shown(client: Client) -> dict[str, Any]:
    """Return what is shown of a client, and the id of its position."""
    return {
        "id": client.listener,
        "since": client.since,
        "mode": client.mode,
        "in_flight": client.in_flight,
        "connected": True,
        "position": position_id(client),
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
