"""The source of an outlet: which events of a mailbox its client is to receive, and when the store may drop one.

`Source`, for `newest`: the client receives every event, and its acknowledgement drops the event. `positions.py` has
the one for `all`, `shares.py` the one for `one`.
"""

from collections.abc import Callable, Collection
from typing import Any

from ..errors import ClientLeft, RelayError
from ..http.answers import Answer
from ..storage import MailboxStore, StoredEvent
from .back_off import BackOffs
from .delivery import Client
from .listeners import wants

# Answers the caller of an event, by token and id, with its outcome.
Resolve = Callable[[str, str, Answer | RelayError], None]


class Source:
    """The events of a mailbox for its only client. What its filter leaves out counts as acknowledged.

    resolve: answers the caller of an event that the filter leaves out.
    shared_back_offs: has the failed events that any listener of the token may receive next, on `one`. If it is
        None, the outlet has them, and the same client receives them again.
    """

    shared_back_offs: BackOffs | None = None

    def __init__(self, store: MailboxStore, token: str, client: Client, resolve: Resolve) -> None:
        self._store = store
        self._token = token
        self._client = client
        self._resolve = resolve

    @property
    def is_alone(self) -> bool:
        """Whether the caller of an event can have no other answer than that of this client."""
        return True

    def waiting(self, limit: int, known: Collection[str]) -> list[StoredEvent]:
        """Return the oldest events, as `MailboxStore.waiting` does."""
        events = self._read(limit, known)
        while self._client.filter is not None:
            passed = [event for event in events if event.call.id not in known and not self._wants(event)]
            for event in passed:
                self.acknowledge(event.call.id)
                if self.is_alone:
                    self._resolve(self._token, event.call.id, ClientLeft())
            wanted = [event for event in events if event not in passed]
            if not passed or any(event.call.id not in known for event in wanted):
                return wanted
            events = self._read(limit, known)
        return events

    def _read(self, limit: int, known: Collection[str]) -> list[StoredEvent]:
        return self._store.waiting(self._token, limit, known)

    def _wants(self, event: StoredEvent) -> bool:
        return wants(self._client, event.call)

    def encoded(self, event_id: str) -> dict[bool, Any] | None:
        """Return what other clients have encoded of the first attempt at an event, which is filled."""
        return None

    def attempted(self, event_id: str) -> None:
        """Count one more attempt to deliver an event."""
        self._store.attempted(self._token, event_id)

    def acknowledge(self, event_id: str) -> None:
        """Have an event sent no more: its client has it."""
        self._store.acknowledge(self._token, event_id)

    def dead_letter(self, event_id: str) -> None:
        """Have an event sent no more, since it cannot be delivered."""
        self._store.dead_letter(self._token, event_id)

    def forget(self, event_id: str) -> None:
        """Know nothing of an event any more: it was dropped."""

    def close(self) -> None:
        """Its client has left."""
