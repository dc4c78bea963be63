"""Serves the requests of a connection, one after the other, until either side closes it.

A request is a call that `accelerator.py` forwards, or goes to the WSGI application. When there is no room for one
more connection, this module decides which is closed.
"""

import logging
import ssl
import time
from collections.abc import Iterator
from typing import Any, Protocol

import eventlet
from gunicorn import sock as gunicorn_sock
from gunicorn.http import errors as http_errors
from gunicorn.http.body import ChunkedReader
from gunicorn.http.parser import RequestParser

from ..concurrency.poller import Poller
from ..concurrency.timeout_queue import TimeoutQueue
from ..errors import TooManyUnread
from ..http.answers import ErrorAnswers
from ..http.request_body import DISCARD_BYTES
from ..services import find_services, the_only_services
from ..telemetry import request_id
from .accelerator import Accelerator
from .budgets import Budgets, TooMuchUnread
from .gunicorn_settings import has_request_hooks
from .head_checks import check_head
from .responses import ResponseWriter
from .tcp_connection import LINGER_BYTES, LINGER_SECONDS, Connection, TLSConnection

log = logging.getLogger(__name__)

# How long a head, or the next one on a connection, may take where gunicorn's `keepalive` is off.
HEAD_SECONDS = 10

# How long a peer that is no relay's caller may take to read a piece of a response.
SEND_TIMEOUT_SECONDS = 30

# To make room for another connection, one that waits for a request is closed. Not one that has waited for less than
# this, whose request may be on its way, and not one whose request has arrived. So many are looked at.
ROOM_GRACE_SECONDS = 1
ROOM_CANDIDATES = 16

# The bytes of the trailers of a body in chunks that are accepted.
MAX_TRAILERS_BYTES = 16_384

# How many chunks of a body may be smaller than this.
MAX_SMALL_CHUNKS = 10_000
SMALL_CHUNK_BYTES = 64

# After so many of them a body is read in small pieces.
FEW_SMALL_CHUNKS = 64

# How many connections one address may have: this part of `worker_connections`, but not fewer than these.
SHARE_OF_ADDRESS = 0.25
MIN_OF_ADDRESS = 16

# How often deadlines are looked at.
TICK_SECONDS = 0.25


class Worker(Protocol):
    """What this module and `acceptor.py` know of gunicorn's worker.

    alive: whether it is to go on. wsgi: its application. sockets: its listeners.
    """

    alive: bool
    cfg: Any
    log: Any
    sockets: list[Any]
    worker_connections: int
    wsgi: Any

    def count_request(self) -> None:
        """Count a request against `max_requests`."""

    def handle_request(self, listener_name: Any, request: Any, sock: Any, address: Any) -> Any:
        """Have the application answer a request."""


class Server:
    """Serves the connections of one worker, whose application may be a relay or any other."""

    def __init__(self, worker: Worker) -> None:
        """Start the relay, if the application is one or there is one in this process. Raises `ConfigError`."""
        cfg = self._cfg = worker.cfg
        application = worker.wsgi
        self._worker = worker
        self._keeps_alive = bool(cfg.keepalive)
        self._poller = Poller()
        self._connections: set[Connection] = set()
        self._budgets = Budgets()
        self._heads = TimeoutQueue(cfg.keepalive or HEAD_SECONDS, Connection.cut_off)
        self._lingering = TimeoutQueue(LINGER_SECONDS, Connection.abort)
        self._tls: Any = gunicorn_sock.ssl_context(cfg) if cfg.is_ssl else None
        if self._tls is not None:
            self._tls.options |= ssl.OP_NO_RENEGOTIATION
        self._most_of_address = max(MIN_OF_ADDRESS, int(worker.worker_connections * SHARE_OF_ADDRESS))
        self._is_behind_proxy = cfg.proxy_protocol != "off"
        self._services = services = find_services(application) or the_only_services()
        self._accelerator: Accelerator | None = None
        self._answers = ErrorAnswers(retry_after_seconds=1) if services is None else services.answers
        self._send_timeout_seconds: float = SEND_TIMEOUT_SECONDS
        if services is not None:
            settings = services.settings
            self._send_timeout_seconds = settings.send_timeout_seconds
            self._is_behind_proxy = self._is_behind_proxy or settings.trusted_proxy_hops > 0
            if find_services(application) is not None and not has_request_hooks(cfg):
                self._accelerator = Accelerator(services)
            services.lifecycle.start()
        self._responses = ResponseWriter(cfg, worker.log, self._answers)
        eventlet.spawn_n(self._run_timers)

    def serve(self, sock: Any, address: Any, listener_name: Any, host: str) -> None:
        """Serve one connection until it ends. All connections of a `host` share their turns."""
        try:
            connection = self._connect(sock, address, host)
        except OSError:  # TLS, if the peer has left already
            sock.close()
            return
        self._connections.add(connection)
        try:
            if isinstance(connection, TLSConnection):
                self._heads.add(connection)
                connection.do_handshake()
            if self._serve_requests(connection, listener_name):
                self._linger(connection)
        except TooMuchUnread:
            self._answers.note(TooManyUnread())
        except (OSError, ssl.SSLError) as error:
            log.debug("a connection ended: %s", type(error).__name__)
        finally:
            self._heads.discard(connection)
            self._connections.discard(connection)
            connection.request = None  # which refers to the connection
            connection.close()

    def drain(self) -> None:
        """Drain the relay. Responses close their connections once the worker is not `alive`."""
        if self._services is not None:
            self._services.lifecycle.drain()

    def disconnect_clients(self) -> None:
        """Have the relay's clients reconnect. Waits for nothing."""
        if self._services is not None:
            self._services.lifecycle.disconnect_clients()

    def close_idle(self) -> None:
        """End the connections that wait for a request."""
        for connection in list(self._connections):
            if connection.request is None:
                connection.cut_off()

    def make_room(self) -> bool:
        """End the connection that has waited longest for a request. Return False if none may be ended."""
        for connection in self._heads.oldest(ROOM_CANDIDATES, seconds=ROOM_GRACE_SECONDS):
            if not connection.has_unread():
                self._heads.discard(connection)
                connection.abort()
                return True
        return False

    def may_connect(self, host: str, connections: int) -> bool:
        """Return whether an address that has so many connections may have another.

        A trusted proxy may have all: it is one address for all callers, and has limits of its own.
        So may the other end of a Unix socket, which has no address.
        """
        return self._is_behind_proxy or not host or connections < self._most_of_address

    def stop(self) -> None:
        """Stop the relay: what its store has to write is written."""
        if self._services is not None:
            self._services.lifecycle.stop()

    def _connect(self, sock: Any, address: Any, host: str) -> Connection:
        sock.setblocking(False)
        options: Any = {"key": host, "send_timeout_seconds": self._send_timeout_seconds}
        if self._tls is None:
            return Connection(sock, address, self._poller, self._budgets, **options)
        wrapped = self._tls.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        wrapped.setblocking(False)
        return TLSConnection(wrapped, address, self._poller, self._budgets, **options)

    def _serve_requests(self, connection: Connection, listener_name: Any) -> bool:
        """Serve requests until the connection is to end.

        Return whether this side ends it: then the peer may still be sending. It does not if the peer has closed the
        connection, or if its socket has become a WebSocket's.
        """
        parser = RequestParser(self._cfg, connection, connection.address)
        proxied: Any = None  # what the PROXY protocol said at the beginning of the connection
        while True:
            self._heads.add(connection)
            connection.begin_head()
            request_id.begin()
            try:
                request = next(parser)
            except StopIteration:
                return False
            except OSError:  # gunicorn's `NoMoreData` is one
                raise
            except Exception as error:
                self._responses.refuse(connection, error)
                return True
            finally:
                self._heads.discard(connection)
            connection.request = request
            connection.end_head()
            if request.proxy_protocol_info and request.proxy_protocol_info["client_addr"] is None:
                request.proxy_protocol_info = None  # the proxy speaks for itself
            elif request.proxy_protocol_info:
                proxied = request.proxy_protocol_info
                connection.host = proxied["client_addr"]
            elif proxied:
                request.proxy_protocol_info = proxied
            try:
                check_head(request)
                if isinstance(request.body.reader, ChunkedReader):
                    _bound_chunks(request.body.reader, connection)
                if not self._respond(connection, parser, listener_name):
                    return not connection.is_detached
            except OSError:
                raise
            except BaseException as error:
                if connection.is_detached:  # middleware may turn the end of a handshake into something else
                    return False
                self._responses.refuse(connection, error)
                return True
            connection.request = None

    def _respond(self, connection: Connection, parser: RequestParser, listener_name: Any) -> bool:
        """Answer the request that was parsed. Return whether the connection may have another."""
        request = parser.mesg
        if self._accelerator is not None:
            started = time.monotonic()
            answer = self._accelerator.forward(request, connection)
            if answer is not None:
                self._worker.count_request()
                must_close = request.should_close() or not (self._worker.alive and self._keeps_alive)
                self._responses.send(connection, request, answer, must_close=must_close)
                if self._responses.are_logged:
                    self._responses.log(connection, request, answer, time.monotonic() - started)
                return not must_close
        try:
            self._worker.handle_request(listener_name, request, connection, connection.address)
        except StopIteration:  # so gunicorn, and the end of a handshake, say that there is no other
            return False
        return self._is_body_read(connection, parser)

    def _is_body_read(self, connection: Connection, parser: RequestParser) -> bool:
        """Read what the application left of a body, if it is little and in time. Return whether that is all."""
        self._heads.add(connection)
        try:
            return bool(parser.finish_body(max_bytes=DISCARD_BYTES))
        finally:
            self._heads.discard(connection)

    def _linger(self, connection: Connection) -> None:
        """Read past what the peer still sends, so that it receives the response."""
        self._lingering.add(connection)
        connection.end_head()
        try:
            connection.finish()
            left = LINGER_BYTES
            while left > 0 and (data := connection.recv(min(65536, left))):
                left -= len(data)
        finally:
            self._lingering.discard(connection)

    def _run_timers(self) -> None:
        while True:
            eventlet.sleep(TICK_SECONDS)
            for timer in (self._heads, self._lingering):
                timer.run(lambda: eventlet.sleep(0))


def with_connection(application: Any) -> Any:
    """Return a WSGI application that finds its `Connection` in the environ, where `GreenLoop` looks for it."""

    def call(environ: Any, start_response: Any) -> Any:
        environ["socket2me.connection"] = environ["gunicorn.socket"]
        return application(environ, start_response)

    return call


def _bound_chunks(reader: ChunkedReader, connection: Connection) -> None:
    """Bound the trailers and the number of small chunks of a body.

    A chunk of a byte costs as much to parse as one of thousands. No sender that is known sends so many so small.
    """
    reader.limit_trailer_section = MAX_TRAILERS_BYTES
    chunks = reader.parser

    def bounded() -> Iterator[bytes]:
        small = 0
        for chunk in chunks:
            if len(chunk) < SMALL_CHUNK_BYTES:
                small += 1
                if small > FEW_SMALL_CHUNKS:
                    connection.reads_little = True
                if small > MAX_SMALL_CHUNKS:
                    raise http_errors.InvalidChunkSize(b"too many small chunks")
            yield chunk

    reader.parser = bounded()
