"""The request object that a client receives of a call, and the packets of its `request` event.

Pure: a call in, JSON text and attachments out. No I/O, no Flask, no Socket.IO server.

A JSON body is checked, never rebuilt: its own text goes into the message. So a number of any size, the
order of members and the spelling of a string arrive as they were sent, and a large body costs one pass.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from operator import add
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header

from ..engineio.protocol import Packet
from ..http.query_string import nest
from ..relay.call import Call, shown

# A JSON body nested deeper is carried as text. CPython 3.11's own parser gives up near 1,000 levels, and a
# client that parses the message has frames of its own on that stack.
MAX_JSON_DEPTH = 500

# JSON with a longer run of digits is carried as text: python-engineio's client refuses longer integers.
MAX_INTEGER_DIGITS = 99

# A JSON object with more members is carried as text: `params` would have them all once more.
MAX_JSON_MEMBERS = 50_000

# Of `Content-Type`, this much is read. A boundary has at most 70 characters (RFC 2046, section 5.1.1).
MAX_CONTENT_TYPE_CHARACTERS = 1024

# A form with more fields is carried as text. Werkzeug's limit for the parts of a multipart form is the same.
MAX_FORM_FIELDS = 1000

# A form with more escapes (`%41`) is carried as text: to decode them would keep all other callers waiting.
MAX_FORM_ESCAPES = 200_000

# A form with more percent signs that begin no escape is carried as text.
MAX_STRAY_PERCENTS = 1000

# A multipart form with more headers, all parts together, or more before the first, is carried as bytes.
MAX_PART_HEADERS_BYTES = 131_072

# A message with more attachments is refused by socket.io-parser (4.2.6 accepts 10).
MAX_ATTACHMENTS = 10

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_TEXTUAL = re.compile(
    r"text/.+|.+\+(json|xml|yaml)"
    r"|application/(json|xml|javascript|ecmascript|graphql|yaml|x-yaml|toml|sql|x-ndjson|x-www-form-urlencoded)"
)
_UTF8_BOM = b"\xef\xbb\xbf"

# Where a value is bytes, a Socket.IO message holds `{"_placeholder": true, "num": n}` and the bytes follow.
_PLACEHOLDER = "_placeholder"

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Event:
    """A request object, ready for the wire.

    Fields:
        json: the object as JSON, with Socket.IO's placeholders where `attachments` belong.
        attachments: the bytes that the placeholders stand for, in their order.
    """

    json: bytes
    attachments: tuple[bytes, ...] = ()


def request_event(call: Call, *, raw: bool = False, attempt: int | None = None) -> Event:
    """Return the request object of `call`, as `docs/design.md` ("The request object") defines it.

    With `raw`, `body` is the exact bytes and nothing is parsed: `params` holds the query and the token. `attempt`
    says how often it was sent from a mailbox, this time included.
    """
    collect = nest if call.is_legacy else collect_pairs
    if raw:
        body = ParsedBody.unparsed(call.body)
    else:
        body = parse_body(call.body, call.headers.get("content-type", ""), collect)
    query = collect(parse_qsl(call.query, keep_blank_values=True, errors="replace")) if call.query else {}
    if body.attachments:
        # A client would take such a member for a place where bytes belong; the query as it was sent has it.
        query.pop(_PLACEHOLDER, None)
    params = {**query, **body.params, "token": call.token}
    if call.is_legacy:
        params |= _route_and_file(call.path)
    members: dict[str, Any] = {"headers": call.headers, "params": params}
    if call.body:
        members["body"] = body.value
    members |= shown(call)
    if attempt is not None:
        members["attempt"] = attempt
    if call.is_legacy:
        members |= {"url": unquote(call.path.removeprefix("/")), "query": query}
        if not raw and (not call.body or _is_null(body.value)):
            members["body"] = {}
    return Event(_encode(members), body.attachments)


def event_packets(namespace: str, event: Event, ack_id: int | None = None) -> list[Packet]:
    """Return the packets of a `request` event (Socket.IO protocol 5): one of text, then its attachments.

    With `ack_id` the client is asked to acknowledge it by that number.
    """
    ack = b"" if ack_id is None else b"%d" % ack_id
    if not event.attachments:
        return [Packet(b'42%b,%b["request",%b]' % (namespace.encode(), ack, event.json))]
    text = b'45%d-%b,%b["request",%b]' % (len(event.attachments), namespace.encode(), ack, event.json)
    return [Packet(text), *[Packet(attachment, binary=True) for attachment in event.attachments]]


def with_attachments(value: Any, attachments: Sequence[Any]) -> Any:
    """Return a value with its attachments in the places that it has for them."""
    if isinstance(value, list):
        return [with_attachments(item, attachments) for item in value]
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            return attachments[value["num"]]
        return {key: with_attachments(item, attachments) for key, item in value.items()}
    return value


def _is_null(value: Any) -> bool:
    """Say whether a body is the JSON text `null`, of which an app cannot read a member."""
    return isinstance(value, msgspec.Raw) and _NULL(value) is not None


_NULL = re.compile(rb"\s*null\s*").fullmatch

_Collect = Callable[[Iterable[tuple[str, str]]], dict[str, Any]]


@dataclass(slots=True)
class ParsedBody:
    """A body as the request object carries it: its value, what it adds to `params`, and its bytes."""

    value: Any
    params: dict[str, Any] = field(default_factory=dict)
    attachments: tuple[bytes, ...] = ()

    @classmethod
    def unparsed(cls, body: bytes) -> "ParsedBody":
        return cls(_placeholder(0), attachments=(body,))


def parse_body(body: bytes, content_type: str, collect: _Collect) -> ParsedBody:
    """Read a body as its type says. `collect` makes an object of the names and values of a form."""
    if not body:
        return ParsedBody(None)
    mimetype, boundary = media_type(content_type[:MAX_CONTENT_TYPE_CHARACTERS])
    parsed = None
    if mimetype == "application/json" or mimetype.endswith("+json"):
        parsed = _parse_json(body)
    elif mimetype == _FORM:
        parsed = _parse_form(body, collect)
    elif mimetype == _MULTIPART:
        parsed = _parse_multipart(body, boundary)
    if parsed is not None:
        return parsed
    if _TEXTUAL.fullmatch(mimetype):
        try:
            return ParsedBody(body.decode())
        except UnicodeDecodeError:
            pass
    return ParsedBody.unparsed(body)


@lru_cache(maxsize=128)  # providers send few; a caller can send any
def media_type(content_type: str) -> tuple[str, str]:
    mimetype, options = parse_options_header(content_type)
    return mimetype.lower(), options.get("boundary", "")


def _parse_json(body: bytes) -> ParsedBody | None:
    """Return a JSON body, or None where it is not JSON (RFC 8259), not UTF-8, or more than clients can parse."""
    body = body.removeprefix(_UTF8_BOM)
    try:
        body.decode()  # msgspec does not look into the strings that it passes over
        if body.lstrip()[:1] == b"{":
            params: dict[str, Any] = _decode_members(body)
        else:
            _decode_raw(body)
            params = {}
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    if len(params) > MAX_JSON_MEMBERS or _has_long_integer(body):
        return None
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH and json_depth(body) > MAX_JSON_DEPTH:
        return None
    return ParsedBody(msgspec.Raw(body), params)


def _has_long_integer(json: bytes) -> bool:
    """Say whether valid JSON has more than `MAX_INTEGER_DIGITS` digits in a row, outside of its strings."""
    run = b"0" * (MAX_INTEGER_DIGITS + 1)
    if run not in json.translate(_DIGITS_AS_ZEROS):
        return False
    json = _without_escapes(json)
    zeros = json.translate(_DIGITS_AS_ZEROS)
    quotes = looked_at = 0
    while (at := zeros.find(run, looked_at)) >= 0:
        quotes += json.count(b'"', looked_at, at)
        if quotes % 2 == 0:
            return True
        looked_at = json.find(b'"', at)  # where this string ends
    return False


def json_depth(json: bytes) -> int:
    """Return how deep valid JSON is nested.

    Each bracket is a bit, and eight of them are looked up at once: a large body delays no other call.
    """
    kept = _without_escapes(json).translate(_AS_BITS, _NOT_STRUCTURE).replace(b'""', b"")
    bits = b"".join(kept.split(b'"')[::2])
    bits += b"0" * (-len(bits) % 8)
    packed = int(bits or b"0", 2).to_bytes(len(bits) // 8, "big")
    changes = memoryview(packed.translate(_CHANGES)).cast("b")
    return max(map(add, accumulate(changes, initial=0), packed.translate(_PEAKS)), default=0)


def _without_escapes(json: bytes) -> bytes:
    """Return JSON in which each quote begins or ends a string."""
    return json.replace(b"\\\\", b"").replace(b'\\"', b"")


def _peak(byte: int) -> int:
    """Return how far above where it began the depth comes within eight brackets; a set bit is an opening one."""
    return max(0, *accumulate(1 if byte >> bit & 1 else -1 for bit in range(7, -1, -1)))


_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_AS_BITS = bytes.maketrans(b"[]{}", b"1010")
_CHANGES = bytes((2 * byte.bit_count() - 8) % 256 for byte in range(256))  # signed
_PEAKS = bytes(map(_peak, range(256)))
_DIGITS_AS_ZEROS = bytes.maketrans(b"0123456789", b"0000000000")


def _parse_form(body: bytes, collect: _Collect) -> ParsedBody | None:
    """Return an urlencoded form, or None where it has too many fields, escapes or stray percent signs, or no UTF-8.

    `collect` makes an object of names and values.
    """
    if body.count(b"%") > MAX_FORM_ESCAPES or body.count(b"&") >= MAX_FORM_FIELDS:
        return None
    escaped, strays = _STRAY_PERCENT.subn(b"%25", body, MAX_STRAY_PERCENTS + 1)
    if strays > MAX_STRAY_PERCENTS:
        return None
    try:
        body.decode()
        fields = collect(_form_pairs(escaped))
    except ValueError:
        return None
    return ParsedBody(fields, fields)


def _form_pairs(body: bytes) -> Iterator[tuple[str, str]]:
    """Return the names and values of an urlencoded form with no stray percent sign.

    Raises `ValueError` where one is not UTF-8.
    `parse_qsl` reads the same, but decodes escapes one by one where other text is between them.
    """
    for field_ in body.replace(b"+", b" ").split(b"&"):
        if field_:
            name, _, value = field_.partition(b"=")
            yield _unquoted(name), _unquoted(value)


def _unquoted(data: bytes) -> str:
    """Return text without its escapes, as `urllib.parse.unquote` does, by a decoder that is written in C."""
    if b"%" in data:
        python = data.replace(b"\\", b"\\\\").replace(b"%", b"\\x")
        data = python.decode("unicode_escape").encode("latin-1")
    return data.decode()


_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def _parse_multipart(body: bytes, boundary: str) -> ParsedBody | None:
    """Return a multipart form, or None where it can't be read or its files don't fit into a message.

    A field is text. A file is `{"filename", "content_type", "data"}` with its bytes as `data`; files are
    part of `body`, not of `params`.
    """
    if not _has_small_headers(body, boundary.encode()):
        return None
    parser = MultiPartParser(stream_factory=lambda *_, **__: BytesIO(), max_form_parts=MAX_FORM_FIELDS)
    try:
        form, files = parser.parse(BytesIO(body), boundary.encode(), len(body))
    except (ValueError, HTTPException):
        return None
    fields = collect_pairs(form.items(multi=True))
    if b"\xef\xbf\xbd" not in body and _has_replacement(form):
        return None  # Werkzeug put it where a field is not text in its charset: that would be a loss
    attachments: list[bytes] = []
    uploads: list[tuple[str, Any]] = []
    for name, file in files.items(multi=True):
        data = _placeholder(len(attachments))
        uploads.append((name, {"filename": file.filename, "content_type": file.content_type, "data": data}))
        attachments.append(file.stream.read())
    members = collect_pairs([*form.items(multi=True), *uploads])
    if None in members or len(attachments) > MAX_ATTACHMENTS or (attachments and _PLACEHOLDER in members):
        return None  # a part without a name, or what a message cannot hold
    return ParsedBody(members, fields, tuple(attachments))


def _has_replacement(form: Any) -> bool:
    """Say whether a name or a value of a form has U+FFFD in it. A part may have no name."""
    return any("\ufffd" in (text or "") for pair in form.items(multi=True) for text in pair)


def _has_small_headers(body: bytes, boundary: bytes) -> bool:
    """Say whether a multipart form begins soon, and whether its parts have few headers, so that it is read quickly.

    Bytes that begin as a delimiter and do not end as one belong to the preamble, which Werkzeug searches at 50 ms a
    MB where it has line breaks only.
    """
    delimiter = b"--" + boundary
    left = MAX_PART_HEADERS_BYTES
    at = body.find(delimiter, 0, left)
    while at >= 0 and not _ends_delimiter(body, at + len(delimiter)):
        at = body.find(delimiter, at + len(delimiter), left)
    for _ in range(MAX_FORM_FIELDS + 1):
        if at < 0 or body.startswith(b"--", at + len(delimiter)):
            return at >= 0
        end = body.find(b"\r\n\r\n", at, at + left)
        if end < 0:
            return False
        left -= end - at
        at = body.find(b"\r\n" + delimiter, end + 2)
        at = at + 2 if at >= 0 else at
    return False


_ends_delimiter = re.compile(rb"--|[^\S\n\r]*[\r\n]").match


def _placeholder(num: int) -> dict[str, Any]:
    return {_PLACEHOLDER: True, "num": num}


def collect_pairs(pairs: Any) -> dict[str, Any]:
    """Return pairs as an object. A key that comes several times has the list of its values."""
    lists: dict[str, list[Any]] = {}
    for key, value in pairs:
        lists.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in lists.items()}


def _route_and_file(path: str) -> dict[str, str]:
    """Return what the first version made of a path, `/<route>/<file>`, each only if it is there."""
    match = _ROUTE_AND_FILE(path)
    if match is None:
        return {}
    return {name: unquote(value) for name, value in match.groupdict().items() if value is not None}


_ROUTE_AND_FILE = re.compile(r"/(?P<route>[^/]+)(?:/(?P<file>[^/]+))?").match
