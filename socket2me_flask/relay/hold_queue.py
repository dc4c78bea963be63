"""Calls that wait for a client, or for room in a client's window, in the order in which they came.

Knows calls and bounds, not clients. Its user holds one lock around each step.
"""

from collections import deque
from collections.abc import Callable

from ..concurrency.latch import Latch
from ..errors import TooManyHeld, TooManyHeldOfToken
from ..limits import Pool, address_key
from .call import Call
from .delivery import Delivery, PendingAck


class PendingDelivery:
    """A call that is to be delivered, at once or as soon as there is a client with room for it.

    delivery: what came of it.
    error: why it was not delivered.
    is_released: whether it waits no more. Without a delivery and an error its client is at another process.
    new_pending_ack: makes what waits for the acknowledgement, for a mode.
    """

    __slots__ = (
        *("_on_released", "_wait_ended", "address", "call", "delivery", "error"),
        *("is_released", "new_pending_ack", "size"),
    )

    def __init__(self, call: Call, new_pending_ack: Callable[[str], PendingAck] = PendingAck) -> None:
        self.call = call
        self.new_pending_ack = new_pending_ack
        self.delivery: Delivery | None = None
        self.error: Exception | None = None
        self.is_released = False
        self._on_released: Callable[[], None] | None = None
        self.address, self.size = "", 0  # whose share of all held calls it takes, and how many bytes of it
        self._wait_ended = Latch()

    def release(self, delivery: Delivery | None = None, error: Exception | None = None) -> None:
        """End the wait."""
        self.delivery, self.error, self.is_released = delivery, error, True
        self._wait_ended.set()
        if self._on_released is not None:
            self._on_released()

    def watch(self, on_released: Callable[[], None]) -> bool:
        """Have `on_released` called when it is released. Return False if it is already: then it is not called."""
        if not self.is_released:
            self._on_released = on_released
        return not self.is_released

    def wait(self, seconds: float) -> bool:
        """Return whether it was released within that time. One thread may wait, once."""
        return self._wait_ended.wait(seconds)

    def result(self) -> Delivery | None:
        """Return the delivery, if there is one. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.delivery


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
        self._held: dict[str, deque[PendingDelivery]] = {}
        self.requests = Pool(max_requests)
        self.bytes = Pool(max_bytes)

    def __contains__(self, token: str) -> bool:
        return token in self._held

    def tokens(self) -> list[str]:
        """Return the tokens whose calls are held."""
        return list(self._held)

    def oldest(self, token: str) -> PendingDelivery | None:
        """Return the call of a token that is due next."""
        return next(iter(self._held.get(token, ())), None)

    def add(self, held: PendingDelivery) -> None:
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

    def release(
        self, held: PendingDelivery, delivery: Delivery | None = None, error: Exception | None = None
    ) -> None:
        """Take a call out, and end its wait."""
        self.remove(held)
        held.release(delivery, error)

    def release_all(self, token: str, error: Exception | None = None) -> None:
        """Release all calls of a token."""
        for held in list(self._held.get(token, ())):
            self.release(held, error=error)

    def remove(self, held: PendingDelivery) -> None:
        """Take a call out that is not waited for any more."""
        queue = self._held[held.call.token]
        queue.remove(held)  # near the front: calls leave in the order in which they came
        if not queue:
            del self._held[held.call.token]
        self.requests.give_back(held.address, 1)
        self.bytes.give_back(held.address, held.size)
