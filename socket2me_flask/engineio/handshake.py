"""The requests that open a session, over either transport, and those that open a WebSocket for one that polls."""

import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..errors import BadRequest, UpgradeRequired
from ..limits import address_key
from . import protocol, websocket
from .polling import ENDED
from .protocol import Packet
from .session import Session
from .sessions import Sessions
from .state import IllegalTransition
from .upgrade import Upgrade
from .websocket import BadHandshake, BadVersion, CloseCode
from .websocket_connection import Connection, Owner

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def open_session(engine: Sessions, environ: "WSGIEnvironment", query: Mapping[str, str]) -> tuple[str, bytes]:
    """Open a session. Return the type and the body of the answer.

    Over a WebSocket, raises what ends the request without an answer. Also raises `BadRequest`, `UpgradeRequired`,
    and what `Admission.admit` raises.
    """
    if environ["REQUEST_METHOD"] != "GET":
        raise BadRequest("A session is opened by GET.")
    codec = engine.codec(query)
    by_websocket = query["transport"] == "websocket"
    answer = _accept(environ) if by_websocket else b""
    address = sys.intern(address_key(environ.get("REMOTE_ADDR", "")))
    engine.admission.admit(address)
    session = Session(engine, engine.generate_id(), address, codec)
    connection = None
    try:
        if by_websocket:
            connection = _connect(engine, environ, session, session)
        session.open(connection)
        if connection is not None:
            connection.write(answer)
    except BaseException:
        session.abort("its handshake was not answered")
        raise
    engine.start()
    _introduce(engine, session, environ)
    if connection is not None:
        raise engine.loop.watch(connection)
    return codec.encode_payload(session.take_for_poll())


def start_upgrade(engine: Sessions, session: Session, environ: "WSGIEnvironment") -> Exception:
    """Open a WebSocket for a session that polls, and move the session to it when the client says so.

    Return what the request must raise to end without an answer. Raises `BadRequest` and `UpgradeRequired`.

    One at a time: each is an open file, and the session is what is counted. A WebSocket for a session that has
    one is opened and closed at once, as engine.io's server does. For a session that has ended none is opened:
    python-engineio's client fails at a close frame in place of the answer to its probe, for good.
    """
    answer = _accept(environ)
    if not session.state.is_open:
        raise BadRequest(ENDED)
    upgrade = Upgrade(session, partial(_connect, engine, environ, session))
    connection = upgrade.connection
    try:
        session.upgrade_started(connection)
    except IllegalTransition:
        connection.write(answer + websocket.close_frame(CloseCode.NORMAL))
        connection.abort()
    else:
        engine.deadlines.upgrades.add(upgrade)
        connection.write(answer)
    return engine.loop.watch(connection)


def _introduce(engine: Sessions, session: Session, environ: "WSGIEnvironment") -> None:
    """Register a new session, and send its handshake. One that has ended already is not registered."""
    with session.lock:
        if not session.state.is_open:
            return
        engine.sessions[session.id] = session
    handshake = {
        "sid": session.id,
        "upgrades": ["websocket"] if session.state.is_polling else [],
        "pingInterval": engine.limits.ping_interval_seconds * 1000,
        "pingTimeout": engine.limits.ping_timeout_seconds * 1000,
        "maxPayload": engine.limits.message_bytes,
    }
    session.send_control(Packet(protocol.OPEN + json.dumps(handshake, separators=(",", ":")).encode()))
    engine.on_arrived(session, environ)
    with session.lock:
        if session.state.is_open:
            engine.heartbeats.begin(session)
            engine.deadlines.begin(session)


def _connect(engine: Sessions, environ: "WSGIEnvironment", session: Session, owner: Owner) -> Connection:
    """Take the socket of a request, over which nothing has been answered."""
    sock = engine.loop.detach_socket(environ)
    return Connection(sock, engine.connection_options, session.lock, owner, address=session.address)


def _accept(environ: "WSGIEnvironment") -> bytes:
    try:
        return websocket.accept(environ)
    except BadVersion as error:
        raise UpgradeRequired(str(error)) from None
    except BadHandshake as error:
        raise BadRequest(str(error)) from None
