"""The Engine.IO server: handshakes, requests of clients that poll, upgrades, heartbeats.

It is a python-engineio `Server` to those who use it (python-socketio): the same `on`, `send`, `disconnect`,
`handle_request`, all of them public. Nothing of python-engineio's own transport is left.
"""

import json
import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import engineio

from ..concurrency.loop import GreenLoop, Loop, ThreadLoop
from ..concurrency.timeout_queue import TimeoutQueue
from ..errors import (
    BadRequest,
    BodyTooLarge,
    ClientDoesNotRead,
    ForbiddenOrigin,
    ShuttingDown,
    TooManyConnections,
    TooManyConnectionsOfAddress,
    UpgradeRequired,
)
from ..http.answers import SECURITY_HEADERS, ErrorAnswers
from ..http.origins import Origins
from ..http.request_body import BodyReader, EnvironBody
from ..limits import Pool, address_key
from . import protocol, websocket
from .protocol import BadPacket, Codec, Packet
from .session import Session
from .state import CLOSED, DRAINING, UPGRADING, End, IllegalTransition
from .upgrade import Upgrade
from .websocket import BadHandshake, BadVersion, CloseCode, Opcode
from .websocket_connection import Connection

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

# How long a peer may take to end a connection that was closed from this side, and to finish an upgrade.
LINGER_SECONDS = 5
UPGRADE_SECONDS = 10

# How long a client that polls may take to come back for more. One that was killed in between never does, and
# what callers bring for it until somebody notices is lost. It has to be enough to download an answer.
POLL_GAP_SECONDS = 10

# What may be held of what clients have not sent completely: messages of more than 16 KB, and acknowledgements whose
# attachments are still to come. One address may have no more of it than it leaves free: half, if it is alone.
MAX_INCOMPLETE_BYTES = 64_000_000

# How many green threads bring the application what clients sent. One that waits for a store holds up its own.
WORKERS = 8

# How often the timers are looked at: a fiftieth of the heartbeat's times, between these.
SHORTEST_TICK_SECONDS = 0.02
LONGEST_TICK_SECONDS = 0.25

# A timer that runs so much later than it should says that the process stood still, by SIGSTOP or for want of a CPU.
STALL_SECONDS = 1


_ENDED = "This session has ended."


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


class Engine(engineio.Server):  # type: ignore[misc]  # python-engineio carries no types
    """An Engine.IO server."""

    def __init__(self, limits: Limits, answers: ErrorAnswers, origins: Origins, *, async_mode: str) -> None:
        super().__init__(async_mode=async_mode, monitor_clients=False)
        self.limits = limits
        self.loop: Loop = GreenLoop() if async_mode == "eventlet" else ThreadLoop()
        self.lock = self.loop.lock()  # for what all sessions count
        self.queued = Pool(limits.total_outbox_bytes)  # the bytes that wait for all of them, by address
        self.incomplete = Pool(MAX_INCOMPLETE_BYTES)  # the bytes of what clients have not sent completely
        self.sessions: dict[str, Session] = {}
        self._answers = answers
        self.note = answers.note  # for limits that are reached where no request is answered
        self._origins = origins
        self._addresses: Counter[str] = Counter()  # sessions that are not CLOSED, by address
        self._session_count = 0  # and in all
        self._work: deque[Session] = deque()
        self._workers = 0
        self._timers: list[TimeoutQueue] = []
        interval, timeout = limits.ping_interval_seconds, limits.ping_timeout_seconds
        self._tick_seconds = max(SHORTEST_TICK_SECONDS, min(LONGEST_TICK_SECONDS, interval / 50, timeout / 50))
        self._first_pings = self.timer(interval, self._ping)
        self._pongs = self.timer(timeout, self._expect_pong)
        self._next_pings = self.timer(max(0, interval - timeout), self._ping)  # after the wait for the pong
        self._silences = self.timer(interval + timeout, self._end_silent)
        self._unpolled = self.timer(POLL_GAP_SECONDS, self._expect_poll)
        self._unread = self.timer(limits.send_timeout_seconds, self._end_unread)
        self._lingering = self.timer(LINGER_SECONDS, Session.abort)
        self._upgrades = self.timer(UPGRADE_SECONDS, Upgrade.abort)
        self._joins = self.timer(limits.join_timeout_seconds, self._expect_join)
        self._session_timers = (
            self._first_pings,
            self._pongs,
            self._next_pings,
            self._silences,
            self._unpolled,
            self._unread,
            self._lingering,
            self._joins,
        )
        self.bodies = BodyReader(
            self.timer, timeout_seconds=limits.body_timeout_seconds, max_reading_bytes=limits.reading_bytes
        )
        self._started = False
        self._is_draining = False

    # What python-socketio and the application call

    def handle_request(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve a client's request (WSGI). One that becomes a WebSocket ends in what the loop raises for that."""
        try:
            if not self._origins.allow(environ):
                raise ForbiddenOrigin
            content_type, body = self._serve(environ)
        except (StopIteration, ConnectionError):
            raise  # the loop's
        except Exception as error:
            answer = self._answers.render(error)
            status, headers, body = answer.status, answer.headers, answer.body
        else:
            status = "200 OK"
            headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
            headers += [("Cache-Control", "no-store"), *SECURITY_HEADERS]
        start_response(status, headers + self.cors_headers(environ))
        return [body]

    def cors_headers(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        """Return what lets a web page that may connect read the answer."""
        return self._origins.headers(environ, "GET, POST", "Content-Type")

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
        """Take note that a session has a client: it may stay."""
        session = self.sessions.get(sid)
        if session is not None:
            self._joins.discard(session)

    def left(self, sid: str) -> None:
        """Take note that a session has no client any more: it has to get another in time."""
        session = self.sessions.get(sid)
        if session is not None:
            self._joins.add(session)

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
        """Accept no session from now on, and send all clients away such that they come back elsewhere."""
        self._is_draining = True
        for number, session in enumerate(list(self.sessions.values())):
            session.close("the relay stops", CloseCode.GOING_AWAY, End.DRAINING)
            if number % 100 == 99:
                self.sleep(0)

    def timer(self, seconds: float, action: Callable[[Any], None]) -> TimeoutQueue:
        """Return a timer that the engine runs."""
        timer = TimeoutQueue(seconds, action)
        self._timers.append(timer)
        return timer

    # What sessions call

    def schedule(self, session: Session) -> None:
        """Have a worker call `session.work`. There are workers only while there is work."""
        self._work.append(session)
        self._hire()

    def pinged(self, session: Session) -> None:
        """Take note that a client that pings by itself did."""
        if session.state.is_open:
            self._silences.add(session)

    def expect_reading(self, session: Session, is_expected: bool) -> None:
        """End a session whose WebSocket reads nothing from now on, for as long as it may; or do not any more."""
        if is_expected:
            self._unread.add(session)
        else:
            self._unread.discard(session)

    def on_arrived(self, session: Session, environ: "WSGIEnvironment") -> None:
        """Tell the application that there is a new session."""
        self.handlers["connect"](session.id, environ)

    def on_packet(self, session: Session, packet: Packet) -> None:
        """Bring a client's message to the application. One that makes it stumble ends the session."""
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

    def on_departed(self, session: Session) -> None:
        """Tell the application that a session has ended."""
        self.handlers["disconnect"](session.id, session.end)

    def linger(self, session: Session) -> None:
        """End a session that was told to go, if it does not go by itself."""
        self._lingering.add(session)

    def forget(self, session: Session) -> None:
        """Drop a session: its id means nothing any more."""
        self.sessions.pop(session.id, None)
        for timer in self._session_timers:
            timer.discard(session)

    def uncount(self, session: Session) -> None:
        """Count a session no more: its socket is closed, and what it sent was handled.

        Called once for each that was opened.
        """
        with self.lock:
            self._session_count -= 1
            self._addresses[session.address] -= 1
            if self._addresses[session.address] <= 0:
                del self._addresses[session.address]

    # Requests

    def _serve(self, environ: "WSGIEnvironment") -> tuple[str, bytes]:
        """Return the type and the body of the answer."""
        method = environ["REQUEST_METHOD"]
        try:
            query = dict(parse_qsl(environ.get("QUERY_STRING", ""), max_num_fields=20))
        except ValueError:
            raise BadRequest("Too many query parameters.") from None
        if method == "OPTIONS":
            return protocol.TEXT_PAYLOAD, b""
        if method not in ("GET", "POST"):
            raise BadRequest("A client asks by GET and POST.")
        transport = query.get("transport")
        if transport not in ("polling", "websocket"):
            raise BadRequest("The transport is polling or websocket.")
        if transport == "websocket" and not (method == "GET" and websocket.is_wanted(environ)):
            raise BadRequest("This request asks for no WebSocket.")
        if self._is_draining:
            raise ShuttingDown
        if "sid" not in query:
            return self._open(environ, query)
        session = self.sessions.get(query["sid"])
        if session is None:
            raise BadRequest("No such session.")
        if transport == "websocket":
            raise self._try_upgrade(session, environ)
        if not session.state.is_polling:
            raise BadRequest("This session does not poll.")
        return self._poll(session, environ) if method == "GET" else self._take(session, environ)

    def _open(self, environ: "WSGIEnvironment", query: dict[str, str]) -> tuple[str, bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            raise BadRequest("A session is opened by GET.")
        codec = self.codec(query)
        by_websocket = query["transport"] == "websocket"
        answer = _accept(environ) if by_websocket else b""
        session = Session(self, self.generate_id(), self._admit(environ), codec)  # which counts from here on
        try:
            if by_websocket:
                connection = self._connect(environ, session.lock, session)
                session.open(connection)
                connection.write(answer)
            else:
                session.open()
        except BaseException:
            session.abort("its handshake was not answered")
            raise
        self.start()
        self._introduce(session, environ)
        if session.connection is not None:
            raise self.loop.attend(session.connection)
        return codec.encode_payload(session.take_for_poll())

    def _introduce(self, session: Session, environ: "WSGIEnvironment") -> None:
        """Make a new session known, and send its handshake. One that has ended already stays unknown."""
        with session.lock:
            if not session.state.is_open:
                return
            self.sessions[session.id] = session
        handshake = {
            "sid": session.id,
            "upgrades": ["websocket"] if session.state.is_polling else [],
            "pingInterval": self.limits.ping_interval_seconds * 1000,
            "pingTimeout": self.limits.ping_timeout_seconds * 1000,
            "maxPayload": self.limits.message_bytes,
        }
        session.send_control(Packet(protocol.OPEN + json.dumps(handshake, separators=(",", ":")).encode()))
        self.on_arrived(session, environ)
        with session.lock:
            if not session.state.is_open:
                return
            (self._silences if session.codec.clients_ping else self._first_pings).add(session)
            self._joins.add(session)
            if session.state.is_polling:
                self._unpolled.add(session)

    def _admit(self, environ: "WSGIEnvironment") -> str:
        """Count a new session, until `uncount`, and return the address that it counts for.

        Raises `TooManyConnections`.
        """
        limits = self.limits
        address = sys.intern(address_key(environ.get("REMOTE_ADDR", "")))
        with self.lock:
            if limits.sessions and self._session_count >= limits.sessions:
                raise TooManyConnections
            if limits.sessions_per_address and self._addresses[address] >= limits.sessions_per_address:
                raise TooManyConnectionsOfAddress
            self._session_count += 1
            self._addresses[address] += 1
        return address

    def _connect(
        self, environ: "WSGIEnvironment", lock: AbstractContextManager[Any], owner: Session | None
    ) -> Connection:
        """Take the socket of a request, over which nothing has been answered."""
        detached = self.loop.detach_socket(environ)
        return Connection(
            detached,
            self.loop,
            lock,
            owner,
            max_message_bytes=self.limits.message_bytes,
            held=(address_key(environ.get("REMOTE_ADDR", "")), self.incomplete),
        )

    def _try_upgrade(self, session: Session, environ: "WSGIEnvironment") -> Exception:
        """Let a session that polls try a WebSocket, and move to it when the client says so.

        One at a time: each is an open file, and the session is what is counted. A WebSocket for a session that has
        one is opened and closed at once, as engine.io's server does. For a session that has ended none is opened:
        python-engineio's client fails at a close frame in place of the answer to its probe, for good.
        """
        answer = _accept(environ)
        if not session.state.is_open:
            raise BadRequest(_ENDED)
        connection = self._connect(environ, session.lock, None)
        connection.owner = upgrade = Upgrade(session, connection)
        try:
            session.upgrade_started(upgrade)
        except IllegalTransition:
            connection.write(answer + websocket.close_frame(CloseCode.NORMAL))
            connection.abort()
            return self.loop.attend(connection)
        self._upgrades.add(upgrade)
        connection.write(answer)
        return self.loop.attend(connection)

    def _poll(self, session: Session, environ: "WSGIEnvironment") -> tuple[str, bytes]:
        if session.is_polled:
            session.abort("it polls twice at a time", End.PROTOCOL_ERROR, last=Packet(protocol.CLOSE))
            raise BadRequest("This session polls already.")
        self._unpolled.discard(session)
        with self.loop.on_hangup(environ, lambda: session.abort("it hung up", End.CONNECTION_LOST)):
            session.wait_for_packets(self.limits.ping_interval_seconds + self.limits.ping_timeout_seconds)
        if self._is_draining:
            raise ShuttingDown
        packets = session.take_for_poll()
        if session.state is DRAINING and not packets:
            session.abort("the client knows of its end")
        if session.state is CLOSED and not packets:
            # Not a CLOSE: python-engineio's client would not come back after it.
            raise BadRequest(_ENDED)
        if session.state.is_polling:
            self._unpolled.add(session)
        return session.codec.encode_payload(packets or [Packet(protocol.NOOP)])

    def _take(self, session: Session, environ: "WSGIEnvironment") -> tuple[str, bytes]:
        if session.is_posting:
            session.abort("it posts twice at a time", End.PROTOCOL_ERROR, last=Packet(protocol.CLOSE))
            raise BadRequest("This session posts already.")
        if self.loop.has_hung_up(environ):
            raise BadRequest("The client does not wait for the answer.")  # so it takes the session for lost
        session.is_posting = True
        try:
            return self._take_alone(session, environ)
        finally:
            session.is_posting = False

    def _take_alone(self, session: Session, environ: "WSGIEnvironment") -> tuple[str, bytes]:
        most = self.limits.message_bytes
        body = self.bodies.read(EnvironBody(environ), most * websocket.CUT_FACTOR)
        try:
            packets = session.codec.decode_payload(body)
            if len(body) > most:
                packets = [_cut(packet) if len(packet.data) > most else packet for packet in packets]
                if sum(len(packet.data) for packet in packets) > most:
                    raise BodyTooLarge
            for packet in packets:
                session.receive(packet)
        except BadPacket as error:
            if len(body) > most:
                raise BodyTooLarge from None
            session.abort(str(error), End.PROTOCOL_ERROR)
            raise BadRequest(f"The body is no Engine.IO payload: {error}.") from None
        session.wait_for_space(self.limits.ping_timeout_seconds)
        return protocol.TEXT_PAYLOAD, b"ok"

    # Background

    def _run_timers(self) -> None:
        while True:
            slept_at = time.monotonic()
            self.sleep(self._tick_seconds)
            late_seconds = time.monotonic() - slept_at - self._tick_seconds
            if late_seconds > STALL_SECONDS:
                self._excuse(late_seconds)
            for timer in self._timers:
                try:
                    timer.run(lambda: self.sleep(0))
                except Exception:
                    log.exception("a timer failed")

    def _excuse(self, seconds: float) -> None:
        """Give all clients more time: this process stood still, and has not read what they sent meanwhile."""
        for timer in (*self._session_timers, self._upgrades):
            timer.postpone(seconds)

    def _hire(self) -> None:
        with self.lock:
            if self._workers == WORKERS:
                return
            self._workers += 1
        self.start_background_task(self._run_worker)

    def _run_worker(self) -> None:
        while True:
            try:
                session = self._work.popleft()
            except IndexError:
                break
            try:
                session.work()
            except Exception:
                log.exception("a client's message or farewell was not handled")
            self.sleep(0)  # others have their turn after each session, however many wait
        with self.lock:
            self._workers -= 1
        if self._work:  # it came after the last look and before the worker was counted out
            self._hire()

    def _ping(self, session: Session) -> None:
        if session.state.is_open:
            session.ping()
            self._pongs.add(session)

    def _expect_pong(self, session: Session) -> None:
        if not session.state.is_open:
            return
        if session.is_pong_due:
            session.abort("it did not answer a ping", End.TIMED_OUT)
        else:
            self._next_pings.add(session)

    def _end_unread(self, session: Session) -> None:
        self.note(ClientDoesNotRead())
        session.abort("it does not read", End.TOO_SLOW)

    def _end_silent(self, session: Session) -> None:
        session.abort("it did not ping", End.TIMED_OUT)

    def _expect_poll(self, session: Session) -> None:
        if session.state is UPGRADING:
            self._unpolled.add(session)
        elif session.state.is_polling:
            session.abort("it polls no more", End.TIMED_OUT)

    def _expect_join(self, session: Session) -> None:
        session.close("it has no client", CloseCode.POLICY_VIOLATION)


def _cut(packet: Packet) -> Packet:
    """Return the beginning of a packet that is too large. Raises `BodyTooLarge` if it is no acknowledgement."""
    if not websocket.may_be_cut(Opcode.BINARY if packet.binary else Opcode.TEXT, packet.data):
        raise BodyTooLarge
    return packet._replace(data=packet.data[: websocket.CUT_BYTES], is_cut=True)


def _accept(environ: "WSGIEnvironment") -> bytes:
    try:
        return websocket.accept(environ)
    except BadVersion as error:
        raise UpgradeRequired(str(error)) from None
    except BadHandshake as error:
        raise BadRequest(str(error)) from None
