"""What happens on a caller's connection: one request after the other, each answered, until either side closes."""

import logging
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import eventlet
from gunicorn import SERVER
from gunicorn import config as gunicorn_config
from gunicorn import sock as gunicorn_sock
from gunicorn.glogging import Logger
from gunicorn.http import errors as http_errors
from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader
from gunicorn.http.parser import RequestParser

from .. import logs, request_id
from ..concurrency.poller import Poller
from ..concurrency.timeout_queue import TimeoutQueue
from ..errors import MalformedRequest, TooManyUnread
from ..http.answers import Answer, ErrorAnswers
from ..http.request_body import DISCARD_BYTES
from ..limits import Pool
from ..services import find_services, the_only_services
from .accelerator import Accelerator
from .head_checks import check_head
from .json_logger import JSONLogger
from .tcp_connection import (
    LINGER_BYTES,
    LINGER_SECONDS,
    MAX_TRAILERS_BYTES,
    Budgets,
    Connection,
    HeadTooLarge,
    TLSConnection,
    TooMuchUnread,
)

if TYPE_CHECKING:
    from .eventlet_worker import EventletWorker

log = logging.getLogger(__name__)

# How long a head, or the next one on a connection, may take where gunicorn's `keepalive` is off.
HEAD_SECONDS = 10

# How long a peer that is no relay's caller may take to read a piece of a response.
SEND_TIMEOUT_SECONDS = 30

# To make room for another connection, one that waits for a request is closed. Not one that has waited for less than
# this, whose request may be on its way, and not one whose request has arrived. So many are looked at.
ROOM_GRACE_SECONDS = 1
ROOM_CANDIDATES = 16

# How many chunks of a body may be smaller than this.
MAX_SMALL_CHUNKS = 10_000
SMALL_CHUNK_BYTES = 64

# After so many of them a body is read in small pieces.
FEW_SMALL_CHUNKS = 64

# What all heads that are being read may take, beyond 8 KB each, and all responses of more than 64 KB that wait for
# their peers to read. One address may have no more of it than it leaves free: half, if it is alone.
MAX_HEADS_BYTES = 32_000_000
MAX_UNREAD_BYTES = 96_000_000

# How many connections one address may have: this part of `worker_connections`, but not fewer than these.
SHARE_OF_ADDRESS = 0.25
MIN_OF_ADDRESS = 16

# How often deadlines are looked at.
TICK_SECONDS = 0.25

# What gunicorn's parsers raise, and what the peer receives: status, code, message. No word of what it sent.
_REFUSALS: dict[type[Exception], tuple[int, str, str]] = {
    http_errors.LimitRequestLine: (414, "uri_too_long", "The request line is longer than this relay accepts."),
    http_errors.LimitRequestHeaders: (431, "head_too_large", "The head is larger than this relay accepts."),
    http_errors.UnsupportedTransferCoding: (501, "unsupported_coding", "The transfer coding is not chunked."),
    http_errors.ExpectationFailed: (417, "expectation_failed", "The only expectation is 100-continue."),
    http_errors.InvalidHTTPVersion: (400, "malformed_request", "The version is not HTTP/1.0 or HTTP/1.1."),
    http_errors.InvalidHeader: (400, "malformed_request", "A header is malformed, missing or repeated."),
    http_errors.InvalidHeaderName: (400, "malformed_request", "The name of a header is malformed."),
    HeadTooLarge: (431, "head_too_large", "The head is larger than this relay accepts."),
    http_errors.ParseException: (400, "malformed_request", "The request is not HTTP."),
}


class Server:
    """Serves the connections of one worker, whose application may be a relay or any other."""

    def __init__(self, worker: "EventletWorker") -> None:
        """Start the relay. Raises `ConfigError`."""
        cfg = worker.cfg = self._cfg = _CachedConfig(worker.cfg)
        self._worker = worker
        self._keeps_alive = bool(cfg.keepalive)
        self._poller = Poller()
        self._connections: set[Connection] = set()
        self._budgets = Budgets(heads=Pool(MAX_HEADS_BYTES), unread=Pool(MAX_UNREAD_BYTES))
        self._heads = TimeoutQueue(cfg.keepalive or HEAD_SECONDS, Connection.cut_off)
        self._lingering = TimeoutQueue(LINGER_SECONDS, Connection.abort)
        self._tls: Any = gunicorn_sock.ssl_context(cfg) if cfg.is_ssl else None
        if self._tls is not None:
            self._tls.options |= ssl.OP_NO_RENEGOTIATION
        self._most_of_address = max(MIN_OF_ADDRESS, int(worker.worker_connections * SHARE_OF_ADDRESS))
        self._is_behind_proxy = cfg.proxy_protocol != "off"
        application = worker.wsgi
        self._services = find_services(application) or the_only_services()
        self._accelerator: Accelerator | None = None
        if self._services is None:
            self._answers = ErrorAnswers(retry_after_seconds=1)
            self._send_timeout_seconds: float = SEND_TIMEOUT_SECONDS
        else:
            settings = self._services.settings
            self._answers = self._services.answers
            self._send_timeout_seconds = settings.send_timeout_seconds
            self._is_behind_proxy = self._is_behind_proxy or settings.trusted_proxy_hops > 0
            if find_services(application) is not None and not _has_request_hooks(cfg):
                self._accelerator = Accelerator(self._services)
            self._services.lifecycle.start()
        worker.log.error_log.addFilter(logs.Flood())
        for logger in (worker.log.error_log, worker.log.access_log):
            logger.addFilter(logs.Redact())

        def with_connection(environ: Any, start_response: Any) -> Any:
            environ["socket2me.connection"] = environ["gunicorn.socket"]
            return application(environ, start_response)

        worker.wsgi = with_connection
        is_own_logger = type(worker.log) in (Logger, JSONLogger)
        self._observes_access = not is_own_logger or worker.log.access_log_enabled
        self._date = ""
        self._dated_at = 0.0
        eventlet.spawn_n(self._run_timers)

    def serve(self, sock: Any, address: Any, listener_name: Any, host: str) -> None:
        """Serve one connection until it ends. All connections of a `host` have their turns together."""
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
            connection.request = None
            connection.buffered = bytes  # which holds the connection
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

        A trusted proxy may have all: it is one address for everybody, and its own limits hold. So may the other end
        of a Unix socket, which has no address.
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
        connection.buffered = parser.unreader.take_buffered
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
                self._refuse(connection, error)
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
                self._refuse(connection, error)
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
                self._send(connection, request, answer, must_close=must_close)
                if self._observes_access:
                    self._log_access(connection, request, answer, time.monotonic() - started)
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

    def _send(self, connection: Connection, request: Any, answer: Answer, *, must_close: bool) -> None:
        major, minor = (1, 0) if request is not None and request.version == (1, 0) else (1, 1)
        lines = [
            f"HTTP/{major}.{minor} {answer.status}",
            f"Server: {SERVER}",
            f"Date: {self._now()}",
            "Connection: close" if must_close else "Connection: keep-alive",
            *[f"{name}: {value}" for name, value in answer.headers],
            f"{request_id.HEADER}: {request_id.current()}",
            "\r\n",
        ]
        data = "\r\n".join(lines).encode("latin-1")
        connection.sendall(data if request is not None and request.method == "HEAD" else data + answer.body)

    def _refuse(self, connection: Connection, error: BaseException) -> None:
        """Answer a request that is malformed, or at which the relay failed. The connection is closed then."""
        if isinstance(error, http_errors.ParseException | HeadTooLarge):
            log.debug("a malformed request was refused: %s", type(error).__name__)
            error = next(
                MalformedRequest(*refusal) for kind, refusal in _REFUSALS.items() if isinstance(error, kind)
            )
        self._send(connection, connection.request, self._answers.render(error), must_close=True)

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

    def _log_access(self, connection: Connection, request: Any, answer: Answer, seconds: float) -> None:
        response = wsgi.Response(request, connection, self._cfg)
        response.status = answer.status
        response.headers = answer.headers
        response.sent = len(answer.body)
        environ = wsgi.default_environ(request, connection, self._cfg)
        host, port, *_ = connection.address if isinstance(connection.address, tuple) else ("", "")
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = host, str(port)
        for name, value in request.headers:
            environ.setdefault("HTTP_" + name.replace("-", "_"), value)
        self._worker.log.access(response, request, environ, timedelta(seconds=seconds))

    def _now(self) -> str:
        """Return the time as HTTP writes it, which changes once a second."""
        now = time.time()
        if now - self._dated_at >= 1 or now < self._dated_at:
            self._dated_at = float(int(now))
            self._date = formatdate(now, usegmt=True)
        return self._date

    def _run_timers(self) -> None:
        while True:
            eventlet.sleep(TICK_SECONDS)
            for timer in (self._heads, self._lingering):
                timer.run(lambda: eventlet.sleep(0))


class _CachedConfig:
    """gunicorn's configuration, each setting looked up once: gunicorn asks for dozens of them for each request."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._cfg, name)
        setattr(self, name, value)
        return value


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


def _has_request_hooks(cfg: Any) -> bool:
    """Return whether gunicorn's configuration has hooks that want to see each request."""
    return bool(
        cfg.settings["pre_request"].get() is not gunicorn_config.PreRequest.default
        or cfg.settings["post_request"].get() is not gunicorn_config.PostRequest.default
    )
