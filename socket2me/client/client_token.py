"""The token of a client: made, refreshed, and made again when it has ended."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..exceptions import ClientError, RelayRefused, TokenGone
from .http_api import RelayApi, Token, is_name

# A token is refreshed when this part of its lifetime has passed.
REFRESH_PART = 1 / 3

# How often a token is refreshed if the relay does not state its lifetime, which by default is a day.
REFRESH_SECONDS = 600


@dataclass(frozen=True)
class Notice:
    """Something that happened to the client.

    what: `connected`, `token_new`, `token_gone`, `name_ended`, `unavailable`, `lost`, `too_slow`,
        `slept`, or `relay_old`: the relay is older than this library.
    why: more of it, for people; may be empty.
    wait_seconds: how long the client waits before it tries again, if it does.
    """

    what: str
    why: str = ""
    wait_seconds: float | None = None


class ClientToken:
    """Keeps a token alive. The parameters are those of `Client`.

    token: the token; None before there is one.
    mode: when callers are answered. A relay that knows no modes notifies.
    has_mailbox: whether requests are kept until they are handled.
    expires_at: when the token expires, in seconds since the epoch; None if the relay does not state it.
    refresh_at: when it is to be refreshed, by the clock.
    """

    def __init__(
        self,
        api: RelayApi,
        token: Token | None,
        *,
        name: str | None,
        secret_of_name: str | None,
        mode: str,
        mailbox: bool,
        verify: dict[str, Any] | None,
        listeners: str | None,
        on_notice: Callable[[Notice], None],
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self.token = token
        is_named = token is not None and token.secret is not None and is_name(token.token)
        self._name = token.token if name is None and token is not None and is_named else name
        self._secret_of_name = secret_of_name if self._name is not None else None
        self._wanted_mode = self.mode = mode
        self._mailbox = mailbox
        self._verify = verify
        self._listeners = listeners
        self._notice = on_notice
        self._clock = clock
        self.refresh_at = 0.0
        self.expires_at: float | None = None
        self.has_mailbox = False

    def aged(self, error: RelayRefused) -> RelayRefused:
        """Return an error, with the version of the relay if that may not know an option of the connect."""
        return self._api.aged(error) if error.code == "bad_auth" else error

    @property
    def server(self) -> str:
        """The relay's address."""
        return self._api.server

    @property
    def url(self) -> str | None:
        """The URL for senders of webhooks; None before there is a token."""
        return self._api.url(self.token) if self.token is not None else None

    def open(self) -> str:
        """Make sure that there is a token that lives, and return its URL. Raises as `Client.open`."""
        if self.token is not None:
            try:
                self.refresh()
                return self._api.url(self.token)
            except TokenGone as error:
                self._notice(Notice("token_gone" if self._name is None else "name_ended", str(error)))
        self.token, self.mode = self._api.new(
            mode=self._wanted_mode,
            mailbox=self._mailbox,
            verify=self._verify,
            listeners=self._listeners,
            name=self._name,
            secret=self._secret_of_name,
        )
        if self._name is not None:
            self._secret_of_name = self.token.secret
        self.refresh()
        url = self._api.url(self.token)
        self._notice(Notice("token_new", url))
        return url

    def refresh(self) -> None:
        """Refresh the token if it is due. Raises `TokenGone`, `RelayUnavailable` or `RelayRefused`."""
        if self.token is None or self._clock() < self.refresh_at:
            return
        life = self._api.refresh(self.token)
        now = self._clock()
        self.has_mailbox = life is not None and life.has_mailbox
        self.expires_at = now + life.seconds if life is not None else None
        self.refresh_at = now + (life.seconds * REFRESH_PART if life is not None else REFRESH_SECONDS)

    def refresh_soon(self) -> None:
        """Have the next `refresh` or `open` ask the relay."""
        self.refresh_at = 0.0

    def prolong(self) -> None:
        """Refresh the token at the end, so that it lives its whole time until the next start."""
        self.refresh_soon()
        with contextlib.suppress(ClientError):
            self.refresh()
