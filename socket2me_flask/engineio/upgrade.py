"""A WebSocket that was opened for a session which polls, until it carries the session or is closed."""

from ..errors import RelayError
from . import protocol, websocket
from .protocol import BadPacket
from .session import Session
from .state import IllegalTransition
from .websocket_connection import Connection


class Upgrade:
    """The owner of that WebSocket. `state.py` has the steps, of which `session` is in one."""

    def __init__(self, session: Session, connection: Connection) -> None:
        self._session = session
        self._connection = connection

    def on_message(self, opcode: int, payload: bytes) -> None:
        try:
            if payload == protocol.PING + b"probe":
                self._session.upgrade_probed()
                self._connection.write(websocket.frame(websocket.Opcode.TEXT, protocol.PONG + b"probe"))
            elif payload == protocol.UPGRADE:
                self._session.upgrade_finished(self._connection)
            else:
                raise BadPacket("not a step of an upgrade")
        except IllegalTransition as error:
            raise BadPacket(str(error)) from None

    def on_progress(self) -> None:
        pass

    def on_drained(self) -> None:
        pass

    def on_limit(self, error: RelayError) -> None:
        self._session.on_limit(error)

    def on_closing(self, reason: str) -> None:
        self.abort()

    def on_closed(self, reason: str) -> None:
        self._session.upgrade_failed(self)

    def abort(self) -> None:
        """Close the WebSocket, unless it carries the session by now."""
        if self._connection.owner is self:
            self._connection.abort()
