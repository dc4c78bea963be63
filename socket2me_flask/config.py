"""The settings: one table, read from the environment. Knows nothing of the rest of the relay."""

import ipaddress
import re
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import limits
from limits import RateLimitItem

from . import hosts
from .errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """How the text of an environment variable becomes a value, and the words for what it accepts."""

    accepts: str
    parse: Callable[[str], Any]
    is_secret: bool = False  # a value that is not accepted is not shown either


@dataclass(frozen=True)
class Setting:
    """One row of the table. The unit of a number is in its name."""

    name: str
    default: Any
    kind: Kind
    meaning: str


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


def _parse_origins(text: str) -> str | list[str] | None:
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
    return origins or None


def _parse_rate(text: str) -> RateLimitItem | None:
    if text == "0":
        return None
    (rate,) = limits.parse_many(text)  # which reads several, and 0 as 1
    if rate.amount < 1 or re.search(r"\b0+\b", text):
        raise ValueError
    return rate


def _parse_keys(text: str) -> list[str]:
    keys = [key.strip() for key in text.split(",") if key.strip()]
    if not keys:
        raise ValueError  # not "anybody may ask": somebody meant to set one
    return keys


def _parse_switch(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


def _parse_level(text: str) -> str:
    levels = {"DEBUG", "INFO", "WARNING", "ERROR"}
    (level,) = levels & {text.upper()}
    return level


def _parse_interface(text: str) -> str:
    return text if text == "localhost" else str(ipaddress.ip_address(text))


def _parse_store(text: str) -> str:
    parts = urlsplit(text)
    is_file = parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1
    if (text != "memory://" and not is_file and not _is_redis(parts)) or parts.query or parts.fragment:
        raise ValueError
    return text


def _is_redis(parts: SplitResult) -> bool:
    is_database = re.fullmatch(r"/?|/\d+", parts.path) is not None
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and (parts.port or 1) > 0 and is_database


_HOSTS = Kind("hosts such as relay.example or 127.0.0.1:8000 separated by commas", hosts.parse)
_STORE = Kind(
    "memory://, sqlite:///file with the path of a file, or redis://host:port/database", _parse_store, is_secret=True
)
_INTERFACE = Kind("localhost, or the address of an interface such as 127.0.0.1, 0.0.0.0 or ::", _parse_interface)
_RATE = Kind("a rate such as 60/minute or 1000 per 5 minutes, or 0 for no limit", _parse_rate)
_KEYS = Kind("keys separated by commas", _parse_keys, is_secret=True)
_SWITCH = Kind("true or false", _parse_switch)
_LEVEL = Kind("DEBUG, INFO, WARNING or ERROR", _parse_level)
_ORIGINS = Kind("origins such as https://app.example separated by commas, or * for every origin", _parse_origins)

# More than these is a slip of the keyboard.
MANY = 10_000_000
HUGE = 2**31 - 1

# By these a platform says that it serves the app: Heroku, Fly, Render, Cloud Run and Knative.
PLATFORM_VARIABLES = ("DYNO", "FLY_APP_NAME", "RENDER", "K_SERVICE")

SETTINGS: tuple[Setting, ...] = (
    Setting("PORT", 8000, _whole_number(1, 65535), "The port."),
    Setting("BIND", None, _INTERFACE, "The interface to listen on; 0.0.0.0 is all of IPv4, :: all. Not set: all where a platform says that it serves the app (DYNO, FLY_APP_NAME, RENDER, K_SERVICE), else 127.0.0.1, this machine only."),
    Setting("LOG_LEVEL", "INFO", _LEVEL, "How much is logged."),
    # Tokens
    Setting("STORE_URL", "memory://", _STORE, "Where tokens and mailboxes are kept: memory://; a file that survives a restart, sqlite:///relay.db (four slashes for a path from the root); or redis://host:6379/0, for several processes that work as one (rediss:// for TLS). Not set: REDIS_URL, if that is set."),
    Setting("REDIS_TLS_VERIFY", True, _SWITCH, "Whether the certificate of a rediss:// server must be one that this machine trusts. Heroku's is not."),
    Setting("STORE_TIMEOUT_SECONDS", 2.0, _seconds(0.05), "How long Redis, or another process, may take to answer; then the caller is answered 503."),
    Setting("LEASE_SECONDS", 10.0, _seconds(0.5), "How long another process may be silent until its clients count as gone. One that is killed counts as gone at once."),
    Setting("TOKEN_EXPIRE_SECONDS", 86400.0, _seconds(1), "How long a token lives after it was issued or refreshed."),
    Setting("MAX_TTL_SECONDS", 2_592_000.0, _seconds(1), "The longest life that a token with a secret may be asked for: 30 days, which `socket2me listen` asks for."),
    Setting("REAPER_INTERVAL_SECONDS", 10.0, _seconds(0.05), "How often expired tokens are removed and their clients disconnected."),
    Setting("MAX_TOKENS", 100_000, _whole_number(0, MANY), "How many tokens may live at once; a new one is answered 503. 0: no limit."),
    # Who may ask
    Setting("API_KEYS", (), _KEYS, "Keys of which new tokens need one, as Authorization: Bearer. Not set: anybody may ask."),
    Setting("REQUIRE_SECRET", False, _SWITCH, "Whether every token has a secret: GET /v1/new is answered 403."),
    Setting("CORS_ALLOWED_ORIGINS", None, _ORIGINS, "Which web pages may connect and ask for tokens. Not set: only the relay's own origin."),
    Setting("ALLOWED_HOSTS", (), _HOSTS, "Which hosts the relay answers for, any port of each, or one; a request with another Host is answered 421, but for /healthz and /readyz. Not set: every host."),
    Setting("TRUSTED_PROXY_HOPS", 0, _whole_number(0, 10), "How many proxies in front add to X-Forwarded-For, -Proto and -Host. 0: nobody is believed."),
    Setting("RATE_LIMIT_NEW", limits.parse("60/minute"), _RATE, "How often an address may ask for a token; more is answered 429. 0: no limit."),
    # Calls
    Setting("RATE_LIMIT_REQUESTS", limits.parse("60000/minute"), _RATE, "How often a token may be called; more is answered 429. 0: no limit."),
    Setting("MAX_BODY_BYTES", 2_048_000, _whole_number(0, HUGE), "The largest body of a call; a larger one is answered 413."),
    Setting("BODY_TIMEOUT_SECONDS", 10.0, _seconds(0.1), "How long a body may take to arrive; a later one is answered 408."),
    Setting("MAX_READING_BYTES", 96_000_000, _whole_number(65_536, HUGE), "How many bytes may have arrived of bodies that are being read, over all calls; more is answered 503. Those of one address may be no more than they leave free: half, if they are alone. Bodies up to 64 KB always have room."),
    Setting("HOLD_SECONDS", 2.0, _seconds(0), "How long a call waits for a client to connect before it is answered 503."),
    Setting("MAX_HELD_REQUESTS_PER_TOKEN", 100, _whole_number(0, MANY), "How many calls may wait for one client."),
    Setting("MAX_HELD_REQUESTS", 1000, _whole_number(0, MANY), "How many calls may wait for their clients at once, over all tokens. Those of one address may be no more than they leave free: half, if they are alone."),
    Setting("MAX_HELD_BYTES", 64_000_000, _whole_number(0, HUGE), "How many bytes of calls, headers and bodies, may wait for their clients, over all tokens; shared alike."),
    Setting("RETRY_AFTER_SECONDS", 5, _whole_number(1, 86_400), "The Retry-After that goes with a 503."),
    Setting("KEEPALIVE_SECONDS", 10, _whole_number(1, 3600), "How long a caller's connection may be idle, and how long the head of a request may take."),
    Setting("SEND_TIMEOUT_SECONDS", 30, _whole_number(1, 3600), "How long a caller may take to read a piece of its answer, and a client on WebSocket a piece of what waits for it; then its connection is closed."),
    # Delivery
    Setting("ACK_TIMEOUT_SECONDS", 5.0, _seconds(0.05), "How long a caller waits for the acknowledgement of a client in mode ack: then it is answered 202 if the event is in a mailbox, else 504."),
    Setting("REPLY_TIMEOUT_SECONDS", 5.0, _seconds(0.05), "How long a caller waits for the reply of a client in mode reply: then it is answered 202 if the event is in a mailbox, else 504 (200 under /go, as the later originals answered)."),
    Setting("MAILBOX_DEFAULT", False, _SWITCH, "Whether a token from POST /v1/new has a mailbox if it does not say."),
    Setting("MAILBOX_MAX_EVENTS", 1000, _whole_number(0, MANY), "How many events one mailbox may hold; more is answered 429. 0: no limit."),
    Setting("MAILBOX_MAX_BYTES", 50_000_000, _whole_number(0, HUGE), "How many bytes one mailbox may hold; more is answered 429. 0: no limit."),
    Setting("MAILBOX_TOTAL_BYTES", 1_000_000_000, _whole_number(0, 10**15), "How many bytes all mailboxes may hold; more is answered 503. The last tenth is for mailboxes that hold up to 64 KB. 0: no limit."),
    Setting("MAILBOX_MAX_AGE_SECONDS", 604800.0, _seconds(1), "How long an event may be in a mailbox; an older one is dropped, which the log says."),
    Setting("REDELIVER_SECONDS", 30.0, _seconds(0.05), "How long a client may take to acknowledge an event of a mailbox before it is sent again."),
    Setting("MAX_ATTEMPTS", 100, _whole_number(1, MANY), "How often an event of a mailbox is sent before it is set aside."),
    Setting("WINDOW", 1, _whole_number(1, 1000), "How many events of a mailbox may be on their way to a client that does not say. 1: in strict order."),
    Setting("MAX_WINDOW", 100, _whole_number(1, 1000), "How many a client may ask for."),
    # Clients
    Setting("LEGACY_CLIENTS", True, _SWITCH, "Whether clients of 2016 are served: socket.io-client 1.x and 2.x, and the URLs /new, /refresh and /go without /v1."),
    Setting("MAX_CONNECTIONS", None, _whole_number(0, MANY), "How many clients may be connected at once; the next is answered 503. Not set: 20,000, if they are no more than four fifths of the files that the process may open. 0: those four fifths."),
    Setting("MAX_CONNECTIONS_PER_ADDRESS", None, _whole_number(0, MANY), "How many clients may be connected at once from one address. Not set: 1,000, or half of MAX_CONNECTIONS if that is less. 0: no limit."),
    Setting("MAX_NAMESPACES_PER_CONNECTION", 50, _whole_number(0, MANY), "How many tokens one connection may try to join. 0: no limit."),
    Setting("JOIN_TIMEOUT_SECONDS", 10.0, _seconds(0.1), "How long a connection may take to join a token before it is closed."),
    Setting("CLIENT_QUEUE_LIMIT_REQUESTS", 1000, _whole_number(1, MANY), "How many requests may wait for a client that reads slowly; at the next it is disconnected."),
    Setting("CLIENT_QUEUE_LIMIT_BYTES", 16_000_000, _whole_number(65_536, HUGE), "How many bytes may wait for a client that reads slowly; at more it is disconnected."),
    Setting("MAX_QUEUED_BYTES", 80_000_000, _whole_number(65_536, HUGE), "How many bytes may wait for all clients; at more, each has room for 64 KB, and those for whom more waits are disconnected. Those of one address may have no more than they leave free: half, if they are alone."),
    Setting("MAX_CLIENT_MESSAGE_BYTES", 262_144, _whole_number(1024, HUGE), "The largest message that a client may send, a reply above all."),
    Setting("PING_INTERVAL_SECONDS", 25, _whole_number(1, 3600), "How often a client is asked whether it is still there."),
    Setting("PING_TIMEOUT_SECONDS", 20, _whole_number(1, 3600), "How long its answer may take before it counts as gone."),
)  # fmt: skip


def from_env(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every setting: from `overrides`, else the variable's value in `environ`, else the default.

    An empty variable counts as not set; `overrides` hold values, not texts. Raises `ConfigError`, which
    names the variable, what it holds and what it accepts, or the override that is no setting.
    """
    settings = {setting.name: setting.default for setting in SETTINGS}
    for setting in SETTINGS:
        name = setting.name
        if name == "STORE_URL" and not environ.get(name, "").strip():
            name = "REDIS_URL"  # as Heroku and others name it
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            settings[setting.name] = setting.kind.parse(text)
        except (ValueError, KeyError):
            value = "" if setting.kind.is_secret else f"={text!r}"
            raise ConfigError(f"{name}{value} is not accepted: it takes {setting.kind.accepts}.") from None
    for name in overrides or {}:
        if name not in settings:
            raise ConfigError(f"{name} is not a setting.")
    settings |= overrides or {}
    if settings["MAILBOX_DEFAULT"] and settings["STORE_URL"] == "memory://":
        raise ConfigError(
            "MAILBOX_DEFAULT=true needs a STORE_URL that survives the process: sqlite:///relay.db, or redis://."
        )
    settings["MAX_CONNECTIONS"] = _connections(settings["MAX_CONNECTIONS"])
    if settings["MAX_CONNECTIONS_PER_ADDRESS"] is None:
        settings["MAX_CONNECTIONS_PER_ADDRESS"] = max(1, min(1000, settings["MAX_CONNECTIONS"] // 2))
    return settings


def bind_address(environ: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Return the interface and the port to listen on, as gunicorn's `bind` takes it."""
    is_hosted = any(environ.get(name, "").strip() for name in PLATFORM_VARIABLES)
    host = settings["BIND"] or ("0.0.0.0" if is_hosted else "127.0.0.1")  # noqa: S104  # the platform's proxy asks
    return f"[{host}]:{settings['PORT']}" if ":" in host else f"{host}:{settings['PORT']}"


def exposure_warning(address: str, settings: Mapping[str, Any]) -> str | None:
    """Return what it means that a relay listens on an address, such as `0.0.0.0:8000`, if others may reach it.

    None for this machine's own, for a Unix socket, and where both `API_KEYS` and `REQUIRE_SECRET` are set.
    """
    host = address.rpartition(":")[0].strip("[]")
    if (
        not host
        or host in ("unix", "fd", "localhost")
        or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
    ):
        return None
    risks = []
    if not settings["API_KEYS"]:
        risks.append("Without API_KEYS anybody who reaches it may ask for tokens.")
    if not settings["REQUIRE_SECRET"]:
        risks.append(
            "Without REQUIRE_SECRET a token may have no secret: whoever knows its URL may take its requests."
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
            f"MAX_CONNECTIONS={wanted} is not accepted: of the {open_files} files that this process may open "
            f"(ulimit -n), clients can have {possible}."
        )
    return wanted
