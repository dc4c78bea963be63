"""One stream, by the client interface of `relay/`: it accepts calls, and acknowledges none by itself."""

import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from socket2me.inspector.filters import Filter

from ..concurrency.detached_connection import ConnectionOwner
from ..concurrency.timeout_queue import TimeoutQueue
from ..engineio.outbox import EngineFull, MessageTooLarge, Outbox, OutboxFull, OutboxLimits
from ..engineio.protocol import Packet
from ..engineio.websocket import CloseCode
from ..errors import ClientDoesNotRead, ClientGone, ClientTooSlow, EventTooLarge, NoRoom, RelayError, TooManyQueued
from ..relay.call import Call
from ..relay.delivery import Answering, OnAck
from ..storage import TokenRecord
from .frames import PING, READY, RETRY_MS, retry
from .receipts import Receipts
from .resume import Predecessor, new_listener
from .stream_connection import StreamCodec, StreamConnection

# Callers of `/go` do not wait for a stream.
_SILENT = Answering(is_silent=True)

# How many events of a mailbox may be on their way to a stream, which acknowledges them after a minute or so: as
# many as a mailbox holds by default.
WINDOW = 1000

_PING, _READY = Packet(PING), Packet(READY)


class Server(Protocol):
    """What a stream asks of what opens all of them.

    ack_seconds: so long after it was had an event of a mailbox counts as acknowledged.
    pings: has the next ping of a stream sent.
    receipts: has a stream look at which of its events of a mailbox count as acknowledged.
    closing: ends the connection of a stream that has ended, if its client does not close it.
    """

    ack_seconds: float
    pings: TimeoutQueue
    receipts: TimeoutQueue
    closing: TimeoutQueue

    def packet_of(self, call: Call, *, is_exact: bool) -> Packet:
        """Return a call as an event, which is made once for all streams of its channel."""

    def on_room(self, stream: "Stream") -> None:
        """Look for events in the mailbox of a stream's channel: its client has read what it was sent."""

    def on_time(self, stream: "Stream") -> None:
        """Do what is due about as often as a ping, in the background.

        Let the token of a stream live for its whole time again, and forget the position of its predecessor.
        """

    def end_slow(self, stream: "Stream", error: RelayError) -> None:
        """End a stream that does not read, and say which limit it has reached."""

    def note_end(self, stream: "Stream", end: str) -> None:
        """Count and log the end of a stream."""

    def left(self, stream: "Stream", address: str) -> None:
        """Forget a stream that has ended. Waits for nothing: its client is detached in the background."""


class Stream(ConnectionOwner):
    """A stream of one channel: what `delivery.Client` asks for.

    Where the server lets its socket go, `connect` gives it a connection. Elsewhere `pieces` is the response.

    is_exact: it has gosmee's form.
    extend_at: when its token is to be refreshed, in the time of `time.monotonic`.
    contact_at: when its client was last known to be there, in seconds since the epoch.
    has_mailbox: whether its events come from a mailbox.
    predecessor: the connection that its client had before, whose position is still to be forgotten.
    """

    __slots__ = (
        *("_address", "_has_progressed", "_is_open", "_lock", "_outbox", "_receipts", "_received_bytes"),
        *("_server", "_wants_room", "answering", "contact_at", "extend_at", "filter", "has_mailbox", "is_exact"),
        *("listener", "number", "predecessor", "secret_hash", "sid", "since", "token"),
    )

    def __init__(
        self,
        server: Server,
        record: TokenRecord,
        address: str,
        codec: StreamCodec,
        *,
        limits: OutboxLimits,
        lock: AbstractContextManager[Any],
        is_exact: bool,
        extend_at: float,
        has_mailbox: bool,
    ) -> None:
        self._server = server
        self._address = address
        self._lock = lock
        self._outbox = Outbox(limits, address, codec, lock)
        self._is_open = True
        self._has_progressed = False
        self._receipts: Receipts | None = None  # while there are events of a mailbox
        self._wants_room = False
        self.token = record.token
        self.is_exact = is_exact
        self.sid = secrets.token_urlsafe(12)
        self.listener = new_listener(self.sid)
        self.answering: Answering | None = _SILENT
        self.number = self._received_bytes = 0
        self.filter: Filter | None = None
        self.since = self.contact_at = time.time()
        self.secret_hash = record.secret_hash
        self.extend_at = extend_at
        self.has_mailbox = has_mailbox
        self.predecessor: Predecessor | None = None

    # What `delivery.Client` asks for

    listeners = "all"
    mode = "notify"
    is_silent = True
    window = WINDOW
    bounds_calls = False

    def has_room_for(self, call: Call) -> bool:
        return True

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self._is_open

    @property
    def in_flight(self) -> int:
        return len(self._receipts or ())

    def send(
        self,
        call: Call,
        on_ack: OnAck | None = None,
        attempt: int | None = None,
        encoded: dict[bool, Any] | None = None,
    ) -> int | None:
        packet = self._server.packet_of(call, is_exact=self.is_exact)
        with self._lock:
            if not self._is_open:
                raise ClientGone
            try:
                self.number = self._outbox.add([packet])
            except EngineFull:
                raise TooManyQueued from None
            except MessageTooLarge:
                raise EventTooLarge from None
            except OutboxFull:
                if attempt is not None:
                    self._wants_room = True
                    raise NoRoom from None  # until it has read what it has
                error = ClientTooSlow()
                self._server.end_slow(self, error)
                raise error from None
            if on_ack is None or attempt is None:  # it acknowledges nothing while a caller waits
                return None
            if self._receipts is None:
                self._receipts = Receipts()
            if not self._receipts:
                self._server.receipts.add(self)
            return self._receipts.add(self.number, on_ack)

    def forget(self, ack_id: int | None) -> None:
        if self._receipts is not None and ack_id is not None:
            self._receipts.forget(ack_id)

    def flush(self) -> None:
        with self._lock:
            self._outbox.flush()
            if not self._is_open:
                raise ClientGone

    def has_lost(self, number: int) -> bool:
        return self._outbox.has_lost(number)

    def send_dropped(self, event_id: str) -> None:
        pass

    def disconnect(self, final_event: str | None = None) -> None:
        self._server.note_end(self, final_event or "token_ended")
        self.close()

    def drop_connection(self) -> None:
        self.close()

    # Its connection

    def connect(self, connection: StreamConnection, head: bytes) -> None:
        """Send over `connection` from now on: first `head`, the response's, then what is queued already."""
        with self._lock:
            connection.write(head + connection.codec.encode_frames([_READY]))
            self._outbox.connection = connection
            if self._is_open:
                self._outbox.flush()
                self._server.pings.add(self)
            else:
                self._end_connection()
        self._offer_room()

    def pieces(self, ping_seconds: float) -> Iterator[bytes]:
        """Yield the body of the response, until the stream ends. A ping follows so long after the last event."""
        try:
            yield READY
            while self._is_open or self._outbox.packets:
                with self._lock:
                    waiter = self._outbox.begin_poll() if self._is_open else None
                if waiter is not None and not waiter.wait(ping_seconds):
                    self._on_time()
                    yield PING
                    continue
                with self._lock:
                    self._outbox.end_poll()
                    packets = self._outbox.take_for_poll()
                if packets:
                    yield b"".join([packet.data for packet in packets])
                self._offer_room()
        finally:
            self.abort()

    def ping(self) -> None:
        """Send a ping, or end a stream that has read nothing since the last."""
        with self._lock:
            if not self._is_open:
                return
            if not self._outbox.unsent_bytes:
                self._outbox.add_control(_PING)
                self._outbox.flush()
            elif not self._has_progressed:
                self._server.end_slow(self, ClientDoesNotRead())
                return
            self._has_progressed = False
        self._server.pings.add(self)
        self._on_time()

    def on_progress(self) -> None:
        self._has_progressed = True
        self._outbox.count()

    def on_drained(self) -> None:
        with self._lock:
            self._outbox.on_drained()
            self.on_progress()
        self._offer_room()

    def on_closed(self, reason: str) -> None:
        if self._is_open:
            self._server.note_end(self, "connection_lost")
        self.abort()

    def close(self) -> None:
        """End the stream: what is queued is sent first, and its client connects again."""
        with self._lock:
            if self._is_open:
                self._outbox.add_control(Packet(retry(RETRY_MS / 1000)))
                self._leave()
                self._outbox.release_poll()
                if self._outbox.connection is not None:
                    self._end_connection()

    def abort(self) -> None:
        """End the stream and its connection at once."""
        with self._lock:
            self._leave()
            self._outbox.release_poll()
            self._outbox.abort()
            self._server.closing.discard(self)

    def _end_connection(self) -> None:
        self._outbox.close(CloseCode.NORMAL)
        self._server.closing.add(self)

    def _leave(self) -> None:
        if self._is_open:
            self._is_open = False
            self._server.left(self, self._address)
            for on_ack in self._receipts.take_all() if self._receipts is not None else ():
                on_ack(None)

    def _offer_room(self) -> None:
        """Have events of a mailbox sent that waited until the client has read others."""
        if self._wants_room:
            self._wants_room = False
            self._server.on_room(self)

    def check_receipts(self) -> None:
        """Acknowledge the events of a mailbox that the client has had for long enough."""
        with self._lock:
            if not self._receipts:
                return
            now, progress = time.monotonic(), progress_of(self._outbox.connection, self._received_bytes)
            acknowledged = self._receipts.check(now, self._server.ack_seconds, self._outbox.has_sent, *progress)
            if self._receipts:
                self._server.receipts.add(self)
        for on_ack in acknowledged:
            on_ack([])

    def _on_time(self) -> None:
        """Do what is due about as often as a ping."""
        self._server.on_time(self)
        connection = self._outbox.connection
        if not isinstance(connection, StreamConnection):  # what `progress_of` counts
            self._received_bytes += 1
            self.contact_at = time.time()
        elif self.has_mailbox and (received := connection.received_bytes) > self._received_bytes:
            self._received_bytes, self.contact_at = received, time.time()


def progress_of(connection: object, pings: int) -> tuple[int, int]:
    """Return how many bytes were written to a stream's connection, and how many of them its peer has.

    Where the server keeps its sockets, the number of pings stands for both: a ping is the first that the server has
    taken after it had written the one before.
    """
    if isinstance(connection, StreamConnection):
        return connection.written_bytes, connection.received_bytes
    return pings, pings
