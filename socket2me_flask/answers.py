"""What a caller hears when something went wrong: one shape, its headers, and a line in the log for a limit.

Knows nothing of Flask: the engine and the door answer with it as well.
"""

import json
import logging
import time
from http import HTTPStatus

from .errors import RelayError

log = logging.getLogger(__name__)

# On every answer of the relay. A token is part of the URL, so no page may pass that on; and what a caller sent
# must not be taken for a page.
SECURITY_HEADERS = [("Referrer-Policy", "no-referrer"), ("X-Content-Type-Options", "nosniff")]

# A limit that bites is logged at most this often.
LOG_SECONDS = 10


class ErrorAnswers:
    """Turns a `RelayError` into an answer. `retry_after_seconds` goes with those that may pass."""

    def __init__(self, retry_after_seconds: int) -> None:
        self._retry_after_seconds = retry_after_seconds
        self._bites: dict[str, tuple[int, float]] = {}  # setting -> how often since when it was logged

    def headers(self, error: RelayError) -> list[tuple[str, str]]:
        """Return the headers that every form of the answer has."""
        headers = [("Cache-Control", "no-store"), *SECURITY_HEADERS, *error.headers]
        if error.is_temporary:
            headers.append(("Retry-After", str(error.retry_after_seconds or self._retry_after_seconds)))
        return headers

    def as_json(self, error: RelayError) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the answer as WSGI takes it: status, headers, body."""
        self.note(error)
        body = json.dumps({"error": {"code": error.code, "message": str(error)}}, separators=(",", ":")).encode()
        headers = self.headers(error)
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return f"{error.status} {HTTPStatus(error.status).phrase}", headers, body

    def note(self, error: RelayError) -> None:
        """Log that a limit bites: the first time at once, then how often it did, now and then."""
        if error.setting is None:
            return
        now = time.monotonic()
        count, logged_at = self._bites.get(error.setting, (0, 0.0))
        count += 1
        if now - logged_at >= LOG_SECONDS:
            log.warning("%s bites (%d since this was last said): %s", error.setting, count, error)
            count, logged_at = 0, now
        self._bites[error.setting] = (count, logged_at)
