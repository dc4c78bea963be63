"""Records what becomes of the calls for tokens that are inspected, in the history of `socket2me.inspector`.

Calls for other tokens have no `Trace`, and pay for one look at an attribute.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from socket2me.inspector.history import History
from socket2me.inspector.record import Entry, RequestRecord, Response, Update

from ..errors import RelayError
from ..http.answers import Answer, ErrorAnswers
from .call import Call
from .replies import OK

log = logging.getLogger(__name__)

# The response to most calls: one for all of them.
_OK = Response(200, OK.headers, OK.body)


class Recorder:
    """Writes to `history`. `answers` shapes the errors that callers are answered."""

    def __init__(self, history: History, answers: ErrorAnswers) -> None:
        self.history = history
        self._answers = answers

    def record(self, call: Call, forward: Callable[[], Answer]) -> Answer:
        """Forward a call, and record it and what its caller is answered. Raises what `forward` raises."""
        trace = call.trace = Trace(self.history, call)
        try:
            answer = forward()
        except RelayError as error:
            self._refuse(trace, call, error)
            raise
        except Exception:
            self._refuse(trace, call, RelayError())
            raise
        trace.answer(answer)
        return answer

    def _refuse(self, trace: "Trace", call: Call, error: RelayError) -> None:
        answer = self._answers.shape(error, call.headers.get("accept", ""))
        trace.refuse(answer, f"{error.status} {error.code}")

    def note(self, token: str, event_id: str, what: str, detail: str = "", outcome: str | None = None) -> None:
        """Record what has become of an event of a mailbox, whichever process has its caller."""
        _keep(
            self.history,
            self.history.update,
            token,
            event_id,
            Update([Entry(time.time(), what, detail)], outcome=outcome),
        )


def _keep(history: History, keep: Callable[..., None], *args: Any) -> None:
    """Write to a history. A call does not fail because that fails."""
    try:
        keep(*args)
    except Exception:
        history.lost += 1
        log.exception("what became of a call was not kept in its history")


class Trace:
    """What becomes of one call. It is written when the call begins to wait, and at its end: most only then."""

    __slots__ = ("_history", "_is_kept", "_new", "_outcome", "_record", "_started", "_token", "_waits_for")

    def __init__(self, history: History, call: Call) -> None:
        self._history = history
        self._token = call.token
        self._started = time.monotonic()
        self._new = [Entry(call.received_at, "received")]
        if call.verified is not None:
            self.note("verified", call.verified["provider"])
        self._outcome: str | None = None
        self._waits_for = ""
        self._is_kept = False  # whether the history has the record
        self._record = RequestRecord(
            call.id,
            call.received_at,
            call.method,
            call.path,
            call.query,
            call.headers.items(),
            call.body,
            len(call.body),
            call.remote_addr,
            call.replay_of,
        )

    def note(self, what: str, detail: str = "", outcome: str | None = None) -> None:
        """Record a step; `outcome` is what the call comes to if no other step follows."""
        self._new.append(Entry(time.time(), what, detail))
        if outcome is not None:
            self._outcome = outcome

    def wait(self, what: str, detail: str = "") -> None:
        """Record that the call begins to wait, unless it waits already."""
        if self._waits_for != what:
            self._waits_for = what
            self.note(what, detail)
            self.write()

    def write(self) -> None:
        """Write what is known so far: the call is about to wait."""
        if self._is_kept:
            if self._new:
                _keep(self._history, self._history.update, self._token, self._record.id, Update(self._new))
        else:
            self._is_kept = True
            self._record.timeline = self._new
            _keep(self._history, self._history.add, self._token, self._record)
        self._new = []

    def keep(self) -> None:
        """Record that the call is answered while its event waits in the mailbox."""
        self._outcome = "kept"

    def answer(self, answer: Answer) -> None:
        """Record what the caller is answered."""
        self._end("kept" if self._outcome == "kept" else "replied", answer, answer.status)

    def refuse(self, answer: Answer, detail: str) -> None:
        """Record that the caller is answered with an error."""
        self._outcome = "refused"
        self._end("refused", answer, detail)

    def _end(self, what: str, answer: Answer, detail: str) -> None:
        self._new.append(Entry(time.time(), what, detail))
        ms = round((time.monotonic() - self._started) * 1000, 2)
        response = _OK if answer is OK else Response(int(answer.status[:3]), answer.headers, answer.body)
        if self._is_kept:
            update = Update(self._new, response.status, ms, self._outcome, response)
            _keep(self._history, self._history.update, self._token, self._record.id, update)
            return
        record = self._record
        record.timeline = self._new
        record.status, record.ms, record.outcome, record.response = response.status, ms, self._outcome, response
        self._is_kept = True
        _keep(self._history, self._history.add, self._token, record)
