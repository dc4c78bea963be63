"""Records what becomes of the calls for tokens that are inspected, in the history of `socket2me.inspector`.

Calls for other tokens have no `Trace`, and pay for one look at an attribute.
"""

import time
from collections.abc import Callable

from socket2me.inspector.history import History
from socket2me.inspector.record import Entry, RequestRecord, Update

from ..errors import RelayError
from ..http.answers import Answer, ErrorAnswers
from .call import Call
from .trace import Trace, keep


class Recorder:
    """Writes to `history`. `answers` shapes the errors that callers are answered."""

    def __init__(self, history: History, answers: ErrorAnswers) -> None:
        self.history = history
        self._answers = answers

    def record(self, call: Call, forward: Callable[[], Answer]) -> Answer:
        """Forward a call, and record it and what its caller is answered. Raises what `forward` raises."""
        trace = call.trace = Trace(self.history, call.token, _record_of(call))
        if call.verified is not None:
            trace.note("verified", call.verified["provider"])
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

    def _refuse(self, trace: Trace, call: Call, error: RelayError) -> None:
        answer = self._answers.shape(error, call.headers.get("accept", ""))
        trace.refuse(answer, f"{error.status} {error.code}")

    def note(self, token: str, event_id: str, what: str, detail: str = "", outcome: str | None = None) -> None:
        """Record what has become of an event of a mailbox, whichever process has its caller."""
        keep(
            self.history,
            self.history.update,
            token,
            event_id,
            Update([Entry(time.time(), what, detail)], outcome=outcome),
        )


def _record_of(call: Call) -> RequestRecord:
    """Return the record of a call of which nothing is known but how it came in."""
    return RequestRecord(
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
