"""The client: it keeps a token alive and a connection open, whatever happens to either."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .api import RelayApi, Token
from .connection import Connection, Handler
from .errors import Displaced, RelayRefused, RelayUnavailable, TokenGone
from .request import Reply, Request

log = logging.getLogger(__name__)

# A token is refreshed when this part of its life has passed.
REFRESH_PART = 1 / 3

# How often a token is refreshed whose life the relay does not tell. By default it is a day.
REFRESH_SECONDS = 600

# How often the clock is looked at. If it moved much further, the machine slept, and the connection is dead.
TICK_SECONDS = 5
SLEPT_SECONDS = 30

# How many events of a mailbox may be on their way: as many of the largest as the relay queues for one client. They
# are handled in order whatever it is: after one that fails, the rest are left, and come again. Each time counts
# against the relay's MAX_ATTEMPTS, so then it is one.
WINDOW = 7

# How many of the events that were handled are known when they come again: their acknowledgement was late, or lost.
REMEMBERED_EVENTS = 100

# The longest wait before another attempt.
MAX_BACK_OFF_SECONDS = 30


@dataclass(frozen=True)
class Notice:
    """Something that happened to the client.

    what: `connected`, `token_new`, `token_gone`, `unavailable`, `lost`, `too_slow`, `not_handled` or `slept`.
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
        on_notice: Callable[[Notice], None] = _log_notice,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = RelayApi(server, api_key)
        self._token = Token(token, secret) if token is not None else None
        self._wanted_mode = self.mode = mode
        self._mailbox = mailbox
        self._notice = on_notice
        self._clock = clock
        self._refresh_at = 0.0
        self._closed = threading.Event()
        self._connection: Connection | None = None

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
        """Hand each request to `handler`, one after another, until `close` is called.

        A request is acknowledged when `handler` returns; in mode `reply`, what it returns is the answer that the
        caller gets. If it raises, the request is not acknowledged: one from a mailbox comes again, and those that
        follow it wait. One that was handled is not handled again, if this process lives.

        Raises `Displaced` when another client takes the stream, and `RelayRefused` where it makes no sense to go
        on. Whatever may pass is waited for.
        """
        lost, failed = _BackOff(), _BackOff()
        handled: deque[str] = deque(maxlen=REMEMBERED_EVENTS)

        def handle(request: Request) -> Reply | None:
            if request.id in handled:
                return None  # its caller was answered long ago
            reply = handler(request)
            failed.reset()
            if request.attempt is not None:
                handled.append(request.id)
            return reply

        window = WINDOW
        while not self._closed.is_set():
            try:
                self.open()
                self._connect(handle, window)
                lost.reset()
                why = self._stay_connected()
            except TokenGone:
                self._refresh_at = 0  # `open` says so, and asks for another
                continue
            except RelayUnavailable as error:
                self._wait(Notice("unavailable", str(error)), max(lost.seconds(), error.retry_after_seconds))
                continue
            if why == "replaced":
                who = "It has this token's secret." if self.secret is not None else "Whoever knows the URL can."
                raise Displaced(f"Another client took the stream. {who}")
            window = 1 if why in ("not_handled", "too_slow") else WINDOW
            if why != "closed":
                self._wait(Notice(why), failed.seconds() if why == "not_handled" else lost.seconds())

    def close(self) -> None:
        """End `listen`, from any thread."""
        self._closed.set()
        if self._connection is not None:
            self._connection.ended.set()

    def _refresh(self, token: Token) -> None:
        if self._clock() < self._refresh_at:
            return
        life_seconds = self._api.refresh(token)
        self._refresh_at = self._clock() + (
            REFRESH_SECONDS if life_seconds is None else life_seconds * REFRESH_PART
        )

    def _connect(self, handler: Handler, window: int) -> None:
        token, before = self._token, self._connection
        if token is None:
            raise RuntimeError("there is no token: open() makes one")
        connect = partial(
            Connection,
            self._api.server,
            token.token,
            handler=handler,
            predecessor=before if before is not None and before.is_busy else None,
        )
        auth: dict[str, Any] = {"body": "raw"}
        if token.secret is not None:
            auth["secret"] = token.secret
        if self.mode == "notify":
            self._connection = connect(auth=auth)
            return
        auth["mode"] = self.mode
        try:
            self._connection = connect(auth={**auth, "window": window})
        except RelayRefused as error:
            if error.code != "bad_auth":
                raise
            self._connection = connect(auth=auth)  # its MAX_WINDOW is less

    def _stay_connected(self) -> str:
        """Return why the connection ended. Raises `TokenGone` if the token did."""
        connection, token = self._connection, self._token
        if connection is None or token is None:
            raise RuntimeError("there is no connection")
        if self._closed.is_set():  # before there was this connection to end
            connection.ended.set()
        try:
            self._notice(Notice("connected"))
            connection.start()
            now = self._clock()
            while not connection.ended.wait(max(0.1, min(TICK_SECONDS, self._refresh_at - now))):
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
            connection.close()

    def _wait(self, notice: Notice, seconds: float) -> None:
        self._notice(Notice(notice.what, notice.why, seconds))
        self._closed.wait(seconds)


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
