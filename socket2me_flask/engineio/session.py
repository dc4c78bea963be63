"""One Engine.IO session: its state, and what follows from each event in its life. Nothing here blocks.

`outbox.py` has what waits to be sent to the client, `inbox.py` what the client sent.
"""

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..concurrency.loop import Loop
from ..errors import RelayError
from . import protocol
from .inbox import Inbox
from .outbox import Outbox, OutboxLimits
from .protocol import NOOP_PACKET, BadPacket, Codec, Packet
from .state import CLOSED, CLOSING, LINGERING, OPENING, UPGRADING, End, Event, State, transition
from .websocket import CloseCode, Cut
from .websocket_connection import CLIENT_CLOSED, Connection, Owner

log = logging.getLogger(__name__)


class SessionClosed(Exception):
    """The session has ended: nothing was queued."""


class Server(Protocol):
    """What a session asks of the server that it belongs to."""

    loop: Loop
    outbox_limits: OutboxLimits

    def schedule(self, session: "Session") -> None:
        """Have the application handle what is in a session's inbox."""

    def on_ping(self, session: "Session") -> None:
        """Answer a client's ping."""

    def on_pong(self, session: "Session") -> None:
        """Record a client's pong."""

    def expect_reading(self, session: "Session", is_expected: bool) -> None:
        """Begin the time anew in which a client has to read some of what was written, or end it."""

    def expect_end(self, session: "Session") -> None:
        """Begin the time in which a client has to close its connection."""

    def note(self, error: RelayError) -> None:
        """Note that a limit was reached where no request is answered."""

    def forget(self, session: "Session") -> None:
        """Drop a session: its id means nothing any more."""

    def release(self, address: str) -> None:
        """Count a session no more. Called once for each."""


@dataclass(slots=True, eq=False)
class Session(Owner):
    """A client's session, from its handshake until it is closed. `state.py` has the table of its states."""

    _server: Server
    id: str
    address: str  # the one that it counts for
    codec: Codec = protocol
    lock: AbstractContextManager[Any] = field(init=False)
    outbox: Outbox = field(init=False)
    inbox: Inbox | None = field(default=None, init=False)  # while the application has something to handle
    upgrade: Connection | None = field(default=None, init=False)  # the WebSocket that is being tried
    state: State = field(default=OPENING, init=False)
    end: End = field(default=End.CLOSED, init=False)  # why it ended, once it has
    _joins: int = field(default=0, init=False)  # how often its client tried to join a namespace
    is_posting: bool = field(default=False, init=False)  # a POST of the client is being handled
    is_pong_due: bool = field(default=False, init=False)  # the last ping was not answered
    _is_flush_due: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.lock = self._server.loop.lock()
        self.outbox = Outbox(self._server.outbox_limits, self.address, self.codec, self.lock)

    # To the client

    def send(self, packets: Sequence[Packet]) -> int:
        """Queue an event; `flush` sends it. Return its number, for `outbox.has_lost`.

        Raises `SessionClosed`, and what `Outbox.add` raises.
        """
        with self.lock:
            if not self.state.is_open:
                raise SessionClosed
            return self.outbox.add(packets)

    def flush(self) -> None:
        """Send what is queued, as far as the client accepts it. Raises `SessionClosed` if the connection broke."""
        with self.lock:
            self.outbox.flush()
            if not self.state.is_open:
                raise SessionClosed

    def flush_soon(self) -> None:
        """Send what is queued, in one piece with what this round of the loop queues. Raises `SessionClosed`."""
        with self.lock:
            if not self.state.is_open:
                raise SessionClosed
            if self._is_flush_due:
                return
            self._is_flush_due = True
        self._server.loop.call_soon(self._flush_due)

    def _flush_due(self) -> None:
        with self.lock:
            self._is_flush_due = False
            self.outbox.flush()

    def send_control(self, packet: Packet) -> None:
        """Send what the protocols demand. A client that reads not even that is disconnected."""
        with self.lock:
            if not self.state.is_open:
                return
            self.outbox.add_control(packet)
            self.outbox.flush()
            if self.outbox.is_overfull:
                self.abort("the client does not read", End.TOO_SLOW)

    def take_for_poll(self) -> list[Packet]:
        """Return what one answer may hold of the outbox: nothing once a WebSocket is to carry it."""
        with self.lock:
            if self.state in (UPGRADING, CLOSING) or self.outbox.connection is not None:
                return []
            return self.outbox.take_for_poll()

    # The transitions, but those to the end

    def open(self, connection: Connection | None = None) -> None:
        """Start to serve the client, over a WebSocket or by long-polling."""
        with self.lock:
            self.state = transition(
                self.state, Event.OPENED_BY_POLLING if connection is None else Event.OPENED_BY_WEBSOCKET
            )
            self.outbox.connection = connection

    def upgrade_started(self, connection: Connection) -> None:
        """Try a WebSocket beside long-polling. Raises `IllegalTransition`."""
        with self.lock:
            self.state = transition(self.state, Event.UPGRADE_STARTED)
            self.upgrade = connection

    def upgrade_probed(self) -> None:
        """Keep packets back from polls until the WebSocket carries the session. Raises `IllegalTransition`."""
        with self.lock:
            self.state = transition(self.state, Event.UPGRADE_PROBED)
            self.outbox.release_poll()

    def upgrade_finished(self, connection: Connection) -> None:
        """Move to a WebSocket for good. Raises `IllegalTransition`."""
        with self.lock:
            self.state = transition(self.state, Event.UPGRADE_FINISHED)
            self.upgrade = None
            self.outbox.connection = connection
            connection.transfer_to(self)
            if self.state is LINGERING:
                self._server.forget(self)
                self._server.expect_end(self)
                self.outbox.close(CloseCode.NORMAL)
                return
            self.outbox.flush()
            if not self.outbox.has_sent_ping:
                self.outbox.track_ping()

    def upgrade_failed(self, connection: Connection) -> None:
        """Stay with long-polling: the WebSocket that was tried is closed."""
        with self.lock:
            if self.upgrade is connection:
                self.upgrade = None
                self.state = transition(self.state, Event.UPGRADE_FAILED)

    # From the client

    def count_joins(self, by: int) -> int:
        """Count `by` more attempts of the client to join a namespace; -1 when it left one. Return their number."""
        self._joins += by
        return self._joins

    def receive(self, packet: Packet) -> None:
        """Handle a packet, unless the session has ended. Raises `BadPacket` for one that a client does not send."""
        if not self.state.is_open:
            return
        kind = protocol.MESSAGE if packet.binary else packet.data[:1]
        if kind == protocol.MESSAGE:
            with self.lock:
                if self.inbox is not None:
                    self.inbox.add(packet)
                elif self.state.is_open:  # another thread may have ended it just now
                    self._start_inbox(packet)
        elif kind == protocol.PONG and not self.codec.clients_ping:
            self._server.on_pong(self)
        elif kind == protocol.PING and self.codec.clients_ping:
            self._server.on_ping(self)
        elif kind == protocol.CLOSE:
            self.abort(CLIENT_CLOSED, End.CLIENT, last=NOOP_PACKET)
        else:
            raise BadPacket("a packet of a type that a client does not send")

    def _start_inbox(self, packet: Packet | None) -> None:
        self.inbox = Inbox(self.lock, self.outbox, deque((packet,)))
        self._server.schedule(self)

    def end_inbox(self) -> None:
        """Drop the inbox: all of it was handled."""
        with self.lock:
            self.inbox = None
            if self.state is CLOSED:
                self._server.release(self.address)

    # The events of its connection

    def on_message(self, opcode: int, payload: bytes) -> None:
        packet = self.codec.decode_message(opcode, payload)
        self.receive(packet._replace(is_cut=True) if isinstance(payload, Cut) else packet)

    def on_drained(self) -> None:
        with self.lock:
            self.outbox.on_drained()
            self.on_progress()

    def on_progress(self) -> None:
        """Give the client, while something waits for it, time anew to read some of it."""
        self.outbox.count()
        if self.state.is_open:
            self._server.expect_reading(self, self.outbox.unsent_bytes > 0)

    def on_limit(self, error: RelayError) -> None:
        self._server.note(error)

    def on_closing(self, reason: str) -> None:
        with self.lock:
            if self._close(reason, End.CLIENT if reason == CLIENT_CLOSED else End.PROTOCOL_ERROR):
                self.outbox.drop()

    def on_closed(self, reason: str) -> None:
        self.abort(reason, End.CONNECTION_LOST)

    # The end

    def refuse(self, reason: str) -> None:
        """End the session for a message that cannot be read, and drop what arrived after it."""
        with self.lock:
            if self.inbox is not None:
                self.inbox.drop()
            self.close(reason, CloseCode.INVALID_DATA, End.PROTOCOL_ERROR)

    @property
    def has_client(self) -> bool:
        """Whether the session is open, and its client has not closed the WebSocket."""
        connection = self.outbox.connection
        return self.state.is_open and (connection is None or not connection.has_ended())

    def close(self, reason: str, code: CloseCode = CloseCode.NORMAL, end: End = End.CLOSED) -> None:
        """End the session from this side. What is queued is sent before the end."""
        with self.lock:
            if self._close(reason, end):
                self.outbox.close(code)

    def abort(
        self, reason: str = "it did not end in time", end: End = End.CLOSED, *, last: Packet | None = None
    ) -> None:
        """End the session, and its connection, at once. A poll that waits is answered with `last`, or refused."""
        with self.lock:
            if self.state is CLOSED:
                return
            is_polled = self.outbox.is_polled
            if self.upgrade is not None:
                self.upgrade.abort()  # which leads back to POLLING, or to DRAINING
            self._leave_open(reason, end)
            self.state = transition(self.state, Event.ENDED)
            self.outbox.abort()
            if is_polled and last is not None:
                self.outbox.add_control(last)
            self._server.forget(self)
            if self.inbox is None:  # else it counts until what has arrived is handled
                self._server.release(self.address)

    def _close(self, reason: str, end: End) -> bool:
        """Fire `CLOSED_GENTLY`. Return whether the session was open."""
        if not self.state.is_open:
            return False
        if self.state is not UPGRADING and self.upgrade is not None:
            self.upgrade.abort()  # which leads back to POLLING
        self._leave_open(reason, end)
        self.state = transition(self.state, Event.CLOSED_GENTLY)
        if self.state is LINGERING:
            self._server.forget(self)  # its id means nothing any more; one that polls needs it for its last polls
        self._server.expect_end(self)
        return True

    def _leave_open(self, reason: str, end: End) -> None:
        """Do what every end of an open session begins with."""
        if not self.state.is_open:
            return
        self.end = end
        log.debug("a session ended: %s", reason)
        self.outbox.release_poll()
        if self.state is OPENING:  # which the application has not received
            return
        if self.inbox is not None:
            self.inbox.add_end()
        else:
            self._start_inbox(None)
