"""Events that were read for one of several listeners, for the others that are about to receive them."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .call import Call

# How many events are remembered, of all tokens together, and how many bytes of them: listeners that keep up receive
# an event within a moment of each other.
MAX_RECENT_EVENTS = 100
MAX_RECENT_BYTES = 4_000_000


@dataclass(slots=True)
class Recent:
    """An event with its content, and what clients have encoded of its first attempt."""

    call: Call
    encoded: dict[bool, Any] = field(default_factory=dict)


class RecentEvents:
    """The events that were read last, by their ids."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, Recent] = OrderedDict()
        self._bytes = 0

    def get(self, event_id: str) -> Recent | None:
        """Return an event, if it is remembered."""
        return self._events.get(event_id)

    def ids(self) -> Iterable[str]:
        """Return the ids of all of them."""
        return self._events.keys()

    def add(self, call: Call) -> None:
        """Remember an event, and forget the oldest beyond the bounds."""
        if call.id in self._events:
            return
        self._events[call.id] = Recent(call)
        self._bytes += call.size
        while len(self._events) > MAX_RECENT_EVENTS or self._bytes > MAX_RECENT_BYTES:
            _, oldest = self._events.popitem(last=False)
            self._bytes -= oldest.call.size
