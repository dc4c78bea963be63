"""The heartbeat of all sessions. The relay pings Engine.IO 4 clients; Engine.IO 3 clients ping by themselves."""

from ..concurrency.timeout_queue import NewTimer
from .protocol import PING_PACKET, PONG_PACKET
from .session import Session
from .state import End


class Heartbeats:
    """Sends pings on time, and ends the sessions whose clients do not answer, or do not ping."""

    def __init__(self, new_timer: NewTimer, *, interval_seconds: int, timeout_seconds: int) -> None:
        self._first_pings = new_timer(interval_seconds, self.ping)
        self._pongs = new_timer(timeout_seconds, self._check_pong)
        self._next_pings = new_timer(
            max(0, interval_seconds - timeout_seconds), self.ping
        )  # after a wait for a pong
        self._client_pings = new_timer(interval_seconds + timeout_seconds, self._end_silent)
        self.timers = (self._first_pings, self._pongs, self._next_pings, self._client_pings)

    def begin(self, session: Session) -> None:
        """Begin the heartbeat of a new session."""
        (self._client_pings if session.codec.clients_ping else self._first_pings).add(session)

    def ping(self, session: Session) -> None:
        """Send a ping. A pong counts from when the ping was written, and not before."""
        with session.lock:
            if session.state.is_open:
                session.is_pong_due = True
                session.send_control(PING_PACKET)
                session.outbox.track_ping()
                self._pongs.add(session)

    def on_pong(self, session: Session) -> None:
        """Record a client's pong, if the ping was sent before it."""
        if session.outbox.has_sent_ping:
            session.is_pong_due = False

    def on_ping(self, session: Session) -> None:
        """Answer a client's ping, without its payload, at which no client looks."""
        if session.outbox.packets[-1:] != [PONG_PACKET]:  # a client that does not read gets one answer
            session.send_control(PONG_PACKET)
        if session.state.is_open:
            self._client_pings.add(session)

    def _check_pong(self, session: Session) -> None:
        if not session.state.is_open:
            return
        if session.is_pong_due:
            session.abort("it did not answer a ping", End.TIMED_OUT)
        else:
            self._next_pings.add(session)

    def _end_silent(self, session: Session) -> None:
        session.abort("it did not ping", End.TIMED_OUT)
