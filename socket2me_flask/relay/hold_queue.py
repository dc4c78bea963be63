"""Calls that wait for a client, or for room in a client's window, in the order in which they came.

Knows calls and bounds, not clients. Whoever uses it holds one lock around each step.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import TooManyHeld, TooManyHeldOfToken
from ..limits import Pool, address_key
from .call import Call
from .delivery import Delivery, PendingAck


@dataclass(eq=False)
class HeldCall:
    """A call that waits, and the signal that it waits no more.

    new_awaited: makes what waits for the acknowledgement, for a mode.
    error: why it was not delivered.
    handed: its delivery. None, and no error either: a client has connected to another process.
    on_released: called after `released` was set.
    """

    call: Call
    new_pending_ack: Callable[[str], PendingAck] = PendingAck
    address: str = ""  # whose share of all held calls it takes, and how many bytes of it
    size: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    delivery: Delivery | None = None
    on_released: Callable[[], None] | None = None


class HoldQueue:
    """The held calls of all tokens.

    `max_requests` and `max_bytes` are for all of them, shared by the callers' addresses. `requests` and `bytes` are
    what is held.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_requests_per_token: int,
        max_bytes: int,
    ) -> None:
        self._max_requests_per_token = max_requests_per_token
        self._held: dict[str, deque[HeldCall]] = {}
        self.requests = Pool(max_requests)
        self.bytes = Pool(max_bytes)

    def __contains__(self, token: str) -> bool:
        return token in self._held

    def tokens(self) -> list[str]:
        """Return the tokens whose calls are held."""
        return list(self._held)

    def oldest(self, token: str) -> HeldCall | None:
        """Return the call of a token that is due next."""
        return next(iter(self._held.get(token, ())), None)

    def add(self, held: HeldCall) -> HeldCall:
        """Hold a call. Raises `TooManyHeld` or `TooManyHeldOfToken`."""
        call = held.call
        held.address, held.size = address_key(call.remote_addr), call.size
        if not self.requests.has_room(held.address, 1) or not self.bytes.has_room(held.address, held.size):
            raise TooManyHeld
        if len(self._held.get(call.token, ())) >= self._max_requests_per_token:
            raise TooManyHeldOfToken
        self._held.setdefault(call.token, deque()).append(held)
        self.requests.take(held.address, 1)
        self.bytes.take(held.address, held.size)
        return held

    def release(self, held: HeldCall, error: Exception | None = None) -> None:
        """Let whoever waits for a held call go on."""
        held.error = error
        self.remove(held)
        held.released.set()
        if held.on_released is not None:
            held.on_released()

    def release_all(self, token: str, error: Exception | None = None) -> None:
        """Release all calls of a token."""
        for held in list(self._held.get(token, ())):
            self.release(held, error)

    def remove(self, held: HeldCall) -> None:
        """Take a call out. Nobody waits for it any more."""
        queue = self._held[held.call.token]
        queue.remove(held)  # near the front: calls leave in the order in which they came
        if not queue:
            del self._held[held.call.token]
        self.requests.give_back(held.address, 1)
        self.bytes.give_back(held.address, held.size)
