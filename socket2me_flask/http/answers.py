"""Error responses: one shape, its headers, and a log line for each limit that is reached.

Knows no framework: the blueprints, the gateway, the engine and the gunicorn worker respond with it.
"""

import json
import logging
import time
from dataclasses import dataclass, field
from http import HTTPStatus

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from ..errors import RelayError
from ..logs import LOG_SECONDS

log = logging.getLogger(__name__)

# On every response of the relay. A token is part of the URL, so no page may pass that on; and what a caller sent
# must not be taken for a page.
SECURITY_HEADERS = [("Referrer-Policy", "no-referrer"), ("X-Content-Type-Options", "nosniff")]

# Of `Accept`, this much is read: parsing 8 KB of it takes 11 ms, and browsers send 150 bytes.
MAX_ACCEPT_CHARACTERS = 200


# What a call counts as in the metrics. No caller can add to them.
OUTCOMES = (
    *("forwarded", "acknowledged", "replied", "kept", "handshake"),
    *(
        "bad_signature",
        "unknown_token",
        "no_client",
        "rate_limited",
        "too_large",
        "timed_out",
        "client_gone",
        "draining",
        "error",
    ),
)


@dataclass(slots=True)
class Answer:
    """A response as WSGI takes it.

    `status` is a number and its phrase. `outcome` is what the call counts as: one of `OUTCOMES`.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    outcome: str = field(default="error", compare=False)


def prefers(accept: str, mimetype: str, other: str) -> bool:
    """Return whether an `Accept` header, `""` if there is none, rates `mimetype` above `other`.

    What follows the first `MAX_ACCEPT_CHARACTERS` is ignored.
    """
    if not accept or accept == "*/*":
        return False
    if len(accept) > MAX_ACCEPT_CHARACTERS:
        accept = accept[:MAX_ACCEPT_CHARACTERS].rpartition(",")[0]  # half an item says something else
    parsed = parse_accept_header(accept, MIMEAccept)
    return bool(parsed) and parsed[mimetype] > parsed[other]


class ErrorAnswers:
    """Turns exceptions into responses. `retry_after_seconds` goes with errors that are temporary."""

    def __init__(self, retry_after_seconds: int) -> None:
        self._retry_after_seconds = retry_after_seconds
        self._reached: dict[str, tuple[int, float]] = {}  # setting -> count since it was logged, when that was
        self.limits_reached: dict[str, int] = {}  # setting -> count

    def render(self, error: BaseException, accept: str = "") -> Answer:
        """Return the response to an exception, and log it where an operator should know.

        JSON, or one plain line where `accept` rates text higher. What is no `RelayError` is a fault of the relay:
        it is logged with its traceback, and the response says nothing of it.
        """
        if not isinstance(error, RelayError):
            log.error("a call failed", exc_info=error)
            error = RelayError()
        self.note(error)
        return self.shape(error, accept)

    def shape(self, error: RelayError, accept: str = "") -> Answer:
        """Return the response to an error, and log nothing."""
        if prefers(accept, "text/plain", "application/json"):
            content_type, body = "text/plain; charset=utf-8", f"{error}\n".encode()
        else:
            content_type = "application/json"
            members = {"error": {"code": error.code, "message": str(error)}}
            body = json.dumps(members, separators=(",", ":")).encode()
        headers = [("Cache-Control", "no-store"), *SECURITY_HEADERS, *error.headers]
        if error.is_temporary:
            headers.append(("Retry-After", str(error.retry_after_seconds or self._retry_after_seconds)))
        headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        return Answer(f"{error.status} {HTTPStatus(error.status).phrase}", headers, body)

    def note(self, error: RelayError) -> None:
        """Log that a limit was reached: the first time at once, then every `LOG_SECONDS` how often."""
        if error.setting is None:
            return
        self.limits_reached[error.setting] = self.limits_reached.get(error.setting, 0) + 1
        now = time.monotonic()
        count, logged_at = self._reached.get(error.setting, (0, 0.0))
        count += 1
        if now - logged_at >= LOG_SECONDS:
            log.warning("%s reached (%d since this was last said): %s", error.setting, count, error)
            count, logged_at = 0, now
        self._reached[error.setting] = (count, logged_at)
