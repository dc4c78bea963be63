"""The client: it keeps a token alive and a connection open, whatever happens to either."""

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from .exceptions import ClientError, NotHandled, RelayRefused, RelayUnavailable, Replaced, TokenGone
from .http_api import RelayApi, Token
from .request import Cancellation, Reply, Request
from .socketio_connection import Connection, Delivery, RelayOptions

log = logging.getLogger(__name__)

Handler = Callable[[Request], Reply | None]

# A token is refreshed when this part of its life has passed.
REFRESH_PART = 1 / 3

# How often a token is refreshed whose life the relay does not tell. By default it is a day.
REFRESH_SECONDS = 600

# How often the clock is looked at. If it moved much further, the machine slept, and the connection is dead.
TICK_SECONDS = 5
SLEPT_SECONDS = 30

# How many requests are handled at once, unless the client says otherwise. The relay sends no more than that.
PARALLEL = 8

# The relay's default for `MAX_WINDOW`.
MAX_PARALLEL = 100

# How long before the relay answers by itself a request has to be handled: this part of its time, but no more than
# so many seconds.
MARGIN_PART = 0.1
MAX_MARGIN_SECONDS = 0.5

# How many requests may wait for a handler, in mode `notify`. Then no more are read, and the relay's limit applies.
MAX_WAITING_REQUESTS = 1000

# How many of the events that were handled are known when they come again: their acknowledgement was late, or lost.
REMEMBERED_EVENTS = 100

# How long a client that is closed waits for the handlers that run.
FINISH_SECONDS = 2

# The longest wait before another attempt: `reconnectionDelayMax` of Socket.IO's own clients. So a client is back
# within 10 s of its relay.
MAX_BACK_OFF_SECONDS = 5


@dataclass(frozen=True)
class Notice:
    """Something that happened to the client.

    what: `connected`, `token_new`, `token_gone`, `unavailable`, `lost`, `too_slow` or `slept`.
    why: more of it, for people; may be empty.
    wait_seconds: how long the client waits before it tries again, if it does.
    """

    what: str
    why: str = ""
    wait_seconds: float | None = None


def _log_notice(notice: Notice) -> None:
    log.info("%s %s", notice.what, notice.why)


class Client:
    """Listens to a token of a relay, and keeps both token and connection alive.

        client = Client("https://relay.example")
        print(client.open())  # the URL to give to whoever sends webhooks
        client.listen(lambda request: print(request.method, request.body))

    Parameters:
        server: the relay's address.
        token, secret: what `open` made of an earlier client; without a token, a new one is asked for.
        api_key: what the relay asks for before it gives tokens, if it does.
        mode: when callers are answered: `notify`, at once; `ack`, when the handler has returned; `reply`, with
            what it returned. A relay that knows no modes notifies.
        mailbox: whether to ask for a token whose requests are kept until they were handled. If the relay keeps no
            mailboxes, it is one without.
        parallel: how many requests are handled at once, each in a thread of its own. With 1, one after another in
            the order in which the relay took them.
        on_notice: called with each `Notice`; by default it is logged.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        server: str,
        *,
        token: str | None = None,
        secret: str | None = None,
        api_key: str | None = None,
        mode: str = "ack",
        mailbox: bool = True,
        parallel: int = PARALLEL,
        on_notice: Callable[[Notice], None] = _log_notice,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = RelayApi(server, api_key)
        self._token = Token(token, secret) if token is not None else None
        self._wanted_mode = self.mode = mode
        self._mailbox = mailbox
        self._parallel = parallel
        self._notice = on_notice
        self._clock = clock
        self._refresh_at = 0.0
        self.expires_at: float | None = None  # of the token, in seconds since the epoch, if the relay tells
        self.has_mailbox = False
        self._closed = threading.Event()
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # for what the handlers' threads share:
        self._busy = 0  # how many deliveries are being handled
        self._running: dict[str, Cancellation] = {}  # by event of a mailbox that is being handled
        self._handled: deque[str] = deque(maxlen=REMEMBERED_EVENTS)

    @property
    def token(self) -> str | None:
        """The token that is listened to; None before there is one."""
        return self._token.token if self._token is not None else None

    @property
    def secret(self) -> str | None:
        """Its secret; None for a token that whoever knows it may use."""
        return self._token.secret if self._token is not None else None

    @property
    def url(self) -> str | None:
        """What whoever sends webhooks is given; None before there is a token."""
        return self._api.url(self._token) if self._token is not None else None

    @property
    def caller_seconds(self) -> float | None:
        """How long a caller waits for the handler. None if it does not, or the relay does not tell.

        Then it receives `202` if there is a mailbox. Otherwise the handler's time is over a little before.
        """
        options = self._connection.options if self._connection is not None else None
        if options is None or self.mode == "notify":
            return None
        return options.reply_timeout_seconds if self.mode == "reply" else options.ack_timeout_seconds

    @property
    def handler_seconds(self) -> float | None:
        """How long the handler may take, so that its answer comes first.

        That is before the relay answers the caller itself, or sends an event of a mailbox again. None if nobody
        waits, or the relay does not tell.
        """
        options, caller = self._connection.options if self._connection is not None else None, self.caller_seconds
        if options is None or caller is None:
            return None
        return _usable(options.redeliver_seconds if self.has_mailbox else caller)

    def open(self) -> str:
        """Make sure that there is a token that lives, and return its URL.

        Raises `RelayUnavailable`, or `RelayRefused` if the relay asks for a key, or the secret is another.
        """
        if self._token is not None:
            try:
                self._refresh(self._token)
                return self._api.url(self._token)
            except TokenGone as error:
                self._notice(Notice("token_gone", str(error)))
        token, self.mode = self._api.new(mode=self._wanted_mode, mailbox=self._mailbox)
        self._token = token
        self._refresh(token)
        self._notice(Notice("token_new", self._api.url(token)))
        return self._api.url(token)

    def listen(self, handler: Handler) -> None:
        """Hand each request to `handler`, in one of several threads, until `close` is called.

        A request is acknowledged when `handler` returns; in mode `reply`, what it returns is the answer that the
        caller gets. If it raises, the delivery is rejected: one from a mailbox comes again later, and with
        `parallel` 1 those that follow it wait; the caller of any other receives an error at once. An event of a
        mailbox that was handled is not handled again, if this process lives.

        Raises `Replaced` when another client takes the stream, `RelayRefused` where it makes no sense to go on,
        and `RelayUnavailable` if it was never connected and the address looks wrong. Whatever may pass is
        waited for.
        """
        lost = _BackOff()
        workers = _Workers(partial(self._handle, handler), self._parallel)
        try:
            self._listen(workers, lost)
        finally:
            workers.close()
            self._prolong()

    def _listen(self, workers: "_Workers", lost: "_BackOff") -> None:
        was_connected = False
        while not self._closed.is_set():
            try:
                self.open()
                self._connect(workers)
                was_connected = True
                lost.reset()
                why = self._stay_connected()
            except TokenGone:
                self._refresh_at = 0  # `open` says so, and asks for another
                continue
            except RelayUnavailable as error:
                if error.is_address and not was_connected:
                    raise
                self._wait(Notice("unavailable", str(error)), max(lost.seconds(), error.retry_after_seconds))
                continue
            if why == "replaced":
                who = "It has this token's secret." if self.secret is not None else "Whoever knows the URL can."
                raise Replaced(f"Another client took the stream. {who}")
            if why != "closed":
                self._wait(Notice(why), lost.seconds())

    def close(self) -> None:
        """End `listen`, from any thread. What is being handled has a moment to end; nothing more is begun."""
        self._closed.set()
        if self._connection is not None:
            self._connection.changed.set()

    def _refresh(self, token: Token) -> None:
        if self._clock() < self._refresh_at:
            return
        life = self._api.refresh(token)
        now = self._clock()
        self.has_mailbox = life is not None and life.has_mailbox
        self.expires_at = now + life.seconds if life is not None else None
        self._refresh_at = now + (life.seconds * REFRESH_PART if life is not None else REFRESH_SECONDS)

    def _finish(self, connection: Connection) -> None:
        """Wait until what is being handled is acknowledged, but not long."""
        deadline = time.monotonic() + FINISH_SECONDS
        while (self._busy or connection.is_sending) and time.monotonic() < deadline:
            if connection.ended.wait(0.02):
                break

    def _prolong(self) -> None:
        """Refresh the token at the end, so that it lives its whole time until the next start."""
        if self._token is not None and self._connection is not None:
            self._refresh_at = 0
            with contextlib.suppress(ClientError):
                self._refresh(self._token)

    def _handle(self, handler: Handler, delivery: Delivery) -> None:
        """Have a delivery handled, and acknowledge or reject it."""
        if delivery.is_void:
            return
        with self._lock:
            self._busy += 1
        try:
            if self._closed.is_set() and delivery.ack_id is not None:
                return  # the relay is about to hear that the client leaves
            self._handle_now(handler, delivery)
        finally:
            with self._lock:
                self._busy -= 1

    def _handle_now(self, handler: Handler, delivery: Delivery) -> None:
        options = delivery.connection.options
        try:
            max_attempts = options.max_attempts if options is not None else None
            request = Request.from_event(delivery.event, self._deadline(delivery, options), max_attempts)
        except NotHandled as error:
            log.error("a request is rejected: %s", error)
            self._reject(delivery, error, options)
            return
        if request.attempt is None:
            is_late = request.deadline is not None and time.monotonic() > request.deadline
            if is_late and "url" not in delivery.event:  # callers of /go were told that it was delivered
                log.warning("a request is not handled: its caller was answered before its turn came")
                return
        elif not self._begin(request):
            if request.id in self._handled:
                delivery.acknowledge()  # its caller was answered long ago, or it was dropped
            return
        try:
            reply = handler(request)
        except NotHandled as error:
            log.info("a request is rejected: %s", error)
            self._reject(delivery, error, options)
        except Exception:
            log.exception("a request is rejected: the handler failed")
            self._reject(delivery, NotHandled("its handler failed"), options)
        else:
            if request.attempt is not None:
                self._handled.append(request.id)
            self._acknowledge(delivery, reply)
        finally:
            with self._lock:
                self._running.pop(request.id, None)

    def _begin(self, request: Request) -> bool:
        """Take note that an event of a mailbox is handled. Return False if it was, is just now, or was dropped."""
        with self._lock:
            if request.id in self._running or request.id in self._handled:
                return False
            self._running[request.id] = request.cancellation
            return True

    def _on_dropped(self, event_id: str) -> None:
        """Begin no more with an event that was dropped from its mailbox, and tell who handles it."""
        with self._lock:
            self._handled.append(event_id)
            cancellation = self._running.get(event_id)
        if cancellation is not None:
            cancellation.set()

    def _acknowledge(self, delivery: Delivery, reply: Reply | None) -> None:
        if reply is None:
            delivery.acknowledge()
            return
        try:
            delivery.acknowledge(reply.status, reply.body, dict(reply.headers))
        except (TypeError, ValueError) as error:  # nothing that JSON can say
            log.error("a handler's reply cannot be sent: %s", error)
            delivery.acknowledge(502, "The client's reply is no answer.\n")

    def _reject(self, delivery: Delivery, error: NotHandled, options: RelayOptions | None) -> None:
        if options is not None:
            delivery.acknowledge("reject", str(error), error.status)
        elif self.mode == "reply" and delivery.event.get("attempt") is None:
            delivery.acknowledge(error.status, f"{error}\n")  # a relay that takes no rejections

    def _deadline(self, delivery: Delivery, options: RelayOptions | None) -> float | None:
        if options is None or delivery.ack_id is None:
            return None
        if "attempt" in delivery.event:
            seconds = options.redeliver_seconds
        elif self.mode == "reply" or "url" in delivery.event:
            seconds = options.reply_timeout_seconds
        else:
            seconds = options.ack_timeout_seconds
        return delivery.received_at + _usable(seconds)

    def _connect(self, workers: "_Workers") -> None:
        token = self._token
        if token is None:
            raise RuntimeError("there is no token: open() makes one")
        connect = partial(
            Connection, self._api.server, token.token, on_delivery=workers.add, on_dropped=self._on_dropped
        )
        auth: dict[str, Any] = {"body": "raw"}
        if token.secret is not None:
            auth["secret"] = token.secret
        if self.mode == "notify":
            self._connection = connect(auth=auth)
            return
        auth["mode"] = self.mode
        try:
            self._connection = connect(auth={**auth, "window": self._parallel})
        except RelayRefused as error:
            if error.code != "bad_auth":
                raise
            # Its MAX_WINDOW is less, which it tells a client that asks for none.
            connection = self._connection = connect(auth=auth)
            if connection.options is not None and connection.options.max_window < self._parallel:
                connection.close()
                self._connection = connect(auth={**auth, "window": int(connection.options.max_window)})

    def _stay_connected(self) -> str:
        """Return why the connection ended. Raises `TokenGone` if the token did."""
        connection, token = self._connection, self._token
        if connection is None or token is None:
            raise RuntimeError("there is no connection")
        if self._closed.is_set():  # before there was this connection to end
            connection.changed.set()
        try:
            self._notice(Notice("connected"))
            connection.started.set()
            now = self._clock()
            while not connection.changed.wait(max(0.1, min(TICK_SECONDS, self._refresh_at - now))):
                before, now = now, self._clock()
                if now - before > SLEPT_SECONDS:
                    return "slept"
                try:
                    self._refresh(token)
                except RelayUnavailable as error:
                    log.info("not refreshed: %s", error)
                    self._refresh_at = now + TICK_SECONDS
            return "closed" if self._closed.is_set() and connection.why == "lost" else connection.why
        finally:
            if self._closed.is_set():
                self._finish(connection)
            connection.close()

    def _wait(self, notice: Notice, seconds: float) -> None:
        self._notice(Notice(notice.what, notice.why, seconds))
        self._closed.wait(seconds)


def _usable(seconds: float) -> float:
    """Return how much of the relay's time a handler may take, so that its answer comes first."""
    return seconds - min(MAX_MARGIN_SECONDS, seconds * MARGIN_PART)


class _Workers:
    """Threads that handle deliveries, so many at once; each takes the oldest that waits."""

    def __init__(self, handle: Callable[[Delivery], None], count: int) -> None:
        self._handle = handle
        self._waiting: SimpleQueue[Delivery | None] = SimpleQueue()  # None is the end
        self._room = threading.Semaphore(MAX_WAITING_REQUESTS)
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def add(self, delivery: Delivery) -> None:
        """Have a delivery handled. Blocks while too many wait, so that no more are read."""
        while not self._room.acquire(timeout=1):
            if delivery.connection.ended.is_set():
                break  # it was the last
        self._waiting.put(delivery)

    def close(self) -> None:
        """Handle what waits, and then no more."""
        for _ in range(self._count):
            self._waiting.put(None)

    def _work(self) -> None:
        while (delivery := self._waiting.get()) is not None:
            self._room.release()
            delivery.connection.started.wait()
            try:
                self._handle(delivery)
            except Exception:
                log.exception("a request is not acknowledged")


class _BackOff:
    """How long to wait before each of several attempts: twice as long each time, and never all at once."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self._next_seconds = 1.0

    def seconds(self) -> float:
        """Return how long to wait now."""
        seconds = self._next_seconds
        self._next_seconds = min(MAX_BACK_OFF_SECONDS, seconds * 2)
        return seconds * random.uniform(0.5, 1)  # noqa: S311  # spreads clients, guards nothing
