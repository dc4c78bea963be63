"""Fetches a small document over https: in bounded time, of bounded size, and without following redirects.

It blocks its green thread only, as all I/O does under the relay's worker. Its caller checks the URLs.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from limits import RateLimitItemPerMinute

from ..errors import NotFetched
from ..limits import AtOnce, FastRate

# How long all of a fetch may take. Amazon waits 15 s for the answer to what it sends.
FETCH_SECONDS = 5

# How many may be in progress, and how many begin in a minute: a caller can cause them.
MAX_FETCHES = 4
MAX_FETCHES_PER_MINUTE = 60


class Fetcher:
    """Fetches documents of up to `max_bytes`. `clock` returns seconds, for the rate."""

    def __init__(self, *, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self.context = ssl.create_default_context()
        self._at_once = AtOnce()
        self._rate = FastRate(RateLimitItemPerMinute(MAX_FETCHES_PER_MINUTE), clock)

    def fetch(self, url: str) -> bytes | None:
        """Return the body of the response to a `GET`; None if its status is not 200.

        Raises `NotFetched` if there was no response in time, it is too large, or too many are fetched.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None:
            raise ValueError("only https is fetched")
        leave = self._at_once.enter({"": MAX_FETCHES})
        if leave is None:
            raise NotFetched
        try:
            if self._rate.hit("") is not None:
                raise NotFetched
            return self._get(self.connect(parts.hostname, FETCH_SECONDS), f"{parts.path}?{parts.query}".rstrip("?"))
        except (OSError, http.client.HTTPException):
            raise NotFetched from None
        finally:
            leave()

    def connect(self, host: str, timeout_seconds: float) -> http.client.HTTPSConnection:
        """Return a connection to a host, not connected yet, whose certificate is verified."""
        return http.client.HTTPSConnection(host, timeout=timeout_seconds, context=self.context)

    def _get(self, connection: http.client.HTTPSConnection, target: str) -> bytes | None:
        deadline = time.monotonic() + FETCH_SECONDS
        try:
            connection.request("GET", target, headers={"Accept-Encoding": "identity", "Connection": "close"})
            sock = connection.sock  # `getresponse` gives it away
            _limit(sock, deadline)
            response = connection.getresponse()
            body = bytearray()
            while True:
                _limit(sock, deadline)
                piece = response.read1(8192)
                body += piece
                if not piece or len(body) > self._max_bytes:
                    break
        finally:
            connection.close()
        if len(body) > self._max_bytes or response.length:
            raise NotFetched
        return bytes(body) if response.status == 200 else None


def _limit(sock: socket.socket, deadline: float) -> None:
    """Let the next read take no longer than until `deadline`. Raises `TimeoutError` if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    sock.settimeout(seconds)
