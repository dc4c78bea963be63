"""What becomes of one call whose token is inspected, in the history of `socket2me.inspector`."""

import logging
import time
from collections.abc import Callable
from typing import Any

from socket2me.inspector.history import History
from socket2me.inspector.record import Entry, RequestRecord, Response, Update

from ..http.answers import Answer
from .replies import OK

log = logging.getLogger(__name__)

# The response to most calls: one for all of them.
_OK = Response(200, OK.headers, OK.body)


def keep(history: History, write: Callable[..., None], *args: Any) -> None:
    """Write to a history. A call does not fail because that fails."""
    try:
        write(*args)
    except Exception:
        history.lost += 1
        log.exception("what became of a call was not kept in its history")


class Trace:
    """What becomes of one call. It is written when the call begins to wait, and at its end: most only then."""

    __slots__ = ("_history", "_is_kept", "_new", "_outcome", "_record", "_started", "_token", "_waits_for")

    def __init__(self, history: History, token: str, record: RequestRecord) -> None:
        """`record` is of the call as it came in."""
        self._history = history
        self._token = token
        self._started = time.monotonic()
        self._new = [Entry(record.received_at, "received")]
        self._outcome: str | None = None
        self._waits_for = ""
        self._is_kept = False  # whether the history has the record
        self._record = record

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
                keep(self._history, self._history.update, self._token, self._record.id, Update(self._new))
        else:
            self._is_kept = True
            self._record.timeline = self._new
            keep(self._history, self._history.add, self._token, self._record)
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
            keep(self._history, self._history.update, self._token, self._record.id, update)
            return
        record = self._record
        record.timeline = self._new
        record.status, record.ms, record.outcome, record.response = response.status, ms, self._outcome, response
        self._is_kept = True
        keep(self._history, self._history.add, self._token, record)
