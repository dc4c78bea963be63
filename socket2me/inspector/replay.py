"""What a replay sends: a request of the history, as it was or edited. Pure."""

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..request import METHODS
from .errors import BadQuery
from .record import RequestRecord

_MEMBERS = ("method", "path", "query", "headers", "body", "text")

_is_path = re.compile(r"(?:/[^\x00-\x20\x7f?#]*)?").fullmatch
_is_query = re.compile(r"[^\x00-\x20\x7f#]*").fullmatch
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

# A head beyond these is refused by the servers that are known, gunicorn's among them.
MAX_HEADERS = 100
MAX_TARGET_CHARACTERS = 8000
MAX_HEADERS_CHARACTERS = 65_536


@dataclass(frozen=True)
class Draft:
    """A request that is to be sent. Names of headers are in lower case; one that came twice is one value.

    `verified` is the provider that signed the request that this one repeats; None if none did, or
    headers or body are edited.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    replay_of: str
    verified: str | None


def draft(record: RequestRecord, body: bytes, *, max_body_bytes: int) -> Draft:
    """Return what a replay of `record` sends, with the changes that the JSON in `body` says. `b""` changes nothing.

    `method`, `path`, `query`, `headers` (an object, or a list of names and values) and `body` (base64) or `text`
    each replace what the request has. `Content-Length` follows the body. Raises `BadQuery`.
    """
    changes = _changes(body)
    method, path, query = (
        _text(changes, name, default)
        for name, default in (("method", record.method), ("path", record.path), ("query", record.query))
    )
    if "method" in changes and method not in METHODS:
        raise BadQuery(f"method is one of {', '.join(METHODS)}.")
    if "path" in changes and _is_path(path) is None:
        raise BadQuery('path is "", or begins with / and has no space, ? or #.')
    if "query" in changes and _is_query(query) is None:
        raise BadQuery("query has no space and no #.")
    if len(path) + len(query) > MAX_TARGET_CHARACTERS and not {"path", "query"}.isdisjoint(changes):
        raise BadQuery(f"path and query have at most {MAX_TARGET_CHARACTERS} characters.")
    headers = _joined(record.headers)
    if "headers" in changes:
        headers = _headers(changes["headers"])
    content = _content(changes, record.body)
    if len(content) > max_body_bytes:
        raise BadQuery(f"The body has at most {max_body_bytes} bytes.")
    if content is not record.body or "headers" in changes:
        headers.pop("transfer-encoding", None)
        headers.pop("content-length", None)
        if content or method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(len(content))
    is_edited = content != record.body or headers != _joined(record.headers)
    return Draft(method, path, query, headers, content, record.id, None if is_edited else record.verified)


def _changes(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        changes = json.loads(body)
    except (ValueError, RecursionError):
        changes = None
    if not isinstance(changes, dict):
        raise BadQuery("The body is a JSON object, or empty.")
    for name in changes:
        if name not in _MEMBERS:
            raise BadQuery(f"The body may have {', '.join(_MEMBERS)}, and nothing else.")
    return changes


def _text(changes: Mapping[str, Any], name: str, default: str) -> str:
    value = changes.get(name, default)
    if not isinstance(value, str):
        raise BadQuery(f"{name} is text.")
    return value


def _headers(headers: Any) -> dict[str, str]:
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise BadQuery("headers is an object, or a list of names and values.")
    if len(pairs) > MAX_HEADERS:
        raise BadQuery(f"headers has at most {MAX_HEADERS} of them.")
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str) or not _is_name(name) or not _is_value(value):
            raise BadQuery("A header is a name and a value that HTTP allows, as texts.")
    if sum(len(name) + len(value) for name, value in pairs) > MAX_HEADERS_CHARACTERS:
        raise BadQuery(f"headers has at most {MAX_HEADERS_CHARACTERS} characters.")
    return _joined(pairs)


def _joined(pairs: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _content(changes: Mapping[str, Any], default: bytes) -> bytes:
    if "body" in changes and "text" in changes:
        raise BadQuery("Either body or text, not both.")
    if "text" in changes:
        try:
            return _text(changes, "text", "").encode()
        except UnicodeEncodeError:
            raise BadQuery("text has half a surrogate pair.") from None
    if "body" not in changes:
        return default
    try:
        return b64decode(_text(changes, "body", ""), validate=True)
    except ValueError:
        raise BadQuery("body is base64.") from None
