"""What `socket2me wait` does: listens until so many requests have come that a filter asks for."""

import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from .client.client import BackOff, Client
from .client.client_token import Notice
from .client.http_api import RelayApi, Token
from .exceptions import ClientError, NotHandled, RelayUnavailable
from .inspector.filters import Filter
from .listening.recorder import record_of
from .request import Request

# How long the client may take to acknowledge what was printed, and to leave.
CLOSE_SECONDS = 5


class Wait:
    """Waits for `count` requests, and has `show` print each before the relay drops it.

    Parameters:
        server: the relay's address.
        token: what to listen to; None: a token of its own, which is deleted at the end.
        api_key: what the relay asks for before it gives tokens, if it does.
        listener: by which name the relay knows this client, where a token has several.
        filter: which requests count; None: every one. The others are acknowledged, too, and counted in `passed`:
            left in a mailbox, they would be sent again and again, before those that follow. Where one of several
            listeners has each request, the relay leaves them to the others.
        show: prints a request.
        show_url: prints the URL of a token of its own, once nothing that comes is missed.

    was_connected: whether it was connected to the relay at all.
    unavailable: why it is not connected, as far as that is known; empty while it is.
    """

    def __init__(
        self,
        server: str,
        token: Token | None,
        *,
        api_key: str | None,
        listener: str | None = None,
        filter: Filter | None,
        count: int,
        show: Callable[[Request], None],
        show_url: Callable[[str], None],
    ) -> None:
        self._api = RelayApi(server, api_key)
        self._token = token
        self._is_own = token is None
        self._is_shown = False
        self._filter = filter
        self._left = count
        self.passed = 0
        self._show = show
        self._show_url = show_url
        self._failure: Exception | None = None
        self._is_closed = threading.Event()
        self._has_ended = threading.Event()
        self._client: Client | None = None  # until it is known what to ask the relay for
        self._new_client = partial(
            Client,
            server,
            token=token.token if token is not None else None,
            secret=token.secret if token is not None else None,
            api_key=api_key,
            listener=listener,
            parallel=1,
            on_notice=self._on_notice,
        )
        self.was_connected = False
        self.unavailable = ""

    def run(self, seconds: float) -> bool:
        """Return whether the requests came within `seconds`. Raises `ClientError`.

        It is raised where another attempt would not help: the relay's name does not resolve, the relay refuses the
        client, or does not know the token. A relay that does not answer is tried again until the time is over.
        """
        thread = threading.Thread(target=self._listen, daemon=True)
        thread.start()
        try:
            self._has_ended.wait(seconds)
        finally:
            self._close()
            thread.join(CLOSE_SECONDS)
            client = self._client
            if self._is_own and client is not None and client.token is not None and client.secret is not None:
                with suppress(ClientError):  # it ends by itself, too
                    self._api.delete(Token(client.token, client.secret))
        if self._failure is not None:
            raise self._failure
        return self._left == 0

    def _close(self) -> None:
        self._is_closed.set()
        if self._client is not None:
            self._client.close()

    def _listen(self) -> None:
        try:
            filter = self._filter_at_relay()
            self._client = self._new_client(filter=filter.text if filter is not None else None)
            if self._is_closed.is_set():
                self._client.close()
            self._client.listen(self._handle)
        except Exception as error:
            self._failure = error
        self._has_ended.set()

    def _filter_at_relay(self) -> Filter | None:
        """Return the filter that the relay evaluates: what one of several workers does not want waits for them."""
        token = self._token
        if token is None or token.secret is None or self._filter is None:
            return None
        lost = BackOff()
        while not self._is_closed.is_set():
            try:
                return self._filter if self._api.inspect(token).get("listener_mode") == "one" else None
            except RelayUnavailable as error:
                if error.is_address:
                    raise
                self.unavailable = str(error)
                self._is_closed.wait(max(lost.seconds(), error.retry_after_seconds))
        return None

    def _handle(self, request: Request) -> None:
        if self._filter is not None and not self._filter.holds(record_of(request, [])):
            self.passed += 1
            return
        try:
            self._show(request)
        except Exception as error:
            self._failure = error
            self._close()
            raise NotHandled("socket2me could not print it.") from None
        self._left -= 1
        if self._left == 0:
            self._close()

    def _on_notice(self, notice: Notice) -> None:
        if notice.what in ("token_gone", "name_ended"):
            raise ClientError("The relay does not know the token any more.")
        if notice.what in ("unavailable", "lost"):
            self.unavailable = notice.why or "the connection to the relay was lost"
        if notice.what == "connected":
            self.was_connected, self.unavailable = True, ""
            if self._is_own and not self._is_shown and self._client is not None and self._client.url is not None:
                self._is_shown = True
                self._show_url(self._client.url)


def described(request: Request) -> dict[str, Any]:
    """Return a request as members of a JSON object. `body` is text; bytes that are none are in `body_base64`."""
    members: dict[str, Any] = {
        "id": request.id,
        "received_at": request.received_at,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
    }
    try:
        members["body"] = request.body.decode()
    except UnicodeDecodeError:
        members["body_base64"] = b64encode(request.body).decode()
    for name in ("remote_addr", "verified", "attempt"):
        if value := getattr(request, name):
            members[name] = value
    return members
