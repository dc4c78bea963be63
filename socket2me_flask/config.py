"""The settings: one table, read from the environment. Knows nothing of the rest of the relay."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """How the text of an environment variable becomes a value, and the words for what it accepts."""

    accepts: str
    parse: Callable[[str], Any]


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


_ORIGINS = Kind("origins such as https://app.example separated by commas, or * for every origin", _parse_origins)

# More than these is a slip of the keyboard.
MANY = 10_000_000
HUGE = 2**31 - 1

SETTINGS: tuple[Setting, ...] = (
    Setting("PORT", 8000, _whole_number(1, 65535), "The port. Set: on all interfaces. Not set: 8000, this machine only."),
    Setting("TOKEN_EXPIRE_SECONDS", 86400.0, _seconds(1), "How long a token lives after it was issued or refreshed."),
    Setting("REAPER_INTERVAL_SECONDS", 10.0, _seconds(0.05), "How often expired tokens are removed and their clients disconnected."),
    Setting("HOLD_SECONDS", 2.0, _seconds(0), "How long a call waits for a client to connect before it is answered 503."),
    Setting("MAX_HELD_REQUESTS", 1000, _whole_number(0, MANY), "How many calls may wait for their clients at once, over all tokens."),
    Setting("MAX_HELD_BYTES", 64_000_000, _whole_number(0, HUGE), "How many bytes of bodies may wait for their clients, over all tokens."),
    Setting("RETRY_AFTER_SECONDS", 5, _whole_number(1, 86_400), "The Retry-After that goes with a 503."),
    Setting("MAX_BODY_BYTES", 2_048_000, _whole_number(0, HUGE), "The largest body of a call; a larger one is answered 413."),
    Setting("MAX_CONNECTIONS", None, _whole_number(1, MANY), "How many clients may be connected at once; the next is answered 503. Not set: 20,000, or four fifths of the files that the process may open."),
    Setting("CLIENT_QUEUE_LIMIT_REQUESTS", 1000, _whole_number(1, MANY), "How many requests may wait for a client that reads slowly; at the next it is disconnected."),
    Setting("CLIENT_QUEUE_LIMIT_BYTES", 16_000_000, _whole_number(65_536, HUGE), "How many bytes may wait for a client that reads slowly; at more it is disconnected."),
    Setting("MAX_CLIENT_MESSAGE_BYTES", 65_536, _whole_number(1024, HUGE), "The largest message that a client may send."),
    Setting("PING_INTERVAL_SECONDS", 25, _whole_number(1, 3600), "How often a client is asked whether it is still there."),
    Setting("PING_TIMEOUT_SECONDS", 20, _whole_number(1, 3600), "How long its answer may take before it counts as gone."),
    Setting("CORS_ALLOWED_ORIGINS", None, _ORIGINS, "Which web pages may connect. Not set: only the relay's own origin."),
)  # fmt: skip


def from_env(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every setting: from `overrides`, else the variable's value in `environ`, else the default.

    An empty variable counts as not set; `overrides` hold values, not texts. Raises `ConfigError`, which
    names the variable, what it holds and what it accepts, or the override that is no setting.
    """
    settings = {setting.name: setting.default for setting in SETTINGS}
    for setting in SETTINGS:
        text = environ.get(setting.name, "").strip()
        if not text:
            continue
        try:
            settings[setting.name] = setting.kind.parse(text)
        except ValueError:
            raise ConfigError(
                f"{setting.name}={text!r} is not accepted: it takes {setting.kind.accepts}."
            ) from None
    for name in overrides or {}:
        if name not in settings:
            raise ConfigError(f"{name} is not a setting.")
    settings |= overrides or {}
    settings["MAX_CONNECTIONS"] = _connections(settings["MAX_CONNECTIONS"])
    return settings


def _connections(wanted: int | None) -> int:
    """Return how many clients there may be. Each is an open file, and callers need some too."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = open_files * 4 // 5
    if wanted is None:
        return min(20_000, possible)
    if wanted > possible:
        raise ConfigError(
            f"MAX_CONNECTIONS={wanted} is not accepted: of the {open_files} files that this process may open "
            f"(ulimit -n), clients can have {possible}."
        )
    return wanted
