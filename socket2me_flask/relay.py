"""The decision who gets a call and what its caller hears.

Knows tokens and calls, and a client only as something that takes a call. No Flask, no Socket.IO: `api/`
brings calls here, `sockets.py` brings clients.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .delivery import Awaited, Client, mode_for
from .errors import (
    ClientGone,
    ClientLeft,
    NobodyConnected,
    NotAcknowledged,
    RelayError,
    ShuttingDown,
    TooManyHeld,
    TooManyHeldOfToken,
    TooManyRequests,
    UnknownToken,
)
from .limits import Rate
from .mailboxes import Mailboxes
from .messages import Call
from .replies import OK, Answer
from .stores import TokenRecord, TokenStore

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Held:
    """A call that waits for its client, and the signal that it waits no more."""

    call: Call
    settled: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    handed: "_Handed | None" = None


@dataclass(slots=True)
class _Handed:
    """A call that was handed to a client, which is to acknowledge it if `awaited`."""

    client: Client
    mode: str
    awaited: Awaited | None


@dataclass
class TokenStats:
    """What this process has seen of a token."""

    forwarded: int = 0
    refused: int = 0
    last_request_at: float | None = None


class Relay:
    """Connects calls to clients: one client a token, the newest wins.

    Calls for one token reach its client in the order in which they were accepted; those that were held
    for it go first. `rate` bounds the calls for each token, `give_way` lets other callers have their turn.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        hold_seconds: float,
        max_held_requests: int,
        max_held_requests_per_token: int,
        max_held_bytes: int,
        ack_timeout_seconds: float,
        reply_timeout_seconds: float,
        mailbox_max_age_seconds: float,
        mailboxes: Mailboxes | None,
        rate: Rate,
        give_way: Callable[[], None],
    ) -> None:
        self._store = store
        self._hold_seconds = hold_seconds
        self._max_held_requests = max_held_requests
        self._max_held_requests_per_token = max_held_requests_per_token
        self._max_held_bytes = max_held_bytes
        self._timeouts = {"ack": ack_timeout_seconds, "reply": reply_timeout_seconds}
        self._mailbox_max_age_seconds = mailbox_max_age_seconds
        self.mailboxes = mailboxes
        self._rate = rate
        self._give_way = give_way
        self._clients: dict[str, Client] = {}
        self._stats: dict[str, TokenStats] = {}  # of tokens with a secret: nobody else may ask
        self._held: dict[str, deque[_Held]] = {}
        self._held_requests = 0
        self._held_bytes = 0
        self._lock = threading.Lock()  # guards the step from "nobody here" to "held", and its way back

    def admit(self, token: str) -> TokenRecord:
        """Return a token that may be called now. Raises `UnknownToken` or `TooManyRequests`."""
        record = self._store.get(token)
        if record is None:
            raise UnknownToken
        if record.secret_hash is not None and token not in self._stats:
            self._stats[token] = TokenStats()
        retry_after_seconds = self._rate.hit(token)
        if retry_after_seconds is not None:
            self.stats(token).refused += 1
            raise TooManyRequests(
                "RATE_LIMIT_REQUESTS",
                "This token is called more often than it may be.",
                retry_after_seconds=retry_after_seconds,
            )
        return record

    def forward(self, call: Call, record: TokenRecord) -> Answer:
        """Hand an admitted call to the token's client, and return what its caller hears.

        Without a mailbox it waits for a client if nobody is connected. Raises `NobodyConnected` after the hold,
        `TooManyHeld` at once, or `ClientTooSlow`; `NotAcknowledged`, `ClientLeft` or `BadReply` in the modes that
        wait for the client; what `Mailboxes.accept` raises.
        """
        if record.secret_hash is None:
            return self._forward(call)
        stats = self.stats(call.token)
        stats.last_request_at = call.received_at
        try:
            if record.mailbox and self.mailboxes is not None:
                answer = self.mailboxes.accept(call, self._timeouts)
            else:
                answer = self._forward(call)
        except RelayError:
            stats.refused += 1
            raise
        stats.forwarded += 1
        return answer

    def stats(self, token: str) -> TokenStats:
        """Return what was counted of a token with a secret; of any other, nothing is kept."""
        return self._stats.get(token) or TokenStats()

    def is_connected(self, token: str) -> bool:
        """Say whether a client is attached."""
        return token in self._clients

    def attach(self, token: str, client: Client) -> None:
        """Make `client` the token's one client, give it what was held, and dismiss the one before."""
        with self._lock:
            displaced = self._clients.get(token)
            if not self._hand_over(token, client):
                return
            self._clients[token] = client
        if displaced is not None:
            displaced.dismiss("replaced")
        record = self._store.get(token)
        if record is None:
            self._end(token)  # it ended since the client asked whether it lives
        elif record.mailbox and self.mailboxes is not None:
            with self._lock:
                if self._clients.get(token) is client:
                    self.mailboxes.open(token, client)

    def detach(self, token: str, client: Client) -> None:
        """Forget `client`, unless another has taken its place: then its late farewell changes nothing."""
        with self._lock:
            if self._clients.get(token) is client:
                del self._clients[token]
            if self.mailboxes is not None:
                self.mailboxes.close(token, client)

    def expire(self) -> int:
        """Remove the tokens that have expired and dismiss their clients. Return how many there were."""
        expired = self._store.pop_expired()
        for number, token in enumerate(expired, 1):
            self._end(token)
            if number % 100 == 0:
                self._give_way()
        if self.mailboxes is not None:
            dropped = self.mailboxes.store.drop_older(time.time() - self._mailbox_max_age_seconds)
            if dropped:
                log.warning("MAILBOX_MAX_AGE_SECONDS bites: %d events were dropped", dropped)
        return len(expired)

    def delete(self, token: str) -> None:
        """End a token now, and dismiss its client. Raises `UnknownToken`."""
        if not self._store.remove(token):
            raise UnknownToken
        self._end(token)

    def drain(self) -> None:
        """Let the calls go that are held or kept: nobody will come for them to this process any more."""
        if self.mailboxes is not None:
            self.mailboxes.drain()
        with self._lock:
            for held in [held for queue in self._held.values() for held in queue]:
                self._settle(held, ShuttingDown())

    def _end(self, token: str) -> None:
        with self._lock:
            self._stats.pop(token, None)
            client = self._clients.pop(token, None)
            if self.mailboxes is not None:
                self.mailboxes.close(token)
            for held in list(self._held.get(token, ())):
                self._settle(held, UnknownToken())
        if client is not None:
            try:
                client.dismiss()
            except Exception:
                log.exception("a client was not dismissed")

    def _forward(self, call: Call) -> Answer:
        client = self._clients.get(call.token)
        if client is not None:
            try:
                handed = _hand(call, client)
                # Others have their turn here; what they queue for this client goes out in one piece with it.
                self._give_way()
                client.flush()
                return self._answer(handed)
            except ClientGone:
                self.detach(call.token, client)
        return self._answer(self._hold(call))

    def _answer(self, handed: _Handed) -> Answer:
        """Return what the caller of a call that was handed over hears, waiting for the client if it is to say."""
        awaited = handed.awaited
        if awaited is None:
            return OK
        if not awaited.wait(self._timeouts[handed.mode]):
            handed.client.forget(awaited.ack_id)
            if handed.mode == "ack":
                raise NotAcknowledged
            return OK
        if awaited.has_failed:
            raise ClientLeft
        return awaited.reply() if handed.mode == "reply" else OK

    def _hold(self, call: Call) -> _Handed:
        """Wait for the next client to take a call, unless one came and takes it at once."""
        with self._lock:
            client = self._clients.get(call.token)
            if client is not None:
                try:
                    handed = _hand(call, client)
                    client.flush()
                    return handed
                except ClientGone:
                    del self._clients[call.token]
            if self._hold_seconds == 0:
                raise NobodyConnected
            held = self._queue(call)
        if not held.settled.wait(self._hold_seconds) and not self._give_up(held):
            raise NobodyConnected if self._store.get(call.token) is not None else UnknownToken
        if held.error is not None:
            raise held.error
        assert held.handed is not None  # noqa: S101  # settled without an error
        return held.handed

    def _queue(self, call: Call) -> _Held:
        if (
            self._held_requests >= self._max_held_requests
            or self._held_bytes + len(call.body) > self._max_held_bytes
        ):
            raise TooManyHeld
        if len(self._held.get(call.token, ())) >= self._max_held_requests_per_token:
            raise TooManyHeldOfToken
        held = _Held(call)
        self._held.setdefault(call.token, deque()).append(held)
        self._held_requests += 1
        self._held_bytes += len(call.body)
        return held

    def _hand_over(self, token: str, client: Client) -> bool:
        """Give a client what is held for its token, oldest first. Return False if it left meanwhile."""
        while held := next(iter(self._held.get(token, ())), None):
            try:
                held.handed = _hand(held.call, client)
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


def _hand(call: Call, client: Client) -> _Handed:
    """Queue a call for a client, in its mode."""
    mode = mode_for(call, client)
    if mode == "notify":
        client.send(call)
        return _Handed(client, mode, None)
    awaited = Awaited()
    awaited.ack_id = client.send(call, awaited)
    return _Handed(client, mode, awaited)
