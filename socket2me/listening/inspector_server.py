"""The inspector on this machine: its page and its HTTP contract, on 127.0.0.1, for those with the key of this run.

`http.server` is enough here: one user, no proxy, no TLS. Each connection has a thread, and their number a bound.
"""

import contextlib
import hmac
import json
import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .. import __version__
from ..exceptions import NotHandled
from ..inspector import files
from ..inspector.errors import BadQuery, InspectorError
from ..inspector.http import Inspector, Question, Reply, error_body, find_route
from ..inspector.replay import Draft
from ..request import Request
from .recorder import TOKEN, Recorder

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

# How many connections may be open, and how many of them streams. A browser opens six to a server, for all its tabs.
MAX_CONNECTIONS = 64
MAX_STREAMS = 20

# How long a connection may say nothing, or take nothing.
IDLE_SECONDS = 30

# How many replays the app may have at once.
MAX_REPLAYS = 20

# The largest body of a replay: ten times what a relay takes by default.
MAX_REPLAY_BYTES = 20_480_000

# How many parameters a query may have.
MAX_PARAMETERS = 20

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_SECURITY_HEADERS = {"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
_JSON = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]


class UnknownHost(InspectorError):
    """The host of the request is none of this server's."""

    status = 421
    code = "unknown_host"


class ForbiddenOrigin(InspectorError):
    """A page of another site may not ask here."""

    status = 403
    code = "forbidden_origin"


class WrongKey(InspectorError):
    """This needs the key that `socket2me listen --inspect` printed, as a Bearer."""

    status = 401
    code = "unauthorized"


class UnknownPath(InspectorError):
    """There is nothing here."""

    status = 404
    code = "not_found"


class BodyTooLarge(InspectorError):
    """The body is too large."""

    status = 413
    code = "body_too_large"


class TooManyReplays(InspectorError):
    """The app has not answered the replays before. Try again when it has."""

    status = 429
    code = "too_many_replays"


class InspectorServer(ThreadingTCPServer):
    """Serves what `recorder` has recorded, until the process ends.

    Parameters:
        ports: the first that is free is taken; 0 is any.
        handle: does with a replayed request what is done with those of the relay.
        describe: returns what is said of the URL: `url`, `target` and the like.

    Raises `OSError` if no port is free.
    """

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS  # a browser opens several at once, and tries a refused one late again
    allow_reuse_address = os.name == "posix"  # elsewhere it would share the port with another process

    def __init__(
        self,
        recorder: Recorder,
        *,
        ports: range,
        handle: Callable[[Request], object],
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        self.describe = describe
        self.inspector = Inspector(
            recorder.history,
            replay=Replays(recorder, handle).send,
            pause=lambda: None,
            max_body_bytes=MAX_REPLAY_BYTES,
            max_streams=MAX_STREAMS,
            max_streams_of_token=MAX_STREAMS,
            version=__version__,
        )
        self._key = secrets.token_urlsafe(32)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((HOST, 0), _Handler, bind_and_activate=False)
        try:
            self._bind(ports)
            self.server_activate()
        except OSError:
            self.server_close()
            raise
        port = self.server_address[1]
        self.hosts = {f"{HOST}:{port}", f"localhost:{port}"} | ({HOST, "localhost"} if port == 80 else set())
        self.origins = {f"http://{host}" for host in self.hosts}
        self.url = f"http://{HOST}:{port}/#token={TOKEN}&secret={self._key}"

    def start(self) -> None:
        """Serve in the background."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def has_key(self, given: str) -> bool:
        """Say whether this is the key of this run."""
        return hmac.compare_digest(given.encode(), self._key.encode())

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            log.warning("MAX_CONNECTIONS reached: %s", MAX_CONNECTIONS)
            with contextlib.suppress(OSError):
                request.sendall(_FULL)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what is a defect; that a peer has left is none."""
        log.exception("the inspector failed")

    def _bind(self, ports: range) -> None:
        for port in ports:
            self.server_address = (HOST, port)
            try:
                self.server_bind()
                return
            except OSError:
                if port == ports[-1]:
                    raise


class _Handler(BaseHTTPRequestHandler):
    """One connection. `Inspector` decides what is answered; here are the checks of key and host, and the files."""

    server: InspectorServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "socket2me", ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the peer has left, or is silent for too long
            super().handle()

    def respond(self) -> None:
        """Answer a request."""
        headers = self.headers
        self._has_unread_body = headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
        try:
            reply = self._reply()
        except InspectorError as error:
            reply = _error(error)
        self._send(reply)

    do_GET = do_HEAD = do_POST = do_DELETE = respond

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is not HTTP, or a method that is not known."""
        self._has_unread_body = True
        self.request_version = self.protocol_version  # one of HTTP/0.9 would be answered without a status
        error = InspectorError(message or self.responses[code][0])
        error.status = code
        self._send(_error(error))

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: the terminal is for those of the relay."""

    def _reply(self) -> Reply:
        headers = self.headers
        hosts, origins = headers.get_all("Host", []), headers.get_all("Origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise UnknownHost
        if any(origin not in self.server.origins for origin in origins):
            raise ForbiddenOrigin
        parts = urlsplit(self.path)
        if self.command in ("GET", "HEAD") and (file := self._file(parts.path)) is not None:
            return file
        root = f"/v1/tokens/{TOKEN}"
        path = parts.path.removeprefix(root)
        if path == parts.path or path and not path.startswith("/"):
            raise UnknownPath
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.server.has_key(key.strip()):
            raise WrongKey
        return self._api(path, parts.query)

    def _file(self, path: str) -> Reply | None:
        if path == "/inspector.json":
            return _whole(files.describe("client"))
        file = files.find("index.html" if path == "/" else unquote(path.removeprefix("/static/inspector/")))
        if file is None:
            return None
        headers = [*files.HEADERS.items(), ("ETag", f'"{file.etag}"')]
        if file.etag in self.headers.get("If-None-Match", ""):
            return Reply(304, headers, [])
        length = ("Content-Length", str(len(file.content)))
        return Reply(200, [*headers, ("Content-Type", file.content_type), length], [file.content])

    def _api(self, path: str, query: str) -> Reply:
        told = self.server.describe()
        if path == "" and self.command == "GET":
            return _whole(json.dumps({"token": TOKEN, "inspect": True, **told}).encode())
        answer = find_route(self.command, path)
        if answer is None:
            raise UnknownPath
        reply = answer(
            self.server.inspector,
            Question(
                TOKEN,
                unquote(path).split("/")[2] if path.count("/") > 1 else "",
                _parameters(query),
                self.headers.get("Last-Event-ID"),
                self._read,
                told["url"] or "",
                self.client_address[0],
                is_gone=self._has_left,
            ),
        )
        return Reply(reply.status, [*reply.headers, ("Cache-Control", "no-store")], reply.body, reply.close)

    def _read(self, limit: int) -> bytes:
        """Return the body. Raises `BodyTooLarge`, or `BadQuery` if there is no whole one."""
        text = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (text.isascii() and text.isdecimal()):
            raise BadQuery("The body needs a Content-Length.")
        size = int(text[:19])
        if size > limit:
            raise BodyTooLarge
        body = self.rfile.read(size)
        if len(body) < size:
            raise BadQuery("The body ended early.")
        self._has_unread_body = False
        return body

    def _send(self, reply: Reply) -> None:
        try:
            self.send_response(reply.status)
            headers = _SECURITY_HEADERS | dict(reply.headers)
            for name, value in headers.items():
                self.send_header(name, value)
            if self._has_unread_body or ("Content-Length" not in headers and reply.status not in (204, 304)):
                self.send_header("Connection", "close")  # which is what ends the body
            self.end_headers()
            for piece in reply.body if self.command != "HEAD" else ():
                self.wfile.write(piece)
        finally:
            reply.close()

    def _has_left(self) -> bool:
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


def _parameters(query: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise BadQuery(f"The query has at most {MAX_PARAMETERS} parameters.") from None
    return dict(reversed(pairs))  # the first of each name


def _whole(body: bytes) -> Reply:
    return Reply(200, [*_JSON, ("Content-Length", str(len(body)))], [body])


def _error(error: InspectorError) -> Reply:
    body = error_body(error)
    headers = [*_JSON, ("Content-Length", str(len(body)))]
    if error.status == WrongKey.status:
        headers.append(("WWW-Authenticate", "Bearer"))
    return Reply(error.status, headers, [body])


class Replays:
    """Sends requests again, to the local app: `handle` does with each what it does with those of the relay."""

    def __init__(self, recorder: Recorder, handle: Callable[[Request], object]) -> None:
        self._recorder = recorder
        self._handle = handle
        self._places = threading.BoundedSemaphore(MAX_REPLAYS)

    def send(self, token: str, draft: Draft, address: str) -> str:
        """Begin to send a request, and return its id. Raises `TooManyReplays` or `UnknownRequest`."""
        if not self._places.acquire(blocking=False):
            raise TooManyReplays
        request = Request(
            draft.method,
            draft.path,
            draft.query,
            draft.headers,
            draft.body,
            f"replay-{secrets.token_hex(8)}",
            time.time(),
            remote_addr=address,
            replay_of=draft.replay_of,
            verified=draft.verified,
        )
        self._recorder.begin(request, "as a replay")  # it can be asked for by its id at once
        threading.Thread(target=self._run, args=[request], daemon=True).start()
        return request.id

    def _run(self, request: Request) -> None:
        try:
            with contextlib.suppress(NotHandled):  # the history says why
                self._handle(request)
        finally:
            self._places.release()
