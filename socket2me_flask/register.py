"""python-socketio's register of clients, for very many namespaces of one client each.

python-socketio's own manager keeps rooms and two-way maps for each namespace, and looks at every namespace of
the process when a connection ends. This one keeps a record for each client, and whatever happens to a client
touches that record only. It is passed to python-socketio as its `client_manager`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import socketio


@dataclass(slots=True)
class _Member:
    transport_id: str
    namespace: str
    is_accepted: bool = False
    is_leaving: bool = False


class Register(socketio.Manager):  # type: ignore[misc]  # python-socketio carries no types
    """Who is in which namespace. `on_accepted` is called with the sid of a client whose CONNECT was answered."""

    def __init__(self, on_accepted: Callable[[str], None]) -> None:
        super().__init__()
        self._on_accepted = on_accepted
        self._members: dict[str, _Member] = {}  # by sid
        self._joined: dict[str, dict[str, str]] = {}  # transport -> namespace -> sid

    def namespaces_of(self, transport_id: str) -> list[str]:
        """Return the namespaces that a transport has joined, or is about to."""
        return list(self._joined.get(transport_id, ()))

    def forget(self, transport_id: str) -> None:
        """Drop what is left of a transport that has gone: connects that were never accepted."""
        for sid in self._joined.pop(transport_id, {}).values():
            self._members.pop(sid, None)

    def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        joined = self._joined.setdefault(eio_sid, {})
        if namespace in joined:
            return None
        sid: str = self.server.eio.generate_id()
        joined[namespace] = sid
        self._members[sid] = _Member(eio_sid, namespace)
        return sid

    def connect(self, sid: str, namespace: str) -> str:
        self._members[sid].is_accepted = True
        self._on_accepted(sid)
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
        self.callbacks.pop(sid, None)
        member = self._members.pop(sid, None)
        if member is None:
            return
        joined = self._joined.get(member.transport_id, {})
        joined.pop(namespace, None)
        if not joined:
            self._joined.pop(member.transport_id, None)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        return self._joined.get(eio_sid, {}).get(namespace)

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        member = self._members.get(sid)
        return None if member is None else member.transport_id

    def get_namespaces(self) -> list[str]:
        return [namespace for joined in self._joined.values() for namespace in joined]

    def get_participants(self, namespace: str, room: str | None) -> Iterator[tuple[str, str]]:
        """Return a client by its sid. There are no other rooms: a namespace has one client."""
        member = self._members.get(room or "")
        if member is not None:
            yield room, member.transport_id  # type: ignore[misc]
