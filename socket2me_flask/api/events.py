"""`/v1/tokens/<token>/events`: what is in the mailbox of a token with a secret."""

from collections.abc import Callable
from typing import Any

import limits
from flask import Blueprint, Response, jsonify, request

from socket2me.inspector.http import json_with_body

from ..errors import UnknownEvent
from ..limits import address_key, check_rate
from ..relay.call import shown
from ..relay.listing import in_flight_of
from ..relay.mailbox import Mailboxes
from ..services import get_services
from ..storage import StoredEvent
from .tokens import add_headers, find_with_secret, one_of_few

blueprint = Blueprint("events", __name__)
blueprint.after_request(add_headers)

# How often the events of one token may be listed, shown, sent again or dropped.
RATE_LIMIT_EVENTS = limits.parse("1200/minute")

# How many answers with events may be on their way at once. Each holds the body of an event, or a whole list, until
# its caller has read it: so these are at most 32 MB with bodies of 2 MB.
MAX_EVENT_ANSWERS_PER_TOKEN = 2
MAX_EVENT_ANSWERS_PER_ADDRESS = 4
MAX_EVENT_ANSWERS = 16


@blueprint.get("/tokens/<token:token>/events")
def list_events(token: str) -> Response:
    """List the events that wait, that are in flight to the client, and the dead letters; oldest first."""
    mailboxes = _mailboxes(token)

    def answer() -> Response:
        in_flight = in_flight_of(get_services().relay, token)
        lists: dict[str, list[dict[str, Any]]] = {"waiting": [], "in_flight": [], "dead_letters": []}
        for event in mailboxes.store.summary(token):
            lists[_state(event, in_flight)].append(_summary(event))
        return jsonify(lists)

    return _one_of_few(token, answer)


@blueprint.get("/tokens/<token:token>/events/<event_id>")
def show_event(token: str, event_id: str) -> Response:
    """Show an event whole. Its body is base64."""
    mailboxes = _mailboxes(token)

    def answer() -> Response:
        event = mailboxes.store.find(token, event_id)
        call = event.call
        members = {
            **shown(call),
            **_summary(event),
            "state": _state(event, in_flight_of(get_services().relay, token)).removesuffix(
                "s"
            ),  # of one dead letter
            "headers": call.headers,
        }
        size, pieces = json_with_body(members, call.body)
        response = Response(pieces, mimetype="application/json")
        response.content_length = size
        return response

    return _one_of_few(token, answer)


@blueprint.post("/tokens/<token:token>/events/<event_id>/redeliver")
def redeliver(token: str, event_id: str) -> Response:
    """Send an event again, its attempts counted from the start: a dead letter, in flight, or waiting."""
    _mailboxes(token).redeliver(token, event_id)
    return Response(status=202)


@blueprint.delete("/tokens/<token:token>/events/<event_id>")
def delete_event(token: str, event_id: str) -> Response:
    """Drop an event, whatever its state."""
    _mailboxes(token).delete(token, event_id)
    return Response(status=204)


def _mailboxes(token: str) -> Mailboxes:
    """Return the mailboxes, if the token has one and the caller its secret, and asks no more often than it may."""
    record = find_with_secret(token)
    message = "The events of this token are asked for too often."
    check_rate(get_services().event_rate, token, "RATE_LIMIT_EVENTS", message)
    mailboxes = get_services().relay.mailboxes
    if mailboxes is None or not record.mailbox:
        raise UnknownEvent("This token has no mailbox.")
    return mailboxes


def _one_of_few(token: str, answer: Callable[[], Response]) -> Response:
    bounds = {
        f"token {token}": MAX_EVENT_ANSWERS_PER_TOKEN,
        f"address {address_key(request.remote_addr or '')}": MAX_EVENT_ANSWERS_PER_ADDRESS,
        "": MAX_EVENT_ANSWERS,
    }
    return one_of_few(bounds, "MAX_EVENT_ANSWERS", "Too many answers with events are not read yet.", answer)


def _state(event: StoredEvent, in_flight: set[str]) -> str:
    if event.is_dead_letter:
        return "dead_letters"
    return "in_flight" if event.call.id in in_flight else "waiting"


def _summary(event: StoredEvent) -> dict[str, Any]:
    return {
        "id": event.call.id,
        "received_at": event.call.received_at,
        "attempts": event.attempts,
        "size": event.size,
    }
