"""Acknowledgements that clients send: whole, in pieces, or cut off because they are too large.

Knows Socket.IO packets and which id has a callback; what an acknowledgement means is decided in `relay/`.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import TooManyIncomplete
from ..http.answers import ErrorAnswers
from ..limits import Pool
from ..relay.replies import TOO_LARGE
from .client import SocketClient
from .manager import ClientManager
from .request_event import MAX_ATTACHMENTS, with_attachments

# ACK or BINARY_ACK: type, number of attachments, namespace, query, id, arguments.
_ACK = re.compile(
    r"(?P<kind>[36])(?:(?P<attachments>\d{1,2})-)?(?P<namespace>/[^,?]*)(?:\?[^,]*)?,(?P<id>\d{1,15})(?P<args>.*)",
    re.DOTALL,
).fullmatch
ACKS = ("3", "6")


class Acknowledgements:
    """Gives each acknowledgement to its client. `incomplete` bounds the bytes of those that miss attachments."""

    def __init__(self, register: ClientManager[SocketClient], incomplete: Pool, answers: ErrorAnswers) -> None:
        self._register = register
        self._bytes = incomplete
        self._answers = answers
        self._incomplete: dict[str, _Incomplete] = {}  # by transport

    def on_ack(self, transport_id: str, data: str) -> None:
        """Read an ACK or BINARY_ACK. Raises `ValueError` or `TooManyIncomplete`."""
        match = _ACK(data)
        if match is None:
            return
        kind, attachments, namespace, number, args = match.groups()
        ack_id = int(number)
        client = self._awaiting(transport_id, namespace, ack_id)
        if client is None:
            return  # it came late, or was never asked for
        if kind == "3" or not int(attachments or 0):
            client.acknowledge(ack_id, _arguments(args))
        elif int(attachments) <= MAX_ATTACHMENTS:
            self._incomplete[transport_id] = incomplete = _Incomplete(
                client, ack_id, args, int(attachments), client.address
            )
            self._hold(transport_id, incomplete, len(data))
        else:
            raise ValueError("too many attachments")

    def on_attachment(self, transport_id: str, data: bytes) -> None:
        """Add an attachment to its acknowledgement. Raises `ValueError` or `TooManyIncomplete`."""
        incomplete = self._incomplete.get(transport_id)
        if incomplete is None:
            return
        incomplete.attachments.append(data)
        if len(incomplete.attachments) == incomplete.expected:
            self.drop(transport_id)
            args = with_attachments(_arguments(incomplete.args), incomplete.attachments)
            incomplete.client.acknowledge(incomplete.ack_id, args)
        else:
            self._hold(transport_id, incomplete, len(data))

    def _hold(self, transport_id: str, incomplete: "_Incomplete", size: int) -> None:
        """Count what is held of an acknowledgement. Drops it and raises `TooManyIncomplete` without room."""
        if not self._bytes.has_room(incomplete.address, size):
            self.drop(transport_id)
            error = TooManyIncomplete()
            self._answers.note(error)
            raise error
        self._bytes.take(incomplete.address, size)
        incomplete.size += size

    def drop(self, transport_id: str) -> "_Incomplete | None":
        """Drop and return what has arrived of an acknowledgement: its other attachments will not come."""
        incomplete = self._incomplete.pop(transport_id, None)
        if incomplete is not None:
            self._bytes.give_back(incomplete.address, incomplete.size)
        return incomplete

    def on_cut_message(self, transport_id: str, data: str | bytes) -> None:
        """Take the beginning of a packet that is too large. Raises, unless it is of an acknowledgement."""
        incomplete = self.drop(transport_id)
        if isinstance(data, bytes):
            if incomplete is not None:
                incomplete.client.acknowledge(incomplete.ack_id, [TOO_LARGE])
            return
        match = _ACK(data)
        if match is None:
            raise ValueError("a packet that is too large")
        ack_id = int(match["id"])
        client = self._awaiting(transport_id, match["namespace"], ack_id)
        if client is not None:
            client.acknowledge(ack_id, [TOO_LARGE])

    def _awaiting(self, transport_id: str, namespace: str, ack_id: int) -> SocketClient | None:
        """Return the client whose acknowledgement this is, if it is awaited."""
        for client in self._register.on_transport(transport_id):
            if client.namespace == namespace and client.awaits(ack_id):
                return client
        return None


@dataclass(slots=True)
class _Incomplete:
    """An acknowledgement whose attachments are still to come. `args` are JSON, which is read when they have.

    `address` is whom it counts for, with `size` bytes.
    """

    client: SocketClient
    ack_id: int
    args: str
    expected: int
    address: str
    size: int = 0
    attachments: list[bytes] = field(default_factory=list)


def _arguments(text: str) -> list[Any]:
    """Return the arguments of an acknowledgement. Raises `ValueError`."""
    if text == "[]":  # as most are
        return []
    args = json.loads(text)
    if not isinstance(args, list):
        raise ValueError("no arguments of an acknowledgement")
    return args
