"""How many sessions there are, in all and of each address, and whether another may begin."""

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

from ..errors import ShuttingDown, TooManyConnections, TooManyConnectionsOfAddress


class Admission:
    """Counts sessions: each until its socket is closed and what it sent was handled.

    is_draining: no request is served any more.
    """

    def __init__(self, most: int, most_of_address: int, lock: AbstractContextManager[Any]) -> None:
        """`most` and `most_of_address` are the bounds, of which 0 is none."""
        self._most = most
        self._most_of_address = most_of_address
        self._lock = lock
        self.sessions = 0
        self.by_address: Counter[str] = Counter()
        self.is_draining = False

    def check(self) -> None:
        """Raise `ShuttingDown` while the process drains."""
        if self.is_draining:
            raise ShuttingDown

    def admit(self, address: str) -> None:
        """Count a new session. Raises `TooManyConnections` or `TooManyConnectionsOfAddress`."""
        with self._lock:
            if self._most and self.sessions >= self._most:
                raise TooManyConnections
            if self._most_of_address and self.by_address[address] >= self._most_of_address:
                raise TooManyConnectionsOfAddress
            self.sessions += 1
            self.by_address[address] += 1

    def release(self, address: str) -> None:
        """Count a session no more. Called once for each that was admitted."""
        with self._lock:
            self.sessions -= 1
            self.by_address[address] -= 1
            if self.by_address[address] <= 0:
                del self.by_address[address]
