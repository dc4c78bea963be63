"""The relay's HTTP API, as a client uses it: tokens are asked for, refreshed and looked at."""

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from .errors import ClientError, RelayRefused, RelayUnavailable, TokenGone, reason_of

# How long the relay may take to answer, each time something is read from it.
TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Token:
    """A token of a relay, and the secret that goes with it; None for one that whoever knows it may use."""

    token: str
    secret: str | None = None


class _Bearer(requests.auth.AuthBase):
    """A key or a secret. As a plain header, it would give way to what a `.netrc` says."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class RelayApi:
    """The API of the relay at `server`, such as `https://relay.example`. Raises `ClientError` if that is no URL.

    Each call raises `RelayUnavailable`, `RelayRefused`, or `TokenGone` for a token that the relay does not know.
    """

    def __init__(self, server: str, api_key: str | None = None) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ClientError(f"The relay's address is like https://relay.example, and not {server}.")
        self.server = f"{parts.scheme}://{parts.netloc}"
        self._api_key = api_key
        self._http = requests.Session()

    def url(self, token: Token) -> str:
        """Return what whoever sends webhooks is given."""
        return f"{self.server}/v1/go/{token.token}"

    def new(self, *, mode: str, mailbox: bool) -> tuple[Token, str]:
        """Ask for a token and return it, with the mode that it has.

        It is as near to what is wanted as the relay can do: with a mailbox, without one, of mode `notify`, and
        last without a secret.
        """
        wanted: list[dict[str, Any]] = [{"mode": mode}, {}]
        if mailbox:
            wanted.insert(0, {"mode": mode, "mailbox": True})
        for options in wanted:
            try:
                made = self._call("POST", "/v1/new", self._api_key, options).json()
                return Token(made["token"], made["secret"]), options.get("mode", "notify")
            except RelayRefused as error:
                if error.status in (403, 404, 405):
                    break
                if error.status != 400:
                    raise
        return Token(self._call("GET", "/v1/new", self._api_key).text), "notify"

    def refresh(self, token: Token) -> float | None:
        """Let a token live for its whole time again, and return how many seconds that is, if the relay tells."""
        self._call("GET", f"/v1/refresh/{token.token}", token.secret)
        if token.secret is None:
            return None
        answer = self._call("GET", f"/v1/tokens/{token.token}", token.secret)
        # By the relay's clock, whatever this machine's says.
        now = parsedate_to_datetime(answer.headers["Date"]).timestamp() if "Date" in answer.headers else time.time()
        return float(answer.json()["expires_at"]) - now

    def inspect(self, token: Token) -> dict[str, Any]:
        """Return what the relay says of a token with a secret; of its mailbox, how many events are where."""
        seen: dict[str, Any] = self._call("GET", f"/v1/tokens/{token.token}", token.secret).json()
        if seen.get("mailbox"):
            events = self._call("GET", f"/v1/tokens/{token.token}/events", token.secret).json()
            seen["events"] = {state: len(listed) for state, listed in events.items()}
        return seen

    def _call(
        self, method: str, path: str, bearer: str | None = None, json: dict[str, Any] | None = None
    ) -> requests.Response:
        try:
            answer = self._http.request(
                method,
                self.server + path,
                json=json,
                auth=_Bearer(bearer) if bearer is not None else None,
                headers={
                    "Accept": "application/json" if method == "POST" else "application/json;q=0.5, text/plain"
                },
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise RelayUnavailable(f"{self.server} does not answer: {reason_of(error)}") from None
        if answer.is_redirect:
            raise RelayRefused(f"{self.server} sends to {answer.headers['Location']}: give that server instead.")
        if answer.ok:
            return answer
        code, message = _error_of(answer)
        if answer.status_code == 404 and path.startswith(("/v1/refresh", "/v1/tokens")):
            raise TokenGone(message, code=code, status=404)
        if answer.status_code == 429 or answer.status_code >= 500:
            retry_after = answer.headers.get("Retry-After", "")
            raise RelayUnavailable(message, retry_after_seconds=int(retry_after) if retry_after.isdecimal() else 0)
        raise RelayRefused(message, code=code, status=answer.status_code)


def _error_of(answer: requests.Response) -> tuple[str, str]:
    """Return the code and the message of an error of the relay, or of whatever is in front of it."""
    try:
        error = answer.json()["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        line = " ".join(answer.text[:200].split())
        return "", f"The relay answers {answer.status_code}: {line or answer.reason}"
