"""Flask-SocketIO: which connections are accepted, and how a client is told, fed and dismissed.

A token is a namespace. python-socketio can't forget a namespace once it is registered, so none ever is: one
pair of catch-all handlers serves them all.

A client is attached when its CONNECT was answered, not before: what is sent to it earlier would reach it even
if it were refused.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from flask import Flask
from flask_socketio import ConnectionRefusedError, SocketIO
from socketio import packet

from ..config import Settings
from ..engineio import Engine, EngineFull, Limits, MessageTooLarge, OutboxFull, Session, SessionClosed
from ..engineio.protocol import Packet
from ..engineio.state import End
from ..errors import (
    BadAuth,
    ClientGone,
    ClientTooSlow,
    EventTooLarge,
    NoRoom,
    RelayError,
    StoreUnavailable,
    TooManyIncomplete,
    TooManyNamespaces,
    TooManyQueued,
    Unauthorized,
    UnknownToken,
)
from ..histogram import Histogram
from ..http.answers import ErrorAnswers
from ..http.origins import Origins
from ..relay.call import Call
from ..relay.delivery import Answering, OnAck
from ..relay.relay import Relay
from ..relay.replies import TOO_LARGE
from ..relay.tokens import is_secret, is_token
from ..storage import MODES, TokenStore
from .legacy import LegacyEngine
from .manager import ClientManager, NamespaceClient
from .request_event import MAX_ATTACHMENTS, event_packets, request_event

log = logging.getLogger(__name__)

# What a client may say in `auth`, and the values that each takes: none listed, any string.
AUTH_VALUES: Mapping[str, tuple[str, ...]] = {"body": ("parsed", "raw"), "secret": (), "mode": MODES}

# What socket.io-client itself adds to `auth` after it was connected to a server with connection state recovery.
PASSED_OVER = ("pid", "offset")

# A packet of Socket.IO protocol 5 that a client sends to connect or disconnect: type, namespace, query, payload.
_PACKET = re.compile(
    r"(?P<kind>[01])(?:(?P<namespace>/[^,?]*)(?:\?[^,]*)?(?:,(?P<payload>.*))?|(?P<root>.*))", re.DOTALL
).fullmatch

# ACK or BINARY_ACK: type, number of attachments, namespace, query, id, arguments.
_ACK = re.compile(
    r"(?P<kind>[36])(?:(?P<attachments>\d{1,2})-)?(?P<namespace>/[^,?]*)(?:\?[^,]*)?,(?P<id>\d{1,15})(?P<args>.*)",
    re.DOTALL,
).fullmatch
_ACKS = ("3", "6")

# How EVENT and BINARY_EVENT begin.
_EVENT_TYPES = ("2", "5")
_EVENT = re.compile(r"[25](?:\d+-)?(?:/[^,]*,)?\d*\[").match

# The longest namespace that is looked at, which is longer than any token, and the longest `auth`.
MAX_NAMESPACE_CHARACTERS = 256
MAX_AUTH_CHARACTERS = 16_384

# What the metrics count connects by, the version of Engine.IO and what became of it, and disconnects by.
PROTOCOLS = ("3", "4")
RESULTS = (
    "accepted",
    *(
        error.code
        for error in (UnknownToken, Unauthorized, BadAuth, TooManyNamespaces, StoreUnavailable, RelayError)
    ),
)
REASONS = (*End, "replaced", "token_ended")

# How long a client that lost its last namespace may take to close the transport itself, as they all do.
GOODBYE_SECONDS = 2

# How long a connection stays open that is to be made again. python-socketio's client that loses it just when its
# CONNECT was answered takes itself for connected from then on, and never tries again. Its `connect` waits for 1 s
# unless it is told otherwise.
DROP_SECONDS = 2


class SocketClient(NamespaceClient):
    """One client on one namespace: what `relay.Client` asks for."""

    __slots__ = (
        *("_acks", "_carrier", "_has_left", "_last_ack_id", "_sockets", "address", "end"),
        *("answering", "bounds_calls", "has_options", "is_raw", "is_wanted", "joining", "mode", "number", "window"),
    )

    def __init__(self, sockets: "Sockets", sid: str, transport_id: str, namespace: str) -> None:
        super().__init__(sid, transport_id, namespace)
        self._sockets = sockets
        session = self._session()
        self.address = "" if session is None else session.address  # known after the session has ended, too
        self.is_wanted = False  # to be attached to a token when it is accepted: not on "/"
        self.has_options = False  # it named some in `auth`
        self.joining: Session | None = None  # the session whose CONNECT is being answered
        self.is_raw = False
        self.mode = "notify"
        self.answering: Answering | None = None
        self.window = 1
        self.bounds_calls = False
        self._acks: dict[int, tuple[OnAck, float]] | None = None  # who waits for which, and since when
        self._last_ack_id = 0
        self._has_left = False
        self.end = "client"  # why it is disconnected, once it is: it says so itself unless something else is known
        self._carrier: Session | None = None  # what carried the last call
        self.number = 0

    @property
    def token(self) -> str:
        """The token whose calls it is to get."""
        return self.namespace[1:]

    def send(self, call: Call, on_ack: OnAck | None = None, attempt: int | None = None) -> int | None:
        session = self._session()
        if session is None or self._has_left:
            raise ClientGone
        ack_id = None if on_ack is None else self._await(on_ack)
        try:
            event = request_event(call, raw=self.is_raw, attempt=attempt)
            self.number = session.send(event_packets(self.namespace, event, ack_id))
            self._carrier = session
        except SessionClosed:
            self.forget(ack_id)
            raise ClientGone from None
        except EngineFull:
            self.forget(ack_id)
            raise TooManyQueued from None
        except MessageTooLarge:
            self.forget(ack_id)
            raise EventTooLarge from None
        except OutboxFull:
            self.forget(ack_id)
            if attempt is not None and self._acks:
                raise NoRoom from None  # it is still to acknowledge some
            self._say("too_slow")
            session.close("it does not read as fast as calls come", end=End.TOO_SLOW)
            raise ClientTooSlow from None
        return ack_id

    def forget(self, ack_id: int | None) -> None:
        if self._acks is not None and ack_id is not None:
            self._acks.pop(ack_id, None)

    def awaits(self, ack_id: int) -> bool:
        """Say whether somebody waits for an acknowledgement."""
        return self._acks is not None and ack_id in self._acks

    def acknowledge(self, ack_id: int, args: list[Any]) -> None:
        """Bring an acknowledgement to whoever waits for it. One that nobody waits for (any more) means nothing."""
        pending = self._acks.pop(ack_id, None) if self._acks is not None else None
        if pending is not None:
            on_ack, sent_at = pending
            self._sockets.ack_seconds.add(time.monotonic() - sent_at)
            on_ack(args)
            if self.bounds_calls:
                self._sockets.on_room(self)

    @property
    def has_room(self) -> bool:
        return not self.bounds_calls or len(self._acks or ()) < self.window

    def leave(self) -> None:
        """Send nothing more, and let go whoever waits for an acknowledgement."""
        self._has_left = True
        acks, self._acks = self._acks, None
        for on_ack, _ in (acks or {}).values():
            on_ack(None)

    def flush(self) -> None:
        session = self._session()
        if session is None:
            raise ClientGone
        try:
            session.flush()
        except SessionClosed:
            raise ClientGone from None

    def has_lost(self, number: int) -> bool:
        return self._carrier is None or self._carrier.outbox.has_lost(number)

    def tell_dropped(self, event_id: str) -> None:
        self._say("dropped", event_id)

    def disconnect(self, final_event: str | None = None) -> None:
        self.leave()
        self.end = final_event or "token_ended"
        if final_event is not None:
            self._say(final_event)
        # The namespace goes first: a JavaScript client that loses only its transport comes straight back.
        self._sockets.socketio.server.disconnect(self.sid, namespace=self.namespace)
        self._sockets.close_deadlines.add(self.transport_id)

    def drop_connection(self) -> None:
        self._sockets.drops.add(self.transport_id)

    def _await(self, on_ack: OnAck) -> int:
        self._last_ack_id += 1
        if self._acks is None:
            self._acks = {}
        self._acks[self._last_ack_id] = on_ack, time.monotonic()
        return self._last_ack_id

    def _session(self) -> Session | None:
        return self._sockets.engine.sessions.get(self.transport_id)

    def _say(self, *event: str) -> None:
        session = self._session()
        if session is not None:
            words = json.dumps(event, separators=(",", ":"))
            session.send_control(Packet(f"42{self.namespace},{words}".encode()))


class Sockets:
    """Flask-SocketIO on the relay's own engine. Accepts nobody before `serve` is called."""

    def __init__(self, app: Flask, settings: Settings, answers: ErrorAnswers, origins: Origins) -> None:
        self._register = ClientManager(partial(SocketClient, self), self._on_accepted)
        self._store: TokenStore
        self._relay: Relay
        self._answers = answers
        self._max_namespaces: int = settings.max_namespaces_per_connection
        self._window: int = settings.window
        self._max_window: int = settings.max_window
        self._incomplete: dict[str, _Incomplete] = {}  # by transport
        # What was counted: connects by version of Engine.IO and result, disconnects by reason.
        self.connects = dict.fromkeys(product(PROTOCOLS, RESULTS), 0)
        self.disconnects = dict.fromkeys(REASONS, 0)
        self.ack_seconds = Histogram()  # from when a call is queued for a client until it is acknowledged
        self.socketio = SocketIO(
            app,
            async_mode="eventlet" if _has_green_threads() else "threading",
            client_manager=self._register,
            namespaces="*",
            manage_session=False,
            serializer=_packet_class(settings, self._register),
            async_handlers=False,  # clients send no events that anybody handles: no thread for each
        )
        server = self.socketio.server
        engine_class = (
            partial(LegacyEngine, option_names=(*AUTH_VALUES, "window")) if settings.legacy_clients else Engine
        )
        self.engine = engine_class(
            Limits(
                sessions=settings.max_connections,
                sessions_per_address=settings.max_connections_per_address,
                message_bytes=settings.max_client_message_bytes,
                outbox_packets=settings.client_queue_limit_requests,
                outbox_bytes=settings.client_queue_limit_bytes,
                total_outbox_bytes=settings.max_queued_bytes,
                ping_interval_seconds=settings.ping_interval_seconds,
                ping_timeout_seconds=settings.ping_timeout_seconds,
                send_timeout_seconds=settings.send_timeout_seconds,
                join_timeout_seconds=settings.join_timeout_seconds,
                body_timeout_seconds=settings.body_timeout_seconds,
                reading_bytes=settings.max_reading_bytes,
            ),
            answers,
            origins,
            async_mode=server.async_mode,
        )
        self.engine.handlers.update(server.eio.handlers)
        self._handle_packet = server.eio.handlers["message"]
        self.engine.on("message", self._on_message)
        self.engine.handlers["message_cut"] = self._on_cut_message
        self.engine.on("disconnect", self._on_transport_gone)
        server.eio = self.engine
        server.environ = _NoEnvirons()
        self.close_deadlines = self.engine.timer(GOODBYE_SECONDS, self._close_if_unused)
        self.drops = self.engine.timer(DROP_SECONDS, self.engine.disconnect)

    def serve(self, store: TokenStore, relay: Relay) -> None:
        """Accept the clients of live tokens and bring them to the relay.

        The handlers are registered below Flask-SocketIO's decorators, which open a request context for each
        event: 60 us a connect, and garbage that waits for the collector. Nothing here needs one.
        """
        self._store = store
        self._relay = relay
        server = self.socketio.server
        server.on("connect", lambda sid, environ, auth: None, namespace="/")  # accepted; it carries no events
        server.on("connect", self._on_connect, namespace="*")
        server.on("disconnect", self._on_disconnect, namespace="*")

    def on_room(self, client: SocketClient) -> None:
        """Have calls delivered that wait for a client's window."""
        self._relay.presence.deliver_held(client.token, client)

    def _on_connect(self, namespace: str, sid: str, environ: object, auth: Any) -> None:
        # An exception that leaves a connect handler makes python-socketio answer nothing at all.
        client = self._register[sid]
        try:
            self._prepare(client, auth)
        except RelayError as error:
            self._answers.note(error)
            self._count_connect(client.joining, error.code)
            if isinstance(error, StoreUnavailable):
                # A client that is refused does not try again by itself; one that loses its connection does.
                client.drop_connection()
                raise _Unanswered from None
            raise ConnectionRefusedError(str(error), {"code": error.code}) from None
        except Exception:
            log.exception("a connect failed")
            self._count_connect(client.joining, RelayError.code)
            raise ConnectionRefusedError(RelayError.message, {"code": RelayError.code}) from None

    def _prepare(self, client: SocketClient, auth: Any) -> None:
        client.joining = self.engine.sessions.get(client.transport_id)
        record = self._store.get(client.token) if is_token(client.token) else None
        if record is None:
            raise UnknownToken
        options = _parse_auth(auth, self._max_window)
        if record.secret_hash is not None and not is_secret(options.get("secret"), record.secret_hash):
            raise Unauthorized("This token has a secret, and auth.secret is not it.")
        client.has_options = bool(options)
        client.is_raw = options.get("body") == "raw"
        client.mode = options.get("mode", record.mode)
        client.window = options.get("window", self._window)
        client.bounds_calls = "window" in options and not record.mailbox and client.mode != "notify"
        if record.mailbox and client.mode == "notify":
            raise BadAuth("This token has a mailbox: auth.mode must be ack or reply.")
        client.is_wanted = True

    def _on_accepted(self, client: SocketClient) -> None:
        if not client.is_wanted:
            return
        session, client.joining = client.joining, None
        if session is not None and not session.has_client:
            # It left while the store was asked. To replace the token's client for it would be wrong for good: the
            # client may be the same one, which has connected again in the meantime.
            client.is_wanted = False
            return
        self.engine.joined(client.transport_id)
        try:
            self._relay.presence.attach(client.token, client)
            self._count_connect(session, "accepted")
        except Exception:
            log.exception("a client was not attached")
            client.disconnect()

    def _on_disconnect(self, namespace: str, sid: str, reason: str) -> None:
        client = self._register[sid]
        session = self.engine.sessions.get(client.transport_id)
        if session is not None:
            session.joins -= 1
        if client.is_wanted:
            client.is_wanted = False
            client.leave()
            self._relay.presence.detach(client.token, client)
            self.disconnects[client.end] += 1
            if not self._is_used(client.transport_id):
                self.engine.left(client.transport_id)

    def _on_message(self, transport_id: str, data: str | bytes) -> None:
        """Take a Socket.IO packet of a client. What is none raises, and ends the session.

        Acknowledgements go to whoever waits for them. python-socketio sees a CONNECT or a DISCONNECT that is in
        order, and nothing else. Nobody handles events of clients; python-socketio would: one named `connect` runs
        the connect handler.
        """
        if isinstance(data, bytes):
            self._on_attachment(transport_id, data)
            return
        if self._incomplete:
            self._drop_incomplete(transport_id)
        if data[:1] in _ACKS:
            self._on_ack(transport_id, data)
            return
        if data[:1] in _EVENT_TYPES:
            if _EVENT(data) is None:
                raise ValueError("no Socket.IO event")
            return
        match = _PACKET(data)
        if match is None:
            raise ValueError("no Socket.IO packet")
        session = self.engine.sessions.get(transport_id)
        if session is None:
            return  # it has ended meanwhile: what it leaves is left then
        kind, namespace = match["kind"], match["namespace"] or "/"
        payload = match["root"] if match["namespace"] is None else match["payload"]
        if len(namespace) > MAX_NAMESPACE_CHARACTERS:
            raise ValueError("a namespace that is too long")
        if kind == "0":
            if not self._may_join(session):
                self._refuse(session, namespace, TooManyNamespaces())
                return
            if len(payload or "") > MAX_AUTH_CHARACTERS:
                self._refuse(session, namespace, BadAuth(f"auth takes {MAX_AUTH_CHARACTERS:,} characters."))
                return
            if payload and not isinstance(json.loads(payload), dict):
                self._refuse(session, namespace, BadAuth("auth must be an object."))
                return
        # Who sees the answer to a CONNECT may count on it: it is sent when the client is attached.
        with session.outbox.corked(), suppress(_Unanswered):
            self._handle_packet(transport_id, f"{kind}{namespace},{payload or ''}")

    def _on_ack(self, transport_id: str, data: str) -> None:
        match = _ACK(data)
        if match is None:
            return
        ack_id = int(match["id"])
        client = self._awaiting(transport_id, match)
        if client is None:
            return  # it came late, or was never asked for: nobody reads the rest
        attachments = int(match["attachments"] or 0)
        if match["kind"] == "3" or not attachments:
            client.acknowledge(ack_id, _arguments(match["args"]))
        elif attachments <= MAX_ATTACHMENTS:
            self._incomplete[transport_id] = incomplete = _Incomplete(
                client, ack_id, match["args"], attachments, client.address
            )
            self._hold(transport_id, incomplete, len(data))
        else:
            raise ValueError("too many attachments")

    def _on_attachment(self, transport_id: str, data: bytes) -> None:
        incomplete = self._incomplete.get(transport_id)
        if incomplete is None:
            return
        incomplete.attachments.append(data)
        if len(incomplete.attachments) == incomplete.expected:
            self._drop_incomplete(transport_id)
            args = _with_attachments(_arguments(incomplete.args), incomplete.attachments)
            incomplete.client.acknowledge(incomplete.ack_id, args)
        else:
            self._hold(transport_id, incomplete, len(data))

    def _hold(self, transport_id: str, incomplete: "_Incomplete", size: int) -> None:
        """Count what is held of an acknowledgement. Drops it and raises `TooManyIncomplete` without room."""
        if not self.engine.incomplete.has_room(incomplete.address, size):
            self._drop_incomplete(transport_id)
            error = TooManyIncomplete()
            self._answers.note(error)
            raise error
        self.engine.incomplete.take(incomplete.address, size)
        incomplete.size += size

    def _drop_incomplete(self, transport_id: str) -> "_Incomplete | None":
        incomplete = self._incomplete.pop(transport_id, None)
        if incomplete is not None:
            self.engine.incomplete.give_back(incomplete.address, incomplete.size)
        return incomplete

    def _on_cut_message(self, transport_id: str, data: str | bytes) -> None:
        """Take the beginning of a packet that is too large. Raises, unless it is of an acknowledgement."""
        incomplete = self._drop_incomplete(transport_id)
        if isinstance(data, bytes):
            if incomplete is not None:
                incomplete.client.acknowledge(incomplete.ack_id, [TOO_LARGE])
            return
        match = _ACK(data)
        if match is None:
            raise ValueError("a packet that is too large")
        client = self._awaiting(transport_id, match)
        if client is not None:
            client.acknowledge(int(match["id"]), [TOO_LARGE])

    def _awaiting(self, transport_id: str, match: re.Match[str]) -> SocketClient | None:
        """Return the client whose acknowledgement this is, if somebody waits for it."""
        for client in self._register.on_transport(transport_id):
            if client.namespace == match["namespace"] and client.awaits(int(match["id"])):
                return client
        return None

    def _may_join(self, session: Session) -> bool:
        """Count an attempt to join, whether or not it will succeed."""
        session.joins += 1
        return not self._max_namespaces or session.joins <= self._max_namespaces

    def _refuse(self, session: Session, namespace: str, error: RelayError) -> None:
        self._answers.note(error)
        self._count_connect(session, error.code)
        reason = json.dumps({"message": str(error), "data": {"code": error.code}}, separators=(",", ":"))
        self.engine.send(session.id, f"4{namespace},{reason}")

    def _count_connect(self, session: Session | None, result: str) -> None:
        is_legacy = session is not None and session.codec.clients_ping
        self.connects[PROTOCOLS[0 if is_legacy else 1], result] += 1

    def _on_transport_gone(self, transport_id: str, reason: str) -> None:
        # python-socketio's own handler looks at every namespace there is. Instead, each namespace of this
        # transport is left as if the client had said so.
        for client in self._register.on_transport(transport_id):
            client.end = reason
            self._handle_packet(transport_id, f"1{client.namespace},")
        self._register.forget(transport_id)
        self._drop_incomplete(transport_id)

    def _is_used(self, transport_id: str) -> bool:
        return any(client.is_wanted for client in self._register.on_transport(transport_id))

    def _close_if_unused(self, transport_id: str) -> None:
        if not self._is_used(transport_id):
            self.engine.disconnect(transport_id)


def _has_green_threads() -> bool:
    """Return whether eventlet has patched this process, as the relay's worker does after the fork."""
    eventlet = sys.modules.get("eventlet")
    return eventlet is not None and eventlet.patcher.is_monkey_patched("socket")


def _packet_class(settings: Settings, register: ClientManager[SocketClient]) -> type:
    """Return python-socketio's packet, whose CONNECT answer has the member `relay` beside `sid` for some clients.

    A client that names an option in `auth` learns from it how long the relay waits for it, how often it sends an
    event, and that it may reject.
    Others get what protocol 5 lists, and nothing else. Clients of protocol 4 are sent no payload.
    """
    relay = {
        "ack_timeout_seconds": settings.ack_timeout_seconds,
        "reply_timeout_seconds": settings.reply_timeout_seconds,
        "redeliver_seconds": settings.redeliver_seconds,
        "max_window": settings.max_window,
        "max_attempts": settings.max_attempts,
    }

    class RelayPacket(packet.Packet):  # type: ignore[misc]  # which has no types
        def encode(self) -> Any:
            if self.packet_type == packet.CONNECT and register[self.data["sid"]].has_options:
                self.data: Any = {**self.data, "relay": relay}
            return super().encode()

    return RelayPacket


class _Unanswered(Exception):
    """A CONNECT that is not answered: neither accepted nor refused, which would be for good."""


@dataclass(slots=True)
class _Incomplete:
    """An acknowledgement whose attachments are still to come. `args` are JSON, which is read when they have.

    `address` is whom it counts for, with `size` bytes.
    """

    client: SocketClient
    ack_id: int
    args: str
    expected: int
    address: str
    size: int = 0
    attachments: list[bytes] = field(default_factory=list)


class _NoEnvirons(dict[str, Any]):
    """What python-socketio keeps of the request that opened each session, for handlers: here, nothing."""

    def __setitem__(self, transport_id: str, environ: object) -> None:
        pass

    def __missing__(self, transport_id: str) -> dict[str, Any]:
        return _NO_ENVIRON


_NO_ENVIRON: dict[str, Any] = {}


def _arguments(text: str) -> list[Any]:
    """Return the arguments of an acknowledgement. Raises `ValueError`."""
    args = json.loads(text)
    if not isinstance(args, list):
        raise ValueError("no arguments of an acknowledgement")
    return args


def _with_attachments(value: Any, attachments: list[bytes]) -> Any:
    """Return a value with its attachments in the places that it has for them."""
    if isinstance(value, list):
        return [_with_attachments(item, attachments) for item in value]
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            return attachments[value["num"]]
        return {key: _with_attachments(item, attachments) for key, item in value.items()}
    return value


def _parse_auth(auth: Any, max_window: int) -> dict[str, Any]:
    """Return the options of a connect's `auth`. Refuses what it does not know, never guesses."""
    options = {name: value for name, value in (auth or {}).items() if name not in PASSED_OVER}
    for name, value in options.items():
        if name == "window":
            if type(value) is not int or not 1 <= value <= max_window:
                raise BadAuth(f"auth.window is a whole number from 1 to {max_window}.")
            continue
        if name not in AUTH_VALUES:
            raise BadAuth(f"auth takes {', '.join(AUTH_VALUES)}, window, and nothing else.")
        values = AUTH_VALUES[name]
        if not isinstance(value, str) or (values and value not in values):
            raise BadAuth(f"auth.{name} must be {' or '.join(values) or 'a string'}.")
    return options
