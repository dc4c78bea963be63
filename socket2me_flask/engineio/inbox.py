"""The packets of one client that wait for the application to handle them.

A session has an inbox only while something waits in it, so that an idle client costs none.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from .outbox import Outbox
from .protocol import Packet

# How many packets of one client may wait before nothing more is read of it.
INBOX_PACKETS = 100

# How Socket.IO acknowledgements begin, without and with attachments.
_ACKNOWLEDGEMENTS = (b"43", b"46")


@dataclass(slots=True, eq=False)
class Inbox:
    """The inbox of a session, whose lock and outbox it has. Where the lock is not taken here, the caller holds it.

    `None` among its packets is the end of the session, the last that is handled.
    """

    _lock: AbstractContextManager[Any]
    _outbox: Outbox
    packets: deque[Packet | None]
    space: threading.Event | None = field(default=None, init=False)  # while a POST waits for space

    def add(self, packet: Packet) -> None:
        """Append a packet. A WebSocket is read no further while the inbox is full."""
        self.packets.append(packet)
        connection = self._outbox.connection
        if connection is not None and len(self.packets) >= INBOX_PACKETS:
            connection.pause_reading(True)

    def add_end(self) -> None:
        """Append the end, and drop what has not been handled before it, but for acknowledgements."""
        self.packets = deque((*_acknowledgements(self.packets), None))
        self._read_on()

    def drop(self) -> None:
        """Drop all packets, but not the end."""
        self.packets = deque([packet for packet in self.packets if packet is None])

    def wait_for_space(self, timeout_seconds: float) -> None:
        """Return when there is space for another payload, when the session ends, or after that time."""
        with self._lock:
            if len(self.packets) < INBOX_PACKETS or self.packets[-1] is None:
                return
            self.space = threading.Event()
        self.space.wait(timeout_seconds)
        self.space = None

    def take(self) -> Packet | None:
        """Remove the oldest packet and return it. Once there is space again, the client is read on."""
        packet = self.packets.popleft()
        if len(self.packets) == INBOX_PACKETS // 2:
            self._read_on()
        return packet

    def _read_on(self) -> None:
        connection = self._outbox.connection
        if connection is not None:
            connection.pause_reading(False)
        if self.space is not None:
            self.space.set()


def _acknowledgements(packets: Iterable[Packet | None]) -> Iterator[Packet]:
    """Yield those packets that are Socket.IO acknowledgements, with their attachments.

    The first binary packets may belong to an acknowledgement that was handled before them.
    """
    is_wanted = True
    for packet in packets:
        if packet is not None:
            is_wanted = is_wanted if packet.binary else packet.data.startswith(_ACKNOWLEDGEMENTS)
            if is_wanted:
                yield packet
