"""One timer for many items: an action for each, a fixed time after the item was added."""

import time
from collections.abc import Callable
from itertools import islice, takewhile
from typing import Any


class TimeoutQueue:
    """Does something with items, each `seconds` after it was added: the oldest is always the first due.

    Adding and discarding cost the same however many there are. Its owner calls `run` now and then.
    """

    def __init__(self, seconds: float, action: Callable[[Any], None]) -> None:
        self._seconds = seconds
        self._action = action
        self._due: dict[Any, float] = {}  # in the order in which they are due

    def __len__(self) -> int:
        return len(self._due)

    def add(self, item: Any) -> None:
        """Add an item, whose time runs from now."""
        self._due.pop(item, None)
        self._due[item] = time.monotonic() + self._seconds

    def discard(self, item: Any) -> None:
        """Take an item out, if it is in."""
        self._due.pop(item, None)

    def postpone(self, seconds: float) -> None:
        """Give all items so much more time."""
        for item in list(self._due):
            if item in self._due:
                self._due[item] += seconds

    def oldest(self, count: int, *, seconds: float) -> list[Any]:
        """Return up to `count` items that were added at least `seconds` ago, the oldest first."""
        due_before = time.monotonic() + self._seconds - seconds
        return [item for item, due in islice(self._due.items(), count) if due <= due_before]

    def run(self, yield_to_others: Callable[[], None]) -> None:
        """Act on what is due, giving way to others now and then."""
        now = time.monotonic()
        try:
            due = [item for item, when in takewhile(lambda entry: entry[1] <= now, self._due.items())]
        except RuntimeError:
            return  # another thread has changed it just now: the next run is soon
        for number, item in enumerate(due, 1):
            if self._due.pop(item, None) is not None:
                self._action(item)
            if number % 100 == 0:
                yield_to_others()


# Makes a timeout queue that is run elsewhere, of a time in seconds and an action.
NewTimer = Callable[[float, Callable[[Any], None]], TimeoutQueue]
