"""The request that a handler gets, and the reply that it may return."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .exceptions import NotHandled

# The methods of the requests that a relay takes.
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")


class Cancellation:
    """Whether the relay has sent `dropped` for the event of a request, and what to do then."""

    def __init__(self) -> None:
        self.is_set = False
        self._callback: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def set(self) -> None:
        """Cancel the request: its handler may stop."""
        with self._lock:
            self.is_set = True
            if self._callback is not None:
                self._callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called, from any thread, if the event is dropped within this context."""
        self.begin_calling(callback)
        try:
            yield
        finally:
            self.end_calling()

    def begin_calling(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, from any thread, if the event is dropped, or was already."""
        with self._lock:
            self._callback = callback
            if self.is_set:
                callback()

    def end_calling(self) -> None:
        """Have nothing called any more."""
        with self._lock:
            self._callback = None


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP call, as the relay received it.

    Fields:
        method: the HTTP method in upper case.
        path: what follows the token, `""` or `/a/b%20c`, percent-encoding kept.
        query: the query string as it was sent, without the `?`.
        headers: names in lower case, values as received (one character a byte, ISO 8859-1). A header that came
            several times is one value, joined with `,`.
        body: the exact bytes; `b""` if there were none.
        id: unique among all calls; the same when an event of a mailbox comes again.
        received_at: when the relay got it, in seconds since the epoch.
        remote_addr: the caller's address; `""` if the relay does not know it.
        replay_of: the id of the request that this one repeats; `""` if none.
        verified: the provider that has signed it, as the relay found; None if it verifies nothing for this URL.
        attempt: how often it was sent from a mailbox, this time included; None if it was in none.
        deadline: until when, by `time.monotonic()`, it has to be handled for its caller to receive the answer; from
            a mailbox, for it not to be sent again. None if the relay does not state it.
        max_attempts: how often an event of a mailbox is sent. None if the relay does not state it.
        cancellation: whether the relay has sent `dropped` meanwhile: the event was dropped from its mailbox, or any
            of several listeners receives it again.
    """

    method: str
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    id: str = ""
    received_at: float = 0.0
    remote_addr: str = ""
    replay_of: str = ""
    verified: str | None = None
    attempt: int | None = None
    deadline: float | None = field(default=None, compare=False)
    max_attempts: float | None = field(default=None, compare=False)
    cancellation: Cancellation = field(default_factory=Cancellation, compare=False, repr=False)

    @classmethod
    def from_event(
        cls, event: Mapping[str, Any], deadline: float | None = None, max_attempts: float | None = None
    ) -> "Request":
        """Return the request of a `request` event. Raises `NotHandled` if it is none with the bytes of its body."""
        body = event.get("body", b"")
        if not isinstance(body, bytes):
            raise NotHandled("This relay does not give the exact bytes of a body.")
        try:
            return cls(
                method=str(event["method"]),
                path=str(event["path"]),
                query=str(event["query"]),
                headers={str(name): str(value) for name, value in event["headers"].items()},
                body=body,
                id=str(event["id"]),
                received_at=float(event["received_at"]),
                remote_addr=str(event.get("remote_addr", "")),
                replay_of=str(event.get("replay_of", "")),
                verified=event["verified"]["provider"] if "verified" in event else None,
                attempt=event.get("attempt"),
                deadline=deadline,
                max_attempts=max_attempts,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotHandled(f"The relay sent what is no request: {error!r}.") from None

    @property
    def is_last_attempt(self) -> bool:
        """Whether the relay does not send it again by itself, as far as it states."""
        return self.attempt is not None and self.max_attempts is not None and self.attempt >= self.max_attempts

    @property
    def target(self) -> str:
        """The path and the query, as they stand in the first line of an HTTP request."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class Reply:
    """What the caller receives, if the client's mode is `reply`.

    Fields:
        status: from 200 to 599.
        body: text, bytes or what JSON can say. None: no body.
        headers: a list of values is a header that comes several times.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str | list[str]] = field(default_factory=dict)
