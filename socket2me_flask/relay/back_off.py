"""The events of a mailbox that wait for another attempt."""

import logging
from dataclasses import dataclass

from ..concurrency.timeout_queue import TimeoutQueue

log = logging.getLogger(__name__)

# How long an event waits that was rejected or not acknowledged, before each further attempt: twice as long each
# time, up to five minutes. With the default SOCKET2ME_MAX_ATTEMPTS an event outlives a client that fails for eight
# hours.
RETRY_SECONDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)

# How many events of a mailbox may wait for another attempt while later ones are sent. Above it, the first to become
# due goes next.
MAX_BACKED_OFF = 64


@dataclass(eq=False, slots=True)
class BackedOff:
    """An event that waits for its next attempt, what sends it then, and the timer that ends the wait."""

    owner: "BackOffs"
    event_id: str
    timer: TimeoutQueue

    def end(self) -> None:
        """Send the event again."""
        if self.owner.backed_off.pop(self.event_id, None) is self:
            self.owner.retry(self.event_id)


class BackOffs:
    """The events that wait for their next attempt: those of an outlet, or on `one` of all outlets of a token.

    backed_off: the events by their ids. None of them is on its way to a client.
    """

    def __init__(self) -> None:
        self.backed_off: dict[str, BackedOff] = {}

    def wait(self, event_id: str, timer: TimeoutQueue) -> None:
        """Have an event wait for its next attempt until the timer calls `retry`."""
        self.backed_off[event_id] = backed_off = BackedOff(self, event_id, timer)
        timer.add(backed_off)
        if len(self.backed_off) == MAX_BACKED_OFF:
            log.warning(
                "%d events of a mailbox failed and wait for another attempt: none goes before", MAX_BACKED_OFF
            )

    def end_wait(self, event_id: str) -> None:
        """End the wait of an event, if it waits, without `retry`."""
        backed_off = self.backed_off.pop(event_id, None)
        if backed_off is not None:
            backed_off.timer.discard(backed_off)

    def retry(self, event_id: str) -> None:
        """Send an event whose wait has ended."""
        raise NotImplementedError
