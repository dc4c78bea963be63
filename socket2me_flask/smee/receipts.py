"""Which events of a mailbox a client has, as far as its connection shows. Pure.

A client of an event stream acknowledges nothing until it reconnects. So an event counts as acknowledged when the
peer's kernel has acknowledged its bytes, which leave the send queue then, and those of a later ping a while after
that. A client that was killed, or is behind a network that was cut, acknowledges none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from ..relay.delivery import OnAck


@dataclass(slots=True)
class _Mark:
    """All events up to a number were written when so many bytes were, and received at a time, if they were.

    written_then: how many bytes were written by that time. If the peer has later ones, it was there after that.
    """

    number: int
    written: int
    received_at: float | None = None
    written_then: int = 0


class Receipts:
    """The events of one stream that are not acknowledged, in their order. Its owner calls `check` now and then."""

    __slots__ = ("_last_id", "_marks", "_pending")

    def __init__(self) -> None:
        self._pending: dict[int, tuple[int, OnAck]] = {}  # the number of each, and its callback, by an id
        self._marks: list[_Mark] = []
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, number: int, on_ack: OnAck) -> int:
        """Add an event by its number, which is larger than all before. Return the id to forget it by."""
        self._last_id += 1
        self._pending[self._last_id] = number, on_ack
        return self._last_id

    def forget(self, ack_id: int) -> None:
        """Wait no more for an event."""
        self._pending.pop(ack_id, None)

    def take_all(self) -> list[OnAck]:
        """Remove and return all that wait."""
        waiting = [on_ack for _, on_ack in self._pending.values()]
        self._pending.clear()
        self._marks.clear()
        return waiting

    def check(
        self, now: float, after_seconds: float, has_written: Callable[[int], bool], written: int, received: int
    ) -> list[OnAck]:
        """Remove and return those that count as acknowledged.

        `has_written` says whether an event was written. `written` and `received` are the bytes of the connection
        that were written, and that the peer has.
        """
        newest = next((number for number, _ in reversed(self._pending.values()) if has_written(number)), 0)
        if newest and (not self._marks or newest > self._marks[-1].number):
            self._marks.append(_Mark(newest, written))
        up_to = 0
        for mark in self._marks:
            if mark.received_at is None and mark.written <= received:
                mark.received_at, mark.written_then = now, written
            is_due = mark.received_at is not None and now - mark.received_at >= after_seconds
            if is_due and received > mark.written_then:
                up_to = mark.number
        self._marks = [mark for mark in self._marks if mark.number > up_to]
        done = [ack_id for ack_id, _ in takewhile(lambda each: each[1][0] <= up_to, self._pending.items())]
        return [self._pending.pop(ack_id)[1] for ack_id in done]
