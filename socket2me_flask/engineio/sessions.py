"""The sessions of an engine: their bounds, their register, their timers, and the events of the application.

Knows no requests: `server.py` says which goes where.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import engineio

from ..concurrency.loop import GreenLoop, Loop, ThreadLoop
from ..concurrency.timeout_queue import TimeoutQueue
from ..errors import BadRequest, RelayError
from ..http.request_body import BodyReader
from ..limits import Pool
from . import protocol
from .admission import Admission
from .deadlines import Deadlines
from .dispatcher import Dispatcher
from .heartbeats import Heartbeats
from .outbox import OutboxLimits
from .protocol import Codec, Packet
from .session import Session
from .state import End
from .websocket import CloseCode
from .websocket_connection import ConnectionOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)

# What may be held of what clients have not sent completely: messages of more than 16 KB, and acknowledgements whose
# attachments are still to come. One address may have no more of it than it leaves free: half, if it is alone.
MAX_INCOMPLETE_BYTES = 64_000_000

# How often the timers are checked: a fiftieth of the heartbeat's times, between these.
SHORTEST_TICK_SECONDS = 0.02
LONGEST_TICK_SECONDS = 0.25

# A timer that runs this much too late shows that the process stood still, by SIGSTOP or for want of a CPU.
STALL_SECONDS = 1


@dataclass(frozen=True)
class Limits:
    """The bounds of the engine.

    sessions, sessions_per_address: how many there may be at once, in all and from one address. 0 is no bound.
    message_bytes: the largest message that a client may send.
    outbox_packets, outbox_bytes: what may wait for one client.
    total_outbox_bytes: what may wait for all of them, of which those of one address have no more than they leave
        free; beyond it, only little is queued for each.
    ping_interval_seconds, ping_timeout_seconds: how often a client is asked whether it is there, and how long
        it may take to answer.
    send_timeout_seconds: how long a WebSocket may read nothing of what waits for it.
    join_timeout_seconds: how long a session may take to get a client (`Engine.joined`).
    body_timeout_seconds, reading_bytes: how long a body may take to arrive, and how much of all bodies may be
        read at once.
    """

    sessions: int
    sessions_per_address: int
    message_bytes: int
    outbox_packets: int
    outbox_bytes: int
    total_outbox_bytes: int
    ping_interval_seconds: int
    ping_timeout_seconds: int
    send_timeout_seconds: float
    join_timeout_seconds: float
    body_timeout_seconds: float
    reading_bytes: int


class Sessions(engineio.Server):  # type: ignore[misc]  # python-engineio carries no types
    """All sessions, and what python-socketio asks of them. `note` is for limits where no request is answered."""

    def __init__(self, limits: Limits, note: Callable[[RelayError], None], *, async_mode: str) -> None:
        super().__init__(async_mode=async_mode, monitor_clients=False)
        interval, timeout = limits.ping_interval_seconds, limits.ping_timeout_seconds
        self.limits = limits
        self.loop: Loop = GreenLoop() if async_mode == "eventlet" else ThreadLoop()
        self.sessions: dict[str, Session] = {}
        self.queued = Pool(limits.total_outbox_bytes)  # the bytes in the outboxes of all sessions, by address
        self.incomplete = Pool(MAX_INCOMPLETE_BYTES)  # the bytes of incomplete messages, by address
        lock = self.loop.lock()  # for what all sessions count
        self.outbox_limits = OutboxLimits(limits.outbox_packets, limits.outbox_bytes, self.queued, lock)
        self.connection_options = ConnectionOptions(self.loop, limits.message_bytes, self.incomplete)
        self.admission = Admission(limits.sessions, limits.sessions_per_address, lock)
        self.dispatcher = Dispatcher(
            self.start_background_task,
            self.sleep,
            lock,
            on_packet=self._on_packet,
            on_departed=self._on_departed,
        )
        self.note = note
        self.timers: list[TimeoutQueue] = []
        self.heartbeats = Heartbeats(self.timer, interval_seconds=interval, timeout_seconds=timeout)
        self.deadlines = Deadlines(
            self.timer,
            send_timeout_seconds=limits.send_timeout_seconds,
            join_timeout_seconds=limits.join_timeout_seconds,
            note=note,
        )
        self.bodies = BodyReader(
            self.timer, timeout_seconds=limits.body_timeout_seconds, max_reading_bytes=limits.reading_bytes
        )
        # What a session asks for (`session.Server`), beside `note` and `forget`
        self.schedule = self.dispatcher.schedule
        self.on_ping, self.on_pong = self.heartbeats.on_ping, self.heartbeats.on_pong
        self.expect_reading, self.expect_end = self.deadlines.expect_reading, self.deadlines.ends.add
        self.release = self.admission.release
        self._session_timers = (*self.heartbeats.timers, *self.deadlines.timers)
        self._tick_seconds = max(SHORTEST_TICK_SECONDS, min(LONGEST_TICK_SECONDS, interval / 50, timeout / 50))
        self._started = False

    # What python-socketio and the application call

    def codec(self, query: Mapping[str, str]) -> Codec:
        """Return what writes the packets of a new session. Raises `BadRequest`."""
        if query.get("EIO") != "4":
            raise BadRequest("This relay does not speak that version of Engine.IO.")
        return protocol

    def start(self) -> None:
        """Run the timers, in the background."""
        if not self._started:
            self._started = True
            self.start_background_task(self._run_timers)

    def joined(self, sid: str) -> None:
        """End the deadline for joining: the session has a client."""
        session = self.sessions.get(sid)
        if session is not None:
            self.deadlines.joins.discard(session)

    def left(self, sid: str) -> None:
        """Begin the deadline for joining anew: the session's last client left."""
        session = self.sessions.get(sid)
        if session is not None:
            self.deadlines.joins.add(session)

    def send(self, sid: str, data: str | bytes) -> None:
        """Send a Socket.IO packet to a client. One that is gone gets nothing."""
        session = self.sessions.get(sid)
        if session is not None:
            packet = Packet(f"4{data}".encode()) if isinstance(data, str) else Packet(data, binary=True)
            session.send_control(packet)

    def send_packet(self, sid: str, pkt: Any) -> None:
        """Send what python-engineio calls a packet; python-socketio sends messages only."""
        self.send(sid, pkt.data)

    def disconnect(self, sid: str | None = None) -> None:
        """Close a session, or all of them."""
        sessions = list(self.sessions.values()) if sid is None else [self.sessions.get(sid)]
        for session in filter(None, sessions):
            session.close("the relay closed it")

    def drain(self) -> None:
        """Accept no session from now on, and close all, so that their clients reconnect elsewhere."""
        self.admission.is_draining = True
        for number, session in enumerate(list(self.sessions.values())):
            session.close("the relay stops", CloseCode.GOING_AWAY, End.DRAINING)
            if number % 100 == 99:
                self.sleep(0)

    def timer(self, seconds: float, action: Callable[[Any], None]) -> TimeoutQueue:
        """Return a timer that the engine runs."""
        timer = TimeoutQueue(seconds, action)
        self.timers.append(timer)
        return timer

    # The events of sessions

    def on_arrived(self, session: Session, environ: "WSGIEnvironment") -> None:
        """Report a new session to the application."""
        self.handlers["connect"](session.id, environ)

    def _on_packet(self, session: Session, packet: Packet) -> None:
        """Let the application handle a client's message. One at which it fails ends the session."""
        try:
            if packet.is_cut:
                data = packet.data if packet.binary else packet.data[1:].decode(errors="ignore")
                self.handlers["message_cut"](session.id, data)
                return
            data = packet.data if packet.binary else packet.data[1:].decode()
            self.handlers["message"](session.id, data)
        except Exception as error:
            log.info("a client sent what cannot be read: %s", type(error).__name__)
            session.refuse("a message that cannot be read")

    def _on_departed(self, session: Session) -> None:
        """Report the end of a session to the application."""
        self.handlers["disconnect"](session.id, session.end)

    def forget(self, session: Session) -> None:
        """Drop a session: its id means nothing any more."""
        self.sessions.pop(session.id, None)
        for timer in self._session_timers:
            timer.discard(session)

    # Background

    def _run_timers(self) -> None:
        while True:
            slept_at = time.monotonic()
            self.sleep(self._tick_seconds)
            late_seconds = time.monotonic() - slept_at - self._tick_seconds
            if late_seconds > STALL_SECONDS:
                self._postpone(late_seconds)
            for timer in self.timers:
                try:
                    timer.run(lambda: self.sleep(0))
                except Exception:
                    log.exception("a timer failed")

    def _postpone(self, seconds: float) -> None:
        """Give all clients more time: this process stood still, and has not read what they sent meanwhile."""
        for timer in (*self._session_timers, self.deadlines.upgrades):
            timer.postpone(seconds)
