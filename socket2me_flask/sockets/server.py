"""Flask-SocketIO: which connections are accepted as clients, when they are attached and when detached.

A token is a namespace. python-socketio can't forget a namespace once it is registered, so none ever is: one
pair of catch-all handlers serves them all.

A client is attached when its CONNECT was answered, not before: what is sent to it earlier would reach it even
if it were refused.
"""

import json
import logging
import re
import sys
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

from flask import Flask
from flask_socketio import ConnectionRefusedError, SocketIO
from socketio import packet

from socket2me import __version__

from .. import logs
from ..config import Settings
from ..engineio import Engine, Limits, Session
from ..engineio.state import End
from ..errors import (
    BadAuth,
    RelayError,
    StoreUnavailable,
    TooManyListeners,
    TooManyNamespaces,
    Unauthorized,
    UnknownToken,
)
from ..http.answers import ErrorAnswers
from ..http.origins import Origins
from ..logs import MAX_CLIENT_RECORDS
from ..relay.presence import Presence, check_room
from ..relay.tokens import is_secret, is_token, tag_of
from ..storage import TokenStore
from ..telemetry.histogram import Histogram
from .acknowledgements import ACKS, Acknowledgements
from .auth import OPTION_NAMES, parse_auth
from .client import SocketClient
from .legacy import LegacyEngine
from .manager import ClientManager

log = logging.getLogger(__name__)

# A packet of Socket.IO protocol 5 that a client sends to connect or disconnect: type, namespace, query, payload.
_PACKET = re.compile(
    r"(?P<kind>[01])(?:(?P<namespace>/[^,?]*)(?:\?[^,]*)?(?:,(?P<payload>.*))?|(?P<root>.*))", re.DOTALL
).fullmatch

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
        for error in (
            *(UnknownToken, Unauthorized, BadAuth, TooManyNamespaces, TooManyListeners),
            *(StoreUnavailable, RelayError),
        )
    ),
)
REASONS = (*End, "replaced", "token_ended")

# How long a client that lost its last namespace may take to close the transport itself, as they all do.
CLOSE_SECONDS = 2

# How long a connection stays open that is to be made again. python-socketio's client that loses it just when its
# CONNECT was answered takes itself for connected from then on, and never tries again. Its `connect` waits for 1 s
# by default.
DROP_SECONDS = 2


class Sockets:
    """Flask-SocketIO on the relay's own engine: accepts the clients of live tokens and attaches them."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        engine: Engine,
        store: TokenStore,
        presence: Presence,
        answers: ErrorAnswers,
    ) -> None:
        self._store = store
        self._presence = presence
        self._answers = answers
        self._max_namespaces = settings.max_namespaces_per_connection
        self._window = settings.window
        self._max_window = settings.max_window
        self._register = ClientManager(partial(SocketClient, self), self._on_accepted)
        self._acknowledgements = Acknowledgements(self._register, engine.incomplete, answers)
        self.engine = engine
        self.sessions: dict[str, Session] = engine.sessions
        self._close_deadlines = engine.timer(CLOSE_SECONDS, self._close_if_unused)
        self._drops = engine.timer(DROP_SECONDS, engine.disconnect)
        # What was counted: connects by version of Engine.IO and result, disconnects by reason.
        self.connects = dict.fromkeys(product(PROTOCOLS, RESULTS), 0)
        self.disconnects = dict.fromkeys(REASONS, 0)
        self.ack_seconds = Histogram()  # from when a call is queued for a client until it is acknowledged
        self.socketio = SocketIO(
            app,
            async_mode=engine.async_mode,
            client_manager=self._register,
            namespaces="*",
            manage_session=False,
            serializer=_packet_class(settings, self._register),
            async_handlers=False,  # no event of a client is handled, so none needs a thread
        )
        server = self.socketio.server
        engine.handlers.update(server.eio.handlers)
        self._handle_packet = server.eio.handlers["message"]
        engine.on("message", self._on_message)
        engine.handlers["message_cut"] = self._acknowledgements.on_cut_message
        engine.on("disconnect", self._on_transport_gone)
        server.eio = engine
        server.environ = _NoEnvirons()
        # Below Flask-SocketIO's decorators, which open a request context for each event: 60 us a connect, and
        # garbage that waits for the collector. Nothing here needs one.
        server.on("connect", lambda sid, environ, auth: None, namespace="/")  # accepted; it carries no events
        server.on("connect", self._on_connect, namespace="*")
        server.on("disconnect", self._on_disconnect, namespace="*")

    # What clients ask

    def on_room(self, client: SocketClient) -> None:
        self._presence.deliver_held(client.token, client)

    def disconnect(self, client: SocketClient) -> None:
        # The namespace goes first: a JavaScript client that loses only its transport comes straight back.
        self.socketio.server.disconnect(client.sid, namespace=client.namespace)
        self._close_deadlines.add(client.transport_id)

    def drop_connection(self, client: SocketClient) -> None:
        self._drops.add(client.transport_id)

    # What clients and their connections do

    def _on_connect(self, namespace: str, sid: str, environ: object, auth: Any) -> None:
        # An exception that leaves a connect handler makes python-socketio answer nothing at all.
        client = self._register[sid]
        try:
            self._prepare(client, auth)
        except RelayError as error:
            self._answers.note(error)
            self._on_result(client.joining, client.token, error.code)
            if isinstance(error, StoreUnavailable):
                # A client that is refused does not try again by itself; one that loses its connection does.
                client.drop_connection()
                raise _Unanswered from None
            raise ConnectionRefusedError(str(error), {"code": error.code}) from None
        except Exception:
            log.exception("a connect failed")
            self._on_result(client.joining, client.token, RelayError.code)
            raise ConnectionRefusedError(RelayError.message, {"code": RelayError.code}) from None

    def _prepare(self, client: SocketClient, auth: Any) -> None:
        record = self._store.get(client.token) if is_token(client.token) else None
        if record is None:
            raise UnknownToken
        options = parse_auth(auth, self._max_window)
        if record.secret_hash is not None and not is_secret(options.get("secret"), record.secret_hash):
            raise Unauthorized("This token has a secret, and auth.secret is not it.")
        if options.get("listeners", record.listeners) != record.listeners:
            raise BadAuth(f"This token has listeners: {record.listeners}. A client cannot have another.")
        client.apply(options, record, self._window)
        if record.mailbox and client.mode == "notify":
            raise BadAuth("This token has a mailbox: auth.mode must be ack or reply.")
        if record.listeners != "newest":
            check_room(self._presence, self._store, record, client)
        client.want()

    def _on_accepted(self, client: SocketClient) -> None:
        if not client.is_wanted:
            return
        session = client.joined()
        if session is not None and not session.has_client:
            # It left while the store was asked. To replace the token's client for it would be wrong for good: the
            # client may be the same one, which has connected again in the meantime.
            client.unwant()
            return
        self.engine.joined(client.transport_id)
        try:
            self._presence.attach(client.token, client)
            self._on_result(session, client.token, "accepted")
        except TooManyListeners as error:
            self._on_result(session, client.token, error.code)
            client.disconnect()
        except Exception:
            log.exception("a client was not attached")
            client.disconnect()

    def _on_disconnect(self, namespace: str, sid: str, reason: str) -> None:
        client = self._register[sid]
        session = self.sessions.get(client.transport_id)
        if session is not None:
            session.count_joins(-1)
        if client.unwant():
            client.leave()
            self._presence.detach(client.token, client)
            self.disconnects[client.end] += 1
            fields = {"token_hash": tag_of(client.token), "reason": client.end}
            logs.event(log, "a client disconnected", most_same=MAX_CLIENT_RECORDS, **fields)
            if not self._is_used(client.transport_id):
                self.engine.left(client.transport_id)

    def _on_message(self, transport_id: str, data: str | bytes) -> None:
        """Take a Socket.IO packet of a client. What is none raises, and ends the session.

        python-socketio sees a CONNECT or a DISCONNECT that is in order, and nothing else. Events of clients are
        dropped; python-socketio would handle them: one named `connect` runs the connect handler.
        """
        if isinstance(data, bytes):
            self._acknowledgements.on_attachment(transport_id, data)
            return
        self._acknowledgements.drop(transport_id)
        if data[:1] in ACKS:
            self._acknowledgements.on_ack(transport_id, data)
            return
        if data[:1] in _EVENT_TYPES:
            if _EVENT(data) is None:
                raise ValueError("no Socket.IO event")
            return
        match = _PACKET(data)
        if match is None:
            raise ValueError("no Socket.IO packet")
        session = self.sessions.get(transport_id)
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
        # A client that receives the answer to its CONNECT is attached: the answer is sent after that.
        with session.outbox.corked(), suppress(_Unanswered):
            self._handle_packet(transport_id, f"{kind}{namespace},{payload or ''}")

    def _may_join(self, session: Session) -> bool:
        """Count an attempt to join, whether or not it will succeed."""
        joins = session.count_joins(1)
        return not self._max_namespaces or joins <= self._max_namespaces

    def _refuse(self, session: Session, namespace: str, error: RelayError) -> None:
        self._answers.note(error)
        self._on_result(session, namespace[1:], error.code)
        reason = json.dumps({"message": str(error), "data": {"code": error.code}}, separators=(",", ":"))
        self.engine.send(session.id, f"4{namespace},{reason}")

    def _on_result(self, session: Session | None, token: str, result: str) -> None:
        """Count a connect to a token, and log it: accepted, or the code of the refusal."""
        is_legacy = session is not None and session.codec.clients_ping
        protocol = PROTOCOLS[0 if is_legacy else 1]
        self.connects[protocol, result] += 1
        fields = {"token_hash": tag_of(token), "engineio": protocol, "address": session.address if session else ""}
        if result == "accepted":
            logs.event(log, "a client connected", most_same=MAX_CLIENT_RECORDS, **fields)
        else:
            logs.event(log, "a client was refused", most_same=MAX_CLIENT_RECORDS, reason=result, **fields)

    def _on_transport_gone(self, transport_id: str, reason: str) -> None:
        # python-socketio's own handler looks at every namespace there is. Instead, each namespace of this
        # transport is left as if the client had said so.
        for client in self._register.on_transport(transport_id):
            client.note_end(reason)
            self._handle_packet(transport_id, f"1{client.namespace},")
        self._register.forget(transport_id)
        self._acknowledgements.drop(transport_id)

    def _is_used(self, transport_id: str) -> bool:
        return any(client.is_wanted for client in self._register.on_transport(transport_id))

    def _close_if_unused(self, transport_id: str) -> None:
        if not self._is_used(transport_id):
            self.engine.disconnect(transport_id)


def new_engine(settings: Settings, answers: ErrorAnswers, origins: Origins) -> Engine:
    """Return the engine below `Sockets`, which knows Engine.IO 3 clients if the settings say so."""
    engine_class = partial(LegacyEngine, option_names=OPTION_NAMES) if settings.legacy_clients else Engine
    return engine_class(
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
        async_mode="eventlet" if _has_green_threads() else "threading",
    )


def _has_green_threads() -> bool:
    """Return whether eventlet has patched this process, as the relay's worker does after the fork."""
    eventlet = sys.modules.get("eventlet")
    return eventlet is not None and eventlet.patcher.is_monkey_patched("socket")


def _packet_class(settings: Settings, register: ClientManager[SocketClient]) -> type:
    """Return python-socketio's packet, whose CONNECT answer has the member `relay` beside `sid` for some clients.

    A client that names an option in `auth` learns from it how long the relay waits for it, how often it sends an
    event, of which version it is, and that it may reject.
    Others get what protocol 5 lists, and nothing else. Clients of protocol 4 are sent no payload.
    """
    relay = {
        "ack_timeout_seconds": settings.ack_timeout_seconds,
        "reply_timeout_seconds": settings.reply_timeout_seconds,
        "redeliver_seconds": settings.redeliver_seconds,
        "max_window": settings.max_window,
        "max_attempts": settings.max_attempts,
        "version": __version__,
    }

    class RelayPacket(packet.Packet):  # type: ignore[misc]  # which has no types
        def encode(self) -> Any:
            if self.packet_type == packet.CONNECT and register[self.data["sid"]].has_options:
                self.data: Any = {**self.data, "relay": relay}
            return super().encode()

    return RelayPacket


class _Unanswered(Exception):
    """A CONNECT that is not answered: neither accepted nor refused, which would be for good."""


class _NoEnvirons(dict[str, Any]):
    """What python-socketio keeps of the request that opened each session, for handlers: here, nothing."""

    def __setitem__(self, transport_id: str, environ: object) -> None:
        pass

    def __missing__(self, transport_id: str) -> dict[str, Any]:
        return _NO_ENVIRON


_NO_ENVIRON: dict[str, Any] = {}
