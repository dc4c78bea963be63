"""Forwarding deliveries in the thread that reads the connection to the relay.

That thread must not wait for an app. It forwards a delivery itself if a connection to the app is open, and waits
for the answer and for the relay together. Everything else is left to the handler's threads: to connect, to speak
TLS, a large request, an answer whose length is not in its head, and to print while the output is not read.
"""

import contextlib
import http.client
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Protocol, runtime_checkable

from ..local_app import http_exchange
from ..local_app.http_exchange import READ_BYTES, Answer, UnusualAnswer, usual_answer
from ..local_app.target import MAX_ANSWER_BYTES, Exchange, Target, break_off, has_ended
from ..request import Reply, Request
from .delivery_handler import MAX_WAITING_REQUESTS, DeliveryHandler, Handler
from .ordering import OrderKey, start_threads
from .socketio_connection import Delivery
from .websocket_frames import WebSocket

log = logging.getLogger(__name__)

# The largest request, with its head, that is written without waiting. A socket's buffer usually takes it at once.
MAX_INLINE_BYTES = 16_000

# How often it is looked whether another thread has closed the connection: that need not end a selector's wait.
LOOK_SECONDS = 1


# The generators of `DeliveryHandler.steps` and `InlineHandler.steps`. What resumes that of a handler sends it the
# answer of the app, or throws an error into it.
DeliverySteps = Generator[Request, Reply | None, None]
HandlerSteps = Generator[Exchange, Answer, Reply | None]
ResumeHandler = Callable[[], object]


@runtime_checkable
class InlineHandler(Protocol):
    """A handler that waits for nothing but a target's answer."""

    @property
    def inline_target(self) -> Target | None:
        """The target; None if it may wait for something else."""

    def steps(self, request: Request) -> HandlerSteps:
        """Handle a request. Yields the one exchange with the target that it needs."""

    def is_blocked(self) -> bool:
        """Return whether a step would wait, because what it prints is not read."""


class Dispatcher:
    """Has deliveries handled, `parallel` at once: by the thread that brings them, or by the handler's threads.

    The thread that brings a delivery handles it if the handler is an `InlineHandler` that has a target, the relay
    sends no more than a window of deliveries, and a connection to the app is open. The threads run until `close`.
    Deliveries with the same key by `order_by` are handled one after another.
    """

    def __init__(
        self, deliveries: DeliveryHandler, handler: Handler, parallel: int, order_by: OrderKey | None = None
    ) -> None:
        self._deliveries = deliveries
        self._handler = handler
        self._inline = handler if isinstance(handler, InlineHandler) else None
        self._parallel = parallel
        self._lock = threading.Lock()
        self._begun = 0
        self._waiting: deque[Delivery] = deque()
        self._threads = start_threads(self._handle, parallel, order_by)

    def add(self, delivery: Delivery) -> None:
        """Have a delivery handled. Blocks while too many wait, so that no more are read."""
        target = self._inline.inline_target if self._inline is not None else None
        if target is None or not delivery.connection.is_bounded or len(self._waiting) >= MAX_WAITING_REQUESTS:
            self.add_to_threads(delivery)
            return
        delivery.is_counted = True
        with self._lock:
            if self._begun >= self._parallel:  # the relay does not send as many, but for some that come late
                self._waiting.append(delivery)
                return
            self._begun += 1
        if not self._begin_inline(delivery, target):
            self.add_to_threads(delivery)

    def close(self) -> None:
        """Handle what waits, and then no more."""
        self._threads.close()

    def add_to_threads(self, delivery: Delivery) -> None:
        """Have a delivery handled, or what is left of that done, by a thread that may wait."""
        self._threads.add(delivery)

    def finish(self, delivery: Delivery, delivery_steps: DeliverySteps, resume_handler: ResumeHandler) -> None:
        """Have the handler finish, and acknowledge or reject its delivery: in a thread, if that might wait."""
        if self._inline is not None and self._inline.is_blocked():
            delivery.resume = partial(_finish_steps, delivery_steps, resume_handler)
            self.add_to_threads(delivery)
        else:
            _finish_steps(delivery_steps, resume_handler)
            self._on_handled()

    def _handle(self, delivery: Delivery) -> None:
        try:
            if delivery.resume is not None:
                delivery.resume()
            else:
                self._deliveries.handle(self._handler, delivery)
        finally:
            if delivery.is_counted:
                self._on_handled()

    def _begin_inline(self, delivery: Delivery, target: Target) -> bool:
        """Forward a delivery in this thread, which reads. Return False if that may have to wait."""
        websocket = delivery.connection.websocket
        if self._inline is None or websocket is None or not delivery.connection.started.is_set():
            return False
        if websocket.beside is None and websocket.sock is not None:
            websocket.beside = ReadLoop(websocket, websocket.sock, target)
        loop = websocket.beside
        if not isinstance(loop, ReadLoop) or loop.has_ended or self._inline.is_blocked():
            return False
        app = loop.take_app()
        if app is None:
            return False
        delivery_steps = self._deliveries.steps(delivery)
        request = next(delivery_steps, None)
        if request is None:  # there is nothing to do for it
            loop.put_back(app)
            self._on_handled()
            return True
        handler_steps = self._inline.steps(request)
        try:
            exchange = next(handler_steps)
        except Exception as end:  # it needs no answer, or cannot be sent
            loop.put_back(app)
            self.finish(delivery, delivery_steps, partial(_raise, end))
            return True
        _InlineExchange(loop, self, delivery, delivery_steps, handler_steps, exchange, app).begin()
        return True

    def _on_handled(self) -> None:
        with self._lock:
            if not self._waiting:
                self._begun -= 1
                return
            delivery = self._waiting.popleft()
        self.add_to_threads(delivery)


class ReadLoop:
    """What the thread that reads a WebSocket waits for beside it: the answers of the app."""

    def __init__(self, websocket: WebSocket, sock: socket.socket, target: Target) -> None:
        self.target = target
        self._websocket = websocket
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)
        # Until when each has to be answered, by `time.monotonic()`
        self._pending: dict[_InlineExchange, float] = {}
        self._idle: list[_App] = []
        self._serving = threading.Lock()
        self.has_ended = False

    def wait(self, seconds: float) -> None:
        """Return when the WebSocket can be read, or nothing else is waited for. Raises `TimeoutError`."""
        until = time.monotonic() + seconds
        while self._pending and self._websocket.sock is not None:
            if self._serve(until):
                return
            if time.monotonic() >= until:
                raise TimeoutError

    def end(self) -> None:
        """Let another thread wait for the answers that are due: the WebSocket has ended."""
        with self._serving:
            if self.has_ended:
                return
            self.has_ended = True
            for key in list(self._selector.get_map().values()):
                if key.data is None:
                    self._selector.unregister(key.fileobj)
        if self._pending:
            threading.Thread(target=self._finish, daemon=True).start()
        else:
            self._finish()

    def take_app(self) -> "_App | None":
        """Return an open connection to the app on which nothing is due; None if there is none."""
        while self._idle:
            app = self._idle.pop()
            if not has_ended(app.connection.sock):
                return app
            self.close_app(app)
        connection = self.target.take_open()
        if connection is None:
            return None
        connection.sock.settimeout(0)
        app = _App(connection)
        self._selector.register(connection.sock, selectors.EVENT_READ, app)
        return app

    def await_answer(self, exchange: "_InlineExchange", deadline: float) -> None:
        """Call `on_readable` of an exchange when its app has sent something, and `fail` at the deadline."""
        exchange.app.pending = exchange
        self._pending[exchange] = deadline

    def release(self, exchange: "_InlineExchange") -> None:
        """Wait for the answer of an exchange no more. Another may have its connection."""
        del self._pending[exchange]
        exchange.app.pending = None
        self.put_back(exchange.app)

    def put_back(self, app: "_App") -> None:
        """Keep a connection for another exchange."""
        self._idle.append(app)

    def detach(self, exchange: "_InlineExchange") -> http.client.HTTPConnection:
        """Return the connection of an exchange, which is not waited for here any more."""
        self._pending.pop(exchange, None)
        self._selector.unregister(exchange.app.connection.sock)
        return exchange.app.connection

    def close_app(self, app: "_App") -> None:
        """Close an idle connection to the app."""
        self._selector.unregister(app.connection.sock)
        app.connection.close()

    def _finish(self) -> None:
        while self._pending:
            self._serve(time.monotonic() + LOOK_SECONDS)
        for app in self._idle:
            self._selector.unregister(app.connection.sock)
            self.target.give_back(app.connection)
        self._selector.close()

    def _serve(self, until: float) -> bool:
        """Wait once, and go on with what can go on. Return whether the WebSocket can be read."""
        is_readable = False
        with self._serving:
            now = time.monotonic()
            until = min(until, now + LOOK_SECONDS, *self._pending.values())
            for key, _ in self._selector.select(max(0, until - now)):
                app: _App | None = key.data
                if app is None:
                    is_readable = True
                elif app.pending is not None:
                    app.pending.on_readable()
                elif app in self._idle:  # the app has closed it
                    self._idle.remove(app)
                    self.close_app(app)
            now = time.monotonic()
            if now >= until:
                for exchange in [each for each, deadline in self._pending.items() if now >= deadline]:
                    exchange.fail(TimeoutError())
        if not self.has_ended:
            self._websocket.flush()
        return is_readable


class _App:
    """A connection to the app, and the exchange that waits for an answer over it."""

    __slots__ = ("connection", "pending")

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.pending: _InlineExchange | None = None


class _InlineExchange:
    """The exchange with the app for one delivery, performed by the thread that reads."""

    __slots__ = (
        *("_delivery", "_delivery_steps", "_dispatcher", "_exchange", "_handler_steps", "_loop", "_received"),
        "app",
    )

    def __init__(
        self,
        loop: ReadLoop,
        dispatcher: Dispatcher,
        delivery: Delivery,
        delivery_steps: DeliverySteps,
        handler_steps: HandlerSteps,
        exchange: Exchange,
        app: _App,
    ) -> None:
        self._loop = loop
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._delivery_steps = delivery_steps
        self._handler_steps = handler_steps
        self._exchange = exchange
        self.app = app
        self._received = b""

    def begin(self) -> None:
        """Send the request to the app."""
        data = self._exchange.data
        self._loop.await_answer(self, self._exchange.deadline)
        if len(data) > MAX_INLINE_BYTES:
            self._move_to_threads(partial(self._exchange_rest, data))
            return
        self._exchange.request.cancellation.begin_calling(partial(break_off, self.app.connection))
        try:
            sent = self.app.connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except BrokenPipeError:  # it may have answered, as for one that is written in a thread
            return
        except OSError as error:
            self.fail(error)
            return
        if sent < len(data):
            self._move_to_threads(partial(self._exchange_rest, data[sent:]))

    def on_readable(self) -> None:
        """Read what has come of the answer."""
        try:
            data = self.app.connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(error)
            return
        self._received += data
        try:
            found = usual_answer(self._exchange.request.method, self._received, MAX_ANSWER_BYTES)
        except UnusualAnswer:
            found = None
            data = b""
        if found is not None:
            answer, end = found
            self._exchange.request.cancellation.end_calling()
            if end == len(self._received):
                self._loop.release(self)
            else:
                self._loop.detach(self).close()
            self._finish(partial(self._handler_steps.send, answer))
        elif not data:
            self._move_to_threads(self._read_rest)

    def fail(self, error: Exception) -> None:
        """Close the connection to the app, and have the handler finish with an error in place of an answer."""
        self._exchange.request.cancellation.end_calling()
        self._loop.detach(self).close()
        self._finish(partial(self._handler_steps.throw, error))

    def _finish(self, resume_handler: ResumeHandler) -> None:
        self._dispatcher.finish(self._delivery, self._delivery_steps, resume_handler)

    def _move_to_threads(self, exchange_in_thread: Callable[[http.client.HTTPConnection], Answer]) -> None:
        """Have a thread that may wait do what is left of the exchange."""
        connection = self._loop.detach(self)
        self._exchange.request.cancellation.end_calling()

        def resume() -> None:
            resume_handler: ResumeHandler
            try:
                resume_handler = partial(
                    self._handler_steps.send,
                    self._loop.target.exchange_over(connection, self._exchange, exchange_in_thread),
                )
            except Exception as error:
                resume_handler = partial(self._handler_steps.throw, error)
            _finish_steps(self._delivery_steps, resume_handler)

        self._delivery.resume = resume
        self._dispatcher.add_to_threads(self._delivery)

    def _exchange_rest(self, unsent: bytes, connection: http.client.HTTPConnection) -> Answer:
        method, deadline = self._exchange.request.method, self._exchange.deadline
        return http_exchange.exchange(connection, method, unsent, deadline, MAX_ANSWER_BYTES)

    def _read_rest(self, connection: http.client.HTTPConnection) -> Answer:
        method, deadline = self._exchange.request.method, self._exchange.deadline
        return http_exchange.exchange_slowly(connection, method, self._received, deadline, MAX_ANSWER_BYTES)


def _finish_steps(delivery_steps: DeliverySteps, resume_handler: ResumeHandler) -> None:
    """Have the handler finish, and pass its reply or error to the delivery, which is acknowledged or rejected."""
    resume_delivery: Callable[[], object]
    try:
        resume_handler()
        raise RuntimeError("the handler needs another exchange")
    except StopIteration as end:
        resume_delivery = partial(delivery_steps.send, end.value)
    except Exception as error:
        resume_delivery = partial(delivery_steps.throw, error)
    try:
        with contextlib.suppress(StopIteration):
            resume_delivery()
    except Exception:
        log.exception("a request is not acknowledged")


def _raise(error: Exception) -> None:
    raise error
