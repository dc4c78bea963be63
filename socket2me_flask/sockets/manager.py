"""python-socketio's register of clients, for very many namespaces of one client each.

python-socketio's own manager keeps rooms and two-way maps for each namespace, and looks at every namespace of
the process when a connection ends. This one keeps a record for each client, and whatever happens to a client
touches that record only. It is passed to python-socketio as its `client_manager`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import socketio

M = TypeVar("M", bound="NamespaceClient")


class NamespaceClient:
    """A client in a namespace."""

    __slots__ = ("is_accepted", "is_leaving", "namespace", "sid", "transport_id")

    def __init__(self, sid: str, transport_id: str, namespace: str) -> None:
        self.sid = sid
        self.transport_id = transport_id
        self.namespace = namespace
        self.is_accepted = False
        self.is_leaving = False


class ClientManager(socketio.Manager, Generic[M]):  # type: ignore[misc]  # python-socketio carries no types
    """Which clients are in which namespace.

    `new_member` makes a member of a sid, a transport and a namespace; `on_accepted` is called with one whose
    CONNECT was answered.
    """

    def __init__(self, new_member: Callable[[str, str, str], M], on_accepted: Callable[[M], None]) -> None:
        super().__init__()
        self._new_member = new_member
        self._on_accepted = on_accepted
        self._members: dict[str, M] = {}  # by sid
        self._by_transport: dict[str, tuple[M, ...]] = {}

    def __getitem__(self, sid: str) -> M:
        return self._members[sid]

    def on_transport(self, transport_id: str) -> tuple[M, ...]:
        """Return the clients on a transport, with those that are about to be accepted."""
        return self._by_transport.get(transport_id, ())

    def forget(self, transport_id: str) -> None:
        """Drop what is left of a transport that has gone: connects that were never accepted."""
        for member in self._by_transport.pop(transport_id, ()):
            self._members.pop(member.sid, None)

    # What python-socketio calls

    def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        if self.sid_from_eio_sid(eio_sid, namespace) is not None:
            return None
        sid: str = self.server.eio.generate_id()
        member = self._new_member(sid, eio_sid, namespace)
        self._members[sid] = member
        self._by_transport[eio_sid] = (*self.on_transport(eio_sid), member)
        return sid

    def connect(self, sid: str, namespace: str) -> str:
        member = self._members[sid]
        member.is_accepted = True
        self._on_accepted(member)
        return sid

    def is_connected(self, sid: str, namespace: str) -> bool:
        member = self._members.get(sid)
        return member is not None and member.is_accepted and not member.is_leaving

    def can_disconnect(self, sid: str, namespace: str) -> bool:
        return self.is_connected(sid, namespace)

    def pre_disconnect(self, sid: str, namespace: str) -> str:
        member = self._members[sid]
        member.is_leaving = True
        return member.transport_id

    def disconnect(self, sid: str, namespace: str, **kwargs: Any) -> None:
        member = self._members.pop(sid, None)
        if member is None:
            return
        others = tuple(other for other in self.on_transport(member.transport_id) if other is not member)
        if others:
            self._by_transport[member.transport_id] = others
        else:
            self._by_transport.pop(member.transport_id, None)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        for member in self.on_transport(eio_sid):  # nearly always one
            if member.namespace == namespace:
                return member.sid
        return None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        member = self._members.get(sid)
        return None if member is None else member.transport_id

    def get_namespaces(self) -> list[str]:
        return [member.namespace for member in self._members.values()]

    def get_participants(self, namespace: str, room: str | None) -> Iterator[tuple[str, str]]:
        """Return a client by its sid. There are no other rooms: a namespace has one client."""
        member = self._members.get(room or "")
        if member is not None:
            yield member.sid, member.transport_id
