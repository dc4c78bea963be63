"""The events that streams are sent, as smee.io (`lib/server.js`) and gosmee's server send them. Pure.

smee-client POSTs what it receives: `body` as JSON, and every member but `body` and `query` as a header. So what it
cannot POST is left out, or is sent in a form that it can.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ..relay.call import Call
from ..sockets.request_event import collect_pairs, parse_body, with_attachments

# How soon a client that lost its stream reconnects. It keeps the time that it received last.
RETRY_MS = 1000

# Neither has an `id`: the client would give it back as the last event that it has.
READY = b"event: ready\nretry: %d\ndata: {}\n\n" % RETRY_MS
PING = b"event: ping\ndata: {}\n\n"

# The headers that are not sent. With one of the last three undici, below smee-client, sends nothing: it refuses
# `expect`, and takes the mode of its own request from `sec-fetch-mode`. The body is not coded any more.
LEFT_OUT = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade", "http2-settings"),  # RFC 9110, section 7.6.1
        *("body", "bodyb", "query", "timestamp"),  # members of the message; Go's parser ignores case
        *("content-encoding", "expect", "sec-fetch-mode"),
    )
)

# What a header may hold (RFC 9110, sections 5.1 and 5.5): one character a byte.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
_encode = msgspec.json.Encoder().encode


def retry(seconds: float) -> bytes:
    """Return the line that states when to reconnect."""
    return b"retry: %d\n\n" % (seconds * 1000)


def smee_message(call: Call) -> bytes:
    """Return a call as smee.io's clients take it.

    `body` is JSON, an object of the fields of a form, text, or null if there is none. What is no text becomes such,
    with U+FFFD where it is not UTF-8: only gosmee's form has every byte.
    """
    parsed = parse_body(call.body, call.headers.get("content-type", ""), collect_pairs)
    body = with_attachments(parsed.value, [data.decode(errors="replace") for data in parsed.attachments])
    return _message(call, {"body": body, "timestamp": round(call.received_at * 1000)})


def gosmee_message(call: Call) -> bytes:
    """Return a call as gosmee's client takes it: `bodyB` is the exact bytes in base64, and the time is a string.

    The client drops a message without a header that it passes on: it is given the id of the call.
    """
    members: dict[str, Any] = {
        "bodyB": base64.b64encode(call.body).decode(),
        "timestamp": str(round(call.received_at * 1000)),
    }
    if not any(name == "user-agent" or name.startswith("x-") for name in call.headers):
        members["x-request-id"] = call.request_id or call.id
    return _message(call, members)


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a client can send on."""
    of_connection = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {
        name: value
        for name, value in headers.items()
        if name not in LEFT_OUT and name not in of_connection and _NAME(name) and _VALUE(value)
    }


def _message(call: Call, members: dict[str, Any]) -> bytes:
    query = collect_pairs(parse_qsl(call.query, keep_blank_values=True, errors="replace")) if call.query else {}
    data = _encode({**sendable(call.headers), **members, "query": query})
    # A line end in JSON is between its tokens, never in a string.
    return b"id: %b\ndata: %b\n\n" % (call.id.encode(), data.translate(_LINE_ENDS))
