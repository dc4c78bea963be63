"""What the history keeps of a request, and how the HTTP contract shows it. Pure."""

from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain
from typing import Any, NamedTuple

# What may have happened to a request, in a timeline. Each call ends with `replied`, `kept` or `refused`: what its
# caller was answered.
STEPS = (
    *("received", "verified", "queued", "sent", "acknowledged", "replied", "kept", "redelivered", "dead_lettered"),
    "refused",
)

# Those of them that may be an outcome.
OUTCOMES = ("sent", "acknowledged", "replied", "kept", "refused", "dead_lettered")

# How many entries the timeline of one request has. At more, those after the first are dropped, oldest first: an
# event of a mailbox can be sent again without end.
MAX_ENTRIES = 100

# What a request and an entry of its timeline count for beside their own bytes, as CPython holds them in memory.
REQUEST_BYTES = 1200
HEADER_BYTES = 160
ENTRY_BYTES = 250


class Entry(NamedTuple):
    """An entry of a timeline. `at` is in seconds since the epoch, `what` is one of `STEPS`."""

    at: float
    what: str
    detail: str = ""

    def shown(self) -> dict[str, Any]:
        """Return the entry as the contract shows it."""
        return {"at": self.at, "what": self.what, "detail": self.detail}


class Response(NamedTuple):
    """What the caller of a request was answered."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class Update(NamedTuple):
    """What has become of a request: entries of its timeline, and what they change. None leaves it as it is.

    An outcome `kept` does not replace another: the client may have acknowledged the event meanwhile.
    """

    entries: Sequence[Entry]
    status: int | None = None
    ms: float | None = None
    outcome: str | None = None
    response: Response | None = None


@dataclass(slots=True, eq=False)
class RequestRecord:
    """A request as it is kept.

    Fields:
        id: unique among all requests.
        received_at: seconds since the epoch.
        method, path, query: of the call, the path as it follows the token, percent-encoding kept.
        headers: names and values, in the order in which they came.
        body: the exact bytes; empty if it was not asked for.
        size: how many bytes the body has.
        remote_addr: the address of the caller.
        replay_of: the id of the request that this one repeats, or "".
        timeline: what has happened to it, oldest first. It begins with `received`.
        status: what the caller was answered; None while it waits.
        ms: how long the caller waited, in milliseconds.
        outcome: the last entry of the timeline that decides what became of it: `sent`, `acknowledged`, `replied`,
            `kept`, `refused` or `dead_lettered`; None while it waits.
        response: what the caller was answered, whole.
        position: of the request among the changes of its token's history; set by the history.
        counted: how many bytes it counts for; set by the history.
        writes: how many adds and updates it has had; set by the history in memory.
    """

    id: str
    received_at: float
    method: str
    path: str
    query: str
    headers: Collection[tuple[str, str]]
    body: bytes
    size: int
    remote_addr: str = ""
    replay_of: str = ""
    timeline: list[Entry] = field(default_factory=list)
    status: int | None = None
    ms: float | None = None
    outcome: str | None = None
    response: Response | None = None
    position: int = 0
    counted: int = 0
    writes: int = 0

    @property
    def verified(self) -> str | None:
        """The provider whose signature was verified when it arrived; None if none was."""
        return next((entry.detail for entry in self.timeline if entry.what == "verified"), None)

    def header(self, name: str) -> str:
        """Return the value of a header by its name in lower case, `""` if there is none."""
        return next((value for found, value in self.headers if found.lower() == name), "")

    def apply(self, update: Update) -> None:
        """Change what an update changes."""
        self.timeline = [*self.timeline, *update.entries]  # the history in memory has the list that was
        if len(self.timeline) > MAX_ENTRIES:
            del self.timeline[1 : len(self.timeline) - MAX_ENTRIES + 1]
        if update.status is not None:
            self.status, self.ms = update.status, update.ms
        if update.response is not None:
            self.response = update.response
        if update.outcome is not None and (update.outcome != "kept" or self.outcome is None):
            self.outcome = update.outcome

    def cost(self) -> int:
        """Return how many bytes it counts for."""
        headers = self.headers
        cost = REQUEST_BYTES + len(self.body) + len(self.path) + len(self.query) + HEADER_BYTES * len(headers)
        return cost + sum(map(len, chain.from_iterable(headers))) + cost_of(self)

    def summary(self) -> dict[str, Any]:
        """Return the summary of the contract."""
        shown: dict[str, Any] = {
            "id": self.id,
            "received_at": self.received_at,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "content_type": self.header("content-type"),
            "size": self.size,
            "remote_addr": self.remote_addr,
            **self.state(),
        }
        if self.replay_of:
            shown["replay_of"] = self.replay_of
        return shown

    def state(self) -> dict[str, Any]:
        """Return the members of the summary that change."""
        return {"status": self.status, "ms": self.ms, "outcome": self.outcome}

    def details(self) -> dict[str, Any]:
        """Return what the contract shows of one request, but for its body."""
        response = self.response
        return {
            **self.summary(),
            "headers": [list(header) for header in self.headers],
            "timeline": [entry.shown() for entry in self.timeline],
            "response": None
            if response is None
            else {
                "status": response.status,
                "headers": [list(header) for header in response.headers],
                "body": b64encode(response.body).decode(),
            },
        }


def cost_of(change: "RequestRecord | Update") -> int:
    """Return how many bytes the timeline and the response of a record or of an update count for."""
    entries = change.timeline if isinstance(change, RequestRecord) else change.entries
    cost = ENTRY_BYTES * len(entries)
    if change.response is not None:
        cost += len(change.response.body) + HEADER_BYTES * len(change.response.headers)
    return cost


def phrase_of(status: int) -> str:
    """Return the phrase of a status; `""` if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
