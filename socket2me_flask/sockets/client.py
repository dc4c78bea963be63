"""A client on a namespace, by the interface of `relay/`: it accepts calls, and may acknowledge them."""

import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from socket2me.inspector.filters import Filter

from ..engineio import EngineFull, MessageTooLarge, OutboxFull, Session, SessionClosed
from ..engineio.protocol import Packet
from ..engineio.state import End
from ..errors import ClientGone, ClientTooSlow, EventTooLarge, NoListener, NoRoom, TooManyQueued
from ..relay.call import Call
from ..relay.delivery import Answering, OnAck
from ..relay.listeners import wants
from ..storage import TokenRecord
from ..telemetry.histogram import Histogram
from .manager import NamespaceClient
from .request_event import event_packets, request_event


class Server(Protocol):
    """What a client asks of the server that accepts it.

    sessions: those of the engine, by the id of their transport.
    ack_seconds: counts how long acknowledgements take.
    """

    sessions: dict[str, Session]
    ack_seconds: Histogram

    def on_room(self, client: "SocketClient") -> None:
        """Have calls delivered that wait for a client's window."""

    def disconnect(self, client: "SocketClient") -> None:
        """Disconnect a client's namespace, and soon its transport, unless that has another client."""

    def drop_connection(self, client: "SocketClient") -> None:
        """Disconnect a client's transport in a moment."""


class SocketClient(NamespaceClient):
    """One client on one namespace: what `delivery.Client` asks for."""

    is_silent = False

    __slots__ = (
        *("_acks", "_carrier", "_has_left", "_last_ack_id", "_server", "address", "end"),
        *("answering", "bounds_calls", "filter", "has_options", "is_raw", "is_wanted", "joining", "listeners"),
        *("mode", "name", "number", "secret_hash", "since", "window"),
    )

    def __init__(self, server: Server, sid: str, transport_id: str, namespace: str) -> None:
        super().__init__(sid, transport_id, namespace)
        self._server = server
        session = self._session()
        self.address = "" if session is None else session.address  # known after the session has ended, too
        self.is_wanted = False  # to be attached to a token when it is accepted: not on "/"
        self.has_options = False  # it named some in `auth`
        self.joining = session  # the session whose CONNECT is being answered
        self.is_raw = False
        self.mode = "notify"
        self.answering: Answering | None = None
        self.window = 1
        self.bounds_calls = False
        self._acks: dict[int, tuple[OnAck, float]] | None = None  # what waits for each id, and since when
        self._last_ack_id = 0
        self._has_left = False
        self.end = "client"  # why it is disconnected, once it is: by itself unless another cause is noted
        self._carrier: Session | None = None  # what carried the last call
        self.number = 0
        self.listeners = "newest"
        self.name: str | None = None  # the id that it has chosen as a listener
        self.filter: Filter | None = None
        self.since = time.time()
        self.secret_hash: bytes | None = None

    def apply(self, options: Mapping[str, Any], record: TokenRecord, window: int) -> None:
        """Take the options of `auth`. `record` has the default mode, `window` is the default window."""
        self.has_options = bool(options)
        self.is_raw = options.get("body") == "raw"
        self.mode = options.get("mode", record.mode)
        self.window = options.get("window", window)
        self.secret_hash = record.secret_hash
        self.listeners = record.listeners
        self.name = options.get("listener")
        self.filter = options.get("filter")
        self.bounds_calls = "window" in options and not record.mailbox and self.mode != "notify"
        if self.listeners == "all":
            self.bounds_calls = False  # it would delay the calls of the other listeners

    def want(self) -> None:
        """Have the client attached to its token once its CONNECT is answered: it may be."""
        self.is_wanted = True

    def unwant(self) -> bool:
        """Have the client attached no more. Return whether it was to be, or is."""
        was_wanted, self.is_wanted = self.is_wanted, False
        return was_wanted

    def joined(self) -> Session | None:
        """Note that its CONNECT was answered. Return the session that this took place in."""
        session, self.joining = self.joining, None
        return session

    def note_end(self, reason: str) -> None:
        """Note why it will be disconnected."""
        self.end = reason

    @property
    def token(self) -> str:
        """The token whose calls it is to get."""
        return self.namespace[1:]

    @property
    def listener(self) -> str:
        # An id that a client cannot choose.
        return self.name or f"~{self.sid[:12]}"

    @property
    def in_flight(self) -> int:
        return len(self._acks or ())

    def send(
        self,
        call: Call,
        on_ack: OnAck | None = None,
        attempt: int | None = None,
        encoded: dict[bool, Any] | None = None,
    ) -> int | None:
        session = self._session()
        if session is None or self._has_left:
            raise ClientGone
        if self.filter is not None and attempt is None and not wants(self, call):
            raise NoListener
        ack_id = None if on_ack is None else self._await(on_ack)
        try:
            if encoded is None:
                event = request_event(call, raw=self.is_raw, attempt=attempt)
            else:
                event = encoded.get(self.is_raw) or request_event(call, raw=self.is_raw, attempt=attempt)
                encoded[self.is_raw] = event
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
        """Say whether an acknowledgement is awaited."""
        return self._acks is not None and ack_id in self._acks

    def acknowledge(self, ack_id: int, args: list[Any]) -> None:
        """Pass an acknowledgement on to what awaits it. One that is not awaited, or not any more, is dropped."""
        pending = self._acks.pop(ack_id, None) if self._acks is not None else None
        if pending is not None:
            on_ack, sent_at = pending
            self._server.ack_seconds.add(time.monotonic() - sent_at)
            on_ack(args)
            if self.bounds_calls:
                self._server.on_room(self)

    def has_room_for(self, call: Call) -> bool:
        return not self.bounds_calls or len(self._acks or ()) < self.window

    def leave(self) -> None:
        """Send nothing more, and end the wait for every acknowledgement."""
        self._has_left = True
        acks, self._acks = self._acks, None
        for on_ack, _ in (acks or {}).values():
            on_ack(None)

    def flush(self) -> None:
        session = self._session()
        if session is None:
            raise ClientGone
        try:
            if self.bounds_calls:
                session.flush_soon()  # its callers wait for an acknowledgement anyway
            else:
                session.flush()
        except SessionClosed:
            raise ClientGone from None

    def has_lost(self, number: int) -> bool:
        return self._carrier is None or self._carrier.outbox.has_lost(number)

    def send_dropped(self, event_id: str) -> None:
        self._say("dropped", event_id)

    def disconnect(self, final_event: str | None = None) -> None:
        self.leave()
        self.note_end(final_event or "token_ended")
        if final_event is not None:
            self._say(final_event)
        self._server.disconnect(self)

    def drop_connection(self) -> None:
        self._server.drop_connection(self)

    def _await(self, on_ack: OnAck) -> int:
        self._last_ack_id += 1
        if self._acks is None:
            self._acks = {}
        self._acks[self._last_ack_id] = on_ack, time.monotonic()
        return self._last_ack_id

    def _session(self) -> Session | None:
        return self._server.sessions.get(self.transport_id)

    def _say(self, *event: str) -> None:
        session = self._session()
        if session is not None:
            words = json.dumps(event, separators=(",", ":"))
            session.send_control(Packet(f"42{self.namespace},{words}".encode()))
