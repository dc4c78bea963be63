"""The relay's HTTP API, as a client uses it: tokens are asked for, refreshed and looked at."""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from ..exceptions import BadArgument, RelayRefused, RelayUnavailable, TokenGone, unreachable
from ..relay_version import lacks

_is_token = re.compile("[A-Za-z0-9_-]{1,128}").fullmatch

# A token that a socket2me relay made. What is a token and no such is a name that its owner chose.
_is_made = re.compile("[a-z][a-z0-9]{23}").fullmatch

# A key or a secret: what a header may hold without quotes (RFC 9110, section 5.5), and no space.
_is_bearer = re.compile("[!-~]+").fullmatch

# A host and a port without a scheme.
_has_port = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):\d+/?", re.ASCII).fullmatch

# The URL of a token.
_is_url = re.compile(r"(https?://[^/]+)/v1/go/([A-Za-z0-9_-]{1,128})/?").fullmatch

# An event's id: the name of the process that accepted it, and a number.
_is_event_id = re.compile("[0-9a-z]{1,64}-[0-9a-f]{1,16}").fullmatch

# The id of a listener, as the relay takes it.
_is_listener = re.compile("[A-Za-z0-9._-]{1,64}").fullmatch

# How many requests of a history are asked for at once: the most that a relay gives.
HISTORY_PAGE = 500

# How a relay says that it has no such endpoint.
_NO_ENDPOINT = ("not_found", "method_not_allowed")

# How long the relay may take to answer, each time something is read from it.
TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Token:
    """A token of a relay, and its secret; None for a token without one."""

    token: str
    secret: str | None = None


@dataclass(frozen=True)
class Life:
    """How many seconds a token with a secret lives from now, and whether it has a mailbox."""

    seconds: float
    has_mailbox: bool


class _Bearer(requests.auth.AuthBase):
    """A key or a secret. As a plain header, it would give way to what a `.netrc` says."""

    def __init__(self, key: str) -> None:
        check_key(key)
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def split_url(url: str) -> tuple[str, str]:
    """Return the relay's address and the token of a URL such as `https://relay.example/v1/go/<token>`."""
    match = _is_url(url)
    if match is None:
        raise BadArgument(f"The URL of a token is like https://relay.example/v1/go/<token>, and not {url}.")
    return match[1], match[2]


class RelayApi:
    """The API of the relay at `server`, such as `https://relay.example`.

    A host and a port are short for `https://`, those of this machine for `http://`. Raises `BadArgument` if that is
    no URL, or the key no key.

    Each call raises `RelayUnavailable`, `RelayRefused`, or `TokenGone` for a token that the relay does not know.
    """

    def __init__(self, server: str, api_key: str | None = None) -> None:
        given = server
        if "://" not in server and (match := _has_port(server)) is not None:
            server = f"{'http' if _is_here(match[1]) else 'https'}://{server}"
        try:
            parts = urlsplit(server)
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or parts.path not in ("", "/"):
            raise BadArgument(f"The relay's address is like https://relay.example, and not {given}.")
        self.server = f"{parts.scheme}://{parts.netloc}"
        if api_key is not None:
            check_key(api_key)
        self._api_key = api_key
        self._http = requests.Session()

    def url(self, token: Token) -> str:
        """Return the URL for senders of webhooks."""
        return f"{self.server}/v1/go/{token.token}"

    def new(
        self,
        *,
        mode: str,
        mailbox: bool,
        ttl_seconds: float | str = "max",
        verify: dict[str, Any] | None = None,
        listeners: str | None = None,
        name: str | None = None,
        secret: str | None = None,
    ) -> tuple[Token, str]:
        """Ask for a token and return it, with the mode that it has.

        It is as near to what is wanted as the relay can do: with a mailbox, without one, of mode `notify`, and
        last without a secret. It lives for `ttl_seconds`; "max" is as long as the relay lets a token live. With
        `verify` its calls are verified, with `listeners` it may have several clients, or only one: if the relay
        cannot do so, this raises `RelayRefused`.

        With `name` the token is that name and has a secret, or this raises `RelayRefused`. `secret` is the one that
        the name has had: it takes the name again, and needs no key.
        """
        life = {"ttl_seconds": ttl_seconds}
        choices: list[dict[str, Any]] = [{"mode": mode, **life}, {"mode": mode}, {}]
        if mailbox:
            choices[1:1] = [{"mode": mode, "mailbox": True}]
            choices.insert(0, {"mode": mode, "mailbox": True, **life})
        added = {"verify": verify, "listeners": listeners, "name": name}
        required = {option: value for option, value in added.items() if value is not None}
        choices = [{**options, **required} for options in choices]
        refused: RelayRefused | None = None
        for options in choices:
            try:
                made = self._members(self._ask(options, secret), "token", "secret")
                return Token(made["token"], made["secret"]), options.get("mode", "notify")
            except RelayRefused as error:
                if name is not None and (error.status != 400 or error.code == "bad_name"):
                    raise self._refused_name(name, error) from None
                if error.status in (403, 404, 405):
                    refused = refused or error
                    break
                if error.status != 400:
                    raise
                refused = error
        if name is not None and refused is not None:
            raise self._refused_name(name, refused)
        if required and refused is not None:
            raise self.aged(refused)
        text = self._call("GET", "/v1/new", self._api_key).text
        if not _is_token(text):
            raise RelayRefused(f"{self.server} is no socket2me relay: its answer to /v1/new is no token.")
        return Token(text), "notify"

    def _ask(self, options: dict[str, Any], secret: str | None) -> requests.Response:
        """Ask for a token: with the secret of a name, and with the key if that is not enough."""
        if secret is not None:
            try:
                return self._call("POST", "/v1/new", secret, options)
            except RelayRefused as error:
                if error.status not in (401, 403) or self._api_key is None:
                    raise
        return self._call("POST", "/v1/new", self._api_key, options)

    def _refused_name(self, name: str, error: RelayRefused) -> RelayRefused:
        """Return the error for a name that the relay does not give, with what can be done about it."""
        text = f"{self.server} does not give the name {name}: {error}"
        if error.code == "name_taken":
            text = (
                f"The name {name} is taken at {self.server}. If it is yours, take it with the secret that is kept "
                f"where it was claimed: --url {self.server}/v1/go/{name}. Otherwise choose another name."
            )
        refused = RelayRefused(text, code=error.code, status=error.status)
        return self.aged(refused) if error.status == 400 and error.code != "bad_name" else refused

    def age(self) -> str:
        """Return what is said of the relay's version; "" if it is not older than this library, or cannot be asked.

        Raises nothing.
        """
        try:
            answer = self._http.get(
                self.server, headers={"Accept": "application/json"}, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
            about = answer.json()
        except (requests.RequestException, ValueError):
            return ""
        if isinstance(about, dict) and about.get("name") == "socket2me":
            return lacks(about.get("version"))
        # A relay that does not say what it is has the relay's own way to say that it does not.
        return lacks(None) if answer.status_code == 404 and _error_of(answer)[0] else ""

    def aged(self, error: RelayRefused) -> RelayRefused:
        """Return an error that an older relay may have caused, with its version if it is older."""
        return RelayRefused(f"{error} {self.age()}".rstrip(), code=error.code, status=error.status)

    def refresh(self, token: Token) -> Life | None:
        """Let a token live for its whole time again. For one without a secret the relay does not state how long."""
        self._call("GET", f"/v1/refresh/{token.token}", token.secret)
        if token.secret is None:
            return None
        answer = self._call("GET", f"/v1/tokens/{token.token}", token.secret)
        # By the relay's clock, which may differ from this machine's.
        now = parsedate_to_datetime(answer.headers["Date"]).timestamp() if "Date" in answer.headers else time.time()
        seen = self._members(answer, "expires_at")
        return Life(float(seen["expires_at"]) - now, bool(seen.get("mailbox")))

    def inspect(self, token: Token) -> dict[str, Any]:
        """Return what the relay says of a token with a secret; of its mailbox, how many events are where."""
        path = f"/v1/tokens/{token.token}"
        seen = self._members(self._call("GET", path, token.secret), "connected", "forwarded", "expires_at")
        if seen.get("mailbox"):
            seen["events"] = {state: len(listed) for state, listed in self.events(token).items()}
        return seen

    def call(self, token: Token, tail: str, body: bytes) -> None:
        """Call a token's URL as a sender of webhooks does: `POST`, with what follows the URL, and a body."""
        self._call("POST", f"/v1/go/{token.token}{tail}", body=body)

    def delete(self, token: Token) -> None:
        """End a token with a secret, and disconnect its client."""
        self._call("DELETE", f"/v1/tokens/{token.token}", token.secret)

    def events(self, token: Token) -> dict[str, list[dict[str, Any]]]:
        """Return the events of a token's mailbox by their state. Raises `RelayRefused` if it has none."""
        return self._members(self._call("GET", f"/v1/tokens/{token.token}/events", token.secret), "waiting")

    def event(self, token: Token, event_id: str) -> dict[str, Any]:
        """Return an event whole, its body as base64."""
        return self._members(self._call("GET", self._event_path(token, event_id), token.secret), "id", "body")

    def redeliver(self, token: Token, event_id: str) -> None:
        """Have an event sent again, at once."""
        self._call("POST", f"{self._event_path(token, event_id)}/redeliver", token.secret)

    def drop(self, token: Token, event_id: str) -> None:
        """Have an event deleted."""
        self._call("DELETE", self._event_path(token, event_id), token.secret)

    def history(self, token: Token, before: str | None, filter: str) -> tuple[list[dict[str, Any]], bool]:
        """Return summaries of requests in a token's history, newest first, and whether there are more.

        They are those before the request with the id `before`, for which `filter` holds. Raises
        `RelayRefused` if it has no history.
        """
        after = f"&filter={quote(filter, safe='')}" if filter else ""
        after += f"&before={quote(before, safe='')}" if before is not None else ""
        path = f"/v1/tokens/{token.token}/requests?limit={HISTORY_PAGE}{after}"
        listed = self._members(self._call("GET", path, token.secret), "requests", "more")
        return listed["requests"], bool(listed["more"])

    def recorded(self, token: Token, request_id: str) -> dict[str, Any]:
        """Return a request of a token's history whole, its body as base64."""
        path = f"/v1/tokens/{token.token}/requests/{quote(request_id, safe='')}"
        return self._members(self._call("GET", path, token.secret), "id", "body", "headers")

    @staticmethod
    def _event_path(token: Token, event_id: str) -> str:
        return f"/v1/tokens/{token.token}/events/{quote(event_id, safe='')}"

    def _members(self, answer: requests.Response, *names: str) -> dict[str, Any]:
        """Return the JSON object of an answer, which has these members. Raises `RelayRefused`: this is no relay."""
        try:
            members = answer.json()
        except ValueError:
            members = None
        if not isinstance(members, dict) or not all(name in members for name in names):
            path = urlsplit(answer.url).path.replace("/v1/tokens/", "/v1/tokens ", 1).partition(" ")[0]
            raise RelayRefused(f"{self.server} is no socket2me relay: its answer to {path} is of another kind.")
        return members

    def _call(
        self,
        method: str,
        path: str,
        bearer: str | None = None,
        json: dict[str, Any] | None = None,
        body: bytes | None = None,
    ) -> requests.Response:
        try:
            answer = self._http.request(
                method,
                self.server + path,
                json=json,
                data=body,
                auth=_Bearer(bearer) if bearer is not None else None,
                # Errors are JSON if `Accept` asks for that, and so would be the one token that is text.
                headers={"Accept": "text/plain" if (method, path) == ("GET", "/v1/new") else "application/json"},
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise unreachable(self.server, error) from None
        if answer.is_redirect:
            raise RelayRefused(f"{self.server} sends to {answer.headers['Location']}: give that server instead.")
        if answer.ok:
            return answer
        code, message = _error_of(answer)
        if answer.status_code == 404 and (
            code == "unknown_token" or (bearer is None and path.startswith("/v1/refresh"))
        ):
            raise TokenGone(message, code=code, status=404)
        if answer.status_code == 429 or answer.status_code >= 500:
            retry_after = answer.headers.get("Retry-After", "")
            raise RelayUnavailable(message, retry_after_seconds=int(retry_after) if retry_after.isdecimal() else 0)
        if not code and answer.status_code != 400:
            message = f"Is {self.server} a socket2me relay? {message}"
        refused = RelayRefused(message, code=code, status=answer.status_code)
        # It has no such endpoint. Tokens are asked for in several ways, until it has one.
        raise self.aged(refused) if code in _NO_ENDPOINT and path != "/v1/new" else refused


def check_key(text: str) -> None:
    """Raise `BadArgument` unless a text may be a key or a secret. It is not part of what that says."""
    if _is_bearer(text) is None:
        raise BadArgument("This is no key or secret: those are printable ASCII characters, without spaces.")


def check_token(text: str) -> None:
    """Raise `BadArgument` unless a text may be a token or a name."""
    if _is_token(text) is None:
        raise BadArgument(f"{text!r} is no token, which is what follows /v1/go/ in a URL, and no name.")


def check_listener(text: str) -> None:
    """Raise `BadArgument` unless a text may be the id of a listener."""
    if _is_listener(text) is None:
        raise BadArgument(f"{text!r} is no id of a listener: up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.")


def is_name(token: str) -> bool:
    """Say whether a token is a name that its owner chose, by its form."""
    return _is_made(token) is None


def is_event_id(text: str) -> bool:
    """Say whether a text may be the id of an event."""
    return _is_event_id(text) is not None


def _is_here(host: str) -> bool:
    """Say whether a host is this machine, by its name."""
    return host in ("localhost", "[::1]") or re.fullmatch(r"127(\.\d+){3}", host) is not None


def _error_of(answer: requests.Response) -> tuple[str, str]:
    """Return the code and the message of an error of the relay, or of a proxy in front of it."""
    try:
        error = answer.json()["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        is_text = answer.headers.get("Content-Type", "").startswith("text/plain")
        line = " ".join(answer.text[:200].split()) if is_text else ""
        return "", f"It answers {answer.status_code}: {line or answer.reason}"
