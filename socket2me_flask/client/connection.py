"""One Socket.IO connection for one token: requests in their order, each acknowledged after it was handled.

Knows python-socketio, and nothing of tokens' lives: whether and when to connect again, `client.py` says.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import engineio
import requests
import socketio

from .errors import NotHandled, RelayRefused, RelayUnavailable, TokenGone, reason_of
from .request import Reply, Request

log = logging.getLogger(__name__)

# What python-socketio and python-engineio say in more detail has the token and its secret in it.
_library_log = logging.getLogger(f"{__name__}.libraries")
_library_log.setLevel(logging.ERROR)

# How long the relay may take to accept a connection.
CONNECT_TIMEOUT_SECONDS = 10

# How many messages may wait for the handler. Then no more are read, and the relay's own limit bites.
MAX_WAITING_MESSAGES = 1000

Handler = Callable[[Request], Reply | None]


class Connection:
    """Connects, and after `start` hands requests to `handler`, one after another, until the connection ends.

    Raises `RelayUnavailable`, `RelayRefused` or `TokenGone`. `predecessor` is the connection before, whose
    requests are handled first.
    """

    def __init__(
        self,
        server: str,
        token: str,
        auth: dict[str, Any],
        handler: Handler,
        predecessor: "Connection | None" = None,
    ) -> None:
        self._handler = handler
        self._predecessor = predecessor
        self._refusal: dict[str, Any] = {}
        self._started = threading.Event()
        self.ended = threading.Event()
        self.why = "lost"  # or `replaced`, `too_slow`, `not_handled`; once it has ended
        self._http = requests.Session()
        self._socketio = socketio.Client(reconnection=False, handle_sigint=False, logger=_library_log)
        self._engine = self._socketio.eio = _Engine(
            self._socketio, self._on_message, self._on_end, http_session=self._http
        )
        namespace = f"/{token}"
        # Events that end it, as they are on the wire: they are heard at once, whatever waits for the handler.
        self._farewells = {f'2{namespace},["{event}"]': event for event in ("replaced", "too_slow")}
        self._socketio.on("request", self._on_request, namespace=namespace)
        self._socketio.on("connect_error", self._on_refused, namespace=namespace)
        self._socketio.on("disconnect", self._on_end, namespace=namespace)
        try:
            self._socketio.connect(server, namespaces=[namespace], auth=auth, wait_timeout=CONNECT_TIMEOUT_SECONDS)
        except (socketio.exceptions.ConnectionError, ValueError) as error:
            self.close()
            raise self._error(error) from None

    def start(self) -> None:
        """Begin to hand over requests."""
        self._started.set()

    def close(self) -> None:
        """Leave, and hand over no more than what the relay has counted as delivered."""
        self._on_end()
        self.start()
        self._socketio.disconnect()
        # python-engineio leaves these open after an error.
        if self._engine.ws is not None:
            self._engine.ws.close()
        self._http.close()

    @property
    def is_busy(self) -> bool:
        """Whether there may be requests that were not handled yet."""
        return self._engine.worker.is_alive()

    def _on_message(self, message: str | bytes) -> None:
        if message in self._farewells:
            self._end(self._farewells[message])

    def _on_request(self, event: dict[str, Any]) -> tuple[Any, ...] | None:
        if self._predecessor is not None:
            self._predecessor._engine.worker.join()
            self._predecessor = None
        self._started.wait()
        request = Request.from_event(event)
        if self.ended.is_set() and request.attempt is not None:
            raise NotHandled("The connection has ended, so this will come again.")
        try:
            reply = self._handler(request)
        except Exception:
            if request.attempt is not None:
                self._end("not_handled")
            raise
        return None if reply is None else (reply.status, reply.body, dict(reply.headers))

    def _on_refused(self, reason: Any = None) -> None:
        self._refusal = reason if isinstance(reason, dict) else {"message": reason}

    def _on_end(self, *_: object) -> None:
        self._end(self.why)

    def _end(self, why: str) -> None:
        if self.why == "lost":
            self.why = why
        self.ended.set()
        self._engine.finish()

    def _error(self, error: Exception) -> RelayUnavailable | RelayRefused:
        """Return what the relay meant by not accepting the connection."""
        # Of a namespace: {"message", "data": {"code"}}; of a connection: {"error": {"code", "message"}}.
        details = self._refusal.get("data") or self._refusal.get("error")
        details = details if isinstance(details, dict) else {}
        code = str(details.get("code", ""))
        message = reason_of(self._refusal.get("message") or details.get("message") or error)
        if code == "unknown_token":
            return TokenGone(message, code=code)
        if code in ("unauthorized", "bad_auth"):
            return RelayRefused(message, code=code)
        return RelayUnavailable(message)


class _Engine(engineio.Client):  # type: ignore[misc]  # which has no types
    """python-engineio's client, handling messages one after another.

    Its own starts a thread for each: requests would overtake each other, and their bodies the messages that they
    belong to. The thread that reads must not handle them either: it answers the relay's heartbeat.
    """

    def __init__(
        self,
        client: socketio.Client,
        on_message: Callable[[str | bytes], None],
        on_end: Callable[..., None],
        http_session: requests.Session,
    ) -> None:
        super().__init__(handle_sigint=False, logger=_library_log, http_session=http_session)
        self.handlers.update(client.eio.handlers)
        self._handle_message = self.handlers["message"]
        self._on_message = on_message
        # python-socketio's own would drop the message that is being put together, before what waits is handled.
        self.on("disconnect", on_end)
        self._inbox: SimpleQueue[Any] = SimpleQueue()  # None is the end
        self._room = threading.Semaphore(MAX_WAITING_MESSAGES)
        self.worker = threading.Thread(target=self._work, daemon=True)
        self.worker.start()

    def start_background_task(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a thread, but for a message: that waits for its turn."""
        if target != self._handle_message:
            return super().start_background_task(target, *args, **kwargs)
        self._on_message(args[0])
        self._room.acquire()
        return self._inbox.put(args[0])

    def finish(self) -> None:
        """Handle what is here, and then no more."""
        self._inbox.put(None)

    def _work(self) -> None:
        while (message := self._inbox.get()) is not None:
            try:
                self._handle_message(message)
            except NotHandled as error:
                log.info("a request is not acknowledged: %s", error)
            except Exception:
                log.exception("a request is not acknowledged")
            self._room.release()
        self._room.release(MAX_WAITING_MESSAGES)  # whoever reads shall not wait for what is never handled
