"""The states of an Engine.IO session and of its upgrade to a WebSocket, and all transitions between them.

Knows no packets, no sockets and no timers: `session.py` fires the events and does what follows from them. An event
that the table does not have for a state is illegal: `transition` raises, and nothing has changed.

    OPENING ─► POLLING ─► PROBING ─► UPGRADING ─► WEBSOCKET        A failed upgrade leads back to POLLING.
       │          └─► DRAINING ─┐                   └─► LINGERING  A session ends in POLLING or WEBSOCKET:
       └─► WEBSOCKET            └─► CLOSED ◄──────────────┘        in PROBING the upgrade is closed first, and
                                                                   in UPGRADING it goes on: CLOSING.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A state. Two states are equal only if they are the same object.

    is_open: packets are accepted from both sides.
    is_polling: requests of the client's long-polling transport are served.
    """

    name: str
    is_open: bool = False
    is_polling: bool = False


# The handshake is being answered.
OPENING = State("OPENING", is_open=True)

# Long-polling carries the session.
POLLING = State("POLLING", is_open=True, is_polling=True)

# As POLLING; and a WebSocket was opened for this session, over which nothing has been received.
PROBING = State("PROBING", is_open=True, is_polling=True)

# The probe was answered. Polls are answered without packets, so that none is lost in the change of transports.
UPGRADING = State("UPGRADING", is_open=True, is_polling=True)

# A WebSocket carries the session.
WEBSOCKET = State("WEBSOCKET", is_open=True)

# The relay closed a session in UPGRADING. Its client has paused its polls, and reads the WebSocket only after its
# own upgrade packet; engine.io-client that loses the WebSocket before never polls again. So the end waits for that.
CLOSING = State("CLOSING", is_polling=True)

# The relay closed a session that polls: the next polls are answered with what is queued, and then with 400.
DRAINING = State("DRAINING", is_polling=True)

# Either side has closed the WebSocket by a close frame, and the socket is not closed yet. The session still counts
# against the limits.
LINGERING = State("LINGERING")

# No socket and no packet is left.
CLOSED = State("CLOSED")

STATES = (OPENING, POLLING, PROBING, UPGRADING, WEBSOCKET, CLOSING, DRAINING, LINGERING, CLOSED)


class End(StrEnum):
    """Why a session ended, for the metrics and the log."""

    CLIENT = "client"  # the client closed it
    CONNECTION_LOST = "connection_lost"
    TIMED_OUT = "timed_out"  # it did not answer a ping, or did not poll
    TOO_SLOW = "too_slow"  # it did not read what waited for it
    PROTOCOL_ERROR = "protocol_error"  # it sent what cannot be read
    DRAINING = "draining"  # the process stops
    CLOSED = "closed"  # the relay closed it for another reason


class Event(Enum):
    """What can happen to a session."""

    OPENED_BY_POLLING = auto()
    OPENED_BY_WEBSOCKET = auto()
    UPGRADE_STARTED = auto()  # the handshake of a second transport names this session
    UPGRADE_PROBED = auto()  # over which the client sent its probe
    UPGRADE_FINISHED = auto()  # and then its upgrade packet
    UPGRADE_FAILED = auto()  # or which was closed, or sent something else
    CLOSED_GENTLY = auto()  # by either side, with something left to send
    ENDED = auto()  # nothing is left to send, or the client is gone


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    OPENING: {
        Event.OPENED_BY_POLLING: POLLING,
        Event.OPENED_BY_WEBSOCKET: WEBSOCKET,
        Event.ENDED: CLOSED,
    },
    POLLING: {
        Event.UPGRADE_STARTED: PROBING,
        Event.CLOSED_GENTLY: DRAINING,
        Event.ENDED: CLOSED,
    },
    PROBING: {
        Event.UPGRADE_PROBED: UPGRADING,
        Event.UPGRADE_FAILED: POLLING,
    },
    UPGRADING: {
        Event.UPGRADE_FINISHED: WEBSOCKET,
        Event.UPGRADE_FAILED: POLLING,
        Event.CLOSED_GENTLY: CLOSING,
    },
    WEBSOCKET: {
        Event.CLOSED_GENTLY: LINGERING,
        Event.ENDED: CLOSED,
    },
    CLOSING: {
        Event.UPGRADE_FINISHED: LINGERING,
        Event.UPGRADE_FAILED: DRAINING,
    },
    DRAINING: {Event.ENDED: CLOSED},
    LINGERING: {Event.ENDED: CLOSED},
    CLOSED: {},
}


class IllegalTransition(Exception):
    """The event cannot happen in this state. Nothing has changed."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{event.name} cannot happen in {state.name}")


def transition(state: State, event: Event) -> State:
    """Return the state that follows. Raises `IllegalTransition`."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None
