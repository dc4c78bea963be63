"""Flask-SocketIO: which connections are accepted, and how a client is told, fed and dismissed.

A token is a namespace. python-socketio can't forget a namespace once it is registered, so none ever is: one
pair of catch-all handlers serves them all.

A client counts as attached only after its CONNECT was answered, which no handler of Flask-SocketIO sees:
`_Manager.connect` is the place in python-socketio where that has just happened.
"""

import logging
from collections.abc import Mapping
from threading import Lock
from typing import Any

import flask
import socketio as python_socketio
from flask_socketio import ConnectionRefusedError, SocketIO

from .errors import ClientGone
from .messages import Call, event_packets, request_event
from .relay import Relay
from .stores import TokenStore
from .tokens import is_token

log = logging.getLogger(__name__)

# What a client may ask for in `auth`, and the values that each takes; the first is the default.
AUTH_VALUES: Mapping[str, tuple[str, ...]] = {"body": ("parsed", "raw")}

# How long a client that lost its last namespace may take to close the transport itself, as they all do.
# engine.io-client acts on a CLOSE before the messages of the same long-polling answer, so one that comes too
# soon would hide the goodbye, and the client would reconnect.
GOODBYE_SECONDS = 2


class SocketClient:
    """One accepted client on one namespace: what `relay.Client` asks for."""

    def __init__(self, sockets: "Sockets", sid: str, namespace: str, *, raw: bool) -> None:
        self.namespace = namespace
        self.transport_id: str = sockets.server.manager.eio_sid_from_sid(sid, namespace)
        self._sockets = sockets
        self._sid = sid
        self._raw = raw
        self._lock = Lock()  # keeps an event and its attachments together where threads serve

    def send(self, call: Call) -> None:
        engine = self._sockets.server.eio
        packets = event_packets(self.namespace, request_event(call, raw=self._raw))
        with self._lock:
            transport = engine.sockets.get(self.transport_id)
            if transport is None or transport.closed:
                raise ClientGone
            for packet in packets:
                engine.send(self.transport_id, packet)

    def dismiss(self, farewell: str | None = None) -> None:
        server = self._sockets.server
        if farewell is not None:
            server.emit(farewell, to=self._sid, namespace=self.namespace)
        # The namespace goes first: a JavaScript client that loses only its transport comes straight back.
        server.disconnect(self._sid, namespace=self.namespace)
        server.start_background_task(self._sockets.close_if_unused, self.transport_id)


class _Manager(python_socketio.Manager):  # type: ignore[misc]  # python-socketio carries no types
    """python-socketio's register of clients, which says when a connect was accepted."""

    def __init__(self, sockets: "Sockets") -> None:
        super().__init__()
        self._sockets = sockets

    def connect(self, sid: str, namespace: str) -> str:
        sid = super().connect(sid, namespace)
        self._sockets.accepted(sid)
        return sid


class Sockets:
    """Brings the clients of all tokens to the relay, over one Flask-SocketIO server."""

    def __init__(self, store: TokenStore, relay: Relay, settings: Mapping[str, Any]) -> None:
        self._store = store
        self._relay = relay
        self._connecting: dict[str, SocketClient] = {}  # sid -> client that is about to be accepted
        self._clients: dict[str, SocketClient] = {}  # sid -> client
        self._namespaces: dict[str, set[str]] = {}  # transport -> the namespaces that it carries
        self.socketio = SocketIO(
            client_manager=_Manager(self),
            namespaces="*",
            manage_session=False,
            async_handlers=False,  # clients send no events that anybody handles: no thread for each
            cors_allowed_origins=settings["CORS_ALLOWED_ORIGINS"],
            cors_credentials=False,
            max_http_buffer_size=settings["MAX_CLIENT_MESSAGE_BYTES"],
            ping_interval=settings["PING_INTERVAL_SECONDS"],
            ping_timeout=settings["PING_TIMEOUT_SECONDS"],
        )
        self.socketio.on("connect", namespace="/")(lambda auth: None)  # accepted, and carries no events
        self.socketio.on("connect", namespace="*")(self._on_connect)
        self.socketio.on("disconnect", namespace="*")(self._on_disconnect)

    @property
    def server(self) -> Any:
        """The python-socketio server."""
        return self.socketio.server

    @property
    def connections(self) -> int:
        """How many transports are open, whether or not they joined a namespace."""
        return len(self.server.eio.sockets)

    def close_if_unused(self, transport_id: str) -> None:
        """Close a transport that no token uses any more, after its client had time to do so itself."""
        self.socketio.sleep(GOODBYE_SECONDS)
        if transport_id not in self._namespaces:
            self.server.eio.disconnect(transport_id)

    def accepted(self, sid: str) -> None:
        """Attach a client whose CONNECT was just answered."""
        client = self._connecting.pop(sid, None)
        if client is None:
            return  # the namespace "/"
        self._clients[sid] = client
        self._namespaces.setdefault(client.transport_id, set()).add(client.namespace)
        self._relay.attach(client.namespace[1:], client)

    def _on_connect(self, auth: Any = None) -> None:
        # An exception that leaves a connect handler makes python-socketio answer nothing at all.
        try:
            self._refuse_or_prepare(flask.request.sid, flask.request.namespace, auth)  # type: ignore[attr-defined]
        except ConnectionRefusedError:
            raise
        except Exception:
            log.exception("a connect failed")
            raise ConnectionRefusedError("The relay failed.", {"code": "internal_error"}) from None

    def _refuse_or_prepare(self, sid: str, namespace: str, auth: Any) -> None:
        token = namespace[1:]
        if not is_token(token) or not self._store.is_live(token):
            raise ConnectionRefusedError(
                "No such token. It was never issued, or it has expired.", {"code": "unknown_token"}
            )
        options = _parse_auth(auth)
        self._connecting[sid] = SocketClient(self, sid, namespace, raw=options["body"] == "raw")

    def _on_disconnect(self, reason: str) -> None:
        client = self._clients.pop(flask.request.sid, None)  # type: ignore[attr-defined]
        if client is None:
            return
        namespaces = self._namespaces[client.transport_id]
        namespaces.discard(client.namespace)
        if not namespaces:
            del self._namespaces[client.transport_id]
        self._relay.detach(client.namespace[1:], client)


def _parse_auth(auth: Any) -> dict[str, str]:
    """Return each option of a connect's `auth`. Refuses what it does not know, never guesses."""
    options = {name: values[0] for name, values in AUTH_VALUES.items()}
    if auth is None:
        return options
    if not isinstance(auth, dict):
        raise ConnectionRefusedError("auth must be an object.", {"code": "bad_auth"})
    for name, value in auth.items():
        if name not in AUTH_VALUES:
            known = ", ".join(AUTH_VALUES)
            raise ConnectionRefusedError(f"auth takes {known}; this one is not known.", {"code": "bad_auth"})
        if value not in AUTH_VALUES[name]:
            known = " or ".join(AUTH_VALUES[name])
            raise ConnectionRefusedError(f"auth.{name} must be {known}.", {"code": "bad_auth"})
        options[name] = value
    return options
