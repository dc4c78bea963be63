"""Requests in order within a key: which may begin, and which have to wait for one before them.

A key is a header of a request or a member of its JSON body. Requests without it are in no order.
"""

import json
import logging
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..exceptions import BadArgument, Dropped, NotHandled
from ..local_app.target import is_header_name
from ..request import Reply, Request
from .delivery_handler import MAX_WAITING_REQUESTS, Handler, HandlerThreads
from .socketio_connection import Delivery

log = logging.getLogger(__name__)

# How many keys may have a request that failed and comes again, and how many requests may wait behind it.
MAX_FAILED_KEYS = 1000
MAX_BEHIND = 100

# A failed request that has not come again after so long is not waited for any longer: the longest back-off of the
# relay is 5 minutes.
FORGOTTEN_SECONDS = 900.0

_PATH = re.compile(r"\$((?:\.[^.\[\]\"*\s]+|\[\d{1,9}\])+)")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class OrderKey:
    """Where the key of a request is: a header, or the steps to a member of its JSON body."""

    header: str = ""
    steps: tuple[str | int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "OrderKey":
        """Return the key that is written `header:X-Name` or `json:$.a.b[0]`. Raises `BadArgument`."""
        kind, _, rest = text.partition(":")
        if kind == "header" and is_header_name(rest) is not None:
            return cls(header=rest.lower())
        match = _PATH.fullmatch(rest)
        if kind == "json" and match is not None:
            steps = _STEP.findall(match[1])
            return cls(steps=tuple(name or int(index) for name, index in steps))
        raise BadArgument(f"{text!r} is not like 'header:X-Account' or 'json:$.data.id'.")

    def of(self, headers: Mapping[str, Any], body: object) -> int | None:
        """Return what stands for the key of a request, the same for the same key; None if it has none.

        Two keys may have the same number, rarely: then their requests are in one order.
        """
        if self.header:
            value = headers.get(self.header)
            return hash(value) if isinstance(value, str) else None
        if not isinstance(body, bytes) or body.lstrip()[:1] not in (b"{", b"["):
            return None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return None
        for step in self.steps:
            if isinstance(step, str) and isinstance(found, dict):
                found = found.get(step)
            elif isinstance(step, int) and isinstance(found, list) and step < len(found):
                found = found[step]
            else:
                return None
        return hash((type(found), found)) if isinstance(found, str | int | float | bool) else None


class KeyedThreads:
    """Threads that handle deliveries, those of a key one after another in the order in which they came.

    It knows as many keys as deliveries wait or are handled, of which there are `MAX_WAITING_REQUESTS` at most.
    """

    def __init__(self, handle: Callable[[Delivery], None], count: int, order_by: OrderKey) -> None:
        self._handle = handle
        self._order_by = order_by
        self._lock = threading.Lock()
        self._room = threading.Semaphore(MAX_WAITING_REQUESTS)
        self._waiting: dict[int, deque[Delivery]] = {}  # by key, while a delivery of it is handled
        self._keys: dict[Delivery, int] = {}
        self._threads = HandlerThreads(self._handle_key, count)

    def add(self, delivery: Delivery) -> None:
        """Have a delivery handled. Blocks while too many wait, so that no more are read."""
        while not self._room.acquire(timeout=1):
            if delivery.connection.ended.is_set():
                break  # it was the last
        if self._may_begin(delivery):
            self._threads.add(delivery)

    def close(self) -> None:
        """Handle what waits, and then no more."""
        self._threads.close()

    def _may_begin(self, delivery: Delivery) -> bool:
        event = delivery.event if isinstance(delivery.event, Mapping) else {}
        headers = event.get("headers")
        key = self._order_by.of(headers if isinstance(headers, Mapping) else {}, event.get("body"))
        if key is None:
            return True
        with self._lock:
            self._keys[delivery] = key
            if key in self._waiting:
                self._waiting[key].append(delivery)
                return False
            self._waiting[key] = deque()
            return True

    def _handle_key(self, delivery: Delivery) -> None:
        """Handle a delivery, and those of its key that wait for it."""
        following: Delivery | None = delivery
        while following is not None:
            following.connection.started.wait()
            try:
                self._handle(following)
            except Exception:
                log.exception("a request is not acknowledged")
            self._room.release()
            following = self._following(following)

    def _following(self, delivery: Delivery) -> Delivery | None:
        with self._lock:
            key = self._keys.pop(delivery, None)
            if key is None:
                return None
            if self._waiting[key]:
                return self._waiting[key].popleft()
            del self._waiting[key]
            return None


Threads = HandlerThreads | KeyedThreads


def start_threads(handle: Callable[[Delivery], None], count: int, order_by: OrderKey | None) -> Threads:
    """Return the threads that handle deliveries, `count` at once, those of a key in order."""
    return HandlerThreads(handle, count) if order_by is None else KeyedThreads(handle, count, order_by)


@dataclass
class _Failed:
    """The requests of a key of which the first has failed, by id, in order, and when that was last tried."""

    ids: deque[str]
    tried_at: float = field(default_factory=time.monotonic)


class FailedKeys:
    """Keys of which a request failed and comes again from a mailbox: those after it wait for it.

    Without this a request would overtake the one before it that is in its back-off. Several threads may call it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: OrderedDict[int, _Failed] = OrderedDict()

    def is_next(self, key: int, request_id: str) -> bool:
        """Say whether a request may be handled now. If not, it is noted behind those that come again."""
        with self._lock:
            failed = self._failed.get(key)
            if failed is None:
                return True
            now = time.monotonic()
            if failed.ids[0] != request_id and now - failed.tried_at > FORGOTTEN_SECONDS:
                failed.ids.popleft()
                failed.tried_at = now
                if not failed.ids:
                    del self._failed[key]
                    return True
            if failed.ids[0] == request_id:
                return True
            self._append(failed, request_id)
            return False

    def failed(self, key: int, request_id: str) -> None:
        """Note that a request has failed and comes again."""
        with self._lock:
            failed = self._failed.get(key)
            if failed is None:
                if len(self._failed) >= MAX_FAILED_KEYS:
                    log.warning("MAX_FAILED_KEYS reached: %s. A key is not in order any longer.", MAX_FAILED_KEYS)
                    self._failed.popitem(last=False)
                self._failed[key] = _Failed(deque([request_id]))
            elif failed.ids[0] == request_id:
                failed.tried_at = time.monotonic()
            else:
                self._append(failed, request_id)

    def ended(self, key: int, request_id: str) -> None:
        """Note that a request was handled, or does not come again."""
        with self._lock:
            failed = self._failed.get(key)
            if failed is None:
                return
            if request_id in failed.ids:
                failed.ids.remove(request_id)
                failed.tried_at = time.monotonic()
            if not failed.ids:
                del self._failed[key]

    @staticmethod
    def _append(failed: _Failed, request_id: str) -> None:
        if request_id in failed.ids:
            return
        if len(failed.ids) >= MAX_BEHIND:
            log.warning("MAX_BEHIND reached: %s. A request of the key is not in order.", MAX_BEHIND)
            return
        failed.ids.append(request_id)


class InOrder:
    """A handler that keeps the order of a key also when a request fails, and comes again from its mailbox.

    handler: handles each request.
    waits: called with each request that is rejected because one before it comes again.
    """

    def __init__(self, handler: Handler, order_by: OrderKey, waits: Callable[[Request, str], None]) -> None:
        self._handler = handler
        self._order_by = order_by
        self._waits = waits
        self._failed = FailedKeys()

    def __call__(self, request: Request) -> Reply | None:
        """Handle a request. Raises `NotHandled`, also if one of its key that came before it comes again."""
        key = self._order_by.of(request.headers, request.body) if request.attempt is not None else None
        if key is None:
            return self._handler(request)
        if not self._failed.is_next(key, request.id):
            why = "a request before it, with the same key, has failed and comes again."
            self._waits(request, why)
            raise NotHandled(why)
        try:
            reply = self._handler(request)
        except BaseException as error:
            if request.is_last_attempt or isinstance(error, Dropped):
                self._failed.ended(key, request.id)
            else:
                self._failed.failed(key, request.id)
            raise
        self._failed.ended(key, request.id)
        return reply
