"""The packets of one client that wait for the application to handle them, and the work of handling them.

A session has an inbox only while something waits in it, so that an idle client costs none.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .protocol import Packet

if TYPE_CHECKING:
    from .server import Engine
    from .session import Session

# How many packets of one client are handled before other clients and requests are served, and for how long. And how
# many may wait before nothing more is read of the client.
WORK_PACKETS = 50
WORK_SECONDS = 0.001
INBOX_PACKETS = 100

# How Socket.IO acknowledgements begin, without and with attachments.
_ACKNOWLEDGEMENTS = (b"43", b"46")


@dataclass(slots=True, eq=False)
class Inbox:
    """The inbox of a session. `None` among its packets is the end of the session, the last that is handled."""

    _engine: "Engine"
    _session: "Session"
    _packets: deque[Packet | None]
    space: threading.Event | None = field(default=None, init=False)  # while a POST waits for space

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, packet: Packet) -> None:
        """Append a packet. A WebSocket is read no further while the inbox is full."""
        self._packets.append(packet)
        connection = self._session.outbox.connection
        if connection is not None and len(self._packets) >= INBOX_PACKETS:
            connection.pause_reading(True)

    def add_end(self) -> None:
        """Append the end, and drop what has not been handled before it, but for acknowledgements."""
        self._packets = deque((*_acknowledgements(self._packets), None))
        self._read_on()

    def drop(self) -> None:
        """Drop all packets, but not the end."""
        self._packets = deque([packet for packet in self._packets if packet is None])

    def wait_for_space(self, timeout_seconds: float) -> None:
        """Return when there is space for another payload, when the session ends, or after that time."""
        with self._session.lock:
            if len(self._packets) < INBOX_PACKETS or not self._session.state.is_open:
                return
            self.space = threading.Event()
        self.space.wait(timeout_seconds)
        self.space = None

    def work(self) -> None:
        """Let the application handle some packets, in order. Only one thread at a time may call this."""
        session = self._session
        ends_at = time.monotonic() + WORK_SECONDS
        for _ in range(WORK_PACKETS):
            with session.lock:
                if not self._packets:
                    session.end_inbox()
                    return
                packet = self._packets.popleft()
                if len(self._packets) == INBOX_PACKETS // 2:
                    self._read_on()
            if packet is None:
                self._finish()
                return
            self._engine.on_packet(session, packet)
            if time.monotonic() >= ends_at:
                break
        self._engine.dispatcher.schedule(self)

    def _finish(self) -> None:
        """Report the end of the session to the application: everything that the client sent was handled."""
        try:
            self._engine.on_departed(self._session)
        finally:
            self._session.end_inbox()

    def _read_on(self) -> None:
        connection = self._session.outbox.connection
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
