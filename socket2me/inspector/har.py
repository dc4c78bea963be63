"""HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec/) of requests, piece by piece. Pure."""

import json
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from .record import RequestRecord, phrase_of

REDACTED = "[redacted]"

# Headers that hold what lets others in, or what a secret can be guessed from.
_SECRET = frozenset("authorization proxy-authorization cookie set-cookie x-api-key x-gitlab-token".split())
_SECRET_WORDS = ("signature", "secret", "token", "api-key", "apikey", "hmac")


def is_secret(name: str) -> bool:
    """Say whether the value of a header is left out unless it is asked for."""
    name = name.lower()
    return name in _SECRET or any(word in name for word in _SECRET_WORDS)


def pieces(records: Iterable[RequestRecord], *, base_url: str, version: str, with_secrets: bool) -> Iterator[bytes]:
    """Return a HAR of requests, of which one is in memory at a time. `base_url` is what stands before each path."""
    head = {"version": "1.2", "creator": {"name": "socket2me", "version": version}}
    yield b'{"log": ' + json.dumps(head).encode().removesuffix(b"}") + b', "entries": ['
    comma = b""
    for record in records:
        yield comma + json.dumps(_entry(record, base_url, with_secrets)).encode()
        comma = b",\n"
    yield b"]}}\n"


def _entry(record: RequestRecord, base_url: str, with_secrets: bool) -> dict[str, Any]:
    ms = record.ms or 0
    query = f"?{record.query}" if record.query else ""
    request: dict[str, Any] = {
        "method": record.method,
        "url": f"{base_url}{record.path}{query}",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _headers(record.headers, with_secrets),
        "queryString": _query(record.query),
        "headersSize": -1,
        "bodySize": record.size,
    }
    if record.body:
        request["postData"] = {
            "mimeType": record.header("content-type"),
            "params": [],
            **_text(record.body, "_encoding"),
        }
    entry = {
        "startedDateTime": datetime.fromtimestamp(record.received_at, UTC).isoformat(timespec="milliseconds"),
        "time": ms,
        "request": request,
        "response": _response(record, with_secrets),
        "cache": {},
        "timings": {"send": 0, "wait": ms, "receive": 0},
        "_id": record.id,
    }
    if record.replay_of:
        entry["_replay_of"] = record.replay_of
    return entry


def _response(record: RequestRecord, with_secrets: bool) -> dict[str, Any]:
    """Return what the caller was answered; status 0 while it waits, as browsers write it."""
    response = record.response
    headers = response.headers if response is not None else ()
    body = response.body if response is not None else b""
    status = record.status or 0
    mime_type = next((value for name, value in headers if name.lower() == "content-type"), "")
    return {
        "status": status,
        "statusText": phrase_of(status),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _headers(headers, with_secrets),
        "content": {"size": len(body), "mimeType": mime_type, **_text(body, "encoding")},
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": len(body),
    }


def _headers(headers: Collection[tuple[str, str]], with_secrets: bool) -> list[dict[str, str]]:
    return [
        {"name": name, "value": value if with_secrets or not is_secret(name) else REDACTED}
        for name, value in headers
    ]


def _query(query: str) -> list[dict[str, str]]:
    try:
        fields = parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=1000)
    except ValueError:
        return []  # the URL has it
    return [{"name": name, "value": value} for name, value in fields]


def _text(body: bytes, encoding_member: str) -> dict[str, str]:
    """Return a body as text, or as base64, which `encoding_member` says."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"text": b64encode(body).decode(), encoding_member: "base64"}
