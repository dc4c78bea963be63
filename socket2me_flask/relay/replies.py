"""What a caller receives when all went well: `OK`, that its event is kept, or what the client replied.

Pure: the arguments of an acknowledgement in, an answer out.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from ..errors import BadReply, Rejected, ReplyTooLarge
from ..http.answers import SECURITY_HEADERS, Answer

_TEXT, _JSON, _BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"

_HTML = "text/html; charset=utf-8"

OK = Answer("200 OK", [("Content-Type", _TEXT), ("Content-Length", "2"), *SECURITY_HEADERS], b"OK", "forwarded")

# The same for a call to `/go`.
LEGACY_OK = Answer(
    "200 OK", [("Content-Type", _HTML), ("Content-Length", "2"), *SECURITY_HEADERS], b"OK", "forwarded"
)

# The same for a call that its client acknowledged, or answered with an empty reply.
ACKNOWLEDGED = replace(OK, outcome="acknowledged")
REPLIED, LEGACY_REPLIED = replace(OK, outcome="replied"), replace(LEGACY_OK, outcome="replied")

# A reply passes these headers and no others. Each one means something to the program that calls a webhook, and none
# makes a browser that opens the URL keep something for the relay's origin. `docs/delivery.md` has the reasons.
PASSED_HEADERS = frozenset(
    "content-type content-language content-encoding content-disposition content-location content-range "
    "accept-ranges content-digest repr-digest signature signature-input etag last-modified vary location link "
    "retry-after allow request-id traceparent tracestate "
    "access-control-allow-origin access-control-allow-methods access-control-allow-headers "
    "access-control-expose-headers".split()
)

# Headers of custom names, of CloudEvents over HTTP (`ce-`), of its Web Hooks and of Standard Webhooks (`webhook-`).
PASSED_PREFIXES = ("x-", "ce-", "webhook-", "ratelimit")

# Within those, what proxies in front of the relay obey: nginx, Apache, lighttpd, LiteSpeed, Perlbal. And what the
# relay itself says, or a browser obeys.
_NOT_PASSED_PREFIXES = ("x-accel-", "x-sendfile", "x-lighttpd-", "x-litespeed-", "x-lsadc-", "x-reproxy-")
_NOT_PASSED = frozenset(
    "x-request-id x-content-type-options x-dns-prefetch-control x-permitted-cross-domain-policies x-ua-compatible "
    "x-xss-protection".split()
)

# The most that the headers of a reply may have: values, and bytes. Python's own HTTP client refuses an answer with
# more than 100 headers, and most servers and clients one with a head above 16 KB.
MAX_REPLY_HEADERS = 64
MAX_REPLY_HEADERS_BYTES = 16_384

_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

# Whatever a client sends is no page of the relay's: no script of it runs in the relay's name.
_SANDBOX = ("Content-Security-Policy", "sandbox")

# A cache would answer the next call in place of the client.
_NOT_STORED = ("Cache-Control", "no-store")


# The first argument of a negative acknowledgement, and the longest reason that its caller receives.
REJECT = "reject"
MAX_REASON_CHARACTERS = 300


# The one argument of an acknowledgement that is larger than `MAX_CLIENT_MESSAGE_BYTES`, and was not read.
TOO_LARGE: Any = object()


def kept(event_id: str) -> Answer:
    """Return the answer to a call whose event waits in a mailbox: `202`, and its id as JSON."""
    body = json.dumps({"id": event_id}, separators=(",", ":")).encode()
    headers = [("Content-Type", _JSON), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    return Answer("202 Accepted", headers + SECURITY_HEADERS, body, "kept")


def from_acknowledgement(args: list[Any], *, is_legacy: bool = False) -> Answer:
    """Return what a client replied: `(status, body, headers)`, each optional. Nothing at all is `OK`.

    A first argument that is no number is the body.

    Text, bytes or JSON as a body; headers as an object of texts, numbers or lists of them. Headers that are not in
    `PASSED_HEADERS`, or that HTTP does not allow, are left out. With `is_legacy` text is HTML, and no body is `OK`:
    as in the later originals. Raises `BadReply`.
    """
    if not args:
        return LEGACY_REPLIED if is_legacy else REPLIED
    if args[0] is TOO_LARGE:
        raise ReplyTooLarge
    if not isinstance(args[0], int | float | None) or isinstance(args[0], bool):
        args = [None, *args]
    status, body, headers = (*args, None, None)[:3]
    if len(args) > 3:
        raise BadReply("A reply is (status, body, headers), and nothing more.")
    if status is None:
        status = 200
    if not 200 <= status <= 599 or status != int(status):
        raise BadReply("The status of a reply is a number from 200 to 599.")
    if is_legacy and body is None:
        body = "OK"
    content_type, data = _encoded(body)
    own = list(_headers(headers))
    if is_legacy:
        content_type = _HTML if isinstance(body, str) else content_type
        own = [(name, _with_charset(name, value)) for name, value in own]
    own += [*SECURITY_HEADERS, _SANDBOX, _NOT_STORED]
    if data and "content-type" not in {name.lower() for name, _ in own}:
        own.append(("Content-Type", content_type))
    if status in (204, 205, 304):
        data = b""
    if status not in (204, 304):
        own.append(("Content-Length", str(len(data))))
    return Answer(f"{int(status)} {_phrase(int(status))}", own, data, "replied")


def rejection_of(args: list[Any], mode: str) -> Rejected | None:
    """Return what a negative acknowledgement says, or None if this is none: `("reject", reason, status)`.

    A reply never has this form: its headers would be text, which is `502 bad_reply`. The reason may be left out
    in mode `ack` only, where `"reject"` alone is no body. A status other than 502, 503 and 504 counts as 503.
    """
    if not args or args[0] != REJECT:
        return None
    reason, status = (*args[1:3], None, None)[:2]
    if not isinstance(reason, str):
        if mode != "ack":
            return None
        reason = ""
    shown = "".join(c if c.isprintable() else " " for c in reason[:MAX_REASON_CHARACTERS])
    return Rejected(" ".join(shown.split()), int(status) if status in (502, 503, 504) else 503)


def _with_charset(name: str, value: str) -> str:
    """Return the value of a header, with the charset of text where `Content-Type` has none. As Express does."""
    is_text = name.lower() == "content-type" and value.lower().startswith("text/")
    return f"{value}; charset=utf-8" if is_text and "charset=" not in value.lower() else value


def _encoded(body: Any) -> tuple[str, bytes]:
    if body is None:
        return _TEXT, b""
    if isinstance(body, str):
        return _TEXT, body.encode(errors="replace")
    if isinstance(body, bytes):
        return _BYTES, body
    try:
        return _JSON, json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise BadReply("The body of a reply is text, bytes or JSON; bytes inside of JSON are none.") from None


def _headers(headers: Any) -> Iterable[tuple[str, str]]:
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        raise BadReply("The headers of a reply are an object.")
    if len(headers) > MAX_REPLY_HEADERS:
        raise BadReply(_TOO_MANY_HEADERS)
    connection = next((value for name, value in headers.items() if name.lower() == "connection"), None)
    dropped = _names(connection) if isinstance(connection, str) else ()
    left, left_bytes = MAX_REPLY_HEADERS, MAX_REPLY_HEADERS_BYTES
    for name, value in headers.items():
        is_passed = _is_name(name) is not None and _is_passed(name.lower()) and name.lower() not in dropped
        items = value if isinstance(value, list) else [value]
        left -= len(items)
        if left < 0:
            raise BadReply(_TOO_MANY_HEADERS)
        for item in items:
            if not isinstance(item, str | int | float) or isinstance(item, bool):
                raise BadReply("The headers of a reply are texts, numbers or lists of them.")
            text = str(item).strip()
            if is_passed and _is_value(text):
                left_bytes -= len(name) + len(text) + len(": \r\n")
                if left_bytes < 0:
                    raise BadReply(f"The headers of a reply have at most {MAX_REPLY_HEADERS_BYTES} bytes.")
                yield name, text


_TOO_MANY_HEADERS = f"A reply has at most {MAX_REPLY_HEADERS} headers."


def _names(connection: str) -> set[str]:
    """Return the names that `Connection` lists, which are for one connection only (RFC 9110, section 7.6.1)."""
    return {name.strip().lower() for name in connection[:MAX_REPLY_HEADERS_BYTES].split(",")}


def _is_passed(name: str) -> bool:
    """Say whether a reply passes a header of this name, given in lower case."""
    if name in PASSED_HEADERS:
        return True
    return (
        name.startswith(PASSED_PREFIXES) and name not in _NOT_PASSED and not name.startswith(_NOT_PASSED_PREFIXES)
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
