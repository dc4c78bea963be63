"""Admits calls, forwards them to clients, and decides what their callers receive.

Knows tokens and calls, and a client only as something that accepts calls. No Flask, no Socket.IO: `api/` brings
calls here, `sockets/` brings clients to `presence.py`.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import (
    ClientBusy,
    ClientGone,
    ClientLeft,
    NobodyConnected,
    NotAcknowledged,
    RelayError,
    StoreUnavailable,
    TooManyRequests,
    UnknownToken,
)
from ..http.answers import Answer
from ..limits import Rate, check_rate
from ..storage import Counts, TokenRecord, TokenStore
from .call import Call
from .delivery import LEGACY, Client, Delivery, PendingAck, deliver
from .hold_queue import PendingDelivery
from .mailbox import Mailboxes
from .presence import Presence
from .recorder import Recorder
from .replies import LEGACY_OK, OK
from .single_process import SingleProcess
from .token_counts import TokenCounts
from .tokens import new_token

log = logging.getLogger(__name__)

# How often a call without a mailbox goes to another process, since the listener that had it left.
MAX_ASSIGNMENTS = 3


class Relay:
    """Connects calls to the clients of `presence`.

    `rate` bounds the calls for each token. `yield_to_others` lets other green threads run.
    """

    def __init__(
        self,
        store: TokenStore,
        presence: Presence,
        *,
        hold_seconds: float,
        ack_timeout_seconds: float,
        reply_timeout_seconds: float,
        mailbox_max_age_seconds: float,
        listener_ttl_seconds: float = math.inf,
        history_max_age_seconds: float = math.inf,
        mailboxes: Mailboxes | None,
        counts: TokenCounts,
        recorder: Recorder | None = None,
        peers: SingleProcess,
        rate: Rate,
        yield_to_others: Callable[[], None],
    ) -> None:
        self._store = store
        self.presence = presence
        self._hold_seconds = hold_seconds
        self._timeouts = {
            "ack": ack_timeout_seconds,
            "reply": reply_timeout_seconds,
            LEGACY: reply_timeout_seconds,
        }
        self._mailbox_max_age_seconds = mailbox_max_age_seconds
        self._listener_ttl_seconds = listener_ttl_seconds
        self._history_max_age_seconds = history_max_age_seconds
        self.mailboxes = mailboxes
        self.token_counts = counts
        self._recorder = recorder
        self.peers = peers
        self._rate = rate
        self._yield_to_others = yield_to_others
        self.tokens_issued = self.tokens_expired = 0

    def admit(self, token: str) -> TokenRecord:
        """Return a token that may be called now. Raises `UnknownToken` or `TooManyRequests`."""
        record = self._store.get_cached(token)
        if record is None:
            raise UnknownToken
        try:
            self._check_rate(token)
        except TooManyRequests:
            self.count_refused(record)
            raise
        return record

    def forward(self, call: Call, record: TokenRecord) -> Answer:
        """Deliver an admitted call to the token's client, and return the answer for its caller.

        It is stored first if there is a mailbox, else held if there is no client. Raises what `HoldQueue.add`,
        `Mailboxes.accept` and `answer_of` raise, `NobodyConnected`, `ClientBusy` or `ClientTooSlow`.
        """
        if record.secret_hash is None and record.listeners == "newest":  # no mailbox, no history, no counts
            return self._forward(call)
        if record.inspect and self._recorder is not None:
            return self._recorder.record(call, lambda: self._forward_counted(call, record))
        return self._forward_counted(call, record)

    def _forward_counted(self, call: Call, record: TokenRecord) -> Answer:
        try:
            if record.mailbox and self.mailboxes is not None:
                answer = self.mailboxes.accept(call, self._timeouts)
            elif record.listeners != "newest":
                answer = self._forward_to_listeners(call, record.listeners)
            else:
                answer = self._forward(call)
        except RelayError:
            self._count(record, Counts(refused=1, last_request_at=call.received_at))
            raise
        self._count(record, Counts(forwarded=1, last_request_at=call.received_at))
        return answer

    def count_refused(self, record: TokenRecord) -> None:
        """Count a call that is answered with an error before it is forwarded."""
        self._count(record, Counts(refused=1))

    def counts(self, token: str) -> Counts:
        """Return what was counted of a token with a secret; of any other, nothing is kept."""
        return self.peers.counts(token) + self.token_counts.of(token)

    def is_connected(self, token: str) -> bool:
        """Say whether a client is attached, to whichever process."""
        return token in self.presence or self.peers.is_connected(token)

    def deliver_for_peers(self, calls: Sequence[tuple[Call, Callable[[str], PendingAck]]]) -> list[PendingDelivery]:
        """Deliver calls that other processes have sent to clients of this one, and return what came of each.

        With each goes what makes a `PendingAck` for a mode. The error of a call whose client is not here is
        `ClientGone`. One that is not released waits for room in its client's window: `Presence.when_released` and
        `give_up` are for those.
        """
        pendings = []
        queued: dict[tuple[str, Client], list[tuple[PendingDelivery, Delivery, int]]] = {}
        for call, new_pending_ack in calls:
            pending = PendingDelivery(call, new_pending_ack)
            pendings.append(pending)
            client = self.presence.get(call.token)
            try:
                if client is None:
                    raise ClientGone
                self._check_rate(call.token)
                if client.bounds_calls:
                    self.presence.deliver_or_hold(pending, needs_client=True)
                else:
                    delivery = deliver(call, client, new_pending_ack)
                    queued.setdefault((call.token, client), []).append((pending, delivery, client.number))
            except ClientGone as error:
                if client is not None:
                    self.presence.detach(call.token, client)
                pending.release(error=error)
            except Exception as error:  # which concerns none of the others
                pending.release(error=error)
        for (token, client), deliveries in queued.items():
            gone = None
            try:
                client.flush()
            except ClientGone as error:
                self.presence.detach(token, client)
                gone = error
            for pending, delivery, number in deliveries:
                pending.release(delivery, gone if client.has_lost(number) else None)
        return pendings

    def issue(
        self, ttl_seconds: float, *, verify: Callable[[str], str] | None = None, **options: Any
    ) -> TokenRecord:
        """Make a token that lives `ttl_seconds` from now, with the `options` of `TokenStore.add`.

        `verify` returns what is stored for the token to verify its calls with. Raises `TooManyTokens`.
        """
        token = new_token()
        stored = verify(token) if verify is not None else None
        record = self._store.add(token, ttl_seconds, verify=stored, **options)
        self.tokens_issued += 1
        return record

    def expire(self) -> int:
        """Remove the tokens that have expired and disconnect their clients. Return how many there were."""
        expired = self._store.pop_expired()
        self.tokens_expired += len(expired)
        for number, token in enumerate(expired, 1):
            self.presence.end(token)
            if number % 100 == 0:
                self._yield_to_others()
        if self.mailboxes is not None:
            self.mailboxes.sweep(self._mailbox_max_age_seconds, self._listener_ttl_seconds)
        if self._recorder is not None:
            self._recorder.history.drop_older(time.time() - self._history_max_age_seconds)
        return len(expired)

    def delete(self, token: str) -> None:
        """End a token now, and disconnect its client. Raises `UnknownToken`."""
        if not self._store.remove(token):
            raise UnknownToken
        self.presence.end(token)

    def drain(self, *, may_follow: bool = False) -> None:
        """Answer events by `202`, and held calls by `503` unless they `may_follow` their client to a peer."""
        if self.mailboxes is not None:
            self.mailboxes.drain()
        if not may_follow:
            self.presence.drain()

    def _forward(self, call: Call) -> Answer:
        client = self.presence.get(call.token)
        if client is not None and client.bounds_calls:
            return answer_of(call, self._hold(call), self._timeouts)
        if client is not None:
            try:
                delivery = deliver(call, client)
            except ClientGone:
                self.presence.detach(call.token, client)
                return answer_of(call, self._hold(call), self._timeouts)
            number = client.number
            # What other callers queue for this client meanwhile is written in one piece with it.
            self._yield_to_others()
            try:
                client.flush()
            except ClientGone:
                self.presence.detach(call.token, client)
                if client.has_lost(number):
                    return answer_of(call, self._hold(call), self._timeouts)
            return answer_of(call, delivery, self._timeouts)
        return answer_of(call, self.peers.deliver(call) or self._hold(call), self._timeouts)

    def _forward_to_listeners(self, call: Call, listeners: str) -> Answer:
        """Deliver a call for a token that may have several listeners."""
        delivery = self.peers.deliver_to_listeners(call, listeners, self.presence) or self._hold(call, listeners)
        if delivery.pending_ack is None:
            self._yield_to_others()  # no caller waits, so that others had no turn
        elif listeners == "one" and self.peers.has_peers:
            return answer_of_one(call, delivery, self._timeouts, self.peers, self.presence)
        return answer_of(call, delivery, self._timeouts)

    def _hold(self, call: Call, listeners: str = "newest") -> Delivery:
        """Deliver a call as soon as there is a client with room in its window."""
        deadline = time.monotonic() + self._hold_seconds
        while True:
            seconds = deadline - time.monotonic()
            pending = PendingDelivery(call)
            self.presence.deliver_or_hold(pending, may_hold=seconds > 0)
            if call.trace is not None and pending.delivery is None:
                call.trace.wait("queued")
            delivery = pending.delivery or self._wait_for_client(pending, seconds, listeners)
            if delivery is not None:
                return delivery

    def _wait_for_client(self, held: PendingDelivery, seconds: float, listeners: str) -> Delivery | None:
        """Wait until a held call is delivered. Return None if it is to look again for its client."""
        token = held.call.token
        try:
            is_elsewhere = token not in self.presence and self.peers.watch(token, seconds)
        except RelayError:
            if self.presence.stop_holding(held):
                raise
            is_elsewhere = False
        if (is_elsewhere or not held.wait(seconds)) and self.presence.stop_holding(held):
            if is_elsewhere:
                if listeners != "newest":
                    return self.peers.deliver_to_listeners(held.call, listeners, self.presence)
                return self.peers.deliver(held.call)
            if token in self.presence:
                raise ClientBusy
            raise NobodyConnected if self._store.get(token) is not None else UnknownToken
        return held.result()

    def _check_rate(self, token: str) -> None:
        message = "This token is called more often than it may be."
        check_rate(self._rate, token, "SOCKET2ME_RATE_LIMIT_REQUESTS", message)

    def _count(self, record: TokenRecord, counts: Counts) -> None:
        token = record.token
        if record.secret_hash is not None and (token in self.presence or self._may_live(token)):
            self.token_counts.add(token, counts)

    def _may_live(self, token: str) -> bool:
        """Say whether a token lives, if the store answers: what became of a call does not depend on it."""
        try:
            return self._store.get_cached(token) is not None
        except StoreUnavailable:
            return True


def answer_of(call: Call, delivery: Delivery, timeouts: Mapping[str, float]) -> Answer:
    """Return the answer for the caller of a call that was delivered, once it is known.

    Waits as long as the mode of the delivery allows. After that it raises `NotAcknowledged`, or returns `OK` to a
    caller of `/go`. Raises what `PendingAck.answer` raises.
    """
    pending_ack, trace = delivery.pending_ack, call.trace
    if trace is not None:
        trace.note("sent", outcome="sent")
    if pending_ack is None:
        return LEGACY_OK if call.is_legacy else OK
    call.body = b""  # it is not needed any more, and many calls may wait here
    if trace is not None:
        trace.write()
    if not pending_ack.wait(timeouts[delivery.mode]):
        delivery.forget()
        if not pending_ack.is_resolved:  # it may have come just now
            if call.is_legacy:
                return LEGACY_OK  # as the later originals answered
            raise NotAcknowledged
    answer = pending_ack.answer()
    if trace is not None:
        trace.note("acknowledged", outcome="acknowledged" if delivery.mode == "ack" else "replied")
    return answer


def answer_of_one(
    call: Call, delivery: Delivery, timeouts: Mapping[str, float], peers: SingleProcess, presence: Presence
) -> Answer:
    """Return the answer of the listener that has a call. What one had when it left goes to another process."""
    left, delivered_at = timeouts, time.monotonic()
    for _ in range(MAX_ASSIGNMENTS):
        again = replace(call)  # `answer_of` forgets the body of the other
        try:
            return answer_of(call, delivery, left)
        except ClientLeft:
            another = peers.deliver_again(again, presence)
            if another is None:
                raise
        call, delivery = again, another
        passed = time.monotonic() - delivered_at
        left = {mode: max(seconds - passed, 0) for mode, seconds in timeouts.items()}
    return answer_of(call, delivery, left)
