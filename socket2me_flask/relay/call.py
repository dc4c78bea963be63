"""An HTTP call as it came in, and its id.

Pure: no I/O, no Flask, no Socket.IO. What a client receives of a call is made in `sockets/request_event.py`.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recorder import Trace

# The names of processes that read messages by field name begin so (`cluster/messages.py`). In the release before,
# names were hexadecimal.
READS_NAMES = "v"

# An id has to be unique, not secret: the name of the process, and a number. So it says who accepted the event.
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
        address: who is connected to the relay, a caller or a proxy; `""` for a call that did not just come in.
        replay_of: the id of the call that this one repeats, if any.
        trace: records what becomes of it, if its token is inspected.
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
    address: str = field(default="", compare=False)
    replay_of: str = ""
    trace: "Trace | None" = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """How many bytes it has, headers included."""
        headers = sum(map(len, self.headers)) + sum(map(len, self.headers.values()))
        return len(self.path) + len(self.query) + headers + len(self.body)

    def caller(self, trusted_hops: int) -> str:
        """Return the address of the caller, of which so many proxies in front may tell by `X-Forwarded-For`."""
        addresses = self.headers.get("x-forwarded-for", "").split(",") if trusted_hops else []
        return addresses[-trusted_hops].strip() if 0 < trusted_hops <= len(addresses) else self.address
