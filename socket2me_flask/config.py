"""The settings: one typed table, read from the environment. Knows nothing of the rest of the relay."""

import base64
import ipaddress
import re
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import SplitResult, urlsplit

import limits
from limits import RateLimitItem

from socket2me.suggestions import nearest

from .errors import ConfigError
from .http import hosts


@dataclass(frozen=True)
class Kind:
    """How the text of an environment variable becomes a value, and the words for what it accepts."""

    accepts: str
    parse: Callable[[str], Any]
    is_secret: bool = False  # a value that is not accepted is not shown either


def _whole_number(lowest: int, highest: int) -> Kind:
    def parse(text: str) -> int:
        number = int(text)
        if not lowest <= number <= highest:
            raise ValueError
        return number

    return Kind(f"a whole number from {lowest} to {highest}", parse)


def _seconds(lowest: float) -> Kind:
    highest = 10 * 365 * 86400  # ten years: anything longer is a slip of the keyboard

    def parse(text: str) -> float:
        number = float(text)
        if not lowest <= number <= highest:
            raise ValueError
        return number

    return Kind(f"a number of seconds from {lowest:g} to {highest}", parse)


def _parse_origins(text: str) -> str | tuple[str, ...] | None:
    """Return what Engine.IO expects: `None` is the relay's own origin only, `"*"` is every origin."""
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    if "*" in origins:
        return "*"
    for origin in origins:
        parts = urlsplit(origin)
        if (
            parts.scheme not in ("http", "https")
            or not parts.netloc
            or origin != f"{parts.scheme}://{parts.netloc}"
        ):
            raise ValueError
    return tuple(origins) or None


def _parse_rate(text: str) -> RateLimitItem | None:
    if text == "0":
        return None
    (rate,) = limits.parse_many(text)  # which reads several, and 0 as 1
    if rate.amount < 1 or re.search(r"\b0+\b", text):
        raise ValueError
    return rate


def _parse_keys(text: str) -> tuple[str, ...]:
    keys = [key.strip() for key in text.split(",") if key.strip()]
    if not keys:
        raise ValueError  # the operator meant to set one: no keys would let anyone ask
    return tuple(keys)


def _parse_key(text: str) -> str:
    if not re.fullmatch("[!-~]+", text):
        raise ValueError  # programs differ in how they send others, and in a header a space would separate two keys
    return text


def _parse_names(text: str) -> tuple[str, ...]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not all(re.fullmatch("[a-z0-9-]+", name) for name in names):
        raise ValueError
    return tuple(names)


def _parse_hosts(text: str) -> tuple[str, ...]:
    return tuple(hosts.parse(text))


def _parse_encryption_keys(text: str) -> tuple[bytes, ...]:
    keys = [base64.b64decode(key.strip(), validate=True) for key in text.split(",")]
    if any(len(key) != ENCRYPTION_KEY_BYTES for key in keys):
        raise ValueError
    return tuple(keys)


def _parse_public_url(text: str) -> str:
    parts = urlsplit(text)
    (_,) = hosts.parse(parts.netloc)
    if parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError
    return f"{parts.scheme}://{parts.netloc}"


def _parse_switch(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


def _parse_level(text: str) -> str:
    levels = {"DEBUG", "INFO", "WARNING", "ERROR"}
    (level,) = levels & {text.upper()}
    return level


def _parse_format(text: str) -> str:
    (log_format,) = {"text", "json"} & {text.lower()}
    return log_format


def _parse_interface(text: str) -> str:
    return text if text == "localhost" else str(ipaddress.ip_address(text))


@dataclass(frozen=True)
class StoreKind:
    """A kind of store.

    module: its module in `storage/`, which has `open_store`.
    accepts: its URLs, in words.
    is_url: whether a URL of its scheme is one that it accepts.
    is_durable: whether what it keeps survives the process, so that it may have mailboxes.
    is_shared: whether several processes may have the same one. These need `cluster/`.
    """

    module: str
    accepts: str
    is_url: Callable[[SplitResult], bool]
    is_durable: bool = False
    is_shared: bool = False


def _is_nowhere(url: SplitResult) -> bool:
    return not url.netloc and not url.path


def _is_file(url: SplitResult) -> bool:
    return not url.netloc and len(url.path) > 1


def _is_redis(url: SplitResult) -> bool:
    return bool(url.hostname) and (url.port or 1) > 0 and re.fullmatch(r"/?|/\d+", url.path) is not None


# All stores, by the scheme of their URLs.
STORES = {
    "memory": StoreKind("memory", "memory://", _is_nowhere),
    "sqlite": StoreKind("sqlite", "sqlite:///file with the path of a file", _is_file, is_durable=True),
    "redis": StoreKind("redis", "redis://host:port/database", _is_redis, is_durable=True, is_shared=True),
    "rediss": StoreKind("redis", "rediss://host:port/database", _is_redis, is_durable=True, is_shared=True),
}


def _parse_store(text: str) -> str:
    url = urlsplit(text)
    if not STORES[url.scheme].is_url(url) or url.query or url.fragment:
        raise ValueError
    return text


_HOSTS = Kind("hosts such as relay.example or 127.0.0.1:8000 separated by commas", _parse_hosts)
_NAMES = Kind("names of letters, digits and hyphens, separated by commas", _parse_names)
_STORE = Kind(" or ".join(store.accepts for store in STORES.values()), _parse_store, is_secret=True)
_INTERFACE = Kind("localhost, or the address of an interface such as 127.0.0.1, 0.0.0.0 or ::", _parse_interface)
_RATE = Kind("a rate such as 60/minute or 1000 per 5 minutes, or 0 for no limit", _parse_rate)
_KEYS = Kind("keys separated by commas", _parse_keys, is_secret=True)
_KEY = Kind("a key of printable ASCII characters without spaces", _parse_key, is_secret=True)
_ENCRYPTION_KEYS = Kind(
    "32 bytes in base64, as `openssl rand -base64 32` prints them; several separated by commas",
    _parse_encryption_keys,
    is_secret=True,
)
_PUBLIC_URL = Kind("a URL without a path, such as https://relay.example", _parse_public_url)
_SWITCH = Kind("true or false", _parse_switch)
_LEVEL = Kind("DEBUG, INFO, WARNING or ERROR", _parse_level)
_FORMAT = Kind("text or json", _parse_format)
_ORIGINS = Kind("origins such as https://app.example separated by commas, or * for every origin", _parse_origins)

ENCRYPTION_KEY_BYTES = 32

# More than these is a slip of the keyboard.
MANY = 10_000_000
HUGE = 2**31 - 1

# By these a platform says that it serves the app: Heroku, Fly, Render, Cloud Run and Knative.
PLATFORM_VARIABLES = ("DYNO", "FLY_APP_NAME", "RENDER", "K_SERVICE")


def _setting(default: Any, kind: Kind, meaning: str) -> Any:
    return field(default=default, metadata={"kind": kind, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Settings that few relays have a reason to change, so they have no variables of their own.

    `SOCKET2ME_LIMITS` changes them: in tests, and where a platform differs, as Heroku does.
    """

    redis_tls_verify: bool = _setting(
        True,
        _SWITCH,
        "Whether the certificate of a rediss:// server must be one that this machine trusts. Heroku's is not.",
    )
    body_timeout_seconds: float = _setting(
        10.0, _seconds(0.1), "How long a body may take to arrive; a later one is answered 408."
    )
    max_reading_bytes: int = _setting(
        96_000_000,
        _whole_number(65_536, HUGE),
        "How many bytes may have arrived of bodies that are being read, over all calls; more is answered 503. One address may take no more than remains free, so a single address takes half at most. Bodies up to 64 KB always have room.",
    )
    max_held_requests_per_token: int = _setting(
        100, _whole_number(0, MANY), "How many calls may wait for one client."
    )
    max_held_requests: int = _setting(
        1000,
        _whole_number(0, MANY),
        "How many calls may wait for their clients at once, over all tokens. One address may take no more than remains free, so a single address takes half at most.",
    )
    max_held_bytes: int = _setting(
        64_000_000,
        _whole_number(0, HUGE),
        "How many bytes of calls, headers and bodies, may wait for their clients, over all tokens; addresses share it in the same way.",
    )
    retry_after_seconds: int = _setting(5, _whole_number(1, 86_400), "The Retry-After that goes with a 503.")
    keepalive_seconds: int = _setting(
        10,
        _whole_number(1, 3600),
        "How long a caller's connection may be idle, and how long the head of a request may take.",
    )
    send_timeout_seconds: int = _setting(
        30,
        _whole_number(1, 3600),
        "How long a caller may take to read a piece of its answer, and a client on WebSocket a piece of what waits for it; then its connection is closed.",
    )
    mailbox_max_bytes: int = _setting(
        50_000_000,
        _whole_number(0, HUGE),
        "How many bytes one mailbox may hold; more is answered 429. 0: no limit.",
    )
    mailbox_total_bytes: int = _setting(
        1_000_000_000,
        _whole_number(0, 10**15),
        "How many bytes all mailboxes may hold; more is answered 503. The last tenth is for mailboxes that hold up to 64 KB. 0: no limit.",
    )
    mailbox_max_age_seconds: float = _setting(
        604800.0, _seconds(1), "How long an event may be in a mailbox; an older one is dropped, which the log says."
    )
    history_max_requests: int = _setting(
        10_000,
        _whole_number(0, MANY),
        "How many calls the history of one token with inspect holds; the oldest are dropped first. 0: no limit.",
    )
    history_max_bytes: int = _setting(
        20_000_000,
        _whole_number(0, HUGE),
        "How many bytes the history of one token may hold; the oldest calls are dropped first. 0: no limit.",
    )
    history_total_bytes: int = _setting(
        200_000_000,
        _whole_number(0, 10**15),
        "How many bytes the histories of all tokens may hold; the oldest calls are dropped first. 0: no limit.",
    )
    history_max_age_seconds: float = _setting(604800.0, _seconds(1), "How long a call is in a history.")
    max_inspector_streams: int = _setting(
        500, _whole_number(1, MANY), "How many live streams of histories may be open; the next is answered 429."
    )
    max_inspector_streams_per_token: int = _setting(
        20, _whole_number(1, MANY), "How many of them may be of one token."
    )
    window: int = _setting(
        1,
        _whole_number(1, 1000),
        "How many events of a mailbox may be on their way to a client that does not say. 1: in strict order.",
    )
    max_window: int = _setting(100, _whole_number(1, 1000), "How many a client may ask for.")
    max_namespaces_per_connection: int = _setting(
        50, _whole_number(0, MANY), "How many tokens one connection may try to join. 0: no limit."
    )
    join_timeout_seconds: float = _setting(
        10.0, _seconds(0.1), "How long a connection may take to join a token before it is closed."
    )
    client_queue_limit_requests: int = _setting(
        1000,
        _whole_number(1, MANY),
        "How many requests may wait for a client that reads slowly; at the next it is disconnected.",
    )
    client_queue_limit_bytes: int = _setting(
        16_000_000,
        _whole_number(65_536, HUGE),
        "How many bytes may wait for a client that reads slowly; at more it is disconnected.",
    )
    max_queued_bytes: int = _setting(
        80_000_000,
        _whole_number(65_536, HUGE),
        "How many bytes may wait for all clients; above it, clients with more than 64 KB queued are disconnected. One address may take no more than remains free, so a single address takes half at most.",
    )
    max_client_message_bytes: int = _setting(
        262_144, _whole_number(1024, HUGE), "The largest message that a client may send, a reply above all."
    )


@dataclass(frozen=True, kw_only=True)
class SignatureSettings:
    """How calls are verified, for tokens with `verify`."""

    public_url: str | None = _setting(
        None,
        _PUBLIC_URL,
        "Where callers reach the relay, such as https://relay.example: the URL that Twilio and Square sign begins so, and that of a token with a secret. Not set: such signatures cannot be verified.",
    )
    encryption_key: tuple[bytes, ...] = _setting(
        (),
        _ENCRYPTION_KEYS,
        "What the secrets of providers are encrypted with where they are stored: 32 bytes in base64. Several, separated by commas: the first encrypts, all decrypt. Not set: they are stored as they are.",
    )
    sns: bool = _setting(
        False,
        _SWITCH,
        "Whether tokens may have the provider sns, for which the relay fetches certificates and confirmations from sns.<region>.amazonaws.com.",
    )


@dataclass(frozen=True, kw_only=True)
class Settings(LimitSettings, SignatureSettings):
    """All settings of the relay. The unit of a number is in its name.

    A setting `name` is read from the variable `SOCKET2ME_NAME`, but for `port`, which is read from `PORT`.
    """

    port: int = _setting(8000, _whole_number(1, 65535), "The port.")
    bind: str | None = _setting(
        None,
        _INTERFACE,
        "The interface to listen on; 0.0.0.0 is all of IPv4, :: all. Not set: all where a platform says that it serves the app (DYNO, FLY_APP_NAME, RENDER, K_SERVICE), else 127.0.0.1, this machine only.",
    )
    log_level: str = _setting("INFO", _LEVEL, "How much is logged.")
    log_format: str = _setting(
        "text", _FORMAT, "How lines of the log are written: text, or json, one object a line."
    )
    metrics_key: str | None = _setting(
        None, _KEY, "The key of GET /metrics, as Authorization: Bearer. Not set: /metrics is answered 404."
    )
    # Tokens
    store_url: str = _setting(
        "memory://",
        _STORE,
        "Where tokens and mailboxes are kept: memory://; a file that survives a restart, sqlite:///relay.db (four slashes for a path from the root); or redis://host:6379/0, for several processes that work as one relay (rediss:// for TLS). Not set: REDIS_URL, if that is set.",
    )
    store_timeout_seconds: float = _setting(
        2.0,
        _seconds(0.05),
        "How long Redis, or another process, may take to answer; then the caller is answered 503.",
    )
    lease_seconds: float = _setting(
        10.0,
        _seconds(0.5),
        "How long another process may be silent until its clients count as gone. One that is killed counts as gone at once.",
    )
    token_expire_seconds: float = _setting(
        86400.0, _seconds(1), "How long a token lives after it was issued or refreshed."
    )
    max_ttl_seconds: float = _setting(
        2_592_000.0,
        _seconds(1),
        "The longest life that a token with a secret may be asked for: 30 days, which `socket2me listen` asks for.",
    )
    reaper_interval_seconds: float = _setting(
        10.0, _seconds(0.05), "How often expired tokens are removed and their clients disconnected."
    )
    max_tokens: int = _setting(
        100_000, _whole_number(0, MANY), "How many tokens may live at once; a new one is answered 503. 0: no limit."
    )
    # Who may ask
    api_keys: tuple[str, ...] = _setting(
        (), _KEYS, "Keys of which new tokens need one, as Authorization: Bearer. Not set: anyone may ask."
    )
    require_secret: bool = _setting(
        False, _SWITCH, "Whether every token has a secret: GET /v1/new is answered 403."
    )
    smee_open_channels: bool = _setting(
        False,
        _SWITCH,
        "Whether the channels that GET /smee/new makes have one URL to post to and to listen at, as those of smee.io: who may post may then listen. SOCKET2ME_REQUIRE_SECRET overrides it.",
    )
    cors_allowed_origins: str | tuple[str, ...] | None = _setting(
        None, _ORIGINS, "Which web pages may connect and ask for tokens. Not set: only the relay's own origin."
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        _HOSTS,
        "Which hosts the relay answers for, any port of each, or one; a request with another Host is answered 421, but for /healthz, /readyz and /metrics. Not set: every host.",
    )
    trusted_proxy_hops: int = _setting(
        0,
        _whole_number(0, 10),
        "How many proxies in front add to X-Forwarded-For, -Proto and -Host. 0: these headers are ignored.",
    )
    open_names: bool = _setting(
        False,
        _SWITCH,
        "Whether anyone may claim a name, on a relay that has no SOCKET2ME_API_KEYS. Otherwise that takes a key.",
    )
    banned_names: tuple[str, ...] = _setting(
        (), _NAMES, "Names that no one may claim, separated by commas, beside those that the relay reserves."
    )
    name_grace_seconds: float = _setting(
        2_592_000.0,
        _seconds(60),
        "How long after a name has expired only its secret takes it again: 30 days. Then anyone may claim it.",
    )
    rate_limit_new: RateLimitItem | None = _setting(
        limits.parse("60/minute"),
        _RATE,
        "How often an address may ask for a token; more is answered 429. 0: no limit.",
    )
    # Calls
    rate_limit_requests: RateLimitItem | None = _setting(
        limits.parse("60000/minute"), _RATE, "How often a token may be called; more is answered 429. 0: no limit."
    )
    max_body_bytes: int = _setting(
        2_048_000, _whole_number(0, HUGE), "The largest body of a call; a larger one is answered 413."
    )
    hold_seconds: float = _setting(
        2.0, _seconds(0), "How long a call waits for a client to connect before it is answered 503."
    )
    # Delivery
    ack_timeout_seconds: float = _setting(
        5.0,
        _seconds(0.05),
        "How long a caller waits for the acknowledgement of a client in mode ack: then it is answered 202 if the event is in a mailbox, else 504.",
    )
    reply_timeout_seconds: float = _setting(
        5.0,
        _seconds(0.05),
        "How long a caller waits for the reply of a client in mode reply: then it is answered 202 if the event is in a mailbox, else 504 (200 under /go, as the later originals answered).",
    )
    mailbox_default: bool = _setting(
        False, _SWITCH, "Whether a token from POST /v1/new has a mailbox if it does not say."
    )
    mailbox_max_events: int = _setting(
        1000, _whole_number(0, MANY), "How many events one mailbox may hold; more is answered 429. 0: no limit."
    )
    listener_ttl_seconds: float = _setting(
        604_800.0,
        _seconds(1),
        "How long what a listener has not had is kept while it is away; then its place in the mailbox is forgotten.",
    )
    redeliver_seconds: float = _setting(
        30.0,
        _seconds(0.05),
        "How long a client may take to acknowledge an event of a mailbox before it is sent again.",
    )
    max_attempts: int = _setting(
        100, _whole_number(1, MANY), "How often an event of a mailbox is sent before it becomes a dead letter."
    )
    # Clients
    legacy_clients: bool = _setting(
        True,
        _SWITCH,
        "Whether Engine.IO 3 clients are served: socket.io-client 1.x and 2.x; and the URLs /new, /refresh and /go without /v1.",
    )
    max_connections: int = _setting(
        None,
        _whole_number(0, MANY),
        "How many clients may be connected at once; the next is answered 503. Not set: 20,000, if they are no more than four fifths of the files that the process may open. 0: those four fifths.",
    )
    max_connections_per_address: int = _setting(
        None,
        _whole_number(0, MANY),
        "How many clients may be connected at once from one address. Not set: 1,000, or half of MAX_CONNECTIONS if that is less. 0: no limit.",
    )
    ping_interval_seconds: int = _setting(
        25, _whole_number(1, 3600), "The time between two pings of the heartbeat of a client."
    )
    ping_timeout_seconds: int = _setting(
        20, _whole_number(1, 3600), "How long the pong may take; then the client is disconnected."
    )

    @property
    def store(self) -> StoreKind:
        """The kind of store that `store_url` names."""
        return STORES[urlsplit(self.store_url).scheme]

    @property
    def bind_address(self) -> str:
        """The interface and the port to listen on, as gunicorn's `bind` takes it."""
        host = self.bind or "127.0.0.1"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


PREFIX = "SOCKET2ME_"

# Variables with the prefix that are not the relay's settings: they are the command's.
_OTHER_VARIABLES = (
    "SOCKET2ME_SERVER",
    "SOCKET2ME_API_KEY",
    "SOCKET2ME_SECRET",
    "SOCKET2ME_PROFILE",
    "SOCKET2ME_DEBUG",
)

LIMITS_VARIABLE = "SOCKET2ME_LIMITS"


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return "PORT" if name == "port" else PREFIX + name.upper()


LIMITS = {item.name: item for item in fields(LimitSettings)}
SETTINGS = {item.name: item for item in fields(Settings) if item.name not in LIMITS}
_NAME_OF = {variable_of(name): name for name in SETTINGS}


def from_env(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings: from `overrides`, else the variable's value in `environ`, else the default.

    An empty variable counts as not set. `overrides` have names in capitals, such as `HOLD_SECONDS`, of settings or of
    limits, and values, not texts. Raises `ConfigError`, which names the variable, what it holds and what it accepts;
    or a variable, or an override, that is none, with the nearest that is.
    """
    _check_names(environ)
    values: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        variable = variable_of(name)
        text = environ.get(variable, "").strip()
        if not text and name == "store_url":
            variable = "REDIS_URL"  # as Heroku and others name it
            text = environ.get(variable, "").strip()
        if text:
            values[name] = _parse(variable, text, setting.metadata["kind"])
    values |= _limits_from(environ.get(LIMITS_VARIABLE, ""))
    for override, value in (overrides or {}).items():
        name = override.lower()
        if name not in SETTINGS and name not in LIMITS:
            known = [name.upper() for name in (*SETTINGS, *LIMITS)]
            raise ConfigError(f"{override} is not a setting. The nearest is {nearest(override, known)}.")
        values[name] = value
    if values.get("bind") is None and any(environ.get(name, "").strip() for name in PLATFORM_VARIABLES):
        values["bind"] = "0.0.0.0"  # noqa: S104  # the platform's proxy asks
    values["max_connections"] = _connections(values.get("max_connections"))
    if values.get("max_connections_per_address") is None:
        values["max_connections_per_address"] = max(1, min(1000, values["max_connections"] // 2))
    settings = Settings(**values)
    if settings.mailbox_default and not settings.store.is_durable:
        raise ConfigError(
            "SOCKET2ME_MAILBOX_DEFAULT=true needs a SOCKET2ME_STORE_URL that survives the process: "
            "sqlite:///relay.db, or redis://."
        )
    return settings


def _parse(variable: str, text: str, kind: Kind) -> Any:
    try:
        return kind.parse(text)
    except (ValueError, KeyError):
        value = "" if kind.is_secret else f"={text!r}"
        raise ConfigError(f"{variable}{value} is not accepted: it takes {kind.accepts}.") from None


def _check_names(environ: Mapping[str, str]) -> None:
    known = [*_NAME_OF, LIMITS_VARIABLE, *_OTHER_VARIABLES]
    for variable in environ:
        if not variable.startswith(PREFIX) or variable in known:
            continue
        if (limit := variable.removeprefix(PREFIX)).lower() in LIMITS:
            raise ConfigError(f"{variable} is not a setting. It is a limit: {LIMITS_VARIABLE}={limit}=... sets it.")
        raise ConfigError(
            f"{variable} is not a setting. The nearest is {nearest(variable, known)}; docs/settings.md has all."
        )


def _limits_from(text: str) -> dict[str, Any]:
    """Return the limits of a text such as `KEEPALIVE_SECONDS=2 WINDOW=5`."""
    values = {}
    for item in text.split():
        name, _, value = item.partition("=")
        limit = LIMITS.get(name.lower())
        if limit is None or not name.isupper():
            raise ConfigError(f"{LIMITS_VARIABLE} names {name!r}, which is none of {', '.join(LIMITS).upper()}.")
        values[name.lower()] = _parse(f"{LIMITS_VARIABLE}: {name}", value, limit.metadata["kind"])
    return values


def exposure_warning(address: str, settings: Settings) -> str | None:
    """Return what it means that a relay listens on an address, such as `0.0.0.0:8000`, if others may reach it.

    None for this machine's own, for a Unix socket, and where both keys and secrets are asked for.
    """
    host = address.rpartition(":")[0].strip("[]")
    if (
        not host
        or host in ("unix", "fd", "localhost")
        or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
    ):
        return None
    risks = []
    if not settings.api_keys:
        risks.append("Without SOCKET2ME_API_KEYS anyone who reaches it may ask for tokens.")
    if not settings.require_secret:
        risks.append(
            "Without SOCKET2ME_REQUIRE_SECRET a token may have no secret: anyone who knows its URL may take its requests."
        )
    if not risks:
        return None
    return " ".join(
        [f"The relay listens on {address}, not only for this machine.", *risks, "See docs/security.md."]
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _connections(wanted: int | None) -> int:
    """Return how many clients there may be. Each is an open file, and callers need some too."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = open_files * 4 // 5
    if wanted is None:
        return min(20_000, possible)
    if wanted == 0:
        return possible
    if wanted > possible:
        raise ConfigError(
            f"SOCKET2ME_MAX_CONNECTIONS={wanted} is not accepted: of the {open_files} files that this process may open "
            f"(ulimit -n), clients can have {possible}."
        )
    return wanted
