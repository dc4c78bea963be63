"""Records in a history of the inspector what becomes of each request that `listen` has.

The status and the response of a record are those of the local app.
"""

import time

from ..inspector.errors import UnknownRequest
from ..inspector.history import Bounds, MemoryHistory
from ..inspector.record import Entry, RequestRecord, Response, Update, phrase_of
from ..local_app.target import MAX_ANSWER_BYTES, Answer
from ..request import Request

# The token under which the history has the requests.
TOKEN = "local"  # noqa: S105  # it is no secret

# How much is kept, in memory; the oldest requests are dropped first. The page shows as many without effort.
BOUNDS = Bounds(max_requests=10_000, max_bytes=100_000_000)


class Recorder:
    """Writes to `history`. Several threads may call it at once, but for the same request."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.history = MemoryHistory(bounds)

    def begin(self, request: Request, how: str = "by the relay") -> None:
        """Record a request that was received, `how` that was, or that it came again."""
        again = []
        if request.attempt is not None and request.attempt > 1:
            again.append(Entry(time.time(), "redelivered", f"attempt {request.attempt}"))
        try:
            self.history.find(TOKEN, request.id)
        except UnknownRequest:
            timeline = [Entry(request.received_at, "received", how)]
            if request.verified is not None:
                timeline.append(Entry(request.received_at, "verified", request.verified))
            self.history.add(TOKEN, record_of(request, timeline + again))
        else:
            if again:
                self.history.update(TOKEN, request.id, Update(again))

    def sent(self, request: Request, where: str) -> None:
        """Record that it is sent to the app."""
        self.history.update(TOKEN, request.id, Update([Entry(time.time(), "sent", where)]))

    def answered(self, request: Request, answer: Answer, seconds: float) -> None:
        """Record what the app answered."""
        detail = f"{answer.status} {phrase_of(answer.status)}".rstrip()
        if answer.is_cut:
            detail += f", of which the first {MAX_ANSWER_BYTES:,} bytes were read"
        self._end(
            request,
            Entry(time.time(), "replied", detail),
            answer.status,
            seconds,
            Response(answer.status, answer.headers, answer.body),
        )

    def refused(self, request: Request, status: int, seconds: float, why: str) -> None:
        """Record that there is no answer of the app. `status` stands for it."""
        self._end(request, Entry(time.time(), "refused", why), status, seconds, None)

    def _end(self, request: Request, entry: Entry, status: int, seconds: float, response: Response | None) -> None:
        update = Update([entry], status, round(seconds * 1000, 2), entry.what, response)
        self.history.update(TOKEN, request.id, update)


def record_of(request: Request, timeline: list[Entry]) -> RequestRecord:
    """Return a request as a history and a filter see it."""
    return RequestRecord(
        request.id,
        request.received_at,
        request.method,
        request.path,
        request.query,
        tuple(request.headers.items()),
        request.body,
        len(request.body),
        request.remote_addr,
        request.replay_of,
        timeline,
    )
