"""`/v1/new`, `/v1/refresh/<token>` and `/v1/tokens/<token>`: how an app comes by a token, and keeps it."""

import hmac
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Blueprint, Response, jsonify, request

from ..errors import BadRequest, Forbidden, ForbiddenOrigin, Unauthorized, UnknownToken
from ..http.answers import prefers
from ..http.request_body import EnvironBody
from ..limits import address_key, begin_one, check_rate
from ..relay.listing import listeners_of
from ..relay.tokens import fold_name, hash_of, is_name, is_secret, is_token, new_secret
from ..services import get_services
from ..storage import LISTENERS, MODES, TokenRecord
from . import names

blueprint = Blueprint("tokens", __name__, cli_group=None)
blueprint.cli.command("release-name")(names.release_name)

# What the body of `POST /v1/new` may have.
OPTIONS = ("name", "ttl_seconds", "mode", "mailbox", "inspect", "verify", "listeners")

# The largest body of `POST /v1/new`, whose members fit in a line.
MAX_OPTIONS_BYTES = 4096


@blueprint.get("/new")
def new() -> Response:
    """Issue a token without a secret: plain text, or a JSON string if the caller prefers it."""
    services = get_services()
    if services.settings.require_secret:
        raise Forbidden("This relay issues tokens with a secret only: POST /v1/new.")
    token = ""
    if request.method != "HEAD":  # which would throw the token away
        check_who_asks()
        token = services.relay.issue(services.settings.token_expire_seconds).token
    if prefers(request.headers.get("Accept", ""), "application/json", "text/plain"):
        return jsonify(token)
    return Response(token, mimetype="text/plain")


@blueprint.post("/new")
def new_with_secret() -> Response:
    """Issue a token with a secret, which is required to listen, refresh, inspect and delete."""
    services = get_services()
    options = parse_options(services.bodies.read(EnvironBody(request.environ), MAX_OPTIONS_BYTES))
    name = names.parse_name(options["name"], services.settings) if "name" in options else None
    key = check_who_asks(needs_key=name is None)
    ttl_seconds = _ttl_seconds(options.get("ttl_seconds"))
    verify = partial(services.verification.new, given=options["verify"]) if "verify" in options else None
    if name is not None:
        given = bearer()
        may_claim = key is not None or (services.settings.open_names and not services.settings.api_keys)
        record, secret = names.claim(
            *(name, ttl_seconds, options, given if given != key else None),
            owner=names.owner_of(key, request.remote_addr or "") if may_claim else None,
            verify=verify,
            **_delivery(options),
        )
    else:
        secret = new_secret()
        record = services.relay.issue(ttl_seconds, secret_hash=hash_of(secret), verify=verify, **_delivery(options))
    return _created(record, secret, options)


@blueprint.get("/refresh/<anypath:token>")
def refresh(token: str) -> Response:
    """Let a token live for its whole time again. One with a secret needs it."""
    record = _find(fold_name(token) or token)
    _check_secret(record)
    if get_services().store.refresh(record.token) is None:
        raise UnknownToken
    return Response("OK", mimetype="text/plain")


@blueprint.get("/tokens/<token:token>")
def inspect(token: str) -> Response:
    """Show a token with a secret: when it expires, whether a client is connected, what was forwarded."""
    record = find_with_secret(token)
    services = get_services()
    relay = services.relay
    provider = services.verification.provider_of(record)
    counts = relay.counts(token)
    return jsonify(
        token=token,
        expires_at=record.expires_at,
        mode=record.mode,
        mailbox=record.mailbox,
        inspect=record.inspect,
        verify=None if provider is None else {"provider": provider},
        connected=relay.is_connected(token),
        listener_mode=record.listeners,
        listeners=listeners_of(relay, record),
        forwarded=counts.forwarded,
        refused=counts.refused,
        last_request_at=counts.last_request_at,
    )


@blueprint.delete("/tokens/<token:token>")
def delete(token: str) -> Response:
    """End a token with a secret now, and disconnect its client. A name is free then, also after it has expired."""
    services = get_services()
    if is_name(token) and services.store.get(token) is None:
        names.release_expired(token, bearer())
    else:
        find_with_secret(token)
        services.relay.delete(token)
    return Response(status=204)


@blueprint.after_request
def add_headers(response: Response) -> Response:
    """Keep tokens out of caches, and let the pages that may connect ask for one."""
    response.headers["Cache-Control"] = "no-store"
    origins = get_services().origins
    response.headers.extend(origins.headers(request.environ, "GET, POST, DELETE", "Authorization, Content-Type"))
    return response


def check_who_asks(*, needs_key: bool = True) -> str | None:
    """Return the API key that the caller gives. Raise unless it may have a token now."""
    services = get_services()
    settings = services.settings
    purpose = request.headers.get("Sec-Purpose", "") + request.headers.get("Purpose", "")
    if "prefetch" in purpose or "prerender" in purpose or "preview" in purpose:
        raise Forbidden("A page that is loaded in advance gets no token.")
    # A link or an image has no Origin, and a page of a plain http relay no Sec-Fetch-Site.
    crosses_sites = request.headers.get("Sec-Fetch-Site") == "cross-site" and "Origin" not in request.headers
    if crosses_sites or not services.origins.allow(request.environ):
        raise ForbiddenOrigin("Other sites get no token, unless SOCKET2ME_CORS_ALLOWED_ORIGINS names them.")
    keys = settings.api_keys
    given = bearer()
    # All are compared, each in constant time: the time that it takes reveals nothing.
    right = [key for key in keys if hmac.compare_digest(hash_of(given or ""), hash_of(key))]
    address = address_key(request.remote_addr or "")
    # A guess of a key counts, too.
    check_rate(services.new_rate, address, "SOCKET2ME_RATE_LIMIT_NEW", "Your address asks for too many tokens.")
    if needs_key and keys and not right:
        raise Unauthorized(names.ASKS_FOR_KEY)
    return right[0] if right else None


def parse_options(body: bytes) -> dict[str, Any]:
    """Return the options in the body of `POST /v1/new`; none at all is fine."""
    if not body:
        return {}
    try:
        options = json.loads(body)
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise BadRequest("The body is a JSON object, or empty.")
    for name in options:
        if name not in OPTIONS:
            raise BadRequest(f"The body may have {', '.join(OPTIONS)}, and nothing else.")
    return options


def _ttl_seconds(wanted: Any) -> float:
    settings = get_services().settings
    if wanted == "max":
        return float(settings.max_ttl_seconds)
    if wanted is None:
        default: float = min(settings.token_expire_seconds, settings.max_ttl_seconds)
        return default
    is_number = isinstance(wanted, int | float) and not isinstance(wanted, bool)
    if not is_number or not 1 <= wanted <= settings.max_ttl_seconds:
        raise BadRequest(f'ttl_seconds is a number from 1 to {settings.max_ttl_seconds:.10g}, or "max" for that.')
    return float(wanted)


def _delivery(options: dict[str, Any]) -> dict[str, Any]:
    """Return `mode`, `mailbox`, `inspect` and `listeners` of a new token."""
    services = get_services()
    mailbox = options.get("mailbox", services.settings.mailbox_default)
    mode = options.get("mode", "ack" if mailbox is True else "notify")
    inspect = options.get("inspect", False)
    if not isinstance(inspect, bool):
        raise BadRequest("inspect is true or false.")
    if not isinstance(mailbox, bool):
        raise BadRequest("mailbox is true or false.")
    listeners = options.get("listeners", "newest")
    if listeners not in LISTENERS:
        raise BadRequest(f"listeners is one of {', '.join(LISTENERS)}.")
    if mode not in MODES:
        raise BadRequest(f"mode is one of {', '.join(MODES)}.")
    if mailbox and services.store.mailboxes is None:
        raise BadRequest(
            "This relay keeps no mailboxes: what it holds ends with its process (SOCKET2ME_STORE_URL=memory://)."
        )
    if mailbox and mode == "notify":
        raise BadRequest("A token with a mailbox has mode ack or reply.")
    return {"mode": mode, "mailbox": mailbox, "inspect": inspect, "listeners": listeners}


def _created(record: TokenRecord, secret: str, options: Mapping[str, Any]) -> Response:
    asked = {"listeners": record.listeners} if "listeners" in options else {}
    response = jsonify(
        **asked,
        token=record.token,
        secret=secret,
        url=f"{get_services().settings.public_url or request.host_url.rstrip('/')}/v1/go/{record.token}",
        namespace=f"/{record.token}",
        expires_at=record.expires_at,
    )
    response.status_code = 201
    return response


def _find(token: str) -> TokenRecord:
    record = get_services().store.get(token) if is_token(token) else None
    if record is None:
        raise UnknownToken
    return record


def find_with_secret(token: str) -> TokenRecord:
    """Return a token that the caller has the secret of. For one without a secret there is nothing to see."""
    record = _find(token)
    if record.secret_hash is None:
        raise UnknownToken
    _check_secret(record)
    return record


def one_of_few(bounds: Mapping[str, int], setting: str, message: str, answer: Callable[[], Response]) -> Response:
    """Return an answer if few others are on their way. It counts until its caller has read it, or has left.

    `bounds` are those of `AtOnce.enter`. Raises `TooManyRequests`, and what `answer` raises.
    """
    leave = begin_one(get_services().event_answers, bounds, setting, message)
    try:
        response = answer()
    except BaseException:
        leave()
        raise
    response.call_on_close(leave)
    return response


def _check_secret(record: TokenRecord) -> None:
    if record.secret_hash is not None and not is_secret(bearer(), record.secret_hash):
        raise Unauthorized("This token has a secret: Authorization: Bearer <secret>.")


def bearer() -> str | None:
    """Return what the caller gives as `Authorization: Bearer`, if it does."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None
