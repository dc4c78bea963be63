"""`/openapi.json`: the HTTP API as an OpenAPI 3.1 document, of this relay with its settings.

The errors come from `errors.py`: their statuses, codes and messages are written once. `tests/unit/test_openapi.py`
compares routes, methods and statuses with what the application does. `docs/http-api.md` is made of this.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from flask import Blueprint, Response

from socket2me.inspector.files import TYPES
from socket2me.inspector.filters import MAX_FILTER_CHARACTERS
from socket2me.inspector.http import DEFAULT_LIMIT, MAX_LIMIT
from socket2me.inspector.record import OUTCOMES, STEPS
from socket2me.signatures import DEFAULT_TOLERANCE_SECONDS, PROVIDERS
from socket2me.signatures.config import MAX_SECRET_CHARACTERS, MAX_SECRETS, MAX_TOLERANCE_SECONDS

from .. import errors
from ..config import Settings
from ..errors import RelayError
from ..http.answers import SECURITY_HEADERS
from ..relay.forwarder import METHODS
from ..relay.tokens import NAME, SECRET, TOKEN
from ..services import get_services
from ..storage import LISTENERS, MODES
from ..telemetry import request_id

blueprint = Blueprint("openapi", __name__)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Return the document. It is made once."""
    services = get_services()
    return Response(encoded(services.settings, services.store.mailboxes is not None), mimetype="application/json")


@lru_cache(maxsize=1)
def encoded(settings: Settings, keeps_mailboxes: bool) -> bytes:
    return json.dumps(build(settings, keeps_mailboxes=keeps_mailboxes), separators=(",", ":")).encode()


DESCRIPTION = """\
A webhook relay. An app asks for a token, connects with Socket.IO to the namespace `/{token}`, and gives the URL
`/v1/go/{token}` to callers. Each call to it reaches the app as an event.

Every error is `{"error": {"code": "...", "message": "..."}}`, or one line of text if `Accept` rates `text/plain`
higher than JSON. Codes do not change, messages may. A temporary error has `Retry-After`.

Every response has `X-Request-Id`: that of the request, if it is `[A-Za-z0-9._-]{1,128}`, or a new one.

An unknown path is answered `404`, and another method than those of a path `405` with `Allow`.
The Socket.IO endpoint, `/socket.io/`, is not part of this document.
"""

# Errors of the server itself, for any request: status, code and message. The connection is closed afterwards.
HEAD_ERRORS = (
    (400, "malformed_request", "The request is not HTTP, or its head is malformed."),
    (414, "uri_too_long", "The request line is longer than this relay accepts."),
    (417, "expectation_failed", "The only expectation is 100-continue."),
    (431, "head_too_large", "The head is larger than this relay accepts."),
    (501, "unsupported_coding", "The transfer coding is not chunked."),
)

# Which errors operations may be answered with, beside `HEAD_ERRORS`. In the document each group has a response for
# each of its statuses. Health is answered whatever the `Host`.
_HEALTH = (RelayError, errors.ShuttingDown)
_ANY = (*_HEALTH, errors.UnknownHost)
_STORE = (*_ANY, errors.StoreUnavailable)
_BODY = (errors.BodyTimeout, errors.BodyTooLarge, errors.IncompleteBody, errors.TooManyBytes)
_NEW = (
    *_STORE,
    errors.Unauthorized,
    errors.Forbidden,
    errors.ForbiddenOrigin,
    errors.TooManyRequests,
    errors.TooManyTokens,
)
_TOKEN_OF_OWNER = (*_STORE, errors.UnknownToken, errors.Unauthorized, errors.NotVerifiable)
_HISTORY = (*_TOKEN_OF_OWNER, errors.NoHistory, errors.TooManyRequests)

ERRORS: Mapping[str, tuple[type[RelayError], ...]] = {
    "Alive": _HEALTH,
    "Ready": (*_HEALTH, errors.StoreUnavailable),
    "Any": _ANY,
    "New": _NEW,
    "NewWithSecret": (
        *(*_NEW, *_BODY, errors.BadRequest),
        *(errors.BadName, errors.NameTaken, errors.NameDiffers, errors.TooManyNames, errors.NotVerifiable),
    ),
    "Token": _TOKEN_OF_OWNER,
    "Metrics": (*_ANY, errors.Unauthorized),
    "Events": (*_TOKEN_OF_OWNER, errors.UnknownEvent, errors.TooManyRequests),
    "Owner": _HISTORY,
    "List": (*_HISTORY, errors.BadRequest, errors.BadFilter, errors.UnknownRequest),
    "Har": (*_HISTORY, errors.BadFilter),
    "Request": (*_HISTORY, errors.UnknownRequest),
    "Replay": (*_HISTORY, *_BODY, errors.UnknownRequest, errors.BadRequest),
    "Stream": (*_HISTORY, errors.BadFilter, errors.TooManyStreams),
    "Listen": (*_STORE, errors.UnknownToken, errors.BadRequest),
    "Post": (*_STORE, errors.UnknownToken, errors.Forbidden),
    "File": (*_ANY, errors.UnknownFile),
    "Call": (
        *_STORE,
        *_BODY,
        errors.UnknownToken,
        errors.TooManyRequests,
        errors.BadSignature,
        errors.NotVerifiable,
        errors.EventTooLarge,
        errors.EventDropped,
        errors.MailboxFull,
        errors.MailboxesFull,
        errors.BadReply,
        errors.NotAcknowledged,
        errors.Rejected,
        errors.NobodyConnected,
        errors.NoListener,
        errors.ClientBusy,
        errors.ClientLeft,
        errors.ClientTooSlow,
        errors.TooManyHeld,
        errors.TooManyQueued,
        errors.PeerSilent,
    ),
}

# `Rejected` has the status that the client chooses.
_OTHER_STATUSES: Mapping[type[RelayError], tuple[int, ...]] = {errors.Rejected: (502, 503, 504)}

# The messages of those whose instances say more than the class.
_MESSAGES: Mapping[type[RelayError], str] = {
    errors.TooManyRequests: "A rate is exceeded.",
    errors.Rejected: "The client rejected this call.",
}

Json = dict[str, Any]

_TOKEN = {"name": "token", "in": "path", "required": True, "schema": {"$ref": "#/components/schemas/Token"}}
_ANY_TOKEN = _TOKEN | {"schema": {"type": "string"}, "description": "Need not be one."}


def _in_path(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


_EVENT_ID = _in_path(
    "event_id", "The `id` of an event, as the list of events and the answer `202` to a call have it."
)
_REQUEST_ID = _in_path("request_id", "The `id` of a call, as the history has it.")
_PATH = _in_path("path", "The client receives it as `path`. It may have further `/`.")
_CHANNEL_KEY = _in_path("key", "The last part of the URL that `/smee/new` redirects to.")
_FILTER = {
    "name": "filter",
    "in": "query",
    "description": "Which calls are wanted: `POST /stripe/* -status:2xx`. docs/inspector.md has the language.",
    "schema": {"type": "string", "maxLength": MAX_FILTER_CHARACTERS},
}

_NO_KEY: list[Json] = []
_MAY_NEED_KEY: list[Json] = [{}, {"apiKey": []}]
_MAY_NEED_SECRET: list[Json] = [{}, {"secret": []}]
_NEEDS_SECRET: list[Json] = [{"secret": []}]


def build(settings: Settings, *, keeps_mailboxes: bool) -> Json:
    """Return the document of a relay with these settings."""
    paths = {
        **_token_paths("/v1", settings, keeps_mailboxes),
        **_secret_paths(),
        **_event_paths(),
        **_history_paths(),
        **_call_paths("/v1", "call", "Forward a call to the client of a token."),
        **_channel_paths(),
        **_other_paths(),
    }
    if settings.metrics_key is not None:
        paths |= _metrics_paths()
    if settings.legacy_clients:
        for path, item in {
            **_token_paths("", settings, keeps_mailboxes),
            **_call_paths("", "call", "Forward a call, in the form that clients of the original expect."),
        }.items():
            item.pop("post", None) if path == "/new" else None
            paths[path] = _as_legacy(item)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "socket2me relay",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "tokens", "description": "To make, refresh, inspect and delete tokens."},
            {"name": "calls", "description": "What callers send to an app."},
            {"name": "events", "description": "What is in the mailbox of a token."},
            {"name": "history", "description": "The calls for a token with `inspect`, live, and sent again."},
            {"name": "channels", "description": "For the clients of smee.io and of gosmee: docs/smee.md."},
            {"name": "operations", "description": "For operators of the relay."},
            {"name": "original", "description": "The URLs of the original, if SOCKET2ME_LEGACY_CLIENTS is on."},
        ],
        "paths": {path: _with_head_and_options(item) for path, item in paths.items()},
        "components": _components(),
    }


def _token_paths(prefix: str, settings: Settings, keeps_mailboxes: bool) -> Json:
    token = {
        "description": "A new token.",
        "content": {
            "text/plain": {"schema": {"$ref": "#/components/schemas/Token"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Token"}},
        },
    }
    return {
        f"{prefix}/new": {
            "get": _operation(
                "newToken",
                "tokens",
                "Issue a token without a secret.",
                "Anyone who knows the token may connect as its client. It is plain text, or a JSON string if "
                "`Accept` rates JSON higher. `HEAD` issues nothing. With SOCKET2ME_REQUIRE_SECRET it is answered "
                "`403`.",
                {200: token},
                "New",
                security=_MAY_NEED_KEY,
            ),
            "post": _operation(
                "newTokenWithSecret",
                "tokens",
                "Issue a token with a secret.",
                "The secret is required to connect as its client, and to refresh, inspect and delete the token. "
                "With `name` the token is that name; its secret as `Authorization: Bearer` takes it again.",
                {201: _json("A new token and its secret.", "NewToken")},
                "NewWithSecret",
                security=_MAY_NEED_KEY,
                requestBody={
                    "required": False,
                    "content": {"application/json": {"schema": _options_schema(settings, keeps_mailboxes)}},
                },
            ),
        },
        f"{prefix}/refresh/{{token}}": {
            "parameters": [_TOKEN],
            "get": _operation(
                "refreshToken",
                "tokens",
                "Let a token live for its whole time again.",
                "A token with a secret needs it.",
                {200: _text("The token lives on.")},
                "Token",
                security=_MAY_NEED_SECRET,
            ),
        },
    }


def _options_schema(settings: Settings, keeps_mailboxes: bool) -> Json:
    mailbox: Json = {"type": "boolean", "description": "Whether events are kept until they are acknowledged."}
    if not keeps_mailboxes:
        mailbox["const"] = False
    notify_with_mailbox: Json = {"properties": {"mode": {"const": "notify"}, "mailbox": {"const": True}}}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {
                "type": "string",
                "pattern": f"^{NAME.replace('a-z', 'A-Za-z')}$",
                "not": {"pattern": f"^{TOKEN.replace('a-z', 'A-Za-z')}$"},
                "description": "What the token is to be, in lower case; not like a token that the relay made, and "
                "none of those that it reserves.",
            },
            "ttl_seconds": {
                "description": "How long the token lives.",
                "anyOf": [
                    {"type": "number", "minimum": 1, "maximum": settings.max_ttl_seconds},
                    {"enum": ["max", None]},
                ],
            },
            "mode": {"enum": list(MODES), "description": "When callers are answered, if the client does not say."},
            "mailbox": mailbox | {"default": settings.mailbox_default},
            "inspect": {
                "type": "boolean",
                "default": False,
                "description": "Whether a history of the calls is kept.",
            },
            "verify": _verify_schema(),
            "listeners": {
                "enum": list(LISTENERS),
                "default": "newest",
                "description": "Which of the clients of the token receive a call: listeners.md.",
            },
        },
        "not": notify_with_mailbox | {"required": ["mode"] if settings.mailbox_default else ["mode", "mailbox"]},
    }


def _verify_schema() -> Json:
    text = {"type": "string", "minLength": 1}
    options = {option: text for provider in PROVIDERS.values() for option in provider.options}
    return {
        "type": "object",
        "description": "The provider that signs: others are answered `401`. signatures.md has the providers.",
        "additionalProperties": False,
        "required": ["provider"],
        "properties": {
            "provider": {"enum": list(PROVIDERS)},
            "secrets": {
                "type": "array",
                "items": text | {"maxLength": MAX_SECRET_CHARACTERS},
                "maxItems": MAX_SECRETS,
                "description": "Any of them may have signed. They are never returned.",
            },
            "tolerance_seconds": {
                "type": "number",
                "minimum": 1,
                "maximum": MAX_TOLERANCE_SECONDS,
                "default": DEFAULT_TOLERANCE_SECONDS,
                "description": "How far the time of a signature may be from the arrival of its call.",
            },
            **options,
        },
    }


def _secret_paths() -> Json:
    return {
        "/v1/tokens/{token}": {
            "parameters": [_TOKEN],
            "get": _operation(
                "inspectToken",
                "tokens",
                "Show a token with a secret.",
                "A token without a secret is answered `404`.",
                {200: _json("What is known of the token.", "TokenState")},
                "Token",
                security=_NEEDS_SECRET,
            ),
            "delete": _operation(
                "deleteToken",
                "tokens",
                "End a token with a secret, and disconnect its client.",
                "",
                {204: {"description": "The token has ended."}},
                "Token",
                security=_NEEDS_SECRET,
            ),
        }
    }


def _event_paths() -> Json:
    needs = {"security": _NEEDS_SECRET}
    events = "/v1/tokens/{token}/events"
    return {
        events: {
            "parameters": [_TOKEN],
            "get": _operation(
                "listEvents",
                "events",
                "List the events of a mailbox, oldest first.",
                "",
                {200: _json("The events, by their state.", "EventList")},
                "Events",
                **needs,
            ),
        },
        f"{events}/{{event_id}}": {
            "parameters": [_TOKEN, _EVENT_ID],
            "get": _operation(
                "showEvent",
                "events",
                "Show an event whole.",
                "",
                {200: _json("The event.", "Event")},
                "Events",
                **needs,
            ),
            "delete": _operation(
                "dropEvent",
                "events",
                "Drop an event, whatever its state.",
                "A client that has it is sent `dropped`. A caller that waits is answered `410`.",
                {204: {"description": "The event is not sent again."}},
                "Events",
                **needs,
            ),
        },
        f"{events}/{{event_id}}/redeliver": {
            "parameters": [_TOKEN, _EVENT_ID],
            "post": _operation(
                "redeliverEvent",
                "events",
                "Send an event again, its attempts counted from the start.",
                "",
                {202: {"description": "The event is sent again."}},
                "Events",
                **needs,
            ),
        },
    }


def _history_paths() -> Json:
    needs = {"security": _NEEDS_SECRET}
    requests = "/v1/tokens/{token}/requests"
    bytes_of_any_kind: Json = {"application/octet-stream": {"schema": {}}}
    query: list[Json] = [
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        },
        {
            "name": "before",
            "in": "query",
            "description": "The `id` of a call: older ones are listed.",
            "schema": {"type": "string"},
        },
    ]
    after: Json = {
        "name": "after",
        "in": "query",
        "description": "The id of an event, after which the stream goes on; the header `Last-Event-ID` wins. "
        "Empty: from the oldest call that is kept.",
        "schema": {"type": "string"},
    }
    secrets: Json = {
        "name": "secrets",
        "in": "query",
        "description": "`true`: headers with secrets and signatures are not redacted.",
        "schema": {"type": "string"},
    }
    return {
        requests: {
            "parameters": [_TOKEN],
            "get": _operation(
                "listRequests",
                "history",
                "List the calls of a history, newest first.",
                "`404` if `before` is not kept any more.",
                {200: _json("Summaries.", "RequestList")},
                "List",
                parameters=[*query, _FILTER],
                **needs,
            ),
            "delete": _operation(
                "deleteRequests",
                "history",
                "Drop all calls of a history.",
                "",
                {204: {"description": "The history is empty."}},
                "Owner",
                **needs,
            ),
        },
        f"{requests}.har": {
            "parameters": [_TOKEN],
            "get": _operation(
                "exportRequests",
                "history",
                "Export a history as HAR 1.2, oldest call first.",
                "",
                {200: {"description": "HAR 1.2.", "content": {"application/json": {"schema": {"type": "object"}}}}},
                "Har",
                parameters=[_FILTER, secrets],
                **needs,
            ),
        },
        f"{requests}/stream": {
            "parameters": [_TOKEN],
            "get": _operation(
                "streamRequests",
                "history",
                "Send what comes, as it comes.",
                "Events `request` (a summary), `update` (the id of a call, a new entry of its timeline, and the "
                "members of the summary that change), and `reset` where calls were missed.",
                {200: {"description": "The stream.", "content": {"text/event-stream": {"schema": {}}}}},
                "Stream",
                parameters=[after, _FILTER],
                **needs,
            ),
        },
        f"{requests}/{{request_id}}": {
            "parameters": [_TOKEN, _REQUEST_ID],
            "get": _operation(
                "showRequest",
                "history",
                "Show a call whole.",
                "",
                {200: _json("The call.", "Request")},
                "Request",
                **needs,
            ),
            "delete": _operation(
                "deleteRequest",
                "history",
                "Drop a call from the history.",
                "",
                {204: {"description": "It is not kept any more."}},
                "Request",
                **needs,
            ),
        },
        f"{requests}/{{request_id}}/body": {
            "parameters": [_TOKEN, _REQUEST_ID],
            "get": _operation(
                "showRequestBody",
                "history",
                "Download the exact bytes of a body.",
                "",
                {200: {"description": "The bytes.", "content": bytes_of_any_kind}},
                "Request",
                **needs,
            ),
        },
        f"{requests}/{{request_id}}/replay": {
            "parameters": [_TOKEN, _REQUEST_ID],
            "post": _operation(
                "replayRequest",
                "history",
                "Send a call again, as it was or edited.",
                "It goes the way of any call; its event has `replay_of`.",
                {202: _json("It is on its way.", "Kept")},
                "Replay",
                requestBody={
                    "required": False,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ReplayChanges"}}},
                },
                **needs,
            ),
        },
    }


def _call_paths(prefix: str, name: str, summary: str) -> Json:
    any_content: Json = {"*/*": {"schema": {}}}
    outcomes = {
        200: _text(
            "`OK`: a client was sent the call, or acknowledged it, by the mode of the client. With `verify` "
            "also the answer to what its provider asks, as text or JSON."
        ),
        202: _json("The call is in the mailbox of the token.", "Kept"),
    }
    reply = {
        "description": "In mode `reply`: what the client replied, with any status from 200 to 599.",
        "headers": {"Content-Security-Policy": _header("sandbox")},
        "content": any_content,
    }
    tails: dict[str, list[Json]] = {"": [], "/{path}": [_PATH]}
    return {
        f"{prefix}/go/{{token}}{tail}": {
            "parameters": [_TOKEN, *parameters],
            **{
                method.lower(): _operation(
                    f"{name}{'Path' if tail else ''}{method.title()}",
                    "calls",
                    summary,
                    "",
                    {**outcomes, "default": reply},
                    "Call",
                    security=_NO_KEY,
                    **_call_body(method, any_content),
                )
                for method in METHODS
            },
        }
        for tail, parameters in tails.items()
    }


def _channel_paths() -> Json:
    stream: Json = {"text/event-stream": {"schema": {"type": "string"}}}
    page: Json = {"text/html": {"schema": {"type": "string"}}}
    later = "What is temporary is answered by a stream that ends at once, and states when to reconnect."
    return {
        "/smee/new": {
            "get": _operation(
                "newChannel",
                "channels",
                "Make a channel.",
                "It is a token, and counts as one. smee-client asks by `HEAD`.",
                {307: {"description": "The URL to listen at.", "headers": {"Location": _header("/smee/...")}}},
                "New",
                security=_MAY_NEED_KEY,
            ),
        },
        "/smee/{key}": {
            "parameters": [_CHANNEL_KEY],
            "get": _operation(
                "channel",
                "channels",
                "The events of a channel, as smee.io sends them.",
                f"Without `Accept: text/event-stream` a page that shows how to use the channel. {later}",
                {200: {"description": "A stream, or the page.", "content": stream | page}},
                "Listen",
            ),
            "post": _operation(
                "postToChannel",
                "channels",
                "Forward a call to an open channel.",
                "With SOCKET2ME_SMEE_OPEN_CHANNELS a call to a token without a secret is answered as one to "
                "`/v1/go/{token}`. The URL of any other channel is for listening: `403` says where to post.",
                {200: _text("A client was sent the call.")},
                "Post",
                requestBody={"required": False, "content": {"*/*": {"schema": {}}}},
            ),
        },
        "/smee/events/{key}": {
            "parameters": [_CHANNEL_KEY],
            "get": _operation(
                "channelEvents",
                "channels",
                "The events of a channel, as gosmee's server sends them.",
                f"gosmee's client asks for `.../events/X` when it is given `.../X`. {later}",
                {200: {"description": "A stream.", "content": stream}},
                "Listen",
            ),
        },
    }


def _call_body(method: str, content: Json) -> Json:
    if method in ("GET", "HEAD", "DELETE", "OPTIONS"):  # bodies of these have no meaning in OpenAPI
        return {}
    return {"requestBody": {"required": False, "content": content}}


def _other_paths() -> Json:
    any_kind: Json = {kind.partition(";")[0]: {"schema": {}} for kind in TYPES.values()}
    return {
        "/": {
            "get": _operation(
                "index",
                "operations",
                "The page of the inspector for browsers; for programs, what this is.",
                "JSON, or text or HTML if `Accept` rates that higher.",
                {
                    200: {
                        "description": "The page, or a description.",
                        "content": {
                            "application/json": {"schema": {"type": "object"}},
                            "text/plain": {"schema": {"type": "string"}},
                            "text/html": {"schema": {"type": "string"}},
                        },
                    }
                },
                "Any",
            ),
        },
        "/inspector.json": {
            "get": _operation(
                "describeInspector",
                "operations",
                "Which program serves the page of the inspector.",
                "",
                {200: {"description": "`kind`, `version`, `replay`.", "content": _OBJECT}},
                "Any",
            ),
        },
        "/static/inspector/{name}": {
            "parameters": [
                {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
            ],
            "get": _operation(
                "inspectorFile",
                "operations",
                "A file of the page.",
                "",
                {200: {"description": "The file.", "content": any_kind}, 304: {"description": "It is as it was."}},
                "File",
            ),
        },
        "/healthz": {
            "get": _operation(
                "healthz", "operations", "Whether the process lives.", "", {200: _text("It does.")}, "Alive"
            ),
        },
        "/readyz": {
            "get": _operation(
                "readyz",
                "operations",
                "Whether the relay takes calls: its store answers, and it is not stopping.",
                "",
                {200: _text("It does.")},
                "Ready",
            ),
        },
        "/openapi.json": {
            "get": _operation(
                "openapi",
                "operations",
                "This document.",
                "",
                {
                    200: {
                        "description": "OpenAPI 3.1.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
                "Any",
            ),
        },
    }


def _metrics_paths() -> Json:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/metrics": {
            "get": _operation(
                "metrics",
                "operations",
                "What was counted, in the text format of Prometheus.",
                "Without SOCKET2ME_METRICS_KEY it is answered `404`.",
                {200: {"description": "Counters, histograms and gauges.", "content": text}},
                "Metrics",
                security=[{"metricsKey": []}],
            )
        }
    }


def _operation(
    operation_id: str,
    tag: str,
    summary: str,
    description: str,
    outcomes: Mapping[Any, Json],
    group: str,
    *,
    security: list[Json] | None = None,
    **more: Any,
) -> Json:
    """Return an operation with the errors of a group of `ERRORS`."""
    operation: Json = {"operationId": operation_id, "tags": [tag], "summary": summary}
    if description:
        operation["description"] = description
    responses = {
        str(status): response | {"headers": {**_EVERY_HEADER, **response.get("headers", {})}}
        for status, response in outcomes.items()
    }
    for status in _errors_by_status(group):
        responses[str(status)] = {"$ref": f"#/components/responses/{group}{status}"}
    return {**operation, "security": security or _NO_KEY, **more, "responses": responses}


def _errors_by_status(group: str) -> dict[int, list[tuple[str, str, type[RelayError] | None]]]:
    """Return the code, the message and the class of each error of a group, by status."""
    found: dict[int, list[tuple[str, str, type[RelayError] | None]]] = {}
    for error in ERRORS[group]:
        for status in _OTHER_STATUSES.get(error, (error.status,)):
            found.setdefault(status, []).append((error.code, _MESSAGES.get(error, error.message), error))
    for status, code, message in HEAD_ERRORS:
        found.setdefault(status, []).append((code, message, None))
    return dict(sorted(found.items()))


def _error_responses() -> Json:
    responses: Json = {}
    for group in ERRORS:
        for status, found in _errors_by_status(group).items():
            headers = dict(_EVERY_HEADER)
            for _, _, error in found:
                if error is not None and error.is_temporary:
                    headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
                if error is not None:
                    headers |= {name: _header(value) for name, value in error.headers}
            responses[f"{group}{status}"] = {
                "description": "\n\n".join(f"`{code}`: {message}" for code, message, _ in found),
                "headers": headers,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Error"}},
                    "text/plain": {"schema": {"type": "string"}},
                },
            }
    return responses


def _with_head_and_options(item: Json) -> Json:
    """Return a path with the methods that Flask adds."""
    if "get" in item and "head" not in item:
        get = item["get"]
        item["head"] = get | {"operationId": f"{get['operationId']}Head"}
    if "options" not in item:
        first = next(item[method] for method in ("get", "post", "delete") if method in item)
        item["options"] = _operation(
            f"{first['operationId']}Options",
            first["tags"][0],
            "Say which methods there are, and which a page of another origin may use.",
            "",
            {200: {"description": "No body.", "headers": {"Allow": _header("GET, HEAD, OPTIONS")}}},
            "Any" if str(errors.UnknownHost.status) in first["responses"] else "Alive",
            **({"parameters": [_ANY_TOKEN]} if _TOKEN in item.get("parameters", ()) else {}),
        )
    return item


def _as_legacy(item: Json) -> Json:
    def renamed(operation: Json) -> Json:
        name = operation["operationId"]
        return operation | {"operationId": f"original{name[0].upper()}{name[1:]}", "tags": ["original"]}

    return {key: value if key == "parameters" else renamed(value) for key, value in item.items()}


def _header(example: str) -> Json:
    return {"schema": {"type": "string"}, "example": example}


_EVERY_HEADER = {
    name: {"$ref": f"#/components/headers/{name.replace('-', '')}"}
    for name in (request_id.HEADER, *(name for name, _ in SECURITY_HEADERS))
}


def _text(description: str) -> Json:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string", "const": "OK"}}}}


def _json(description: str, schema: str) -> Json:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


_OBJECT: Json = {"application/json": {"schema": {"type": "object"}}}


def _object(properties: Json, optional: Iterable[str] = ()) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _components() -> Json:
    text, seconds, count = {"type": "string"}, {"type": "number"}, {"type": "integer", "minimum": 0}
    summary: Json = {
        "id": text,
        "received_at": seconds | {"description": "Seconds since the epoch."},
        "attempts": count | {"description": "How often it was sent."},
        "size": count | {"description": "Bytes of the body."},
    }
    request: Json = {
        "id": text,
        "received_at": seconds | {"description": "Seconds since the epoch."},
        "method": text,
        "path": text,
        "query": text,
        "content_type": text,
        "size": count | {"description": "Bytes of the body."},
        "remote_addr": text,
        "status": {
            "type": ["integer", "null"],
            "description": "What the caller was answered; null while it waits.",
        },
        "ms": {"type": ["number", "null"], "description": "How long the caller waited."},
        "outcome": {"enum": [*OUTCOMES, None]},
        "replay_of": text | {"description": "The id of the call that this one repeats."},
    }
    headers = {"type": "array", "items": {"$ref": "#/components/schemas/Header"}}
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/EventSummary"}}
    return {
        "securitySchemes": {
            "apiKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "One of SOCKET2ME_API_KEYS, if that is set. Otherwise anyone may ask.",
            },
            "secret": {"type": "http", "scheme": "bearer", "description": "The secret of the token."},
            "metricsKey": {"type": "http", "scheme": "bearer", "description": "SOCKET2ME_METRICS_KEY."},
        },
        "headers": {
            "RetryAfter": {
                "description": "After how many seconds it makes sense to try again.",
                "schema": {"type": "string", "pattern": "^[0-9]+$"},
            },
            request_id.HEADER.replace("-", ""): {
                "description": "The id of the request: in the log, and in the event of a call.",
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
            },
            **{name.replace("-", ""): _header(value) for name, value in SECURITY_HEADERS},
        },
        "responses": _error_responses(),
        "schemas": {
            "Token": {
                "type": "string",
                "description": "24 letters and digits, or a name.",
                "pattern": f"^{NAME}$",
                "examples": ["mrs6wpu2mawk0swpja1c3dit"],
            },
            "Error": _object({"error": _object({"code": text, "message": text})}),
            "NewToken": _object(
                {
                    "token": {"$ref": "#/components/schemas/Token"},
                    "secret": {"type": "string", "pattern": f"^{SECRET}$"},
                    "url": text | {"description": "What callers are given."},
                    "namespace": text | {"description": "What a Socket.IO client connects to."},
                    "expires_at": seconds | {"description": "Seconds since the epoch."},
                    "listeners": {"enum": list(LISTENERS), "description": "Only if the call had it."},
                },
                ["listeners"],
            ),
            "TokenState": _object(
                {
                    "token": {"$ref": "#/components/schemas/Token"},
                    "expires_at": seconds,
                    "mode": {"enum": list(MODES)},
                    "mailbox": {"type": "boolean"},
                    "inspect": {"type": "boolean"},
                    "verify": {"anyOf": [_object({"provider": {"enum": list(PROVIDERS)}}), {"type": "null"}]},
                    "connected": {"type": "boolean"},
                    "listener_mode": {"enum": list(LISTENERS)},
                    "listeners": {"type": "array", "items": {"$ref": "#/components/schemas/Listener"}},
                    "forwarded": count | {"description": "Calls that were accepted."},
                    "refused": count | {"description": "Calls that were answered with an error."},
                    "last_request_at": {"type": ["number", "null"]},
                }
            ),
            "Listener": _object(
                {
                    "id": text
                    | {"description": "What it chose as `auth.listener`; else one that begins with `~`."},
                    "since": seconds | {"description": "When it connected, or was last seen."},
                    "mode": {"enum": [*MODES, None], "description": "`null` if it is not connected."},
                    "in_flight": count | {"description": "Calls that it has not acknowledged."},
                    "waiting": count | {"description": "Events of the mailbox that it has not had."},
                    "connected": {"type": "boolean"},
                }
            ),
            "RequestList": _object(
                {
                    "requests": {"type": "array", "items": {"$ref": "#/components/schemas/RequestSummary"}},
                    "more": {"type": "boolean", "description": "Whether there are older ones."},
                    "dropped": count | {"description": "Calls that were dropped for a bound."},
                }
            ),
            "RequestSummary": _object(request, ["replay_of"]),
            "Request": _object(
                {
                    **request,
                    "headers": headers,
                    "body": {"type": "string", "contentEncoding": "base64"},
                    "timeline": {
                        "type": "array",
                        "items": {"$ref": "#/components/schemas/TimelineEntry"},
                    },
                    "response": {
                        "anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/RequestResponse"}],
                        "description": "What the caller was answered; null while it waits.",
                    },
                },
                ["replay_of"],
            ),
            "TimelineEntry": _object({"at": seconds, "what": {"enum": list(STEPS)}, "detail": text}),
            "RequestResponse": _object(
                {
                    "status": count,
                    "headers": headers,
                    "body": {"type": "string", "contentEncoding": "base64"},
                }
            ),
            "Header": {"type": "array", "items": text, "minItems": 2, "maxItems": 2},
            "ReplayChanges": _object(
                {
                    "method": {"enum": list(METHODS)},
                    "path": text,
                    "query": text,
                    "headers": {
                        "description": "An object, or a list of names and values. They replace all headers."
                    },
                    "body": {"type": "string", "contentEncoding": "base64"},
                    "text": text | {"description": "A body, in place of `body`."},
                },
                ["method", "path", "query", "headers", "body", "text"],
            ),
            "Kept": _object({"id": text | {"description": "The id of the event."}}),
            "EventSummary": _object(summary),
            "EventList": _object({"waiting": listed, "in_flight": listed, "dead_letters": listed}),
            "Event": _object(
                {
                    **summary,
                    "state": {"enum": ["waiting", "in_flight", "dead_letter"]},
                    "method": text,
                    "path": text,
                    "query": text,
                    "headers": {"type": "object", "additionalProperties": text},
                    "body": {"type": "string", "contentEncoding": "base64"},
                }
            ),
        },
    }
