"""One Socket.IO connection for one token: what the relay delivers, and the acknowledgements that go back.

Knows python-socketio, not the lifetimes of tokens. `client.py` decides whether and when to connect again.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import engineio
import requests
import socketio
import websocket
from socketio import packet

from ..exceptions import RelayRefused, RelayUnavailable, TokenGone, unreachable
from .websocket_frames import WebSocket

log = logging.getLogger(__name__)

# What python-socketio and python-engineio say in more detail has the token and its secret in it.
_library_log = logging.getLogger(f"{__name__}.libraries")
_library_log.setLevel(logging.ERROR)

# How long the relay may take to accept a connection.
CONNECT_TIMEOUT_SECONDS = 10

# Socket.IO packets: the two answers to a connect, and events without and with attachments.
_CONNECT, _CONNECT_ERROR, _EVENTS = "0", "4", ("2", "5")

# An event with at most one attachment: its namespace, the id for its acknowledgement, and its arguments.
_simple_event = re.compile(r"(?:2|5(1)-)(/[^,]*),(\d*)(\[.*)", re.DOTALL).fullmatch

_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class RelayOptions:
    """How long the relay waits for a client, in seconds: what its answer to a CONNECT says.

    ack, reply: for the acknowledgement of a call, by mode. Then the relay answers its caller itself.
    redeliver: for that of an event of a mailbox. Then it is sent again.
    max_window: how many deliveries a client may ask for at once.
    max_attempts: how often an event of a mailbox is sent; None where an older relay does not say.
    version: of the relay; None where an older one does not say.
    """

    ack_timeout_seconds: float
    reply_timeout_seconds: float
    redeliver_seconds: float
    max_window: float
    max_attempts: float | None = None
    version: str | None = None

    def caller_seconds(self, mode: str) -> float | None:
        """Return how long a caller waits for the client in this mode; None if it does not."""
        return {"ack": self.ack_timeout_seconds, "reply": self.reply_timeout_seconds}.get(mode)

    @classmethod
    def from_answer(cls, answer: Any) -> "RelayOptions | None":
        """Return what the payload of the answer says; None for a relay that says nothing, which is an older one."""
        told = answer.get("relay") if isinstance(answer, Mapping) else None
        try:
            if told is None:
                return None
            numbers = cls.__dataclass_fields__.keys() - {"version"}
            version = told.get("version")
            return cls(
                **{name: float(told[name]) for name in numbers if name in told},
                version=version if isinstance(version, str) else None,
            )
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(eq=False)
class Delivery:
    """A `request` event, and the way back.

    event: the request object.
    received_at: when it came, by `time.monotonic()`.
    resume: goes on with one that was begun by the thread that reads; None if none of it was done.
    is_counted: whether it is one of those that may be handled at once.
    """

    connection: "Connection"
    event: Any
    ack_id: int | None
    received_at: float = field(default_factory=time.monotonic)
    resume: Callable[[], None] | None = None
    is_counted: bool = False

    @property
    def is_void(self) -> bool:
        """Whether the relay counts it as not acknowledged: the client left. It comes again, or not at all."""
        return self.ack_id is not None and self.connection.ended.is_set()

    def acknowledge(self, *args: Any) -> None:
        """Acknowledge it, if the relay asked for that."""
        if self.ack_id is not None and not self.connection.ended.is_set():
            self.connection.acknowledge(self.ack_id, list(args))


class Connection:
    """Connects, and calls `on_delivery` with each delivery in its order, until the connection ends.

    `on_dropped` is called with the id of each event that was delivered and that the relay has dropped. Both are
    called by the thread that reads: they must not block. Raises `RelayUnavailable`, `RelayRefused` or
    `TokenGone`.
    """

    def __init__(
        self,
        server: str,
        token: str,
        auth: dict[str, Any],
        on_delivery: Callable[[Delivery], None],
        on_dropped: Callable[[str], None],
    ) -> None:
        self.mode = auth.get("mode", "notify")
        self.is_bounded = "window" in auth  # the relay sends no more at once than that
        self._on_delivery = on_delivery
        self._on_dropped = on_dropped
        self._refusal: dict[str, Any] = {}
        self._is_accepted = False
        self._answered = threading.Event()  # it is accepted or refused, or has ended
        self._incomplete: Any = None  # a packet whose attachments are still to come
        self.options: RelayOptions | None = None
        self.started = threading.Event()  # set by the owner of the connection: handlers may begin
        self.ended = threading.Event()
        self.changed = threading.Event()  # it has ended, or is to be closed
        self.why = "lost"  # or `replaced`, `too_slow`; once it has ended
        self._http = requests.Session()
        self._socketio = socketio.Client(reconnection=False, handle_sigint=False, logger=_library_log)
        self._engine = self._socketio.eio = _Engine(
            self._socketio, self._on_message, self._on_end, http_session=self._http
        )
        self._namespace = namespace = f"/{token}"
        # What ends it, as it is on the wire. `close` does the rest.
        self._ends = {f'2{namespace},["{event}"]': event for event in ("replaced", "too_slow")}
        self._ends[f"1{namespace},"] = "lost"
        self._socketio.on("connect_error", self._on_refused, namespace=namespace)
        self._socketio.on("disconnect", self._on_end, namespace=namespace)
        try:
            # It would wait its whole time for a connection that has ended.
            self._socketio.connect(server, namespaces=[namespace], auth=auth, wait=False)
        except (socketio.exceptions.ConnectionError, ValueError) as error:
            self.close()
            raise self._error(server, error) from None
        self._answered.wait(CONNECT_TIMEOUT_SECONDS)
        if not self._is_accepted:
            is_late = not self.ended.is_set()
            self.close()
            raise self._error(server, "timed out" if is_late else "the connection was closed")

    def acknowledge(self, number: int, args: list[Any]) -> None:
        """Acknowledge an event. Bytes go as attachments. Raises `TypeError` or `ValueError` if it is not JSON."""
        self._engine.send_packet(_acknowledgement(self._namespace, number, args))

    @property
    def websocket(self) -> WebSocket | None:
        """The WebSocket that carries it; None while it is polled."""
        websocket = self._engine.ws
        return websocket if self._engine.transport() == "websocket" and isinstance(websocket, WebSocket) else None

    @property
    def is_sending(self) -> bool:
        """Whether something waits to be written. `close` does not wait for that."""
        queue = self._engine.queue
        return queue is not None and queue.unfinished_tasks > 0

    def close(self) -> None:
        """Disconnect."""
        self._on_end()
        self.started.set()
        self._socketio.disconnect()
        # python-engineio leaves these open after an error.
        if self._engine.ws is not None:
            self._engine.ws.close()
            self._engine.ws.shutdown()  # which `close` leaves out where the relay was first
            self._engine.ws.end()
        self._http.close()

    def _on_message(self, message: Any) -> bool:
        """Take a packet, unless it is one for python-socketio."""
        if self._incomplete is not None and isinstance(message, bytes):
            if self._incomplete.add_attachment(message):
                incomplete, self._incomplete = self._incomplete, None
                self._on_event(incomplete.namespace, incomplete.data, incomplete.id)
            return True
        if message in self._ends:
            self._end(self._ends[message])
            return True
        if not isinstance(message, str) or message[:1] not in _EVENTS:
            if message[:1] in (_CONNECT, _CONNECT_ERROR):
                self._on_answer(packet.Packet(encoded_packet=message))
            return False
        simple = _simple_event(message)
        decoded: Any = _Event.decode(simple) if simple is not None else None
        if decoded is None:
            decoded = packet.Packet(encoded_packet=message)
        if decoded.attachment_count:
            self._incomplete = decoded
        else:
            self._on_event(decoded.namespace, decoded.data, decoded.id)
        return True

    def _on_answer(self, decoded: Any) -> None:
        if decoded.namespace != self._namespace:
            return
        if decoded.packet_type == packet.CONNECT:
            self.options = RelayOptions.from_answer(decoded.data)
            self._is_accepted = True
        else:
            self._on_refused(decoded.data)
        self._answered.set()

    def _on_event(self, namespace: str, data: Any, ack_id: int | None) -> None:
        if namespace != self._namespace:
            return
        if data[0] == "request":
            self._on_delivery(Delivery(self, data[1], ack_id))
        elif data[0] == "dropped":
            self._on_dropped(str(data[1]))

    def _on_refused(self, reason: Any = None) -> None:
        self._refusal = reason if isinstance(reason, dict) else {"message": reason}

    def _on_end(self, *_: object) -> None:
        self._end(self.why)

    def _end(self, why: str) -> None:
        if self.why == "lost":
            self.why = why
        self.ended.set()
        self.changed.set()
        self._answered.set()

    def _error(self, server: str, error: object) -> RelayUnavailable | RelayRefused:
        """Return what the relay meant by not accepting the connection."""
        # Of a namespace: {"message", "data": {"code"}}; of a connection: {"error": {"code", "message"}}.
        details = self._refusal.get("data") or self._refusal.get("error")
        details = details if isinstance(details, dict) else {}
        code = str(details.get("code", ""))
        message = self._refusal.get("message") or details.get("message")
        if not isinstance(message, str) or not code:
            return unreachable(server, message or error)
        if code == "unknown_token":
            return TokenGone(message, code=code)
        if code in ("unauthorized", "bad_auth"):
            return RelayRefused(message, code=code)
        return RelayUnavailable(message)


@dataclass(slots=True)
class _Event:
    """An event with at most one attachment, which is the body of a request.

    python-socketio's packet looks for the places of attachments everywhere in the data.
    """

    namespace: str
    id: int | None
    data: Any
    attachment_count: int

    @classmethod
    def decode(cls, match: re.Match[str]) -> "_Event | None":
        """Return an event as `_simple_event` found it; None if its attachment belongs elsewhere."""
        data = json.loads(match[4])
        if match[1] and not (
            len(data) == 2 and isinstance(data[1], dict) and data[1].get("body") == {"_placeholder": True, "num": 0}
        ):
            return None
        return cls(match[2], int(match[3]) if match[3] else None, data, 1 if match[1] else 0)

    def add_attachment(self, attachment: bytes) -> bool:
        """Put the attachment in its place. Return whether that was the last."""
        self.data[1]["body"] = attachment
        return True


def _acknowledgement(namespace: str, number: int, args: list[Any]) -> list[str | bytes]:
    """Return an acknowledgement as its packet and its attachments."""
    attachments = [arg for arg in args if isinstance(arg, bytes)]
    places = iter(range(len(attachments)))
    plain = [{"_placeholder": True, "num": next(places)} if isinstance(arg, bytes) else arg for arg in args]
    try:
        kind = f"{packet.BINARY_ACK}{len(attachments)}-" if attachments else f"{packet.ACK}"
        return [f"{kind}{namespace},{number}{_to_json(plain)}", *attachments]
    except TypeError:  # there may be bytes further inside
        encoded = packet.Packet(packet.ACK, data=args, namespace=namespace, id=number).encode()
        return encoded if isinstance(encoded, list) else [encoded]


class _Engine(engineio.Client):  # type: ignore[misc]  # which has no types
    """python-engineio's client, bringing messages in their order.

    Its own starts a thread for each: requests would overtake each other, and their bodies the messages that they
    belong to.
    """

    def __init__(
        self,
        client: socketio.Client,
        on_message: Callable[[str | bytes], bool],
        on_end: Callable[..., None],
        http_session: requests.Session,
    ) -> None:
        super().__init__(
            handle_sigint=False,
            logger=_library_log,
            http_session=http_session,
            websocket_extra_options={"class_": partial(WebSocket, self._on_websocket_message)},
        )
        self.handlers.update(client.eio.handlers)
        self._handle_message = self.handlers["message"]
        self._on_message = on_message
        self._send_lock = threading.Lock()  # a packet and its attachments go together
        self.on("disconnect", on_end)

    def send_packet(self, pieces: list[str | bytes]) -> None:
        """Send a Socket.IO packet and its attachments: over a WebSocket at once, without the library's thread."""
        if self.transport() != "websocket":
            with self._send_lock:
                for piece in pieces:
                    self.send(piece)
            return
        try:
            self.ws.send_messages(f"4{piece}" if isinstance(piece, str) else piece for piece in pieces)
        except (OSError, websocket.WebSocketException):
            # A part of it may be written, so nothing can follow. The thread that reads ends the connection.
            self.ws.abort()

    def _on_websocket_message(self, message: str | bytes) -> bool:
        """Take what `on_message` takes, before the library takes it apart."""
        if isinstance(message, str):
            return message[:1] == "4" and self._take(message[1:])
        return self._take(message)

    def _take(self, message: Any) -> bool:
        try:
            return self._on_message(message)
        except Exception:
            log.exception("what the relay sent is no packet")
            return True

    def start_background_task(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a thread, but for a message that `on_message` takes."""
        if target == self._handle_message and self._take(args[0]):
            return None
        return super().start_background_task(target, *args, **kwargs)
