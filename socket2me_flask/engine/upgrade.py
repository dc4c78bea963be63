"""A WebSocket that a session which polls tries, from its handshake until it carries the session, or does not."""

from . import protocol, websocket
from .connection import Connection
from .protocol import BadPacket
from .session import Session


class Upgrade:
    """Owns a connection on behalf of `session`, which has at most one such."""

    def __init__(self, session: Session, connection: Connection) -> None:
        self._session = session
        self._connection = connection

    def on_message(self, opcode: int, payload: bytes) -> None:
        if payload == protocol.PING + b"probe":
            self._connection.write(websocket.frame(websocket.Opcode.TEXT, protocol.PONG + b"probe"))
            self._session.pause(True)
        elif payload == protocol.UPGRADE and self._session.is_paused:
            self._session.upgrade = None
            self._connection.owner = self._session
            self._session.carry_by(self._connection)
        else:
            raise BadPacket("not a step of an upgrade")

    def on_drained(self) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        self.abort()

    def abort(self) -> None:
        """Give up, unless the WebSocket carries the session by now."""
        if self._session.upgrade is self:
            self._session.upgrade = None
            self._connection.abort()
            self._session.pause(False)
