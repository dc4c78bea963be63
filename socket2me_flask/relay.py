"""The decision who gets a call and what its caller hears.

Knows tokens and calls, and a client only as something that takes a call. No Flask, no Socket.IO: `api/`
brings calls here, `sockets.py` brings clients.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .errors import ClientGone, NobodyConnected, ShuttingDown, TooManyHeld, UnknownToken
from .messages import Call
from .stores import TokenStore

log = logging.getLogger(__name__)


class Client(Protocol):
    """Whoever is connected for a token."""

    def send(self, call: Call) -> None:
        """Queue a call for the client. Raises `ClientGone` or `ClientTooSlow`: then it was not queued."""

    def flush(self) -> None:
        """Send what is queued. Raises `ClientGone` if the client proves to have left."""

    def dismiss(self, farewell: str | None = None) -> None:
        """Disconnect the client; `farewell` is an event that it hears first."""


@dataclass(eq=False)
class _Held:
    """A call that waits for its client, and the signal that it waits no more."""

    call: Call
    settled: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Relay:
    """Connects calls to clients: one client a token, the newest wins.

    Calls for one token reach its client in the order in which they were accepted; those that were held
    for it go first. `give_way` lets other callers have their turn.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        hold_seconds: float,
        max_held_requests: int,
        max_held_bytes: int,
        retry_after_seconds: int,
        give_way: Callable[[], None],
    ) -> None:
        self._store = store
        self._give_way = give_way
        self._hold_seconds = hold_seconds
        self._max_held_requests = max_held_requests
        self._max_held_bytes = max_held_bytes
        self._retry_after_seconds = retry_after_seconds
        self._clients: dict[str, Client] = {}
        self._held: dict[str, deque[_Held]] = {}
        self._held_requests = 0
        self._held_bytes = 0
        self._lock = threading.Lock()  # guards the step from "nobody here" to "held", and its way back

    def forward(self, call: Call) -> None:
        """Hand `call` to the token's client, waiting for one if nobody is connected.

        Raises `UnknownToken`, `NobodyConnected` after the hold, or `TooManyHeld` at once.
        """
        if not self._store.is_live(call.token):
            raise UnknownToken
        client = self._clients.get(call.token)
        if client is not None:
            try:
                client.send(call)
                # Others have their turn here; what they queue for this client goes out in one piece with it.
                self._give_way()
                client.flush()
                return
            except ClientGone:
                self.detach(call.token, client)
        held = self._hold(call)
        if held is not None:
            if not held.settled.wait(self._hold_seconds) and not self._give_up(held):
                if not self._store.is_live(call.token):
                    raise UnknownToken
                raise NobodyConnected(retry_after_seconds=self._retry_after_seconds)
            if held.error is not None:
                raise held.error

    def attach(self, token: str, client: Client) -> None:
        """Make `client` the token's one client, give it what was held, and dismiss the one before."""
        with self._lock:
            displaced = self._clients.get(token)
            if not self._hand_over(token, client):
                return
            self._clients[token] = client
        if displaced is not None:
            displaced.dismiss("replaced")

    def detach(self, token: str, client: Client) -> None:
        """Forget `client`, unless another has taken its place: then its late farewell changes nothing."""
        with self._lock:
            if self._clients.get(token) is client:
                del self._clients[token]

    def expire(self) -> int:
        """Remove the tokens that have expired and dismiss their clients. Return how many there were."""
        expired = self._store.pop_expired()
        for token in expired:
            with self._lock:
                client = self._clients.pop(token, None)
            if client is not None:
                try:
                    client.dismiss()
                except Exception:
                    log.exception("a client was not dismissed")
        return len(expired)

    def drain(self) -> None:
        """Let the calls go that are held: nobody will come for them to this process any more."""
        with self._lock:
            for held in [held for queue in self._held.values() for held in queue]:
                self._settle(held, ShuttingDown(retry_after_seconds=self._retry_after_seconds))

    def _hold(self, call: Call) -> _Held | None:
        """Queue a call for the next client, or return None if one came and took it meanwhile."""
        with self._lock:
            client = self._clients.get(call.token)
            if client is not None:
                try:
                    client.send(call)
                    client.flush()
                    return None
                except ClientGone:
                    del self._clients[call.token]
            if self._hold_seconds == 0:
                raise NobodyConnected(retry_after_seconds=self._retry_after_seconds)
            if (
                self._held_requests >= self._max_held_requests
                or self._held_bytes + len(call.body) > self._max_held_bytes
            ):
                raise TooManyHeld(retry_after_seconds=self._retry_after_seconds)
            held = _Held(call)
            self._held.setdefault(call.token, deque()).append(held)
            self._held_requests += 1
            self._held_bytes += len(call.body)
            return held

    def _hand_over(self, token: str, client: Client) -> bool:
        """Give a client what is held for its token, oldest first. Return False if it left meanwhile."""
        while held := next(iter(self._held.get(token, ())), None):
            try:
                client.send(held.call)
                client.flush()
            except ClientGone:
                return False
            except Exception as error:
                self._settle(held, error)  # its caller hears of it; the others have nothing to do with it
            else:
                self._settle(held)
        return True

    def _give_up(self, held: _Held) -> bool:
        """Take a call out of its queue. Return True if a client took it at the last moment."""
        with self._lock:
            if held.settled.is_set():
                return True
            self._release(held)
            return False

    def _settle(self, held: _Held, error: Exception | None = None) -> None:
        held.error = error
        self._release(held)
        held.settled.set()

    def _release(self, held: _Held) -> None:
        queue = self._held[held.call.token]
        queue.remove(held)  # near the front: calls leave in the order in which they came
        if not queue:
            del self._held[held.call.token]
        self._held_requests -= 1
        self._held_bytes -= len(held.call.body)
