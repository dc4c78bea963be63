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

from ..local_app.http_exchange import READ_BYTES, Answer, UnusualAnswer, exchange, exchange_slowly, usual_answer
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


@runtime_checkable
class InlineHandler(Protocol):
    """A handler that waits for nothing but a target's answer."""

    @property
    def inline_target(self) -> Target | None:
        """The target; None if it may wait for something else."""

    def steps(self, request: Request) -> Generator[Exchange, Answer, Reply | None]:
        """Handle a request. Yields the one exchange with the target that it needs."""

    def is_blocked(self) -> bool:
        """Return whether a step would wait, because what it prints is not read."""


class Dispatcher:
    """Has deliveries handled, `parallel` at once: by the thread that brings them, or by the handler's threads.

    The threads run until `close`. Those with the same key by `order_by` are handled one after another.
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

    def finish(
        self, delivery: Delivery, outer: Generator[Request, Reply | None, None], step: Callable[[], object]
    ) -> None:
        """Take the last step of the handler with a delivery: in a thread that may wait, if it would have to."""
        if self._inline is not None and self._inline.is_blocked():
            delivery.rest = partial(_resume, outer, step)
            self.add_to_threads(delivery)
        else:
            _resume(outer, step)
            self._on_handled()

    def _handle(self, delivery: Delivery) -> None:
        try:
            if delivery.rest is not None:
                delivery.rest()
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
        outer = self._deliveries.steps(delivery)
        request = next(outer, None)
        if request is None:  # there is nothing to do for it
            loop.put_back(app)
            self._on_handled()
            return True
        inner = self._inline.steps(request)
        try:
            wanted = next(inner)
        except Exception as end:  # it needs no answer, or cannot be sent
            loop.put_back(app)
            self.finish(delivery, outer, partial(_raise, end))
            return True
        _Call(loop, self, delivery, outer, inner, wanted, app).begin()
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
        self._calls: dict[_Call, float] = {}  # until when each has to be answered, by `time.monotonic()`
        self._idle: list[_App] = []
        self._serving = threading.Lock()
        self.has_ended = False

    def wait(self, seconds: float) -> None:
        """Return when the WebSocket can be read, or nothing else is waited for. Raises `TimeoutError`."""
        until = time.monotonic() + seconds
        while self._calls and self._websocket.sock is not None:
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
        if self._calls:
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

    def await_answer(self, call: "_Call", deadline: float) -> None:
        """Call `on_readable` or, at the deadline, `fail` of a call."""
        call.app.call = call
        self._calls[call] = deadline

    def release(self, call: "_Call") -> None:
        """Wait for the answer of a call no more. Another may have its connection."""
        del self._calls[call]
        call.app.call = None
        self.put_back(call.app)

    def put_back(self, app: "_App") -> None:
        """Keep a connection for another call."""
        self._idle.append(app)

    def detach(self, call: "_Call") -> http.client.HTTPConnection:
        """Return the connection of a call, which is not waited for here any more."""
        self._calls.pop(call, None)
        self._selector.unregister(call.app.connection.sock)
        return call.app.connection

    def close_app(self, app: "_App") -> None:
        """Close an idle connection to the app."""
        self._selector.unregister(app.connection.sock)
        app.connection.close()

    def _finish(self) -> None:
        while self._calls:
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
            until = min(until, now + LOOK_SECONDS, *self._calls.values())
            for key, _ in self._selector.select(max(0, until - now)):
                app: _App | None = key.data
                if app is None:
                    is_readable = True
                elif app.call is not None:
                    app.call.on_readable()
                elif app in self._idle:  # the app has closed it
                    self._idle.remove(app)
                    self.close_app(app)
            now = time.monotonic()
            if now >= until:
                for call in [call for call, deadline in self._calls.items() if now >= deadline]:
                    call.fail(TimeoutError())
        if not self.has_ended:
            self._websocket.flush()
        return is_readable


class _App:
    """A connection to the app, and the call that waits for an answer over it."""

    __slots__ = ("call", "connection")

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.call: _Call | None = None


class _Call:
    """A delivery that is forwarded by the thread that reads."""

    __slots__ = ("_delivery", "_dispatcher", "_exchange", "_inner", "_loop", "_outer", "_received", "app")

    def __init__(
        self,
        loop: ReadLoop,
        dispatcher: Dispatcher,
        delivery: Delivery,
        outer: Generator[Request, Reply | None, None],
        inner: Generator[Exchange, Answer, Reply | None],
        wanted: Exchange,
        app: _App,
    ) -> None:
        self._loop = loop
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._outer = outer
        self._inner = inner
        self._exchange = wanted
        self.app = app
        self._received = b""

    def begin(self) -> None:
        """Send the request to the app."""
        data = self._exchange.data
        self._loop.await_answer(self, self._exchange.deadline)
        if len(data) > MAX_INLINE_BYTES:
            self._leave(partial(self._exchange_rest, data))
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
            self._leave(partial(self._exchange_rest, data[sent:]))

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
            self._go_on(partial(self._inner.send, answer))
        elif not data:
            self._leave(self._read_rest)

    def fail(self, error: Exception) -> None:
        """Go on without an answer."""
        self._exchange.request.cancellation.end_calling()
        self._loop.detach(self).close()
        self._go_on(partial(self._inner.throw, error))

    def _go_on(self, step: Callable[[], object]) -> None:
        self._dispatcher.finish(self._delivery, self._outer, step)

    def _leave(self, exchange_in_thread: Callable[[http.client.HTTPConnection], Answer]) -> None:
        """Have a thread do the rest of the exchange."""
        connection = self._loop.detach(self)
        self._exchange.request.cancellation.end_calling()

        def rest() -> None:
            step: Callable[[], object]
            try:
                step = partial(
                    self._inner.send,
                    self._loop.target.exchange_over(connection, self._exchange, exchange_in_thread),
                )
            except Exception as error:
                step = partial(self._inner.throw, error)
            _resume(self._outer, step)

        self._delivery.rest = rest
        self._dispatcher.add_to_threads(self._delivery)

    def _exchange_rest(self, data: bytes, connection: http.client.HTTPConnection) -> Answer:
        wanted = self._exchange
        return exchange(connection, wanted.request.method, data, wanted.deadline, MAX_ANSWER_BYTES)

    def _read_rest(self, connection: http.client.HTTPConnection) -> Answer:
        wanted = self._exchange
        return exchange_slowly(connection, wanted.request.method, self._received, wanted.deadline, MAX_ANSWER_BYTES)


def _resume(outer: Generator[Request, Reply | None, None], step: Callable[[], object]) -> None:
    """Take the next step of the handler, which is its last, and acknowledge or reject the delivery."""
    back: Callable[[], object]
    try:
        step()
        raise RuntimeError("the handler needs another exchange")
    except StopIteration as end:
        back = partial(outer.send, end.value)
    except Exception as error:
        back = partial(outer.throw, error)
    try:
        with contextlib.suppress(StopIteration):
            back()
    except Exception:
        log.exception("a request is not acknowledged")


def _raise(error: Exception) -> None:
    raise error
