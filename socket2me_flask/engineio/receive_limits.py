"""How much the peer of one WebSocket may send: frames in a second, and bytes of an incomplete message. No I/O."""

import time
from dataclasses import dataclass, field

from ..limits import Pool

# How many frames a peer may send in a second, averaged over one; for the rest of that second nothing is read of it.
# A client sends a frame or two for each call that it acknowledges, and one process forwards fewer calls than this.
FRAMES_PER_SECOND = 5000

# An incomplete message up to this size is not counted among those of all connections.
SMALL_HELD_BYTES = 16_384


@dataclass(slots=True, eq=False)
class ReceiveLimits:
    """What one peer has sent, compared with what it may send."""

    _incomplete: Pool  # the bytes of all incomplete messages, by address
    _address: str
    _counted_bytes: int = field(default=0, init=False)  # in `_incomplete`
    _frames: int = field(default=0, init=False)  # in the second that ends at:
    _second_ends: float = field(default=0.0, init=False)

    def hold(self, size: int) -> bool:
        """Count the bytes that are held of an incomplete message. Return False, and count nothing, without room."""
        counted = size if size > SMALL_HELD_BYTES else 0
        more = counted - self._counted_bytes
        if more > 0 and not self._incomplete.has_room(self._address, more):
            return False
        if more:
            self._incomplete.give_back(self._address, -more)
            self._counted_bytes = counted
        return True

    def count_frames(self, frames: int) -> float:
        """Count frames. Return for how many seconds nothing more may be read: 0 below the limit."""
        now = time.monotonic()
        if now >= self._second_ends:
            self._frames = 0
            self._second_ends = now + 1
        self._frames += frames
        return self._second_ends - now if self._frames > FRAMES_PER_SECOND else 0
