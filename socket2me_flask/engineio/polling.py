"""The requests of the long-polling transport: a GET brings the client packets, a POST brings some of its own."""

from typing import TYPE_CHECKING

from ..errors import BadRequest, BodyTooLarge
from ..http.request_body import EnvironBody
from . import protocol, websocket
from .protocol import NOOP_PACKET, BadPacket, Packet
from .session import Session
from .sessions import Sessions
from .state import CLOSED, DRAINING, POLLING, PROBING, End
from .websocket import Opcode

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# The answer after the end of a session. Not a CLOSE, after which python-engineio's client would not reconnect.
ENDED = "This session has ended."


def get(engine: Sessions, session: Session, environ: "WSGIEnvironment") -> tuple[str, bytes]:
    """Wait for packets. Return the type and the body of the answer. Raises `BadRequest` and `ShuttingDown`."""
    if session.outbox.is_polled:
        session.abort("it polls twice at a time", End.PROTOCOL_ERROR, last=Packet(protocol.CLOSE))
        raise BadRequest("This session polls already.")
    engine.deadlines.polls.discard(session)
    with engine.loop.on_hangup(environ, lambda: session.abort("it hung up", End.CONNECTION_LOST)):
        _wait(session, engine.limits.ping_interval_seconds + engine.limits.ping_timeout_seconds)
    engine.admission.check()
    packets = session.take_for_poll()
    if session.state is DRAINING and not packets:
        session.abort("the client knows of its end")
    if session.state is CLOSED and not packets:
        raise BadRequest(ENDED)
    if session.state.is_polling:
        engine.deadlines.polls.add(session)
    return session.codec.encode_payload(packets or [NOOP_PACKET])


def post(engine: Sessions, session: Session, environ: "WSGIEnvironment") -> tuple[str, bytes]:
    """Receive packets. Return the type and the body of the answer. Raises `BadRequest` and `BodyTooLarge`.

    A client that polls sends its next POST after the answer to this one, so a full inbox delays the answer.
    """
    if session.is_posting:
        session.abort("it posts twice at a time", End.PROTOCOL_ERROR, last=Packet(protocol.CLOSE))
        raise BadRequest("This session posts already.")
    if engine.loop.has_hung_up(environ):
        raise BadRequest("The client does not wait for the answer.")  # so it takes the session for lost
    session.is_posting = True
    try:
        body = engine.bodies.read(EnvironBody(environ), engine.limits.message_bytes * websocket.CUT_FACTOR)
        _receive(session, body, engine.limits.message_bytes)
        inbox = session.inbox
        if inbox is not None:
            inbox.wait_for_space(engine.limits.ping_timeout_seconds)
    finally:
        session.is_posting = False
    return protocol.TEXT_PAYLOAD, b"ok"


def _wait(session: Session, timeout_seconds: float) -> None:
    """Return when there are packets, when the session ends, or when a WebSocket is about to carry it."""
    with session.lock:
        released = session.outbox.begin_poll() if session.state in (POLLING, PROBING) else None
    if released is not None:
        released.wait(timeout_seconds)
        session.outbox.end_poll()


def _receive(session: Session, body: bytes, most: int) -> None:
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


def _cut(packet: Packet) -> Packet:
    """Return the beginning of a packet that is too large. Raises `BodyTooLarge` if it is no acknowledgement."""
    if not websocket.may_be_cut(Opcode.BINARY if packet.binary else Opcode.TEXT, packet.data):
        raise BodyTooLarge
    return packet._replace(data=packet.data[: websocket.CUT_BYTES], is_cut=True)
