"""The life of the process: what is started when it begins to serve, and how it drains and stops.

Building an application starts nothing, so that `flask routes`, a reloader or a test can do so. The relay's worker
calls `start`, `drain` and `stop`; under any other server the first request starts what is needed.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum

from socket2me.inspector.http import Inspector

from .engineio import Engine
from .relay.reaper import Reaper
from .relay.relay import Relay
from .smee.streams import Streams
from .storage import TokenStore

log = logging.getLogger(__name__)

# How long calls in flight may take to be answered once the process drains.
DRAIN_SECONDS = 2

# How long the relay may take to notice that its clients were disconnected.
DISCONNECT_SECONDS = 2

# How often the drain looks.
POLL_SECONDS = 0.02


class State(Enum):
    """Where the process is in its life."""

    BUILT = "built"
    SERVING = "serving"
    DRAINING = "draining"  # clients leave; calls are served if they can follow their clients to another process
    CLOSED = "closed"  # calls are rejected
    STOPPED = "stopped"


# From each state, where the process may go.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.BUILT: frozenset({State.SERVING}),
    State.SERVING: frozenset({State.DRAINING, State.CLOSED, State.STOPPED}),
    State.DRAINING: frozenset({State.CLOSED, State.STOPPED}),
    State.CLOSED: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}


class Lifecycle:
    """Starts, drains and stops one relay. `in_flight` is the number of calls that are being served."""

    def __init__(
        self,
        store: TokenStore,
        relay: Relay,
        engine: Engine,
        reaper: Reaper,
        inspector: Inspector,
        streams: Streams,
    ) -> None:
        self._store = store
        self._relay = relay
        self._engine = engine
        self._reaper = reaper
        self._inspector = inspector
        self._streams = streams
        self._lock = threading.Lock()
        self.state = State.BUILT
        self.in_flight = 0
        self.is_closed = False  # whether calls are rejected: read for every call

    @property
    def is_draining(self) -> bool:
        """Whether the process has been asked to stop."""
        return self.state not in (State.BUILT, State.SERVING)

    def start(self) -> None:
        """Open the store and start the timers and the reaper, if they are not running. Raises `ConfigError`."""
        if self.state is not State.BUILT:
            return
        with self._lock:
            if self.state is not State.BUILT:
                return
            log.info("tokens are kept in %s", self._store.start())
            self._engine.start()
            self._engine.start_background_task(self._reaper.run)
            self.enter(State.SERVING)

    def drain(self) -> None:
        """Reject new calls, wait for those in flight, then disconnect the clients.

        Clients go last: one that is still to acknowledge a call can do so. A caller that waits for one that does
        not acknowledge is answered when that client is disconnected. With other processes calls are rejected last:
        the clients reconnect to those, and calls follow them there.
        """
        if self.state is not State.SERVING:
            return
        may_follow = self._relay.peers.has_peers
        self.enter(State.DRAINING if may_follow else State.CLOSED)
        self._relay.drain(may_follow=may_follow)
        self._wait_while(lambda: bool(self.in_flight or self._relay.peers.has_waiting_peers), DRAIN_SECONDS)
        self._inspector.close_streams()
        self.disconnect_clients()
        self._wait_while(lambda: bool(self._relay.presence), DISCONNECT_SECONDS)
        if may_follow:
            self.enter(State.CLOSED)
            self._relay.drain()
            self._wait_while(lambda: bool(self.in_flight), DRAIN_SECONDS)

    def disconnect_clients(self) -> None:
        """Close every client's transport, such that it reconnects, to the next process. Waits for nothing."""
        self._engine.drain()
        self._streams.drain()

    def stop(self) -> None:
        """Close the store: what it still has to write is written."""
        if self.state in (State.BUILT, State.STOPPED):
            return
        self.enter(State.STOPPED)
        self._store.close()

    def enter(self, state: State) -> None:
        """Change the state. Raises `RuntimeError` for a transition that is not in the table."""
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a process that is {self.state.value} cannot become {state.value}")
        self.state = state
        self.is_closed = state in (State.CLOSED, State.STOPPED)

    def _wait_while(self, condition: Callable[[], bool], most_seconds: float) -> None:
        deadline = time.monotonic() + most_seconds
        while condition() and time.monotonic() < deadline:
            self._engine.sleep(POLL_SECONDS)
