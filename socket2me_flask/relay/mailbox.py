"""Mailboxes: an event stays until its client acknowledged it, and is sent again until it does.

At least once, in order for each token. Knows stores and clients; which client is attached, `presence.py` knows.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..concurrency.timeout_queue import NewTimer, TimeoutQueue
from ..errors import (
    ClientGone,
    ClientLeft,
    ClientTooSlow,
    EventDropped,
    EventTooLarge,
    NoRoom,
    Rejected,
    RelayError,
    UnknownToken,
)
from ..http.answers import Answer
from ..storage import MailboxStore, StoredEvent
from .call import Call, process_of, this_process
from .delivery import Client, PendingAck, mode_for, outcome_of
from .recorder import Recorder
from .replies import kept

log = logging.getLogger(__name__)

# How long an event waits that was rejected or not acknowledged, before each further attempt: twice as long each
# time, up to five minutes. With the default
# SOCKET2ME_MAX_ATTEMPTS an event outlives a client that fails for eight hours.
RETRY_SECONDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)

# How many events of a mailbox may wait so while later ones are sent. Above it, the first to become due goes next.
MAX_BACKED_OFF = 64

# The limits at which an event becomes a dead letter.
DEAD_LETTER_LIMITS = ("SOCKET2ME_MAX_ATTEMPTS", "CLIENT_QUEUE_LIMIT_BYTES")

# Of how many dead letters an acknowledgement still counts while their client is connected.
MAX_DEAD = 64


class Mailboxes:
    """What is delivered from mailboxes, and which callers wait for its outcome.

    `spawn` runs something in the background; `new_timer` makes a timer that the engine runs. `send_outcome` is
    called with the token, the id and the outcome of an event whose caller another process has. `recorder` records
    what becomes of the events of tokens that are inspected.
    """

    def __init__(
        self,
        store: MailboxStore,
        *,
        redeliver_seconds: float,
        max_attempts: int,
        spawn: Callable[[Callable[[], None]], object],
        new_timer: NewTimer,
        send_outcome: Callable[[str, str, Answer | RelayError], None],
        recorder: Recorder | None = None,
    ) -> None:
        self.store = store
        self.recorder = recorder
        self._send_outcome = send_outcome
        self.max_attempts = max_attempts
        self.spawn = spawn
        self.overdue = new_timer(redeliver_seconds, _Sent.give_up)
        self.retries = new_timer(redeliver_seconds, _Outlet.notify)
        self.back_offs = [new_timer(seconds, _BackedOff.end) for seconds in RETRY_SECONDS]
        self._outlets: dict[str, _Outlet] = {}  # by token
        self._awaited: dict[str, dict[str, PendingAck]] = {}  # by token and event
        self.redelivered = 0  # how many events were sent again
        self.aged_out = 0  # how many were dropped since they were too old
        self.dead_lettered = dict.fromkeys(DEAD_LETTER_LIMITS, 0)  # how many became dead letters, by limit

    def accept(self, call: Call, timeouts: Mapping[str, float]) -> Answer:
        """Keep a call, and return the answer for its caller: what its client said in time, or that it is kept.

        `timeouts` are the seconds to wait in each mode.

        Raises what `MailboxStore.put` does: then it is not kept. Raises `BadReply`.
        """
        pending_ack, trace = PendingAck("ack"), call.trace
        if trace is not None:
            trace.write()  # before any process can send it
        self._awaited.setdefault(call.token, {})[call.id] = pending_ack
        try:
            mode = self.store.put(call)
            call.body = b""  # the store has it, and many calls may wait here
            if trace is not None:
                trace.wait("queued", "in the mailbox")
            outlet = self._outlets.get(call.token)
            if outlet is not None:
                mode = outlet.client.mode
                outlet.notify()
            if mode is not None and pending_ack.wait(timeouts[mode_for(call, mode)]):
                with suppress(ClientLeft):
                    return pending_ack.answer()
            if trace is not None:
                trace.keep()
            return kept(call.id)
        finally:
            of_token = self._awaited[call.token]
            del of_token[call.id]
            if not of_token:
                del self._awaited[call.token]

    def notify(self, token: str) -> bool:
        """Look for events to deliver: another process has kept one. Return whether they go anywhere from here."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.notify()
        return outlet is not None

    def notify_all(self, yield_to_others: Callable[[], None]) -> None:
        """Do so for all, and yield now and then: the store was away, or a notification may have been missed."""
        for number, token in enumerate(list(self._outlets), 1):
            self.notify(token)
            if number % 100 == 0:
                yield_to_others()

    def open(self, token: str, client: Client, *, is_inspected: bool = False) -> None:
        """Deliver to `client`, and no longer to the one before."""
        self.close(token)
        recorder = self.recorder if is_inspected else None
        outlet = self._outlets[token] = _Outlet(self, token, client, recorder)
        outlet.notify()

    def close(self, token: str, client: Client | None = None) -> None:
        """Deliver no more, and release the callers that wait; with `client`, only if it is to this one."""
        outlet = self._outlets.get(token)
        if outlet is not None and client in (None, outlet.client):
            self._close(token, ClientLeft())

    def end(self, token: str) -> None:
        """Deliver no more: the token does not live any more, and neither do its events."""
        self._close(token, UnknownToken())

    def _close(self, token: str, error: RelayError) -> None:
        outlet = self._outlets.pop(token, None)
        for event_id in outlet.close() if outlet is not None else ():
            self.resolve(token, event_id, error)
        self.release(token, error)

    def drain(self) -> None:
        """Release the callers that wait: what is in the mailboxes stays there."""
        for token in list(self._awaited):
            self.release(token)

    def redeliver(self, token: str, event_id: str) -> None:
        """Send an event as if it never was. Raises `UnknownEvent` or `StoreUnavailable`.

        An acknowledgement of an earlier attempt still counts.
        """
        self.store.redeliver(token, event_id)
        self.retried(token, event_id)

    def retried(self, token: str, event_id: str) -> None:
        """Send an event again at once that the store has as new."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.start_again(event_id)
            outlet.notify()

    def delete(self, token: str, event_id: str) -> None:
        """Drop an event, whatever its state. Raises `UnknownEvent` or `StoreUnavailable`."""
        self.store.delete(token, event_id)
        self.resolve(token, event_id, EventDropped())
        self.dropped(token, event_id)

    def dropped(self, token: str, event_id: str) -> None:
        """Forget an event that was dropped from the store, and send `dropped` to a client that has it."""
        outlet = self._outlets.get(token)
        if outlet is not None and outlet.awaits(event_id):
            outlet.client.tell_dropped(event_id)
        self.forget(token, event_id)

    def forget(self, token: str, event_id: str) -> None:
        """Know nothing of an event any more: it was dropped, or is to be sent as if it never was."""
        outlet = self._outlets.get(token)
        if outlet is not None:
            outlet.forget(event_id)
            outlet.notify()

    @property
    def waiting_callers(self) -> int:
        """How many callers wait for their event to be acknowledged."""
        return sum(map(len, self._awaited.values()))

    def in_flight(self, token: str) -> set[str]:
        """Return the ids of the events that are on their way to a client."""
        outlet = self._outlets.get(token)
        return set(outlet.sent) if outlet is not None else set()

    def resolve(self, token: str, event_id: str, outcome: Answer | RelayError) -> None:
        """Answer the caller, if it still waits, with the outcome of its event."""
        pending_ack = self._awaited.get(token, {}).get(event_id)
        if pending_ack is not None:
            pending_ack.resolve(outcome)
        elif process_of(event_id) != this_process():
            self._send_outcome(token, event_id, outcome)

    def release(self, token: str, error: RelayError | None = None) -> None:
        """Answer the callers that wait: by default that the client has left, so that their events are kept."""
        for pending_ack in list(self._awaited.get(token, {}).values()):
            pending_ack.resolve(error or ClientLeft())


@dataclass(eq=False, slots=True)
class _Sent:
    """An event that is on its way to a client, for the `attempt`th time."""

    outlet: "_Outlet"
    event_id: str
    attempt: int

    def give_up(self) -> None:
        """Send it again: its client did not acknowledge it in time."""
        self.outlet.back_off(self)


@dataclass(eq=False, slots=True)
class _BackedOff:
    """An event that waits for its next attempt, and the timer that ends that."""

    outlet: "_Outlet"
    event_id: str
    timer: TimeoutQueue

    def end(self) -> None:
        """Send the event again."""
        if self.outlet.backed_off.pop(self.event_id, None) is self:
            self.outlet.notify()


class _Outlet:
    """From a mailbox to one client, which is the only one while this is open."""

    def __init__(self, mailboxes: Mailboxes, token: str, client: Client, recorder: Recorder | None) -> None:
        self.client = client
        self._recorder = recorder
        self.sent: dict[str, _Sent] = {}  # by event
        self.backed_off: dict[str, _BackedOff] = {}  # by event; these are not on their way
        self._ack_ids: dict[str, list[int | None]] = {}  # of every attempt at an event that is not acknowledged
        self._attempts: dict[str, int] = {}  # at each of those, as far as they count: the store may not know yet
        self._dead: dict[
            str, None
        ] = {}  # those of them that became dead letters after their last attempt, oldest first
        # What is not to be sent any more, and what the store was asked to do with it. It may fail at that.
        self._finished: dict[str, Callable[[str, str], None]] = {}
        self._mailboxes = mailboxes
        self._token = token
        self._is_open = True
        self._is_running = False
        self._is_notified = False
        self._lock = threading.Lock()

    def notify(self) -> None:
        """Look for events to send, in the background: there is no thread while there is nothing to do."""
        with self._lock:
            self._is_notified = True
            if self._is_running or not self._is_open:
                return
            self._is_running = True
        self._mailboxes.spawn(self._run)

    def close(self) -> list[str]:
        """Send no more. What is on its way counts as not delivered, whatever its client says from now on.

        Return the ids of that.
        """
        self._is_open = False
        unfinished = list(self._ack_ids)
        for event_id in unfinished:
            self.forget(event_id)
        return unfinished

    def awaits(self, event_id: str) -> bool:
        """Say whether the client has an event that it did not acknowledge."""
        return event_id in self._ack_ids

    def forget(self, event_id: str) -> None:
        """Wait no more for an acknowledgement of an event, and know nothing of it."""
        self.start_again(event_id)
        for ack_id in self._ack_ids.pop(event_id, ()):
            self.client.forget(ack_id)

    def start_again(self, event_id: str) -> None:
        """Let an event be sent again at once. An acknowledgement of an earlier attempt still counts."""
        self._attempts.pop(event_id, None)
        self._finished.pop(event_id, None)
        self._dead.pop(event_id, None)
        self._end_attempt(event_id)

    def _end_attempt(self, event_id: str) -> None:
        sent = self.sent.pop(event_id, None)
        if sent is not None:
            self._mailboxes.overdue.discard(sent)
        backed_off = self.backed_off.pop(event_id, None)
        if backed_off is not None:
            backed_off.timer.discard(backed_off)

    def back_off(self, sent: _Sent) -> None:
        """End an attempt that failed; the next follows after a while, the longer the more there were.

        After the last one, the event is a dead letter.
        """
        event_id = sent.event_id
        if self.sent.get(event_id) is not sent:
            return
        if sent.attempt >= self._mailboxes.max_attempts:
            self._dead_letter_exhausted(event_id, sent.attempt)
            self.notify()
            return
        del self.sent[event_id]
        self._mailboxes.overdue.discard(sent)
        timer = self._mailboxes.back_offs[min(sent.attempt, len(RETRY_SECONDS)) - 1]
        self.backed_off[event_id] = backed_off = _BackedOff(self, event_id, timer)
        timer.add(backed_off)
        if len(self.backed_off) == MAX_BACKED_OFF:
            log.warning(
                "%d events of a mailbox failed and wait for another attempt: none goes before", MAX_BACKED_OFF
            )
        self.notify()

    def _run(self) -> None:
        while self._may_run():
            try:
                self._fill()
            except (ClientGone, ClientTooSlow):
                self._mailboxes.close(self._token, self.client)
            except NoRoom:
                pass  # the next acknowledgement makes some
            except RelayError:
                self._mailboxes.retries.add(self)
            except Exception:
                log.exception("a mailbox was not delivered")
                self._mailboxes.retries.add(self)

    def _may_run(self) -> bool:
        with self._lock:
            self._is_running = self._is_open and self._is_notified
            self._is_notified = False
            return self._is_running

    def _fill(self) -> None:
        """Send the oldest events, up to the client's window.

        With a window of 1 order is strict: an event that waits for its next attempt holds up those behind it.
        """
        window = self.client.window
        backed_off = len(self.backed_off)
        if len(self.sent) >= window or backed_off >= (1 if window == 1 else MAX_BACKED_OFF):
            return
        store = self._mailboxes.store
        finished = list(self._finished)
        known = {*finished, *self.sent, *self.backed_off}
        events = store.waiting(self._token, window + len(finished) + backed_off, known)
        # The store carries out what it is asked in order, so this is done, or has failed.
        waiting = {event.call.id for event in events}
        for event_id in finished:
            if event_id in waiting:
                self._finished[event_id](self._token, event_id)
                self._mailboxes.retries.add(self)
            else:
                self._finished.pop(event_id, None)
        for event in events:
            if not self._is_open or len(self.sent) >= window:
                return
            event_id = event.call.id
            if event_id not in known:
                self._send(event)

    def _send(self, event: StoredEvent) -> None:
        event_id = event.call.id
        attempts = max(event.attempts, self._attempts.get(event_id, 0))
        if attempts >= self._mailboxes.max_attempts:
            self._dead_letter_exhausted(event_id, attempts)
            return
        sent = self.sent[event_id] = _Sent(self, event_id, attempts + 1)
        try:
            on_ack = partial(self._on_ack, sent, mode_for(event.call, self.client.mode))
            ack_id = self.client.send(event.call, on_ack, attempts + 1)
        except EventTooLarge:
            self._mailboxes.dead_lettered["CLIENT_QUEUE_LIMIT_BYTES"] += 1
            self._finish(event_id, self._mailboxes.store.dead_letter)
            self._record(event_id, "dead_lettered", "too large for its client", "dead_lettered")
            log.warning("CLIENT_QUEUE_LIMIT_BYTES reached: an event is too large for it, and is a dead letter now")
            self._is_notified = True  # there may be room for another
            return
        except Exception:
            self.sent.pop(event_id, None)
            raise
        ack_ids = self._ack_ids.setdefault(event_id, [])
        ack_ids.append(ack_id)
        if len(ack_ids) > self._mailboxes.max_attempts:  # it was sent again on request
            self.client.forget(ack_ids.pop(0))
        self._attempts[event_id] = attempts + 1
        self._mailboxes.redelivered += attempts > 0
        self._mailboxes.store.attempted(self._token, event_id)
        self._mailboxes.overdue.add(sent)
        self._record(event_id, "redelivered" if attempts else "sent", f"attempt {attempts + 1}")
        self.client.flush()

    def _dead_letter_exhausted(self, event_id: str, attempts: int) -> None:
        """Make an event a dead letter after its last attempt. A late acknowledgement still counts."""
        self._mailboxes.dead_lettered["SOCKET2ME_MAX_ATTEMPTS"] += 1
        log.warning(
            "SOCKET2ME_MAX_ATTEMPTS reached: an event was sent %d times, and is a dead letter now", attempts
        )
        self._end_attempt(event_id)
        if event_id in self._ack_ids:
            self._dead[event_id] = None
            if len(self._dead) > MAX_DEAD:
                self.forget(next(iter(self._dead)))
        self._tell_store(event_id, self._mailboxes.store.dead_letter)
        self._record(event_id, "dead_lettered", f"after attempt {attempts}", "dead_lettered")
        self._is_notified = True  # there may be room for another

    def _finish(self, event_id: str, tell: Callable[[str, str], None]) -> None:
        self.forget(event_id)
        self._tell_store(event_id, tell)

    def _tell_store(self, event_id: str, tell: Callable[[str, str], None]) -> None:
        self._finished[event_id] = tell
        tell(self._token, event_id)

    def _on_ack(self, sent: _Sent, mode: str, args: list[Any] | None) -> None:
        if args is None or not self._is_open:
            return  # it left; `Presence.detach` closes this
        event_id, outcome = sent.event_id, outcome_of(mode, args)
        if isinstance(outcome, Rejected):
            self._record(event_id, "acknowledged", f"rejected: {outcome}")
            self.back_off(sent)
            outcome = ClientLeft()  # to its caller it is the same: the event is kept
        else:
            self._finish(event_id, self._mailboxes.store.acknowledge)
            self._record(event_id, "acknowledged", outcome="acknowledged" if mode == "ack" else "replied")
        self._mailboxes.resolve(self._token, event_id, outcome)
        self.notify()

    def _record(self, event_id: str, what: str, detail: str = "", outcome: str | None = None) -> None:
        if self._recorder is not None:
            self._recorder.note(self._token, event_id, what, detail, outcome)
