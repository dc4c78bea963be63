"""The decision who gets a call and what its caller hears.

Knows tokens and calls, and a client only as something that takes a call. No Flask, no Socket.IO: `api/`
brings calls here, `sockets.py` brings clients.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..errors import (
    ClientBusy,
    ClientGone,
    NobodyConnected,
    NotAcknowledged,
    RelayError,
    ShuttingDown,
    StoreUnavailable,
    TooManyHeld,
    TooManyHeldOfToken,
    TooManyRequests,
    UnknownToken,
)
from ..http.answers import Answer
from ..limits import Pool, Rate, address_key
from ..storage import Counts, TokenRecord, TokenStore
from .call import Call
from .delivery import LEGACY, Answering, Awaited, Client, Handed, mode_for
from .mailbox import Mailboxes
from .replies import LEGACY_OK, OK

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Held:
    """A call that waits for its client, or for room in its client's window, and the signal that it waits no more.

    new_awaited: makes what waits for the acknowledgement, for a mode. on_settled is called after `settled` was set.
    """

    call: Call
    new_awaited: Callable[[str], Awaited] = Awaited
    address: str = ""  # whose share of all held calls it takes, and how many bytes of it
    size: int = 0
    settled: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    handed: Handed | None = None  # None, and no error either: a client has come to another process
    on_settled: Callable[[], None] | None = None


class Alone:
    """The other processes of this relay: there are none. If there are, `peers.Peers` stands here."""

    def serve(self, relay: "Relay") -> None:
        """Do for others what they ask of `relay`, from when the store is started."""

    def hand(self, call: Call) -> Handed | None:
        """Have another process hand a call to its client. Return None if none has one.

        Raises `UnknownToken`, `PeerSilent`, or what the other process says.
        """
        return None

    def watch(self, token: str, wait_seconds: float) -> bool:
        """Say whether another process has the client. If one comes in that time, `Relay.wake` is called."""
        return False

    def is_connected(self, token: str) -> bool:
        """Say whether another process has the client."""
        return False

    def in_flight(self, token: str) -> set[str]:
        """Return the ids of the events that are on their way to a client of another process."""
        return set()

    def counts(self, token: str) -> Counts:
        """Return what all processes have counted, but for what this one has since they last told."""
        return Counts()

    @property
    def is_owed_to(self) -> bool:
        """Whether another process waits for a client of this one."""
        return False


class Relay:
    """Connects calls to clients: one client a token, the newest wins.

    Calls for one token reach its client in the order in which they were accepted; those that were held
    for it go first. `rate` bounds the calls for each token, `give_way` lets other callers have their turn.
    `address_of` returns the address of a caller: calls that are held count for it.
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
        peers: Alone,
        rate: Rate,
        give_way: Callable[[], None],
        address_of: Callable[[Call], str],
    ) -> None:
        self._store = store
        self._hold_seconds = hold_seconds
        self._max_held_requests_per_token = max_held_requests_per_token
        self._timeouts = {
            "ack": ack_timeout_seconds,
            "reply": reply_timeout_seconds,
            LEGACY: reply_timeout_seconds,
        }
        self._mailbox_max_age_seconds = mailbox_max_age_seconds
        self.mailboxes = mailboxes
        self._peers = peers
        self._rate = rate
        self._give_way = give_way
        self._address_of = address_of
        self._clients: dict[str, Client] = {}
        self._counts: dict[str, Counts] = {}  # of tokens with a secret: nobody else may ask
        self._held: dict[str, deque[Held]] = {}
        self._held_requests = Pool(max_held_requests)  # by address
        self._held_bytes = Pool(max_held_bytes)
        self._lock = threading.Lock()  # guards the step from "nobody here" to "held", and its way back

    def admit(self, token: str) -> TokenRecord:
        """Return a token that may be called now. Raises `UnknownToken` or `TooManyRequests`."""
        record = self._store.peek(token)
        if record is None:
            raise UnknownToken
        try:
            self._check_rate(token)
        except TooManyRequests:
            self._count(record, Counts(refused=1))
            raise
        return record

    def forward(self, call: Call, record: TokenRecord) -> Answer:
        """Hand an admitted call to the token's client, and return what its caller hears.

        Without a mailbox it waits for a client if nobody is connected. Raises `NobodyConnected` after the hold,
        `TooManyHeld` at once, or `ClientTooSlow`; `NotAcknowledged`, `Rejected`, `ClientLeft` or `BadReply`
        in the modes that wait for the client; what `Mailboxes.accept` raises.
        """
        if record.secret_hash is None:
            return self._forward(call)
        try:
            if record.mailbox and self.mailboxes is not None:
                answer = self.mailboxes.accept(call, self._timeouts)
            else:
                answer = self._forward(call)
        except RelayError:
            self._count(record, Counts(refused=1, last_request_at=call.received_at))
            raise
        self._count(record, Counts(forwarded=1, last_request_at=call.received_at))
        return answer

    def counts(self, token: str) -> Counts:
        """Return what was counted of a token with a secret; of any other, nothing is kept."""
        return self._peers.counts(token) + self._counts.get(token, Counts())

    def take_counts(self) -> dict[str, Counts]:
        """Return what was counted since this was last asked, and count from the start."""
        counts, self._counts = self._counts, {}
        return counts

    def is_connected(self, token: str) -> bool:
        """Say whether a client is attached, to whichever process."""
        return token in self._clients or self._peers.is_connected(token)

    def in_flight(self, token: str) -> set[str]:
        """Return the ids of the events of a mailbox that are on their way to the client."""
        if token in self._clients and self.mailboxes is not None:
            return self.mailboxes.in_flight(token)
        return self._peers.in_flight(token)

    @property
    def has_peers(self) -> bool:
        """Whether there may be other processes."""
        return type(self._peers) is not Alone

    @property
    def is_owed_to(self) -> bool:
        """Whether another process waits for a client of this one."""
        return self._peers.is_owed_to

    def has_clients(self) -> bool:
        """Say whether anybody is attached to this process."""
        return bool(self._clients)

    def clients(self) -> list[tuple[str, str, str]]:
        """Return the tokens whose clients this process has, and each client's id and mode."""
        return [(token, client.sid, client.mode) for token, client in list(self._clients.items())]

    def client(self, token: str) -> tuple[str, str, str] | None:
        """Return the same of one token, if its client is here."""
        client = self._clients.get(token)
        return None if client is None else (token, client.sid, client.mode)

    def take(self, calls: Sequence[tuple[Call, Callable[[str], Awaited]]]) -> list[Handed | Held | Exception]:
        """Hand calls that came to other processes to clients of this one, and return what came of each.

        What makes an `Awaited`, for a mode, goes with each. `ClientGone` is one for whom nobody is here. One
        that is held waits for room in its client's window: `when_settled` and `give_up` are for those.
        """
        outcomes: list[Handed | Held | Exception] = []
        handed_to: list[tuple[str, Client] | None] = []
        for call, new_awaited in calls:
            client = self._clients.get(call.token)
            try:
                if client is None:
                    raise ClientGone
                self._check_rate(call.token)
                if client.bounds_calls:
                    outcome = self._take_bounded(call, client, new_awaited)
                    outcomes.append(outcome)
                    handed_to.append((call.token, client) if isinstance(outcome, Handed) else None)
                    continue
                outcomes.append(_hand(call, client, new_awaited))
                handed_to.append((call.token, client))
            except (ClientGone, RelayError) as error:
                if client is not None and isinstance(error, ClientGone):
                    self.detach(call.token, client)
                outcomes.append(error)
                handed_to.append(None)
            except Exception:
                log.exception("a call of another process was not handed over")
                outcomes.append(RelayError())
                handed_to.append(None)
        for token, client in dict.fromkeys(to for to in handed_to if to is not None):
            try:
                client.flush()
            except ClientGone as error:
                self.detach(token, client)
                outcomes = [
                    error if to == (token, client) else outcome
                    for to, outcome in zip(handed_to, outcomes, strict=True)
                ]
        return outcomes

    def when_settled(self, held: Held, on_settled: Callable[[], None]) -> None:
        """Have `on_settled` called when a held call waits no more, which may be so already."""
        with self._lock:
            if not held.settled.is_set():
                held.on_settled = on_settled
                return
        on_settled()

    def give_up(self, held: Held) -> None:
        """End the wait of a held call: there was no room in its client's window in time."""
        with self._lock:
            if not held.settled.is_set():
                self._settle(held, ClientBusy() if held.call.token in self._clients else NobodyConnected())

    def attach(self, token: str, client: Client) -> None:
        """Make `client` the token's one client, give it what was held, and dismiss the one before."""
        with self._lock:
            displaced = self._clients.get(token)
            if not self._hand_over(token, client):
                return
            self._clients[token] = client
        try:
            record = self._store.attach(token, client.sid, client.mode)
        except StoreUnavailable:
            self._attach_failed(token, client, displaced)
            return
        if displaced is not None:
            displaced.dismiss("replaced")
        if record is None:
            self.end(token)  # it ended since the client asked whether it lives
        elif record.mailbox and self.mailboxes is not None:
            with self._lock:
                if self._clients.get(token) is client:
                    self.mailboxes.open(token, client)

    def _attach_failed(self, token: str, client: Client, displaced: Client | None) -> None:
        """Leave the token to the client that it had, and have the new one try again."""
        with self._lock:
            if displaced is not None and self._clients.get(token) is client:
                self._clients[token] = displaced
        self.detach(token, client)
        client.hang_up()

    def detach(self, token: str, client: Client) -> None:
        """Forget `client`, unless another has taken its place: then its late farewell changes nothing."""
        with self._lock:
            is_the_one = self._clients.get(token) is client
            if is_the_one:
                del self._clients[token]
            if self.mailboxes is not None:
                self.mailboxes.close(token, client)
        if is_the_one:
            self._store.detach(token, client.sid)
            self._retry_held(token, client)

    def displace(self, token: str, sid: str) -> None:
        """Dismiss a client, if it is still here: another process has the token's newest."""
        with self._lock:
            client = self._clients.get(token)
            if client is None or client.sid != sid:
                return
            del self._clients[token]
            if self.mailboxes is not None:
                self.mailboxes.close(token, client)
        client.dismiss("replaced")
        self._retry_held(token, client)

    def deliver_held(self, token: str, client: Client) -> None:
        """Deliver what waits for room in a client's window."""
        if token in self._held:
            with self._lock:
                if self._clients.get(token) is client:
                    self._hand_over(token, client)

    def wake(self, token: str) -> None:
        """Have calls that are held go where their client is: it came to another process."""
        with self._lock:
            for held in list(self._held.get(token, ())):
                self._settle(held)

    def wake_all(self) -> None:
        """Have all that are held look again for their clients: it may have been missed that one came."""
        for token in list(self._held):
            self.wake(token)

    def expire(self) -> int:
        """Remove the tokens that have expired and dismiss their clients. Return how many there were."""
        expired = self._store.pop_expired()
        for number, token in enumerate(expired, 1):
            self.end(token)
            if number % 100 == 0:
                self._give_way()
        if self.mailboxes is not None:
            dropped = self.mailboxes.store.drop_older(time.time() - self._mailbox_max_age_seconds)
            if dropped:
                log.warning("SOCKET2ME_MAILBOX_MAX_AGE_SECONDS bites: %d events were dropped", dropped)
        return len(expired)

    def delete(self, token: str) -> None:
        """End a token now, and dismiss its client. Raises `UnknownToken`."""
        if not self._store.remove(token):
            raise UnknownToken
        self.end(token)

    def drain(self, *, may_follow: bool = False) -> None:
        """Let go whoever waits: with what is kept, or for a client, unless they `may_follow` it to a peer."""
        if self.mailboxes is not None:
            self.mailboxes.drain()
        if may_follow:
            return
        with self._lock:
            for held in [held for queue in self._held.values() for held in queue]:
                self._settle(held, ShuttingDown())

    def end(self, token: str) -> None:
        """Let go of everything of a token that does not live any more."""
        with self._lock:
            self._counts.pop(token, None)
            client = self._clients.pop(token, None)
            if self.mailboxes is not None:
                self.mailboxes.end(token)
            for held in list(self._held.get(token, ())):
                self._settle(held, UnknownToken())
        if client is not None:
            try:
                client.dismiss()
            except Exception:
                log.exception("a client was not dismissed")

    def _forward(self, call: Call) -> Answer:
        client = self._clients.get(call.token)
        if client is not None and client.bounds_calls:
            return self._answer(call, self._hold(call))
        if client is not None:
            try:
                handed = _hand(call, client)
            except ClientGone:
                self.detach(call.token, client)
                return self._answer(call, self._hold(call))
            number = client.number
            # Others have their turn here; what they queue for this client goes out in one piece with it.
            self._give_way()
            try:
                client.flush()
            except ClientGone:
                self.detach(call.token, client)
                if client.has_lost(number):
                    return self._answer(call, self._hold(call))
            return self._answer(call, handed)
        if (elsewhere := self._peers.hand(call)) is not None:
            return self._answer(call, elsewhere)
        return self._answer(call, self._hold(call))

    def _answer(self, call: Call, handed: Handed) -> Answer:
        """Return what the caller of a call that was handed over hears, waiting for the client if it is to say."""
        awaited = handed.awaited
        if awaited is None:
            return LEGACY_OK if call.is_legacy else OK
        call.body = b""  # nobody needs it any more, and many calls may wait here
        if not awaited.wait(self._timeouts[handed.mode]):
            handed.forget()
            if not awaited.is_settled:  # it may have come just now
                if call.is_legacy:
                    return LEGACY_OK  # as the later originals answered
                raise NotAcknowledged
        return awaited.answer()

    def _hold(self, call: Call) -> Handed:
        """Wait for the next client to take a call, unless one came and takes it at once."""
        deadline = time.monotonic() + self._hold_seconds
        while True:
            with self._lock:
                client = self._clients.get(call.token)
                if client is not None and self._may_deliver(call.token, client):
                    try:
                        handed = self._deliver(call, client)
                        client.flush()
                        return handed
                    except ClientGone:
                        del self._clients[call.token]
                        self._store.detach(call.token, client.sid)
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    raise NobodyConnected if client is None else ClientBusy
                held = self._queue(Held(call))
            found = self._wait_for_client(held, seconds)
            if found is not None:
                return found

    def _wait_for_client(self, held: Held, seconds: float) -> Handed | None:
        """Wait until a held call was taken. Return None if it was not, but a client is said to have come."""
        token = held.call.token
        try:
            is_elsewhere = token not in self._clients and self._peers.watch(token, seconds)
        except RelayError:
            if not self._give_up(held):
                raise
            is_elsewhere = False
        if (is_elsewhere or not held.settled.wait(seconds)) and not self._give_up(held):
            if is_elsewhere:
                return self._peers.hand(held.call)
            if token in self._clients:
                raise ClientBusy
            raise NobodyConnected if self._store.get(token) is not None else UnknownToken
        if held.error is not None:
            raise held.error
        return held.handed

    def _queue(self, held: Held) -> Held:
        call = held.call
        held.address, held.size = address_key(self._address_of(call)), call.size
        if not self._held_requests.has_room(held.address, 1) or not self._held_bytes.has_room(
            held.address, held.size
        ):
            raise TooManyHeld
        if len(self._held.get(call.token, ())) >= self._max_held_requests_per_token:
            raise TooManyHeldOfToken
        self._held.setdefault(call.token, deque()).append(held)
        self._held_requests.take(held.address, 1)
        self._held_bytes.take(held.address, held.size)
        return held

    def _check_rate(self, token: str) -> None:
        retry_after_seconds = self._rate.hit(token)
        if retry_after_seconds is not None:
            raise TooManyRequests(
                "SOCKET2ME_RATE_LIMIT_REQUESTS",
                "This token is called more often than it may be.",
                retry_after_seconds=retry_after_seconds,
            )

    def _count(self, record: TokenRecord, counts: Counts) -> None:
        token = record.token
        if record.secret_hash is not None and (token in self._clients or self._may_live(token)):
            self._counts[token] = self._counts.get(token, Counts()) + counts

    def _may_live(self, token: str) -> bool:
        """Say whether a token lives, as far as the store can tell: what became of a call does not depend on it."""
        try:
            return self._store.peek(token) is not None
        except StoreUnavailable:
            return True

    def _hand_over(self, token: str, client: Client) -> bool:
        """Give a client what is held for its token, oldest first, as far as its window. Return False if it left."""
        while (held := next(iter(self._held.get(token, ())), None)) and client.has_room:
            try:
                held.handed = self._deliver(held.call, client, held.new_awaited)
                client.flush()
            except ClientGone:
                return False
            except Exception as error:
                self._settle(held, error)  # its caller hears of it; the others have nothing to do with it
            else:
                self._settle(held)
        return True

    def _take_bounded(self, call: Call, client: Client, new_awaited: Callable[[str], Awaited]) -> Handed | Held:
        """Queue a call of another process for a client, or hold it until there is room in the client's window."""
        with self._lock:
            if self._may_deliver(call.token, client):
                return self._deliver(call, client, new_awaited)
            return self._queue(Held(call, new_awaited))

    def _retry_held(self, token: str, client: Client) -> None:
        """Have calls look for another client that waited for room in the window of one that has gone."""
        if client.bounds_calls and token in self._held:
            self.wake(token)

    def _may_deliver(self, token: str, client: Client) -> bool:
        """Say whether a call may go to a client now: there is room, and none waits for it that came before."""
        return not client.bounds_calls or (client.has_room and token not in self._held)

    def _deliver(self, call: Call, client: Client, new_awaited: Callable[[str], Awaited] = Awaited) -> Handed:
        """Queue a call for a client; if nobody waits for it any more, another has its place in the window."""
        handed = _hand(call, client, new_awaited)
        if client.bounds_calls:
            handed.forget = partial(self._forget, call.token, client, handed.forget)
        return handed

    def _forget(self, token: str, client: Client, forget: Callable[[], None]) -> None:
        forget()
        self.deliver_held(token, client)

    def _give_up(self, held: Held) -> bool:
        """Take a call out of its queue. Return True if a client took it at the last moment."""
        with self._lock:
            if held.settled.is_set():
                return True
            self._release(held)
            return False

    def _settle(self, held: Held, error: Exception | None = None) -> None:
        held.error = error
        self._release(held)
        held.settled.set()
        if held.on_settled is not None:
            held.on_settled()

    def _release(self, held: Held) -> None:
        queue = self._held[held.call.token]
        queue.remove(held)  # near the front: calls leave in the order in which they came
        if not queue:
            del self._held[held.call.token]
        self._held_requests.give_back(held.address, 1)
        self._held_bytes.give_back(held.address, held.size)


def _hand(call: Call, client: Client, new_awaited: Callable[[str], Awaited] = Awaited) -> Handed:
    """Queue a call for a client, in its mode."""
    mode = mode_for(call, client.mode)
    if mode == "notify":
        client.send(call)
        return Handed(mode)
    if mode == LEGACY:
        return _hand_legacy(call, client, new_awaited)
    awaited = new_awaited(mode)
    return Handed(mode, awaited, partial(client.forget, client.send(call, awaited)))


def _hand_legacy(call: Call, client: Client, new_awaited: Callable[[str], Awaited]) -> Handed:
    """Queue a call to `/go`. The caller waits for a client of mode `ack` or `reply`, or one that answers."""
    if client.mode != "notify":
        awaited = new_awaited(LEGACY)
        return Handed("reply", awaited, partial(client.forget, client.send(call, awaited)))
    if client.answering is None:
        client.answering = Answering()
    if client.answering.is_silent:
        client.answering.notify(call, client)
        return Handed("notify")
    awaited = new_awaited(LEGACY)
    return Handed("reply", awaited, client.answering.deliver(call, client, awaited))
