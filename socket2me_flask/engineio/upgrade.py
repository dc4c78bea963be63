"""A WebSocket that was opened for a session which polls, until it carries the session or is closed."""

from collections.abc import Callable

from ..errors import RelayError
from . import protocol, websocket
from .protocol import BadPacket
from .session import Session
from .state import IllegalTransition
from .websocket_connection import Connection, Owner


class Upgrade(Owner):
    """The owner of that WebSocket. Fires the events of an upgrade (`state.py`) at the session."""

    def __init__(self, session: Session, connect: Callable[[Owner], Connection]) -> None:
        """`connect` makes the connection. Raises what it raises."""
        self._session = session
        self.connection = connect(self)

    def on_message(self, opcode: int, payload: bytes) -> None:
        try:
            if payload == protocol.PING + b"probe":
                self._session.upgrade_probed()
                self.connection.write(websocket.frame(websocket.Opcode.TEXT, protocol.PONG + b"probe"))
            elif payload == protocol.UPGRADE:
                self._session.upgrade_finished(self.connection)
            else:
                raise BadPacket("not a step of an upgrade")
        except IllegalTransition as error:
            raise BadPacket(str(error)) from None

    def on_limit(self, error: RelayError) -> None:
        self._session.on_limit(error)

    def on_closing(self, reason: str) -> None:
        self.abort()

    def on_closed(self, reason: str) -> None:
        self._session.upgrade_failed(self.connection)

    def abort(self) -> None:
        """Close the WebSocket, unless it carries the session by now."""
        if self.connection.is_owned_by(self):
            self.connection.abort()
