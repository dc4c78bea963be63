"""The packets that wait to be sent to one client: their bounds in number and bytes, and how they are sent.

A session that calls these methods holds its lock.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..concurrency.detached_connection import DetachedConnection
from ..limits import Pool
from .protocol import PING_PACKET, FrameCodec, Packet
from .websocket import CloseCode

# What the protocols demand of the relay may exceed a full outbox by this much.
CONTROL_BYTES = 65_536

# What may wait for each client even when the outboxes of all clients, or of its address, are full.
FAIR_BYTES = 65_536

# An answer to a poll has at most this many bytes of packets, and at least one packet. And it has at most as many as
# python-engineio's client accepts (`Payload.max_decode_packets`), which refuses a longer payload as a whole.
POLL_BYTES = 1_000_000
POLL_PACKETS = 16

# The packets of every empty outbox. Never changed: an idle client has no list of its own.
_NOTHING: list[Packet] = []


class OutboxFull(Exception):
    """The client reads too slowly: nothing was queued."""


class MessageTooLarge(Exception):
    """The message would not fit into an empty outbox: nothing was queued."""


class EngineFull(Exception):
    """The outboxes of all clients, or of those of one address, are full: nothing was queued."""


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """The bounds of each outbox, in packets and bytes, and of all together: `total` has the bytes of each address.

    `lock` keeps the threads of different sessions apart.
    """

    packets: int
    bytes: int
    total: Pool
    lock: AbstractContextManager[Any]


@dataclass(slots=True, eq=False)
class Outbox:
    """The outbox of one client. What was written to its connection and is unsent counts as waiting, too."""

    _limits: OutboxLimits
    _address: str  # the one that its bytes count for
    _codec: FrameCodec
    _lock: AbstractContextManager[Any]
    connection: DetachedConnection[Any] | None = field(
        default=None, init=False
    )  # without one, polls take the packets
    packets: list[Packet] = field(default_factory=lambda: _NOTHING, init=False)
    _is_corked: bool = field(default=False, init=False)
    _poll: threading.Event | None = field(default=None, init=False)  # while a poll waits for packets
    _queued_bytes: int = field(default=0, init=False)
    _counted_bytes: int = field(default=0, init=False)  # in the total of all outboxes
    _sent_packets: int = field(default=0, init=False)  # since the session began
    _lost_from: float = field(default=math.inf, init=False)  # the number of the first packet that was dropped
    _drains_before_ping: int = field(default=0, init=False)  # of the connection, until the last ping is written

    @property
    def unsent_bytes(self) -> int:
        """What was written to the connection and is unsent."""
        return self.connection.unsent_bytes if self.connection is not None else 0

    def add(self, packets: Sequence[Packet]) -> int:
        """Queue the packets of one event. Return its number, for `has_lost`.

        Raises `MessageTooLarge`, `OutboxFull` or `EngineFull`.
        """
        size = sum([len(packet.data) for packet in packets])
        limits = self._limits
        waiting = self._queued_bytes + self.unsent_bytes
        if size > limits.bytes:
            raise MessageTooLarge
        if len(self.packets) >= limits.packets or waiting + size > limits.bytes:
            raise OutboxFull
        if waiting + size > FAIR_BYTES and not limits.total.has_room(self._address, size):
            raise OutboxFull if waiting > FAIR_BYTES else EngineFull
        self._append(packets, size)
        return self._sent_packets + len(self.packets)

    def add_control(self, packet: Packet) -> None:
        """Queue what the protocols demand, even if the outbox is full."""
        self._append([packet], len(packet.data))

    @property
    def is_overfull(self) -> bool:
        """Whether more waits than a client that reads now and then would leave."""
        return self._queued_bytes + self.unsent_bytes > self._limits.bytes + CONTROL_BYTES

    def flush(self) -> None:
        """Send what is queued, as far as the client accepts it."""
        if not self.packets or self._is_corked:
            return
        if self.connection is None:
            self.release_poll()
        elif not self.connection.unsent_bytes:
            packets = self._take_all()
            self.connection.write(self._codec.encode_frames(packets))
            self._sent_packets += len(packets)  # if the connection has broken, they are lost already
            self.count()

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Send nothing within this context: what is queued is sent at its end, or when the session ends."""
        self._is_corked = True
        try:
            yield
        finally:
            with self._lock:
                self._is_corked = False
                self.flush()

    def close(self, code: CloseCode) -> None:
        """Write what is queued and a close frame. Without a connection, the next polls bring what is queued."""
        if self.connection is not None:
            self.connection.close(code, self._codec.encode_frames(self._take_all()))
            self.count()

    def drop(self) -> None:
        """Drop what is queued. Neither that nor what is added later will be sent."""
        self._lost_from = min(self._lost_from, self._sent_packets + 1)
        self._take_all()
        self.count()

    def abort(self) -> None:
        """Drop what is queued, and end the connection."""
        self.drop()
        if self.connection is not None:
            self.connection.abort()
            self.count()

    def has_sent(self, number: int) -> bool:
        """Return whether an event was written to the connection, or taken by a poll."""
        return number <= self._sent_packets

    def has_lost(self, number: int) -> bool:
        """Return whether the session ended before an event was sent. Else it was, or the last polls bring it."""
        return number >= self._lost_from

    def count(self) -> None:
        """Bring the total up to date."""
        waiting = self._queued_bytes + self.unsent_bytes
        if waiting != self._counted_bytes:
            with self._limits.lock:
                self._limits.total.give_back(self._address, self._counted_bytes - waiting)
            self._counted_bytes = waiting

    # Heartbeat

    @property
    def has_sent_ping(self) -> bool:
        """Whether the last ping was written, or taken by a poll."""
        return not self._drains_before_ping

    def track_ping(self) -> None:
        """Find out how often the connection has to drain until the ping that was queued last is written."""
        self._drains_before_ping = bool(self.packets) + (self.unsent_bytes > 0)

    def on_drained(self) -> None:
        """Send on: the client has read all that was written."""
        if self._drains_before_ping:
            self._drains_before_ping -= 1
        self.flush()

    # Long-polling

    @property
    def is_polled(self) -> bool:
        """Whether a poll waits for packets."""
        return self._poll is not None

    def begin_poll(self) -> threading.Event | None:
        """Return what is set when there are packets, or None if there are some already. `end_poll` must follow."""
        if self.packets and not self._is_corked:
            return None
        self._poll = threading.Event()
        return self._poll

    def end_poll(self) -> None:
        """End what `begin_poll` began: the poll waits no more."""
        self._poll = None

    def release_poll(self) -> None:
        """End the wait of a poll, if one waits."""
        if self._poll is not None:
            self._poll.set()

    def take_for_poll(self) -> list[Packet]:
        """Remove what one answer to a poll may hold, and return it."""
        count = size = 0
        for packet in self.packets[:POLL_PACKETS]:
            if count and size + len(packet.data) > POLL_BYTES:
                break
            size += len(packet.data)
            count += 1
        packets = self.packets[:count]
        self.packets = self.packets[count:] or _NOTHING
        self._queued_bytes -= size
        self._sent_packets += count
        self.count()
        if PING_PACKET in packets:
            self._drains_before_ping = 0
        return packets

    def _take_all(self) -> list[Packet]:
        packets, self.packets = self.packets, _NOTHING
        self._queued_bytes = 0
        return packets

    def _append(self, packets: Sequence[Packet], size: int) -> None:
        if self.packets is _NOTHING:
            self.packets = []
        self.packets += packets
        self._queued_bytes += size
        self._counted_bytes += size
        with self._limits.lock:
            self._limits.total.take(self._address, size)
