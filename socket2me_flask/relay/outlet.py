"""An outlet sends the events of a mailbox to one client, and repeats those that the client does not acknowledge.

An attempt ends in one of these ways:

- acknowledged: the source has the event dropped, or passed by this listener, and the caller receives the outcome.
- rejected, or overdue: the event is backed off. After the last attempt it is a dead letter.
- the client leaves: the event is sent to the next client, without a back-off.

Knows attempts, back-offs and dead letters. Which events the client is to receive, and what the store does with one
that is acknowledged, is known to the source of the outlet (`sources.py`).
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ..concurrency.timeout_queue import NewTimer
from ..errors import ClientGone, ClientLeft, ClientTooSlow, EventTooLarge, NoRoom, Rejected, RelayError
from ..http.answers import Answer
from ..storage import MailboxStore, StoredEvent
from .back_off import MAX_BACKED_OFF, RETRY_SECONDS, BackedOff, BackOffs
from .delivery import Client, mode_for, outcome_of
from .recent_events import RecentEvents
from .recorder import Recorder
from .sources import Source

log = logging.getLogger(__name__)

# Of how many dead letters an acknowledgement still counts while their client is connected.
MAX_DEAD = 64

# The limits at which an event becomes a dead letter.
DEAD_LETTER_LIMITS = ("SOCKET2ME_MAX_ATTEMPTS", "CLIENT_QUEUE_LIMIT_BYTES")


class Mailboxes(Protocol):
    """What outlets ask of the mailboxes of all tokens."""

    store: MailboxStore
    recent: RecentEvents
    attempts: "Attempts"
    spawn: Callable[[Callable[[], None]], object]

    def resolve(self, token: str, event_id: str, outcome: Answer | RelayError) -> None:
        """Answer the caller, if it still waits, with the outcome of its event."""

    def close(self, token: str, client: Client | None = None) -> None:
        """Deliver no more to a client."""


@dataclass(eq=False, slots=True)
class Sent:
    """An event that is on its way to a client, for the `attempt`th time."""

    outlet: "Outlet"
    event_id: str
    attempt: int

    def give_up(self) -> None:
        """Back the event off: its client did not acknowledge this attempt in time."""
        self.outlet.back_off(self, is_overdue=True)


class Outlet(BackOffs):
    """Sends the events of a source to one client. It has a thread while there is something to send.

    sent: the events that are on their way to the client, by their ids.
    """

    def __init__(
        self, mailboxes: Mailboxes, token: str, client: Client, recorder: Recorder | None, source: Source
    ) -> None:
        super().__init__()
        self.client = client
        self.source = source
        self._recorder = recorder
        self.sent: dict[str, Sent] = {}
        self._ack_ids: dict[str, list[int | None]] = {}  # of every attempt at an event that is not acknowledged
        self._attempts: dict[str, int] = {}  # at each of those, as far as they count: the store may be behind
        self._dead: dict[
            str, None
        ] = {}  # those of them that became dead letters after their last attempt, oldest first
        # What is not to be sent any more, and what the store was asked to do with it. It may fail at that.
        self._finished: dict[str, Callable[[str], None]] = {}
        self._mailboxes = mailboxes
        self._all_attempts = mailboxes.attempts
        self._token = token
        self._is_open = True
        self._is_running = False
        self._is_notified = False
        self._lock = threading.Lock()

    @property
    def mode(self) -> str:
        """The mode of the client."""
        return self.client.mode

    def retry(self, event_id: str) -> None:
        self.notify()

    def notify(self) -> None:
        """Look for events to send, in the background. A thread that runs already looks once more at its end."""
        with self._lock:
            self._is_notified = True
            if self._is_running or not self._is_open:
                return
            self._is_running = True
        self._mailboxes.spawn(self._run)

    def detach(self, client: Client) -> bool:
        """Return whether a client that leaves was the only one: whether it is that of this outlet."""
        return client is self.client

    def sweep(self) -> None:
        """Do nothing: what is due for one client has a timer."""

    def close(self) -> list[str]:
        """Send no more. What is on its way counts as not delivered, whatever its client sends from now on.

        Return the ids of that.
        """
        self._is_open = False
        unfinished = list(self._ack_ids)
        for event_id in unfinished:
            self.forget(event_id)
        for event_id in list(self.backed_off):
            self.end_wait(event_id)
        self.source.close()
        return unfinished

    def awaits(self, event_id: str) -> bool:
        """Say whether the client has an event that it did not acknowledge."""
        return event_id in self._ack_ids

    def send_dropped(self, event_id: str) -> None:
        """Send `dropped` to the client if it has an event that it did not acknowledge."""
        if self.awaits(event_id):
            self.client.send_dropped(event_id)

    def drop(self, event_id: str) -> None:
        """Know nothing of an event any more: it was dropped."""
        self.forget(event_id)
        self.source.forget(event_id)

    def forget(self, event_id: str) -> None:
        """Wait no more for an acknowledgement of an event, and forget the event."""
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
            self._all_attempts.overdue.discard(sent)
        self.end_wait(event_id)

    def back_off(self, sent: Sent, *, is_overdue: bool = False) -> None:
        """End an attempt that was rejected or is overdue. The next one follows after a back-off.

        After the last attempt the event is a dead letter. On `one`, any listener may receive the event after the
        back-off, and a listener that is overdue is sent `dropped`, since it may still handle the event.
        """
        event_id = sent.event_id
        if self.sent.get(event_id) is not sent:
            return
        if sent.attempt >= self._all_attempts.most:
            self._dead_letter_exhausted(event_id, sent.attempt)
            self.notify()
            return
        del self.sent[event_id]
        self._all_attempts.overdue.discard(sent)
        timer = self._all_attempts.back_offs[min(sent.attempt, len(RETRY_SECONDS)) - 1]
        shared_back_offs = self.source.shared_back_offs
        if shared_back_offs is None:
            self.wait(event_id, timer)
        else:  # another listener may have it next
            if is_overdue:
                self.client.send_dropped(event_id)
            self.drop(event_id)
            shared_back_offs.wait(event_id, timer)
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
                self._all_attempts.retries.add(self)
            except Exception:
                log.exception("a mailbox was not delivered")
                self._all_attempts.retries.add(self)

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
        finished = list(self._finished)
        known = {*finished, *self.sent, *self.backed_off}
        events = self.source.waiting(window + len(finished) + backed_off, known)
        # The store carries out what it is asked in order, so this is done, or has failed.
        waiting = {event.call.id for event in events}
        for event_id in finished:
            if event_id in waiting:
                self._finished[event_id](event_id)
                self._all_attempts.retries.add(self)
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
        if attempts >= self._all_attempts.most:
            self._dead_letter_exhausted(event_id, attempts)
            return
        sent = self.sent[event_id] = Sent(self, event_id, attempts + 1)
        try:
            on_ack = partial(self._on_ack, sent, mode_for(event.call, self.client.mode))
            encoded = None if attempts else self.source.encoded(event_id)
            ack_id = self.client.send(event.call, on_ack, attempts + 1, encoded)
        except EventTooLarge:
            self._all_attempts.dead_lettered["CLIENT_QUEUE_LIMIT_BYTES"] += 1
            self._finish(event_id, self.source.dead_letter)
            self._record(event_id, "dead_lettered", "too large for its client", "dead_lettered")
            log.warning("CLIENT_QUEUE_LIMIT_BYTES reached: an event is too large for it, and is a dead letter now")
            self._is_notified = True  # there may be room for another
            return
        except Exception:
            self.sent.pop(event_id, None)
            raise
        ack_ids = self._ack_ids.setdefault(event_id, [])
        ack_ids.append(ack_id)
        if len(ack_ids) > self._all_attempts.most:  # it was sent again on request
            self.client.forget(ack_ids.pop(0))
        self._attempts[event_id] = attempts + 1
        self._all_attempts.redelivered += attempts > 0
        self.source.attempted(event_id)
        if not self.client.is_silent:
            self._all_attempts.overdue.add(sent)
        self._record(event_id, "redelivered" if attempts else "sent", f"attempt {attempts + 1}")
        self.client.flush()

    def _dead_letter_exhausted(self, event_id: str, attempts: int) -> None:
        """Make an event a dead letter after its last attempt. A late acknowledgement still counts."""
        self._all_attempts.dead_lettered["SOCKET2ME_MAX_ATTEMPTS"] += 1
        log.warning(
            "SOCKET2ME_MAX_ATTEMPTS reached: an event was sent %d times, and is a dead letter now", attempts
        )
        self._end_attempt(event_id)
        if event_id in self._ack_ids:
            self._dead[event_id] = None
            if len(self._dead) > MAX_DEAD:
                self.forget(next(iter(self._dead)))
        self._end_at_source(event_id, self.source.dead_letter)
        self._record(event_id, "dead_lettered", f"after attempt {attempts}", "dead_lettered")
        self._is_notified = True  # there may be room for another

    def _finish(self, event_id: str, end: Callable[[str], None]) -> None:
        self.forget(event_id)
        self._end_at_source(event_id, end)

    def _end_at_source(self, event_id: str, end: Callable[[str], None]) -> None:
        self._finished[event_id] = end
        end(event_id)

    def _on_ack(self, sent: Sent, mode: str, args: list[Any] | None) -> None:
        if args is None or not self._is_open:
            return  # it left; `Presence.detach` closes this
        event_id, outcome = sent.event_id, outcome_of(mode, args)
        if isinstance(outcome, Rejected):
            self._record(event_id, "acknowledged", f"rejected: {outcome}")
            self.back_off(sent)
            if not self.source.is_alone:
                return  # another may acknowledge it yet
            outcome = ClientLeft()  # to its caller it is the same: the event is kept
        else:
            self._finish(event_id, self.source.acknowledge)
            self._record(event_id, "acknowledged", outcome="acknowledged" if mode == "ack" else "replied")
        self._mailboxes.resolve(self._token, event_id, outcome)
        self.notify()

    def _record(self, event_id: str, what: str, detail: str = "", outcome: str | None = None) -> None:
        if self._recorder is not None:
            self._recorder.note(self._token, event_id, what, detail, outcome)


class Attempts:
    """The attempts at the events of all mailboxes: how many each has at most, their timers and their counts.

    overdue: attempts, until their clients have to acknowledge them.
    back_offs: failed events, until their next attempt, by the number of attempts before.
    retries: outlets that could not send, since the store or the client's send queue had an error.
    """

    def __init__(self, new_timer: NewTimer, *, most: int, redeliver_seconds: float) -> None:
        self.most = most
        self.overdue = new_timer(redeliver_seconds, Sent.give_up)
        self.retries = new_timer(redeliver_seconds, Outlet.notify)
        self.back_offs = [new_timer(seconds, BackedOff.end) for seconds in RETRY_SECONDS]
        self.redelivered = 0  # how many events were sent again
        self.dead_lettered = dict.fromkeys(DEAD_LETTER_LIMITS, 0)  # how many became dead letters, by limit
