"""Handling deliveries: the handler's threads, deadlines, events that come again, and what is acknowledged.

Knows neither the token nor when to connect.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from queue import SimpleQueue

from ..exceptions import NotHandled
from ..request import Cancellation, Reply, Request
from ..steps import run
from .socketio_connection import Delivery

log = logging.getLogger(__name__)

Handler = Callable[[Request], Reply | None]

# The handler's deadline is earlier than the relay's by this part of the relay's time, at most by so many seconds.
MARGIN_PART = 0.1
MAX_MARGIN_SECONDS = 0.5

# How many requests may wait for a handler, in mode `notify`. Then no more are read, and the relay's limit applies.
MAX_WAITING_REQUESTS = 1000

# How many ids of handled events are kept, and of dropped ones. An event is sent again if its acknowledgement was
# late, or lost.
REMEMBERED_EVENTS = 100


def handler_share(seconds: float) -> float:
    """Return how much of the relay's time a handler may take, so that its answer comes first."""
    return seconds - min(MAX_MARGIN_SECONDS, seconds * MARGIN_PART)


class DeliveryHandler:
    """Calls a handler with the requests of deliveries, and acknowledges or rejects them.

    An event of a mailbox that is being handled or was handled is not handled again. A delivery of it that came
    before the relay sent `dropped` is not begun; one that comes after that is: of several listeners, the relay may
    choose the same one again. Once `closed` is set, no delivery is begun that the relay sends again. Methods may be
    called by any thread.
    """

    def __init__(self, closed: threading.Event) -> None:
        self._closed = closed
        self._lock = threading.Lock()
        self._busy = 0
        self._running: dict[str, Cancellation] = {}  # by event of a mailbox
        self._handled: deque[str] = deque(maxlen=REMEMBERED_EVENTS)
        self._dropped: dict[str, float] = {}  # when the relay sent `dropped`, by event, oldest first

    @property
    def is_busy(self) -> bool:
        """Whether a delivery is being handled."""
        return self._busy > 0

    def handle(self, handler: Handler, delivery: Delivery) -> None:
        """Have a delivery handled, and acknowledge or reject it."""
        run(self.steps(delivery), handler)

    def steps(self, delivery: Delivery) -> Generator[Request, Reply | None, None]:
        """Do what `handle` does. Yields the request, for which it takes the handler's reply or error."""
        if delivery.is_void:
            return
        with self._lock:
            self._busy += 1
        try:
            if self._closed.is_set() and delivery.ack_id is not None:
                return  # the client is about to disconnect
            yield from self._steps(delivery)
        finally:
            with self._lock:
                self._busy -= 1

    def drop(self, event_id: str) -> None:
        """Begin no delivery of an event that came before now, and cancel the request if it is being handled.

        The relay has dropped the event from its mailbox, or has taken it back to send it again later.
        """
        with self._lock:
            self._dropped.pop(event_id, None)
            self._dropped[event_id] = time.monotonic()
            if len(self._dropped) > REMEMBERED_EVENTS:
                del self._dropped[next(iter(self._dropped))]
            cancellation = self._running.get(event_id)
        if cancellation is not None:
            cancellation.set()

    def _steps(self, delivery: Delivery) -> Generator[Request, Reply | None, None]:
        options = delivery.connection.options
        try:
            max_attempts = options.max_attempts if options is not None else None
            request = Request.from_event(delivery.event, _deadline(delivery), max_attempts)
        except NotHandled as error:
            log.error("a request is rejected: %s", error)
            _reject(delivery, error)
            return
        if request.attempt is None:
            is_late = request.deadline is not None and time.monotonic() > request.deadline
            if is_late and "url" not in delivery.event:  # callers of /go were answered `OK`
                log.warning("a request is not handled: its caller was answered before its turn came")
                return
        elif not self._begin(request, delivery.received_at):
            if request.id in self._handled:
                delivery.acknowledge()  # its caller was answered long ago
            return
        try:
            reply = yield request
        except NotHandled as error:
            log.info("a request is rejected: %s", error)
            _reject(delivery, error)
        except Exception:
            log.exception("a request is rejected: the handler failed")
            _reject(delivery, NotHandled("its handler failed"))
        else:
            if request.attempt is not None:
                self._handled.append(request.id)
            _acknowledge(delivery, reply)
        finally:
            with self._lock:
                self._running.pop(request.id, None)

    def _begin(self, request: Request, received_at: float) -> bool:
        """Note that an event of a mailbox is handled. Return False if it is or was, or was dropped since."""
        with self._lock:
            was_dropped = received_at < self._dropped.get(request.id, 0)
            if was_dropped or request.id in self._running or request.id in self._handled:
                return False
            self._running[request.id] = request.cancellation
            return True


def _deadline(delivery: Delivery) -> float | None:
    """Return until when a delivery has to be handled, by `time.monotonic()`; None without a deadline."""
    connection = delivery.connection
    if connection.options is None or delivery.ack_id is None:
        return None
    if "attempt" in delivery.event:
        seconds = connection.options.redeliver_seconds
    elif connection.mode == "reply" or "url" in delivery.event:
        seconds = connection.options.reply_timeout_seconds
    else:
        seconds = connection.options.ack_timeout_seconds
    return delivery.received_at + handler_share(seconds)


def _acknowledge(delivery: Delivery, reply: Reply | None) -> None:
    if reply is None:
        delivery.acknowledge()
        return
    try:
        delivery.acknowledge(reply.status, reply.body, dict(reply.headers))
    except (TypeError, ValueError) as error:  # JSON cannot represent it
        log.error("a handler's reply cannot be sent: %s", error)
        delivery.acknowledge(502, "The client's reply is no answer.\n")


def _reject(delivery: Delivery, error: NotHandled) -> None:
    if delivery.connection.options is not None:
        delivery.acknowledge("reject", str(error), error.status)
    elif delivery.connection.mode == "reply" and delivery.event.get("attempt") is None:
        delivery.acknowledge(error.status, f"{error}\n")  # a relay that takes no rejections


class HandlerThreads:
    """Threads that handle deliveries, `count` at once; each takes the oldest that waits."""

    def __init__(self, handle: Callable[[Delivery], None], count: int) -> None:
        self._handle = handle
        self._waiting: SimpleQueue[Delivery | None] = SimpleQueue()  # None is the end
        self._has_room = threading.Condition()
        self._is_full = False  # whether `add` waits
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def add(self, delivery: Delivery) -> None:
        """Have a delivery handled. Blocks while too many wait, so that no more are read."""
        if self._waiting.qsize() >= MAX_WAITING_REQUESTS:
            self._wait_for_room(delivery)
        self._waiting.put(delivery)

    def close(self) -> None:
        """Handle what waits, and then no more."""
        for _ in range(self._count):
            self._waiting.put(None)

    def _wait_for_room(self, delivery: Delivery) -> None:
        with self._has_room:
            self._is_full = True
            while self._waiting.qsize() >= MAX_WAITING_REQUESTS and not delivery.connection.ended.is_set():
                self._has_room.wait(1)  # a connection that ends does not say so here
            self._is_full = False

    def _work(self) -> None:
        while (delivery := self._waiting.get()) is not None:
            if self._is_full:
                with self._has_room:
                    self._has_room.notify()
            if not delivery.connection.started.is_set():
                delivery.connection.started.wait()
            try:
                self._handle(delivery)
            except Exception:
                log.exception("a request is not acknowledged")
