"""One Engine.IO session: what waits for its client, what its client sent, and the transport between them.

Nothing here blocks but `wait_for_packets`, which is for a long-polling request. What the client has not read yet
waits in the outbox, whose size has a bound.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import RelayError
from . import protocol
from .protocol import BadPacket, Codec, Packet
from .state import CLOSED, CLOSING, LINGERING, OPENING, UPGRADING, End, Event, State, transition
from .websocket import CloseCode, Cut
from .websocket_connection import CLIENT_CLOSED, Connection

if TYPE_CHECKING:
    from .server import Engine
    from .upgrade import Upgrade

log = logging.getLogger(__name__)

# What the relay itself has to say to a client whose outbox is full may take this much more.
CONTROL_BYTES = 65_536

# What may wait for each client when as much waits for all of them, or for those of its address, as may.
FAIR_BYTES = 65_536

# A client that polls gets at most this many bytes of packets in an answer, and at least one packet; and at most
# as many packets as python-engineio's client takes (`Payload.max_decode_packets`): of more, it takes none.
POLL_BYTES = 1_000_000
POLL_PACKETS = 16

# How many packets of one client are handled before others have their turn, and for how long: each of `WORKERS` has
# such a turn before an HTTP request has its next. And how many may wait for theirs before nothing more is read.
WORK_PACKETS = 50
WORK_SECONDS = 0.001
INBOX_PACKETS = 100


# The outbox of everybody for whom nothing waits, which is nearly everybody nearly always. Never changed.
_NOTHING: list[Packet] = []

# How acknowledgements begin, without and with attachments.
_ACKNOWLEDGEMENTS = (b"43", b"46")

_PING = Packet(protocol.PING)
_PONG = Packet(protocol.PONG)
_NOOP = Packet(protocol.NOOP)


class SessionClosed(Exception):
    """The session has ended: nothing was queued."""


class OutboxFull(Exception):
    """The client reads too slowly: nothing was queued."""


class MessageTooLarge(Exception):
    """It would not fit into an empty outbox: nothing was queued."""


class EngineFull(Exception):
    """Too much waits for all clients, or those of one address: nothing was queued. This one is not to blame."""


class Session:
    """A client's session, from its handshake until it is closed. `state.py` has what can happen to it.

    `connection` is the WebSocket that carries it, `upgrade` the one that is being tried: set by the transitions to
    the states that have one.
    """

    __slots__ = (
        "_counted_bytes",
        "_drains_before_ping",
        "_engine",
        "_inbox",
        "_inbox_space",
        "_is_corked",
        "_lost_from",
        "_outbox",
        "_outbox_bytes",
        "_poll",
        "_sent_packets",
        "address",
        "codec",
        "connection",
        "end",
        "id",
        "is_pong_due",
        "is_posting",
        "joins",
        "lock",
        "state",
        "upgrade",
    )

    def __init__(self, engine: "Engine", session_id: str, address: str, codec: Codec = protocol) -> None:
        self.id = session_id
        self.codec = codec
        self.address = address  # whom it counts for
        self.lock = engine.loop.lock()
        self.connection: Connection | None = None
        self.upgrade: Upgrade | None = None
        self.state: State = OPENING
        self.end = End.CLOSED  # why it ended, once it has
        self.joins = 0  # how often its client tried to join a namespace
        self.is_posting = False  # a request brings packets
        self.is_pong_due = False
        self._drains_before_ping = 0  # how often its connection has to drain until the last ping is written
        self._engine = engine
        self._outbox = _NOTHING
        self._outbox_bytes = 0
        self._sent_packets = 0  # how many have left the outbox for the client
        self._lost_from = math.inf  # the number of the first that the client will not be sent
        self._counted_bytes = 0  # what the engine counts as waiting for this client
        self._inbox: deque[Packet | None] | None = None  # None in it: the session has ended
        self._inbox_space: threading.Event | None = None  # while a POST waits for space in it
        self._poll: threading.Event | None = None  # while a request waits for packets
        self._is_corked = False

    # To the client

    def send(self, packets: Sequence[Packet]) -> int:
        """Queue an event; `flush` sends it. Raises `SessionClosed`, or what says why not.

        Return the number by which `has_lost` knows it.
        """
        size = sum([len(packet.data) for packet in packets])
        with self.lock:
            if not self.state.is_open:
                raise SessionClosed
            limits = self._engine.limits
            waiting = self._waiting_bytes
            if size > limits.outbox_bytes:
                raise MessageTooLarge
            if len(self._outbox) >= limits.outbox_packets or waiting + size > limits.outbox_bytes:
                raise OutboxFull
            if waiting + size > FAIR_BYTES and not self._engine.queued.has_room(self.address, size):
                raise OutboxFull if waiting > FAIR_BYTES else EngineFull
            self._queue(packets, size)
            return self._sent_packets + len(self._outbox)

    def has_lost(self, number: int) -> bool:
        """Say whether the session ended before an event was sent. Otherwise it was, or the last polls bring it."""
        return number >= self._lost_from

    def flush(self) -> None:
        """Send what is queued, as far as the client takes it. Raises `SessionClosed` if it proves to be gone."""
        with self.lock:
            self._flush()
            if not self.state.is_open:
                raise SessionClosed

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Send nothing within this context: what is queued goes out at its end, or when the session ends."""
        self._is_corked = True
        try:
            yield
        finally:
            with self.lock:
                self._is_corked = False
                self._flush()

    def send_control(self, packet: Packet) -> None:
        """Send what the protocols demand. A client that does not even read that is cut off."""
        with self.lock:
            if not self.state.is_open:
                return
            self._queue([packet], len(packet.data))
            self._flush()
            too_much = self._waiting_bytes > self._engine.limits.outbox_bytes + CONTROL_BYTES
        if too_much:
            self.abort("the client does not read", End.TOO_SLOW)

    def ping(self) -> None:
        """Ask the client whether it is still there. Its pong counts when the ping was written, and not before."""
        with self.lock:
            self.is_pong_due = True
            self.send_control(_PING)
            self._count_drains()

    def _count_drains(self) -> None:
        """Find out when the ping that was queued last will have been written."""
        is_queued = bool(self._outbox)
        is_unsent = self.connection is not None and self.connection.unsent_bytes > 0
        self._drains_before_ping = is_queued + is_unsent

    @property
    def _waiting_bytes(self) -> int:
        return self._outbox_bytes + (self.connection.unsent_bytes if self.connection is not None else 0)

    def _flush(self) -> None:
        if not self._outbox or self._is_corked:
            return
        if self.connection is None:
            if self._poll is not None:
                self._poll.set()
        elif not self.connection.unsent_bytes:
            packets = self._take_all()
            self.connection.write(self.codec.encode_frames(packets))
            self._sent_packets += len(packets)  # if the write failed, they are lost already
            self._count()

    def _take_all(self) -> list[Packet]:
        packets, self._outbox = self._outbox, _NOTHING
        self._outbox_bytes = 0
        return packets

    def _drop_all(self) -> None:
        """Send nothing of what is queued, or is queued from now on."""
        self._lost_from = min(self._lost_from, self._sent_packets + 1)
        self._take_all()

    def _queue(self, packets: Sequence[Packet], size: int) -> None:
        if self._outbox is _NOTHING:
            self._outbox = []
        self._outbox += packets
        self._outbox_bytes += size
        self._counted_bytes += size
        with self._engine.lock:
            self._engine.queued.take(self.address, size)

    def _count(self) -> None:
        """Have the engine count what waits for this client now."""
        waiting = self._waiting_bytes
        if waiting != self._counted_bytes:
            with self._engine.lock:
                self._engine.queued.give_back(self.address, self._counted_bytes - waiting)
            self._counted_bytes = waiting

    # Long-polling

    @property
    def is_polled(self) -> bool:
        """Whether a request waits for packets."""
        return self._poll is not None

    def wait_for_packets(self, timeout_seconds: float) -> None:
        """Return when there is something for the client, when the session ends, or when `release` is called."""
        with self.lock:
            if (self._outbox and not self._is_corked) or not self.state.is_open or self.state is UPGRADING:
                return
            self._poll = threading.Event()
        self._poll.wait(timeout_seconds)
        self._poll = None

    def release(self) -> None:
        """Let a request that waits return as it is."""
        if self._poll is not None:
            self._poll.set()

    def take_for_poll(self) -> list[Packet]:
        """Return what one answer may hold of the outbox: nothing once a WebSocket is to carry it."""
        with self.lock:
            if self.state in (UPGRADING, CLOSING) or self.connection is not None:
                return []
            count = size = 0
            for packet in self._outbox[:POLL_PACKETS]:
                size += len(packet.data)
                if count and size > POLL_BYTES:
                    size -= len(packet.data)
                    break
                count += 1
            packets = self._outbox[:count]
            self._outbox = self._outbox[count:] or _NOTHING
            self._outbox_bytes -= size
            self._sent_packets += count
            self._count()
            if _PING in packets:
                self._drains_before_ping = 0
            return packets

    # The transitions, but those to the end

    def open(self, connection: Connection | None = None) -> None:
        """Start to serve the client, over a WebSocket or by polls."""
        with self.lock:
            self._fire(Event.OPENED_BY_POLLING if connection is None else Event.OPENED_BY_WEBSOCKET)
            self.connection = connection

    def upgrade_started(self, upgrade: "Upgrade") -> None:
        """Try a WebSocket beside the polls. Raises `IllegalTransition`."""
        with self.lock:
            self._fire(Event.UPGRADE_STARTED)
            self.upgrade = upgrade

    def upgrade_probed(self) -> None:
        """Keep packets back from polls until the WebSocket carries the session. Raises `IllegalTransition`."""
        with self.lock:
            self._fire(Event.UPGRADE_PROBED)
            self.release()

    def upgrade_finished(self, connection: Connection) -> None:
        """Move to a WebSocket for good. Raises `IllegalTransition`."""
        with self.lock:
            self._fire(Event.UPGRADE_FINISHED)
            self.upgrade = None
            self.connection = connection
            connection.owner = self
            if self.state is LINGERING:
                self._engine.forget(self)
                self._engine.linger(self)
                connection.close(CloseCode.NORMAL, self.codec.encode_frames(self._take_all()))
                self._count()
                return
            self._flush()
            if self._drains_before_ping:
                self._count_drains()

    def upgrade_failed(self, upgrade: "Upgrade") -> None:
        """Stay with polls: the WebSocket that was tried is closed."""
        with self.lock:
            if self.upgrade is upgrade:
                self.upgrade = None
                self._fire(Event.UPGRADE_FAILED)

    def _fire(self, event: Event) -> None:
        self.state = transition(self.state, event)

    # From the client

    def receive(self, packet: Packet) -> None:
        """Take a packet. Raises `BadPacket` for one that a client does not send. After the end all are ignored."""
        if not self.state.is_open:
            return
        kind = protocol.MESSAGE if packet.binary else packet.data[:1]
        if kind == protocol.MESSAGE:
            self._put(packet)
        elif kind == protocol.PONG and not self.codec.clients_ping:
            if not self._drains_before_ping:
                self.is_pong_due = False
        elif kind == protocol.PING and self.codec.clients_ping:
            self._answer_ping()
        elif kind == protocol.CLOSE:
            self.abort(CLIENT_CLOSED, End.CLIENT, last=_NOOP)
        else:
            raise BadPacket("a packet of a type that a client does not send")

    def _answer_ping(self) -> None:
        # Without what came with the ping: no client looks at it. A client that does not read gets one answer.
        if self._outbox[-1:] != [_PONG]:
            self.send_control(_PONG)
        self._engine.pinged(self)

    def work(self) -> None:
        """Bring the application some of what the client sent, in order. One thread at a time does it."""
        ends = time.monotonic() + WORK_SECONDS
        for _ in range(WORK_PACKETS):
            with self.lock:
                if not self._inbox:
                    self._inbox = None
                    return
                packet = self._inbox.popleft()
                if len(self._inbox) == INBOX_PACKETS // 2:
                    self._read_on()
            if packet is None:
                self._finish_work()
                return
            self._engine.on_packet(self, packet)
            if time.monotonic() >= ends:
                break
        self._engine.schedule(self)

    def _finish_work(self) -> None:
        """Tell the application of the end: everything that the client sent was handled."""
        try:
            self._engine.on_departed(self)
        finally:
            with self.lock:
                self._inbox = None
                if self.state is CLOSED:
                    self._engine.uncount(self)

    def wait_for_space(self, timeout_seconds: float) -> None:
        """Return when the inbox has space for another payload, when the session ends, or after that time.

        A client that polls sends the next POST after the answer to this one, so it is slowed down.
        """
        with self.lock:
            if self._inbox is None or len(self._inbox) < INBOX_PACKETS or not self.state.is_open:
                return
            self._inbox_space = threading.Event()
        self._inbox_space.wait(timeout_seconds)
        self._inbox_space = None

    def _read_on(self) -> None:
        if self.connection is not None:
            self.connection.pause_reading(False)
        if self._inbox_space is not None:
            self._inbox_space.set()

    def _put(self, packet: Packet) -> None:
        with self.lock:
            if self._inbox is not None:
                self._inbox.append(packet)
                if self.connection is not None and len(self._inbox) >= INBOX_PACKETS:
                    self.connection.pause_reading(True)
                return
            self._inbox = deque((packet,))
        self._engine.schedule(self)

    def _put_end(self) -> None:
        """Have the application told of the end, and before it of the acknowledgements that have arrived."""
        is_at_work = self._inbox is not None
        self._inbox = deque((*_acknowledgements(self._inbox or ()), None))
        self._read_on()
        if not is_at_work:
            self._engine.schedule(self)

    # What its connection tells

    def on_message(self, opcode: int, payload: bytes) -> None:
        """Take a message of the WebSocket. Raises `BadPacket`."""
        packet = self.codec.decode_message(opcode, payload)
        self.receive(packet._replace(is_cut=True) if isinstance(payload, Cut) else packet)

    def on_drained(self) -> None:
        """Send on: the client has taken all that was written."""
        with self.lock:
            if self._drains_before_ping:
                self._drains_before_ping -= 1
            self._flush()
            self.on_progress()

    def on_progress(self) -> None:
        """Have the client cut off that reads nothing for some time while something waits for it."""
        self._count()
        if self.state.is_open and self.connection is not None:
            self._engine.expect_reading(self, self.connection.unsent_bytes > 0)

    def on_limit(self, error: RelayError) -> None:
        """Log that the client has reached a limit."""
        self._engine.note(error)

    def on_closing(self, reason: str) -> None:
        """End the session: its connection was closed because of what the client sent."""
        with self.lock:
            if self._close(reason, End.CLIENT if reason == CLIENT_CLOSED else End.PROTOCOL_ERROR):
                self._drop_all()
                self._count()

    def on_closed(self, reason: str) -> None:
        """End the session: its connection is closed."""
        self.abort(reason, End.CONNECTION_LOST)

    # The end

    def refuse(self, reason: str) -> None:
        """End the session for a message that cannot be read. What came after it is dropped."""
        with self.lock:
            if self.state.is_open:
                self._inbox = deque()
                self.close(reason, CloseCode.INVALID_DATA, End.PROTOCOL_ERROR)
            else:
                self._inbox = deque((None,))

    @property
    def has_client(self) -> bool:
        """Whether the session is open, and its client has not closed the WebSocket."""
        return self.state.is_open and not (self.connection is not None and self.connection.has_ended())

    def close(self, reason: str, code: CloseCode = CloseCode.NORMAL, end: End = End.CLOSED) -> None:
        """End the session from this side. The client gets what is queued before it is told of the end."""
        with self.lock:
            if self._close(reason, end) and self.connection is not None:
                self.connection.close(code, self.codec.encode_frames(self._take_all()))
                self._count()

    def abort(
        self,
        reason: str = "it was told to go and did not",
        end: End = End.CLOSED,
        *,
        last: Packet | None = None,
    ) -> None:
        """End the session, and its connection, at once. A poll that waits is answered with `last`, or refused."""
        with self.lock:
            if self.state is CLOSED:
                return
            is_polled = self.is_polled
            self._give_up_upgrade()
            self._leave_open(reason, end)
            self._fire(Event.ENDED)
            self._drop_all()
            if is_polled and last is not None:
                self._queue([last], len(last.data))
            if self.connection is not None:
                self.connection.abort()
            self._count()
            self._engine.forget(self)
            if self._inbox is None:  # else it counts until what has arrived is handled
                self._engine.uncount(self)

    def _close(self, reason: str, end: End) -> bool:
        """Fire `CLOSED_GENTLY`. Return whether the session was open."""
        if not self.state.is_open:
            return False
        if self.state is not UPGRADING:
            self._give_up_upgrade()
        self._leave_open(reason, end)
        self._fire(Event.CLOSED_GENTLY)
        if self.state is LINGERING:
            self._engine.forget(self)  # its id means nothing any more; one that polls needs it for its last polls
        self._engine.linger(self)
        return True

    def _give_up_upgrade(self) -> None:
        if self.upgrade is not None:
            self.upgrade.abort()  # which leads back to POLLING, or to DRAINING

    def _leave_open(self, reason: str, end: End) -> None:
        """Do what every end of an open session begins with."""
        if not self.state.is_open:
            return
        self.end = end
        log.debug("a session ended: %s", reason)
        self.release()
        if self.state is not OPENING:  # of which the application does not know
            self._put_end()


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
