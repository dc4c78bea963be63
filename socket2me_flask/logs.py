"""The log: events with fields, no line that gives a token or a secret away, and no flood of one text."""

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

from .relay.tokens import SECRET

_GIVEAWAY = re.compile(
    SECRET
    # A secret, and a token, any characters of which may be percent-encoded, as in a URL.
    + "|(?:s|%73)(?:2|%32)(?:m|%6[Dd])(?:_|%5[Ff])(?:[A-Za-z0-9_-]|%[2-7][0-9A-Fa-f]){43}"
    + "|(?:[a-z]|%6[1-9A-Fa-f]|%7[0-9Aa])(?:[a-z0-9]|%3[0-9]|%6[1-9A-Fa-f]|%7[0-9Aa]){23}"
)

# Request ids are often 32 hexadecimal digits. A token has only such digits with a probability of some 10^-9.
_RUN = re.compile("[a-z0-9]{24,}")
_is_hexadecimal = re.compile("[0-9a-f]*").fullmatch

# A shorter key is found as a whole word only: it may be part of any other.
_SHORT_KEY = 8

# The least seconds between two lines on something that lasts: a limit that is reached, a store that is away.
LOG_SECONDS = 10


class LogInterval:
    """Spaces the lines on something that lasts: the first is due at once, the next after `LOG_SECONDS`."""

    def __init__(self) -> None:
        self._logged_at = -math.inf

    def is_due(self) -> bool:
        """Say whether a line is to be written now, and count it as written."""
        now = time.monotonic()
        if now - self._logged_at < LOG_SECONDS:
            return False
        self._logged_at = now
        return True


# How often the same may be logged in so many seconds, and how many texts are counted; all others count as one.
MAX_SAME_RECORDS = 50
FLOOD_SECONDS = 10

# The same for lines about clients that connect and disconnect: each is to have one.
MAX_CLIENT_RECORDS = 1000
MAX_COUNTED_TEXTS = 1000

_keys: re.Pattern[str] | None = None

_formatter = logging.Formatter()


class Redact(logging.Filter):
    """Puts `<token>` or `<key>` where a record has one: a malformed request line, an access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record's text; keep every record."""
        message = _message_of(record)
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, ()
        if record.exc_info:
            record.exc_text = redact(_formatter.formatException(record.exc_info))
        return True


class Flood(logging.Filter):
    """Drops what is logged more often than `MAX_SAME_RECORDS` in `FLOOD_SECONDS`, so that no peer fills a disk.

    Two records are the same if their texts are, before their arguments are put in. The next one that is kept says
    how many were not. Records at DEBUG are all kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._ends_at = 0.0
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to keep a record."""
        if record.levelno <= logging.DEBUG:
            return True
        now = self._clock()
        if now >= self._ends_at:
            self._counts = {}
            self._ends_at = now + FLOOD_SECONDS
        most: int = getattr(record, "most_same", MAX_SAME_RECORDS)
        key = str(record.msg) if len(self._counts) < MAX_COUNTED_TEXTS else ""
        self._counts[key] = count = self._counts.get(key, 0) + 1
        if count > most:
            self._dropped += 1
            return False
        if self._dropped:
            record.msg = f"{_message_of(record)} (before this, {self._dropped} records were left out)"
            record.args = ()
            self._dropped = 0
        return True


def _message_of(record: logging.LogRecord) -> str:
    """Return the text of a record. Where its arguments do not fit, both stand in it: a filter must not raise."""
    try:
        return record.getMessage()
    except Exception:
        record.msg, record.args = f"{record.msg} {record.args!r}", ()
        return record.msg


def hide_keys(keys: Collection[str]) -> None:
    """Have `redact` leave out these API keys from now on, in place of those before."""
    global _keys
    words = sorted(map(_key_pattern, keys), key=len, reverse=True)  # one key may begin with another
    _keys = re.compile("|".join(words)) if words else None


def _key_pattern(key: str) -> str:
    """Return what matches a key as it is, as it stands in a URL, and as Python shows it."""
    forms = {key, quote(key, safe=""), repr(key)[1:-1]}
    pattern = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    return f"(?:{pattern})" if len(key) >= _SHORT_KEY else rf"(?<![\w-])(?:{pattern})(?![\w-])"


def redact(text: str) -> str:
    """Return `text` without tokens, secrets and API keys."""
    return _GIVEAWAY.sub("<token>", _without_keys(text))


def _without_keys(text: str) -> str:
    return text if _keys is None else _keys.sub("<key>", text)


def redact_id(text: str) -> str:
    """Return a request id without tokens, secrets and API keys. Hexadecimal digits are no token."""
    text = _without_keys(text)
    is_hexadecimal = all(_is_hexadecimal(run) for run in _RUN.findall(text)) and "s2m_" not in text
    return text if is_hexadecimal else redact(text)


def event(log: logging.Logger, what: str, *, most_same: int = MAX_SAME_RECORDS, **fields: str) -> None:
    """Log that something happened, with fields: `name=value` in a line of text, members of one of JSON."""
    log.info(what, extra={"fields": fields, "most_same": most_same})


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the fields of a record beside its text."""
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields
