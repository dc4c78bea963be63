"""The Engine.IO server: handshakes, requests of clients that poll, upgrades, heartbeats.

It is a python-engineio `Server` to those who use it (python-socketio): the same `on`, `send`, `disconnect`,
`handle_request`, all of them public. Nothing of python-engineio's own transport is left.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import engineio

from ..body import read_body
from ..errors import BadRequest, ForbiddenOrigin, RelayError, ShuttingDown, TooManyConnections
from . import protocol, websocket
from .connection import Connection
from .loop import GreenLoop, Loop, ThreadLoop
from .protocol import BadPacket, Packet
from .session import Session
from .websocket import BadHandshake, CloseCode

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

# How long a peer may take to end a connection that was closed from this side, and to finish an upgrade.
LINGER_SECONDS = 5
UPGRADE_SECONDS = 10

# How long a client that polls may take to come back for more. One that was killed in between never does, and
# what callers bring for it until somebody notices is lost. It has to be enough to download an answer.
POLL_GAP_SECONDS = 10

# How many green threads bring the application what clients sent. One that waits for a store holds up its own.
WORKERS = 8

# How often the timers are looked at.
TICK_SECONDS = 0.25


@dataclass(frozen=True)
class Limits:
    """The bounds of the engine.

    sessions: how many there may be at once.
    message_bytes: the largest message that a client may send.
    outbox_packets, outbox_bytes: what may wait for one client.
    ping_interval_seconds, ping_timeout_seconds: how often a client is asked whether it is there, and how long
        it may take to answer.
    retry_after_seconds: when one that is turned away may come back.
    """

    sessions: int
    message_bytes: int
    outbox_packets: int
    outbox_bytes: int
    ping_interval_seconds: int
    ping_timeout_seconds: int
    retry_after_seconds: int


class Timer:
    """Does something with items, each a fixed time after it was added: the oldest is always the first due."""

    def __init__(self, seconds: float, action: Callable[[Any], None]) -> None:
        self._seconds = seconds
        self._action = action
        self._due: dict[Any, float] = {}  # in the order in which they are due

    def add(self, item: Any, since: float | None = None) -> None:
        """Add an item whose time runs from now, or from a moment no earlier than those of the items before."""
        self._due.pop(item, None)
        self._due[item] = (time.monotonic() if since is None else since) + self._seconds

    def discard(self, item: Any) -> None:
        """Take an item out, if it is in."""
        self._due.pop(item, None)

    def run(self, give_way: Callable[[], None]) -> None:
        """Act on what is due, giving way to others now and then."""
        now = time.monotonic()
        try:
            due = [item for item, when in takewhile(lambda entry: entry[1] <= now, self._due.items())]
        except RuntimeError:
            return  # another thread has changed it just now: the next run is soon
        for number, item in enumerate(due, 1):
            if self._due.pop(item, None) is not None:
                self._action(item)
            if number % 100 == 0:
                give_way()


class Engine(engineio.Server):  # type: ignore[misc]  # python-engineio carries no types
    """An Engine.IO server. `cors_allowed_origins`: None (same host), `"*"`, or a list of origins."""

    def __init__(
        self, limits: Limits, *, async_mode: str, cors_allowed_origins: str | list[str] | None = None
    ) -> None:
        super().__init__(async_mode=async_mode, monitor_clients=False)
        self.limits = limits
        self.loop: Loop = GreenLoop() if async_mode == "eventlet" else ThreadLoop()
        self.sessions: dict[str, Session] = {}
        self._origins = cors_allowed_origins
        self._work: deque[Session] = deque()
        self._workers = 0
        self._timers: list[Timer] = []
        self._pings = self.timer(limits.ping_interval_seconds, self._ping)
        self._pongs = self.timer(limits.ping_timeout_seconds, self._expect_pong)
        self._unpolled = self.timer(POLL_GAP_SECONDS, self._expect_poll)
        self._lingering = self.timer(LINGER_SECONDS, lambda peer: peer.abort())
        self._upgrades = self.timer(UPGRADE_SECONDS, _Upgrade.expire)
        self._started = False
        self._is_draining = False

    # What python-socketio and the application call

    def handle_request(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve a client's request (WSGI). One that becomes a WebSocket ends in what the loop raises for that."""
        headers = [("Cache-Control", "no-store")]
        try:
            headers += self._cors_headers_for(environ)
            body = self._serve(environ)
            status, content_type = "200 OK", "text/plain; charset=UTF-8"
        except RelayError as error:
            body = json.dumps(error.as_dict()).encode()
            status, content_type = f"{error.status} {error.code.upper()}", "application/json"
            if error.retry_after_seconds is not None:
                headers.append(("Retry-After", str(error.retry_after_seconds)))
        headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]

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
            session.close("the relay stops", CloseCode.GOING_AWAY)
            if number % 100 == 99:
                self.sleep(0)

    def timer(self, seconds: float, action: Callable[[Any], None]) -> Timer:
        """Return a timer that the engine runs."""
        timer = Timer(seconds, action)
        self._timers.append(timer)
        return timer

    # What sessions call

    def schedule(self, session: Session) -> None:
        """Have a worker call `session.work`. There are workers only while there is work."""
        self._work.append(session)
        self._hire()

    def on_packet(self, session: Session, packet: Packet) -> None:
        """Bring a client's message to the application. One that makes it stumble ends the session."""
        try:
            data = packet.data if packet.binary else packet.data[1:].decode()
            self.handlers["message"](session.id, data)
        except Exception as error:
            log.info("a client sent what cannot be read: %s", type(error).__name__)
            session.close("a message that cannot be read", CloseCode.INVALID_DATA)

    def on_departed(self, session: Session) -> None:
        """Tell the application that a session has ended."""
        self.handlers["disconnect"](session.id, self.reason.TRANSPORT_CLOSE)

    def linger(self, peer: Connection | Session) -> None:
        """End a peer that was told to go, if it does not go by itself."""
        self._lingering.add(peer)

    def forget(self, session: Session) -> None:
        """Drop a session: its id means nothing any more."""
        self.sessions.pop(session.id, None)
        for timer in (self._pings, self._pongs, self._unpolled):
            timer.discard(session)

    # Requests

    def _cors_headers_for(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        """Return the headers that let a page read the answer. Raises `ForbiddenOrigin` for one that may not.

        Without an `Origin` it is no browser that asks. Same host is enough: a proxy may speak TLS for us.
        """
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            return []
        if self._origins is None:
            if urlsplit(origin).netloc != environ.get("HTTP_HOST"):
                raise ForbiddenOrigin
        elif self._origins != "*" and origin not in self._origins:
            raise ForbiddenOrigin
        headers = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if environ["REQUEST_METHOD"] == "OPTIONS":
            headers += [
                ("Access-Control-Allow-Methods", "GET, POST"),
                ("Access-Control-Allow-Headers", "Content-Type"),
            ]
        return headers

    def _serve(self, environ: "WSGIEnvironment") -> bytes:
        method = environ["REQUEST_METHOD"]
        try:
            query = dict(parse_qsl(environ.get("QUERY_STRING", ""), max_num_fields=20))
        except ValueError:
            raise BadRequest("Too many query parameters.") from None
        if method == "OPTIONS":
            return b""
        if method not in ("GET", "POST"):
            raise BadRequest("A client asks by GET and POST.")
        transport = query.get("transport")
        if transport not in ("polling", "websocket"):
            raise BadRequest("The transport is polling or websocket.")
        if transport == "websocket" and not (method == "GET" and websocket.is_wanted(environ)):
            raise BadRequest("This request asks for no WebSocket.")
        if self._is_draining:
            raise ShuttingDown(retry_after_seconds=self.limits.retry_after_seconds)
        if "sid" not in query:
            return self._open(environ, query)
        session = self.sessions.get(query["sid"])
        if session is None or session.connection is not None:
            raise BadRequest("No such session, or none that polls.")
        if transport == "websocket":
            raise self._try_upgrade(session, environ)
        return self._poll(session, environ) if method == "GET" else self._take(session, environ)

    def _open(self, environ: "WSGIEnvironment", query: dict[str, str]) -> bytes:
        if environ["REQUEST_METHOD"] != "GET":
            raise BadRequest("A session is opened by GET.")
        if query.get("EIO") != "4":
            raise BadRequest("This relay speaks Engine.IO 4.")
        if len(self.sessions) >= self.limits.sessions:
            raise TooManyConnections(retry_after_seconds=self.limits.retry_after_seconds)
        by_websocket = query["transport"] == "websocket"
        answer = _accept(environ) if by_websocket else b""
        self._start()
        session = Session(self, self.generate_id())
        self.sessions[session.id] = session
        if by_websocket:
            session.connection = self._connect(environ, session, answer)
        handshake = {
            "sid": session.id,
            "upgrades": [] if by_websocket else ["websocket"],
            "pingInterval": self.limits.ping_interval_seconds * 1000,
            "pingTimeout": self.limits.ping_timeout_seconds * 1000,
            "maxPayload": self.limits.message_bytes,
        }
        session.send_control(Packet(protocol.OPEN + json.dumps(handshake, separators=(",", ":")).encode()))
        self.handlers["connect"](session.id, environ)
        self._pings.add(session)
        if session.connection is not None:
            raise self.loop.attend(session.connection)
        self._unpolled.add(session)
        return protocol.encode_payload(session.take_for_poll())

    def _connect(self, environ: "WSGIEnvironment", session: Session, answer: bytes) -> Connection:
        connection = Connection(
            self.loop.adopt(environ),
            self.loop,
            session.lock,
            session,
            max_message_bytes=self.limits.message_bytes,
        )
        connection.write(answer)
        return connection

    def _try_upgrade(self, session: Session, environ: "WSGIEnvironment") -> Exception:
        """Let a session that polls try a WebSocket, and move to it when the client says so."""
        connection = self._connect(environ, session, _accept(environ))
        connection.owner = _Upgrade(session, connection)
        self._upgrades.add(connection.owner)
        return self.loop.attend(connection)

    def _poll(self, session: Session, environ: "WSGIEnvironment") -> bytes:
        if session.is_polled:
            session.abort("it polls twice at a time")
            raise BadRequest("This session polls already.")
        self._unpolled.discard(session)
        if not session.is_upgrading:
            with self.loop.on_hangup(environ, lambda: session.abort("it hung up")):
                session.wait_for_mail(self.limits.ping_interval_seconds + self.limits.ping_timeout_seconds)
        if self._is_draining:
            # Not a CLOSE: python-engineio's client would not come back after it.
            raise ShuttingDown(retry_after_seconds=self.limits.retry_after_seconds)
        packets = [] if session.is_upgrading else session.take_for_poll()
        if session.closed and not packets:
            self.forget(session)
            # Alone in its answer: engine.io-client acts on it before the messages beside it.
            return protocol.encode_payload([Packet(protocol.CLOSE)])
        self._unpolled.add(session)
        return protocol.encode_payload(packets or [Packet(protocol.NOOP)])

    def _take(self, session: Session, environ: "WSGIEnvironment") -> bytes:
        body = read_body(environ, self.limits.message_bytes)
        try:
            for packet in protocol.decode_payload(body):
                session.receive(packet)
        except BadPacket as error:
            session.abort(str(error))
            raise BadRequest("The body is no Engine.IO payload.") from None
        return b"ok"

    # Background

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self.start_background_task(self._run_timers)

    def _run_timers(self) -> None:
        while True:
            self.sleep(TICK_SECONDS)
            for timer in self._timers:
                try:
                    timer.run(lambda: self.sleep(0))
                except Exception:
                    log.exception("a timer failed")

    def _hire(self) -> None:
        if self._workers < WORKERS:
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
        self._workers -= 1
        if self._work:  # it came after the last look and before the worker was counted out
            self._hire()

    def _ping(self, session: Session) -> None:
        if not session.closed:
            session.ping(time.monotonic())
            self._pongs.add(session)

    def _expect_pong(self, session: Session) -> None:
        if session.closed:
            return
        if session.is_pong_due:
            session.abort("it did not answer a ping")
        else:
            self._pings.add(session, since=session.pinged_at)

    def _expect_poll(self, session: Session) -> None:
        if session.is_upgrading:
            self._unpolled.add(session)
        elif session.connection is None:
            session.abort("it polls no more")


class _Upgrade:
    """A WebSocket that a session tries, from its handshake until it carries the session."""

    def __init__(self, session: Session, connection: Connection) -> None:
        self._session = session
        self._connection = connection

    def on_message(self, opcode: int, payload: bytes) -> None:
        if payload == protocol.PING + b"probe":
            self._connection.write(websocket.frame(websocket.Opcode.TEXT, protocol.PONG + b"probe"))
            self._session.pause(True)
        elif payload == protocol.UPGRADE and self._session.is_upgrading:
            self._connection.owner = self._session
            self._session.carry_by(self._connection)
        else:
            raise BadPacket("not a step of an upgrade")

    def on_drained(self) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        self._session.pause(False)

    def expire(self) -> None:
        """Give up, unless the WebSocket carries the session by now."""
        if self._connection is not self._session.connection:
            self._connection.abort()
            self._session.pause(False)


def _accept(environ: "WSGIEnvironment") -> bytes:
    try:
        return websocket.accept(environ)
    except BadHandshake as error:
        raise BadRequest(str(error)) from None
