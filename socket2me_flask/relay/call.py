"""An HTTP call as it came in, and its id.

Pure: no I/O, no Flask, no Socket.IO. What a client receives of a call is made in `sockets/request_event.py`.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trace import Trace

# The names of processes that read messages by field name begin so (`cluster/messages.py`). In the release before,
# names were hexadecimal.
READS_NAMES = "v"

# An id has to be unique, not secret: the name of the process that accepted the event, and a number.
_process: str
_next_id: Callable[[], str]


def this_process() -> str:
    """Return the name of this process, which no other has."""
    return _process


def process_of(event_id: str) -> str:
    """Return the name of the process that accepted an event."""
    return event_id.partition("-")[0]


def _renew_ids() -> None:
    global _process, _next_id
    _process, numbers = f"{READS_NAMES}2{secrets.token_hex(8)}", count(1)
    _next_id = lambda: f"{_process}-{next(numbers):x}"  # noqa: E731


_renew_ids()
os.register_at_fork(after_in_child=_renew_ids)  # gunicorn's master imports this for all of its workers


@dataclass(slots=True)
class Call:
    """One HTTP call to `/v1/go/<token>`, as it came in.

    This is the one table of its fields: stores and messages between processes carry all of them by name. A reader
    gives a field that is missing its default, and skips one that it does not know. A new field has a default, and
    comes last. A field that is not compared is none of them.

    Fields:
        token: the token of the URL.
        method: the HTTP method in upper case.
        path: what follows the token, `""` or `/a/b%20c`, percent-encoding kept.
        query: the query string as it was sent, without the `?`.
        headers: names in lower case, values as received (one character a byte, ISO 8859-1, as in WSGI).
            A header that came several times is one value, joined with `,`.
        body: the bytes of the body, chunked coding removed.
        id: unique among all calls of all relays.
        received_at: seconds since the epoch.
        is_legacy: it came to `/go/<token>`, whose clients expect what the later originals sent.
        remote_addr: the caller's address, as far as the proxies in front are trusted; `""` if it is not known.
        request_id: the id of the call in logs and responses: the caller's `X-Request-Id`, else that of the call.
        replay_of: the id of the call that this one repeats; `""` if none.
        verified: `{"provider": ...}`, the signer; None if the token has no `verify`.
        trace: records what becomes of it, if its token is inspected. Not carried anywhere.
    """

    token: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    received_at: float
    id: str = field(default_factory=lambda: _next_id())
    is_legacy: bool = False
    remote_addr: str = ""
    request_id: str = ""
    replay_of: str = ""
    verified: Mapping[str, str] | None = None
    trace: "Trace | None" = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """How many bytes it has, headers included."""
        headers = sum(map(len, self.headers)) + sum(map(len, self.headers.values()))
        return len(self.path) + len(self.query) + headers + len(self.body)


# The names of all fields, in their order, and the defaults of those that a reader may miss.
FIELDS = tuple(item.name for item in fields(Call) if item.compare)
DEFAULTS = {item.name: item.default for item in fields(Call) if item.compare and item.default is not MISSING}

# The values of all fields, in their order.
values_of = attrgetter(*FIELDS)


def shown(call: Call) -> dict[str, Any]:
    """Return the members of the request object that are fields of the call. What is not known is left out."""
    members: dict[str, Any] = {
        "id": call.id,
        "method": call.method,
        "path": call.path,
        "query": call.query,
        "received_at": call.received_at,
    }
    if call.remote_addr:
        members["remote_addr"] = call.remote_addr
    if call.request_id:
        members["request_id"] = call.request_id
    if call.replay_of:
        members["replay_of"] = call.replay_of
    if call.verified is not None:
        members["verified"] = call.verified
    return members


def call_from(values: Mapping[str, Any]) -> Call:
    """Return the call with these fields. A missing one has its default; one that is not known is skipped."""
    return Call(**{name: values[name] for name in FIELDS if name in values})
