"""The client: connects to its token, and again when the connection ends.

What keeps the token alive is in `client_token.py`, what happens to a delivery in `delivery_handler.py`.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..exceptions import RelayRefused, RelayUnavailable, Replaced, TokenGone
from ..relay_version import lacks
from .client_token import ClientToken, Notice
from .delivery_handler import DeliveryHandler, Handler, handler_share
from .http_api import RelayApi, Token
from .inline_forwarding import Dispatcher
from .ordering import OrderKey
from .socketio_connection import Connection, RelayOptions

log = logging.getLogger(__name__)

# How often the clock is looked at. If it moved much further, the machine slept, and the connection is dead.
TICK_SECONDS = 5
SLEPT_SECONDS = 30

# How many requests are handled at once, unless the client says otherwise. The relay sends no more than that.
PARALLEL = 8

# The relay's default for `MAX_WINDOW`.
MAX_PARALLEL = 100

# How long a client that is closed waits for the handlers that run.
FINISH_SECONDS = 2

# The longest wait before another attempt: `reconnectionDelayMax` of Socket.IO's own clients. So a client is back
# within 10 s of its relay.
MAX_BACK_OFF_SECONDS = 5


def _log_notice(notice: Notice) -> None:
    log.info("%s %s", notice.what, notice.why)


class Client:
    """Listens to a token of a relay, refreshes the token, and connects again when the connection ends.

        client = Client("https://relay.example")
        print(client.open())  # the URL for senders of webhooks
        client.listen(lambda request: print(request.method, request.body))

    Parameters:
        server: the relay's address.
        token, secret: what `open` made of an earlier client; without a token, a new one is asked for.
        name: what the token is to be, at a relay that gives names. `secret` without a token is the one that it has
            had. A name that has ended is claimed again; if it is another's by then, `RelayRefused` says so.
        api_key: what the relay asks for before it gives tokens, if it does.
        mode: when callers are answered: `notify`, at once; `ack`, when the handler has returned; `reply`, with
            what it returned. A relay that knows no modes notifies.
        mailbox: whether to ask for a token whose requests are kept until they were handled. If the relay keeps no
            mailboxes, it is one without.
        verify: which provider signs the requests, and with which secrets: those that it has not signed are answered
            401 by the relay, and do not arrive. A token that is given has its own.
        listeners: how many clients may have the token: `newest`, one; `all`, several, each of which receives every
            request; `one`, several that share them. None: the relay's default, or what the token has.
        listener: by which name the relay knows this client among several.
        filter: which requests to receive, in the language of the inspector; None: all. The relay evaluates it.
        parallel: how many requests are handled at once, in threads. With 1, in the order in which they came.
        order_by: requests with the same key are handled one after another, in their order.
        on_notice: called with each `Notice`; by default it is logged.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        server: str,
        *,
        token: str | None = None,
        secret: str | None = None,
        name: str | None = None,
        api_key: str | None = None,
        mode: str = "ack",
        mailbox: bool = True,
        verify: dict[str, Any] | None = None,
        listeners: str | None = None,
        listener: str | None = None,
        filter: str | None = None,
        parallel: int = PARALLEL,
        order_by: OrderKey | None = None,
        on_notice: Callable[[Notice], None] = _log_notice,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept = ClientToken(
            RelayApi(server, api_key),
            Token(token, secret) if token is not None else None,
            name=name,
            secret_of_name=secret,
            mode=mode,
            mailbox=mailbox,
            verify=verify,
            listeners=listeners,
            on_notice=on_notice,
            clock=clock,
        )
        self._auth = {"body": "raw", "listeners": listeners, "listener": listener, "filter": filter}
        self._parallel = parallel
        self._order_by = order_by
        self._notice = on_notice
        self._clock = clock
        self._closed = threading.Event()
        self._connection: Connection | None = None
        self._deliveries = DeliveryHandler(self._closed)
        self._lacking = ""  # what was said of the relay's version

    @property
    def token(self) -> str | None:
        """The token that is listened to; None before there is one."""
        return self._kept.token.token if self._kept.token is not None else None

    @property
    def secret(self) -> str | None:
        """Its secret; None for a token without one."""
        return self._kept.token.secret if self._kept.token is not None else None

    @property
    def url(self) -> str | None:
        """The URL for senders of webhooks; None before there is a token."""
        return self._kept.url

    @property
    def mode(self) -> str:
        """When callers are answered. A relay that knows no modes notifies."""
        return self._kept.mode

    @property
    def has_mailbox(self) -> bool:
        """Whether requests are kept until they are handled."""
        return self._kept.has_mailbox

    @property
    def expires_at(self) -> float | None:
        """When the token expires, in seconds since the epoch; None if the relay does not state it."""
        return self._kept.expires_at

    @property
    def is_connected(self) -> bool:
        """Whether it is connected to the relay, as far as it knows."""
        return self._connection is not None and not self._connection.ended.is_set()

    @property
    def caller_seconds(self) -> float | None:
        """How long a caller waits for the handler. None if it does not, or the relay does not state it.

        Then it receives `202` if there is a mailbox. Otherwise the handler's time is over a little before.
        """
        options = self._options
        return options.caller_seconds(self.mode) if options is not None else None

    @property
    def handler_seconds(self) -> float | None:
        """How long the handler may take, so that its answer comes first.

        That is before the relay answers the caller itself, or sends an event of a mailbox again. None if no caller
        waits, or the relay does not state it.
        """
        options, caller = self._options, self.caller_seconds
        if options is None or caller is None:
            return None
        return handler_share(options.redeliver_seconds if self.has_mailbox else caller)

    @property
    def _options(self) -> RelayOptions | None:
        return self._connection.options if self._connection is not None else None

    def open(self) -> str:
        """Make sure that there is a token that lives, and return its URL.

        Raises `RelayUnavailable`, or `RelayRefused` if the relay asks for a key, or the secret is another.
        """
        return self._kept.open()

    def listen(self, handler: Handler) -> None:
        """Call `handler` with each request, in one of several threads, until `close` is called.

        A request is acknowledged when `handler` returns; in mode `reply`, what it returns is the answer that the
        caller gets. If it raises, the delivery is rejected: one from a mailbox comes again later, and with
        `parallel` 1 those that follow it wait; the caller of any other receives an error at once. An event of a
        mailbox that was handled is not handled again, if this process lives.

        Raises `Replaced` when another client takes the stream, `RelayRefused` where it makes no sense to go on,
        and `RelayUnavailable` if it was never connected and the address looks wrong. After any other
        failure it tries again.
        """
        lost = BackOff()
        dispatcher = Dispatcher(self._deliveries, handler, self._parallel, self._order_by)
        try:
            self._listen(dispatcher, lost)
        finally:
            dispatcher.close()
            if self._connection is not None:
                self._kept.prolong()

    def _listen(self, dispatcher: Dispatcher, lost: "BackOff") -> None:
        was_connected = False
        while not self._closed.is_set():
            try:
                self.open()
                self._connect(dispatcher)
                was_connected = True
                lost.reset()
                why = self._stay_connected()
            except TokenGone:
                self._kept.refresh_soon()  # `open` says so, and asks for another
                continue
            except RelayUnavailable as error:
                if error.is_address and not was_connected:
                    raise
                self._wait(Notice("unavailable", str(error)), max(lost.seconds(), error.retry_after_seconds))
                continue
            if why == "replaced":
                raise Replaced(_who_replaced(self.secret))
            if why != "closed":
                self._wait(Notice(why), lost.seconds())

    def close(self) -> None:
        """End `listen`, from any thread. What is being handled has a moment to end; nothing more is begun."""
        self._closed.set()
        if self._connection is not None:
            self._connection.changed.set()

    def _finish(self, connection: Connection) -> None:
        """Wait until what is being handled is acknowledged, but not long."""
        deadline = time.monotonic() + FINISH_SECONDS
        while (self._deliveries.is_busy or connection.is_sending) and time.monotonic() < deadline:
            if connection.ended.wait(0.02):
                break

    def _connect(self, dispatcher: Dispatcher) -> None:
        token = self._kept.token
        if token is None:
            raise RuntimeError("there is no token: open() makes one")
        connect = partial(
            Connection,
            self._kept.server,
            token.token,
            on_delivery=dispatcher.add,
            on_dropped=self._deliveries.drop,
        )
        given = {**self._auth, "secret": token.secret}
        auth = {option: value for option, value in given.items() if value is not None}
        try:
            if self.mode == "notify":
                self._connection = connect(auth=auth)
            else:
                self._connection = _connect_with_window(connect, {**auth, "mode": self.mode}, self._parallel)
        except RelayRefused as error:
            raise self._kept.aged(error) from None
        lacking = lacks(self._options.version if self._options is not None else None)
        if lacking and lacking != self._lacking:
            self._notice(Notice("relay_old", lacking))
        self._lacking = lacking

    def _stay_connected(self) -> str:
        """Return why the connection ended. Raises `TokenGone` if the token did."""
        connection = self._connection
        if connection is None:
            raise RuntimeError("there is no connection")
        if self._closed.is_set():  # before there was this connection to end
            connection.changed.set()
        try:
            self._notice(Notice("connected"))
            connection.started.set()
            now = self._clock()
            while not connection.changed.wait(max(0.1, min(TICK_SECONDS, self._kept.refresh_at - now))):
                before, now = now, self._clock()
                if now - before > SLEPT_SECONDS:
                    return "slept"
                try:
                    self._kept.refresh()
                except RelayUnavailable as error:
                    log.info("not refreshed: %s", error)
                    self._kept.refresh_at = now + TICK_SECONDS
            return "closed" if self._closed.is_set() and connection.why == "lost" else connection.why
        finally:
            if self._closed.is_set():
                self._finish(connection)
            connection.close()

    def _wait(self, notice: Notice, seconds: float) -> None:
        self._notice(Notice(notice.what, notice.why, seconds))
        self._closed.wait(seconds)


def _who_replaced(secret: str | None) -> str:
    who = "It has this token's secret." if secret is not None else "It has no secret: who knows the URL may use it."
    return f"Another client took the stream. {who}"


def _connect_with_window(connect: Callable[..., Connection], auth: dict[str, Any], window: int) -> Connection:
    """Return a connection on which the relay delivers so many requests at once, or as many as it allows."""
    try:
        return connect(auth={**auth, "window": window})
    except RelayRefused as error:
        if error.code != "bad_auth":
            raise
    # Its MAX_WINDOW is less, which it states to a client that asks for none.
    connection = connect(auth=auth)
    if connection.options is None or connection.options.max_window >= window:
        return connection
    connection.close()
    return connect(auth={**auth, "window": int(connection.options.max_window)})


class BackOff:
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
