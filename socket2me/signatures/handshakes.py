"""What providers ask a URL before they send anything to it, and the answers that they expect.

Pure: from a request to an answer, or to None if the request is no such question. Providers that sign their question
are answered after the signature was checked (`providers.py` says which). What is echoed is bounded, and is never
shown as HTML.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from .received import Received
from .schemes import parse_object

# The largest text that is echoed, in bytes. Those of the providers have less than 500.
MAX_ECHO_BYTES = 4096

# How many parameters a query may have that is searched for a question.
MAX_PARAMETERS = 100


@dataclass(frozen=True)
class Context:
    """What answers depend on beside the request.

    secrets: the secrets of the provider, in the order in which they were given.
    options: the options of the provider, `verify_token` for Meta.
    calls_per_minute: how often the URL may be called; None for no limit.
    """

    secrets: Sequence[str] = field(default=(), repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    calls_per_minute: int | None = None


@dataclass(frozen=True)
class HandshakeAnswer:
    """The response to a question: `200` with a body and headers, or `204` if there is no body."""

    body: bytes | None
    headers: tuple[tuple[str, str], ...]


Handshake = Callable[[Received, Context], HandshakeAnswer | None]


def slack(request: Received, context: Context) -> HandshakeAnswer | None:
    """Echo `challenge` of `url_verification`. https://docs.slack.dev/reference/events/url_verification/"""
    body = _posted(request)
    return _echo(body.get("challenge")) if body.get("type") == "url_verification" else None


def meta(request: Received, context: Context) -> HandshakeAnswer | None:
    """Echo `hub.challenge` if `hub.verify_token` is right. https://developers.facebook.com/docs/graph-api/webhooks/"""
    if request.method != "GET":
        return None
    query = _query(request)
    given, expected = query.get("hub.verify_token"), context.options.get("verify_token")
    if query.get("hub.mode") != "subscribe" or given is None or expected is None:
        return None
    if not hmac.compare_digest(given.encode(), expected.encode()):
        return None
    return _echo(query.get("hub.challenge"))


def graph(request: Received, context: Context) -> HandshakeAnswer | None:
    """Echo `validationToken`, decoded. https://learn.microsoft.com/graph/change-notifications-delivery-webhooks"""
    return _echo(_query(request).get("validationToken")) if request.method == "POST" else None


def dropbox(request: Received, context: Context) -> HandshakeAnswer | None:
    """Echo `challenge`. https://www.dropbox.com/developers/reference/webhooks"""
    return _echo(_query(request).get("challenge")) if request.method == "GET" else None


def zoom(request: Received, context: Context) -> HandshakeAnswer | None:
    """Sign `plainToken` with the secret. https://developers.zoom.us/docs/api/webhooks/#validate-your-webhook-endpoint"""
    body = _posted(request)
    payload = body.get("payload")
    if body.get("event") != "endpoint.url_validation" or not isinstance(payload, dict):
        return None
    token = payload.get("plainToken")
    if not isinstance(token, str) or _is_challenge(token) is None:
        return None
    signature = hmac.digest(context.secrets[0].encode(), token.encode(), hashlib.sha256).hex()
    return _json({"plainToken": token, "encryptedToken": signature})


def x(request: Received, context: Context) -> HandshakeAnswer | None:
    """Sign `crc_token` with the secret. https://docs.x.com/x-api/webhooks/quickstart

    A token of other characters than a challenge has is not signed: anyone may ask, and the answer would sign an
    event with this body.
    """
    token = _query(request).get("crc_token")
    if request.method != "GET" or token is None or _is_challenge(token) is None:
        return None
    digest = hmac.digest(context.secrets[0].encode(), token.encode(), hashlib.sha256)
    return _json({"response_token": f"sha256={base64.b64encode(digest).decode()}"})


def discord(request: Received, context: Context) -> HandshakeAnswer | None:
    """Answer the `PING` of interactions with a `PONG`, and that of webhook events with `204`.

    https://docs.discord.com/developers/interactions/overview, https://docs.discord.com/developers/events/webhook-events

    A webhook event has the type of a `PING` of interactions, 1, and the member `event`: it is no question.
    """
    body = _posted(request)
    kind = body.get("type")
    if "event" in body or isinstance(kind, bool) or kind not in (0, 1):
        return None
    return _json({"type": 1}) if kind == 1 else HandshakeAnswer(None, (("Content-Type", "application/json"),))


def cloudevents(request: Received, context: Context) -> HandshakeAnswer | None:
    """Allow the origin that asks. https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md#4-abuse-protection"""
    origin = request.headers.get("webhook-request-origin", "")
    if request.method != "OPTIONS" or _is_origin(origin) is None:
        return None
    rate = "*" if context.calls_per_minute is None else str(context.calls_per_minute)
    return HandshakeAnswer(
        b"", (("Allow", "POST"), ("WebHook-Allowed-Origin", origin), ("WebHook-Allowed-Rate", rate))
    )


def okta(request: Received, context: Context) -> HandshakeAnswer | None:
    """Echo `X-Okta-Verification-Challenge`. https://developer.okta.com/docs/concepts/event-hooks/"""
    challenge = request.headers.get("x-okta-verification-challenge")
    if request.method != "GET" or not challenge or not challenge.isascii() or len(challenge) > MAX_ECHO_BYTES:
        return None
    return _json({"verification": challenge})


def _query(request: Received) -> dict[str, str]:
    """Return the parameters of the query that come once; none if it cannot be decoded."""
    try:
        pairs = parse_qsl(request.query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return {}
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def _posted(request: Received) -> dict[str, Any]:
    """Return the JSON object in a `POST` that is short enough for a question, else an empty one."""
    if request.method != "POST" or len(request.body) > 2 * MAX_ECHO_BYTES:
        return {}
    return parse_object(request.body) or {}


def _echo(text: object) -> HandshakeAnswer | None:
    if not isinstance(text, str) or not text:
        return None
    body = text.encode(errors="surrogatepass")
    if len(body) > MAX_ECHO_BYTES:
        return None
    return HandshakeAnswer(
        body, (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff"))
    )


def _json(value: dict[str, Any]) -> HandshakeAnswer:
    body = json.dumps(value, separators=(",", ":")).encode()
    return HandshakeAnswer(body, (("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff")))


# A random text, as base64 or a UUID has it. Nothing that a provider signs consists of such characters alone.
_is_challenge = re.compile(r"[A-Za-z0-9_=+/-]{1,256}").fullmatch

# A DNS name, as the specification asks for, or an origin.
_is_origin = re.compile(r"[A-Za-z0-9_.:/\[\]-]{1,300}").fullmatch
