"""What a caller hears when all went well: `OK`, that its event is kept, or what the client replied.

Pure: the arguments of an acknowledgement in, an answer out.
"""

import json
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from .answers import SECURITY_HEADERS, Answer
from .errors import BadReply

_TEXT, _JSON, _BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"

OK = Answer("200 OK", [("Content-Type", _TEXT), ("Content-Length", "2"), *SECURITY_HEADERS], b"OK")

# RFC 9110, section 7.6.1; what says how an answer is framed; what is the relay's to say; what proxies obey.
_NOT_FOR_CLIENTS = frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    "upgrade content-length date server referrer-policy x-content-type-options x-accel-redirect x-accel-buffering "
    "x-accel-charset x-accel-expires x-accel-limit-rate x-sendfile".split()
)
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

# Whatever a client sends is no page of the relay's: no script of it runs in the relay's name. One that the client
# sends does not lift this one: a browser obeys both.
_SANDBOX = ("Content-Security-Policy", "sandbox")


def kept(event_id: str) -> Answer:
    """Return the answer to a call whose event waits in a mailbox: `202`, and its id as JSON."""
    body = json.dumps({"id": event_id}, separators=(",", ":")).encode()
    headers = [("Content-Type", _JSON), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    return Answer("202 Accepted", headers + SECURITY_HEADERS, body)


def from_acknowledgement(args: list[Any]) -> Answer:
    """Return what a client replied: `(status, body, headers)`, each optional. Nothing at all is `OK`.

    A first argument that is no number is the body.

    Text, bytes or JSON as a body; headers as an object of texts, numbers or lists of them. Those that are
    hop-by-hop, that frame the answer or that HTTP does not allow are left out. Raises `BadReply`.
    """
    if not args:
        return OK
    if not isinstance(args[0], int | float | None) or isinstance(args[0], bool):
        args = [None, *args]
    status, body, headers = (*args, None, None)[:3]
    if len(args) > 3:
        raise BadReply("A reply is (status, body, headers), and nothing more.")
    if status is None:
        status = 200
    if not 200 <= status <= 599 or status != int(status):
        raise BadReply("The status of a reply is a number from 200 to 599.")
    content_type, data = _encoded(body)
    own = list(_headers(headers))
    own += [*SECURITY_HEADERS, _SANDBOX]
    if data and "content-type" not in {name.lower() for name, _ in own}:
        own.append(("Content-Type", content_type))
    if status in (204, 205, 304):
        data = b""
    if status not in (204, 304):
        own.append(("Content-Length", str(len(data))))
    return Answer(f"{int(status)} {_phrase(int(status))}", own, data)


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
    named = {name.lower(): value for name, value in headers.items()}
    connection = named.get("connection")
    dropped = {name.strip().lower() for name in connection.split(",")} if isinstance(connection, str) else set()
    for name, value in headers.items():
        if not _is_name(name) or name.lower() in _NOT_FOR_CLIENTS or name.lower() in dropped:
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | int | float) or isinstance(item, bool):
                raise BadReply("The headers of a reply are texts, numbers or lists of them.")
            text = str(item).strip()
            if _is_value(text):
                yield name, text


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
