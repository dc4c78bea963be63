"""The deadlines of all sessions, apart from the heartbeat: what their clients have to do in time."""

from collections.abc import Callable

from ..concurrency.timeout_queue import NewTimer
from ..errors import ClientDoesNotRead, RelayError
from .session import Session
from .state import UPGRADING, End
from .upgrade import Upgrade
from .websocket import CloseCode

# How long a peer may take to end a connection that was closed from this side, and to finish an upgrade.
LINGER_SECONDS = 5
UPGRADE_SECONDS = 10

# The longest time between two polls of a client: enough to download an answer. If the client was killed in between,
# the calls that are accepted for it until then are lost.
POLL_GAP_SECONDS = 10


class Deadlines:
    """Ends the sessions, and upgrades, that are added to these timers and not discarded in time.

    polls: to poll again. reads: to read of a WebSocket. ends: to close the connection after the relay closed it.
    joins: to join a namespace. upgrades: to finish an upgrade.
    """

    def __init__(
        self,
        new_timer: NewTimer,
        *,
        send_timeout_seconds: float,
        join_timeout_seconds: float,
        note: Callable[[RelayError], None],
    ) -> None:
        self._note = note
        self.polls = new_timer(POLL_GAP_SECONDS, self._end_unpolled)
        self.reads = new_timer(send_timeout_seconds, self._end_unread)
        self.ends = new_timer(LINGER_SECONDS, Session.abort)
        self.joins = new_timer(join_timeout_seconds, self._end_unjoined)
        self.upgrades = new_timer(UPGRADE_SECONDS, Upgrade.abort)
        self.timers = (self.polls, self.reads, self.ends, self.joins)

    def begin(self, session: Session) -> None:
        """Begin the deadlines of a new session."""
        self.joins.add(session)
        if session.state.is_polling:
            self.polls.add(session)

    def expect_reading(self, session: Session, is_expected: bool) -> None:
        """Begin the time for `reads` anew, or end it."""
        if is_expected:
            self.reads.add(session)
        else:
            self.reads.discard(session)

    def _end_unpolled(self, session: Session) -> None:
        if session.state is UPGRADING:
            self.polls.add(session)
        elif session.state.is_polling:
            session.abort("it polls no more", End.TIMED_OUT)

    def _end_unread(self, session: Session) -> None:
        self._note(ClientDoesNotRead())
        session.abort("it does not read", End.TOO_SLOW)

    def _end_unjoined(self, session: Session) -> None:
        session.close("it has no client", CloseCode.POLICY_VIOLATION)
