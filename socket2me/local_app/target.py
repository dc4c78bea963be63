"""The local app: requests are sent to it as they were received, and to no other place.

`http_exchange.py` writes what it is given. HTTP clients that are kinder to use normalise paths.
"""

import contextlib
import http.client
import math
import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from functools import partial
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..exceptions import BadArgument, Dropped, OutsideTarget, TargetDown, TargetSlow, reason_of
from ..request import Request
from ..steps import run
from . import http_exchange
from .http_exchange import Answer as Answer
from .http_exchange import encode, seconds_until
from .http_exchange import is_header_name as is_header_name

# What is read of an answer. The relay takes 256 KB from a client, which base64 may make of this.
MAX_ANSWER_BYTES = 190_000

# RFC 9110, section 7.6.1. `Host` is the target's own, and the length is that of the body that is sent.
_NOT_FORWARDED = frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    "upgrade host content-length".split()
)

# `..` as a segment, however a server might spell or part its segments.
_climbs = re.compile(r"(?:^|[/\\])\.\.(?:[/\\;]|$)").search

# All of ASCII that is printed: what a request's first line is made of, and stays as it is.
_PRINTED = "".join(map(chr, range(0x21, 0x7F)))
_is_printed = re.compile(r"[!-~]*").fullmatch


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to an app as it is sent, and until when its answer has to be there, by `time.monotonic()`."""

    request: Request
    data: bytes
    deadline: float


def split_target(url: str, what: str = "target") -> SplitResult:
    """Return the parts of the URL of an app, which may be shortened to its port. Raises `BadArgument`."""
    given = url
    if url.isdecimal():
        url = f"localhost:{url}"
    if "://" not in url and _has_port(url):
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadArgument(f"{given} is no URL: {error}.") from None
    if port == 0:
        raise BadArgument(f"{given} is no URL: no app listens on port 0.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadArgument(f"The {what} is like http://localhost:3000/hooks, and not {given}.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadArgument(f"The {what} has a host, a port and a path, and nothing else: not {given}.")
    if not _is_host(parts.netloc):
        raise BadArgument(f"The host of the {what} has characters that no host has: {given}.")
    return parts


class Target:
    """The app at `url`, such as `http://localhost:3000/hooks`: its origin is fixed, and its path comes first.

    Parameters:
        timeout_seconds: how long an answer may take, from its first byte sent to its last received.
        headers: set on each request, in place of those of the same name.
        is_insecure: whether any certificate will do.

    `http://` may be left out, and the host too: `3000` is `http://localhost:3000`. Several threads may send at
    once; connections are kept. Raises `BadArgument` where the URL is no such URL, `what` being the word for it, or
    where a header is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        headers: Collection[tuple[str, str]] = (),
        is_insecure: bool = False,
        what: str = "target",
    ) -> None:
        parts = split_target(url, what)
        port = parts.port
        for header in headers:
            check_header(*header)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.path = parts.path.rstrip("/")
        self.name = self.origin + self.path
        self._host = parts.netloc
        self._headers = list(headers)
        self._timeout_seconds = timeout_seconds
        self._idle: deque[http.client.HTTPConnection] = deque()
        hostname = parts.hostname or ""
        self._new_connection: Callable[[], http.client.HTTPConnection]
        self._is_plain = parts.scheme == "http"
        if parts.scheme == "http":
            self._new_connection = lambda: http.client.HTTPConnection(hostname, port)
        else:
            context = ssl.create_default_context()
            if is_insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._new_connection = lambda: http.client.HTTPSConnection(hostname, port, context=context)

    def send(self, request: Request) -> Answer:
        """Send a request and return what the app answers; a redirect is an answer.

        An answer may take as long as the timeout, or until the request's deadline if that is sooner.
        Raises `OutsideTarget`, `TargetDown`, `TargetSlow`, or `Dropped` if the request is cancelled meanwhile.
        """
        return run(self.steps(request), self.perform)

    def steps(self, request: Request) -> Generator["Exchange", Answer, Answer]:
        """Do what `send` does. Yields the one exchange that is to be performed."""
        target = self.checked(request)
        data = encode(request.method, target, self.headers_for(request), request.body)
        started = time.monotonic()
        deadline = min(started + self._timeout_seconds, request.deadline or math.inf)
        try:
            return (yield Exchange(request, data, deadline))
        except TimeoutError:
            raise TargetSlow(f"no answer within {deadline - started:.3g} s, but it may be handled.") from None
        except (OSError, http.client.HTTPException) as error:
            if request.cancellation.is_set:
                raise Dropped("it was dropped from its mailbox.") from None
            raise TargetDown(self._why(error)) from None

    def perform(self, exchange: "Exchange") -> Answer:
        """Perform an exchange, in a thread that may wait. Raises what `http_exchange.exchange` raises."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._new_connection()

        def exchange_from_start(connection: http.client.HTTPConnection) -> Answer:
            if connection.sock is not None and has_ended(connection.sock):
                connection.close()
            if connection.sock is None:
                connection.timeout = seconds_until(exchange.deadline)
                connection.connect()
            if exchange.request.cancellation.is_set:
                raise ConnectionAbortedError
            method, data, deadline = exchange.request.method, exchange.data, exchange.deadline
            return http_exchange.exchange(connection, method, data, deadline, MAX_ANSWER_BYTES)

        return self.exchange_over(connection, exchange, exchange_from_start)

    def exchange_over(
        self,
        connection: http.client.HTTPConnection,
        exchange: "Exchange",
        perform: Callable[[http.client.HTTPConnection], Answer],
    ) -> Answer:
        """Perform an exchange over a connection, and keep that. Cancelling the request ends the exchange."""
        try:
            with exchange.request.cancellation.calling(partial(break_off, connection)):
                answer = perform(connection)
        except BaseException:
            connection.close()
            raise
        self.give_back(connection)
        return answer

    def where(self, request: Request) -> str:
        """Return the URL that a request is sent to. Raises `OutsideTarget`."""
        return self.origin + self.checked(request)

    def take_open(self) -> http.client.HTTPConnection | None:
        """Return a kept connection that is open and does not speak TLS; None if there is none."""
        while self._is_plain:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.sock is not None and not has_ended(connection.sock):
                return connection
            connection.close()
        return None

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for another request."""
        self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop().close()

    def headers_for(self, request: Request) -> list[tuple[str, str]]:
        """Return the headers that a request is sent with."""
        dropped = {name.strip().lower() for name in request.headers.get("connection", "").split(",")}
        set_here = {name.lower() for name, _ in self._headers}
        kept = [
            (name, value)
            for name, value in request.headers.items()
            if name not in _NOT_FORWARDED and name not in dropped and name not in set_here
        ]
        if request.body or "content-length" in request.headers or "transfer-encoding" in request.headers:
            kept.append(("content-length", str(len(request.body))))
        if "host" not in set_here:
            kept.insert(0, ("host", self._host))
        return kept + self._headers

    def checked(self, request: Request) -> str:
        """Return the path and query that a request is sent with: a slash first, the path of this target included.

        Raises `OutsideTarget` if it would leave that.
        """
        if request.path and not request.path.startswith("/"):
            raise OutsideTarget("Its path does not begin with a slash.")
        if self.path and _climbs(unquote(request.path)):
            raise OutsideTarget(f"Its path would leave {self.path}.")
        target = self.path + request.target
        if not target.startswith("/"):
            target = f"/{target}"
        # Bytes beyond ASCII, which HTTP does not allow there.
        return target if _is_printed(target) else quote(target, safe=_PRINTED)

    def _why(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not one that this machine trusts: {error.verify_message.rstrip('.')}."
        if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
            return f"it does not speak TLS. Is it http://{self._host}?"
        return f"{reason_of(error).rstrip('.')}."


# A host and a port, with a path or without one, as in a URL without its scheme.
_has_port = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):\d+(?:[/?#].*)?", re.DOTALL).fullmatch


# What OpenSSL calls it when what came is not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")

# RFC 3986, section 3.2.2, as far as the host of an app or a relay goes.
_is_host = re.compile(r"[\w.~!$&'()*+,;=%:\[\]-]+", re.ASCII).fullmatch


def check_header(name: str, value: str) -> None:
    """Raise `BadArgument` unless this header can be set on a request."""
    if is_header_name(name) is None:
        raise BadArgument(f"{name!r} is not the name of a header.")
    if not (value.isascii() and value.isprintable()):
        raise BadArgument(f"The value of {name} has characters that are not printable ASCII.")
    if name.lower() in _NOT_FORWARDED and name.lower() != "host":
        raise BadArgument(f"{name} is a header of a connection, which `listen` sets itself.")


def break_off(connection: http.client.HTTPConnection) -> None:
    """End the wait for the app's answer."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            # Not the method of a TLS socket, which would take the TLS away from the reading thread.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def has_ended(sock: socket.socket) -> bool:
    """Say whether the app closed a kept connection, or sent something without a request."""
    readable, _, _ = select.select([sock], [], [], 0)
    return bool(readable)
