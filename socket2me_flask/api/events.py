"""`/v1/tokens/<token>/events`: what is in the mailbox of a token with a secret."""

from base64 import b64encode
from typing import Any

from flask import Blueprint, Response, jsonify

from ..errors import UnknownEvent
from ..mailboxes import Mailboxes
from ..services import get_services
from ..stores import StoredEvent
from .tokens import add_headers, find_with_secret

blueprint = Blueprint("events", __name__)
blueprint.after_request(add_headers)


@blueprint.get("/tokens/<token>/events")
def list_events(token: str) -> Response:
    """List the events that wait, that are on their way to the client, and that were set aside; oldest first."""
    mailboxes = _mailboxes(token)
    in_flight = get_services().relay.in_flight(token)
    lists: dict[str, list[dict[str, Any]]] = {"waiting": [], "in_flight": [], "set_aside": []}
    for event in mailboxes.store.summary(token):
        lists[_state(event, in_flight)].append(_summary(event))
    return jsonify(lists)


@blueprint.get("/tokens/<token>/events/<event_id>")
def show_event(token: str, event_id: str) -> Response:
    """Show an event whole. Its body is base64."""
    mailboxes = _mailboxes(token)
    event = mailboxes.store.find(token, event_id)
    call = event.call
    return jsonify(
        **_summary(event),
        state=_state(event, get_services().relay.in_flight(token)),
        method=call.method,
        path=call.path,
        query=call.query,
        headers=call.headers,
        body=b64encode(call.body).decode(),
    )


@blueprint.post("/tokens/<token>/events/<event_id>/redeliver")
def redeliver(token: str, event_id: str) -> Response:
    """Send an event again, its attempts counted from the start: set aside, on its way, or still to come."""
    _mailboxes(token).redeliver(token, event_id)
    return Response(status=202)


@blueprint.delete("/tokens/<token>/events/<event_id>")
def delete_event(token: str, event_id: str) -> Response:
    """Drop an event, whatever its state."""
    _mailboxes(token).delete(token, event_id)
    return Response(status=204)


def _mailboxes(token: str) -> Mailboxes:
    """Return the mailboxes, if the token has one and the caller its secret."""
    record = find_with_secret(token)
    mailboxes = get_services().relay.mailboxes
    if mailboxes is None or not record.mailbox:
        raise UnknownEvent("This token has no mailbox.")
    return mailboxes


def _state(event: StoredEvent, in_flight: set[str]) -> str:
    if event.is_set_aside:
        return "set_aside"
    return "in_flight" if event.call.id in in_flight else "waiting"


def _summary(event: StoredEvent) -> dict[str, Any]:
    return {
        "id": event.call.id,
        "received_at": event.call.received_at,
        "attempts": event.attempts,
        "size": event.size,
    }
