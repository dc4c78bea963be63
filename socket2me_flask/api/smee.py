"""`/smee`: channels for the clients of smee.io and of gosmee, unmodified.

Any status but 200 ends a stock client for good, so what is temporary is answered by a stream that ends at once and
states when to reconnect.
"""

import html
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from socket2me.inspector import files

from ..errors import Forbidden, RelayError, ShuttingDown, UnknownToken
from ..http.answers import SECURITY_HEADERS
from ..relay.forwarder import Target
from ..relay.tokens import hash_of, is_secret, is_token, new_secret
from ..services import get_services
from ..smee.channel_keys import ChannelKey, parse_key
from ..smee.frames import RETRY_MS, retry
from ..storage import TokenRecord
from ..telemetry import request_id
from .forward import forward_call
from .tokens import check_who_asks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

blueprint = Blueprint("smee", __name__, url_prefix="/smee")

EVENT_STREAM = "text/event-stream"

# Nothing between relay and client is to store an event, compress it or keep it back; nginx obeys the second.
_STREAM_HEADERS = (
    ("Content-Type", EVENT_STREAM),
    ("Cache-Control", "no-cache, no-store, no-transform"),
    ("X-Accel-Buffering", "no"),
    ("Vary", "Accept"),
)

# What a secret is compared with where there is none, so that the answer takes as long.
_NO_HASH = hash_of(new_secret())


@blueprint.get("/new")
def new() -> Response:
    """Make a channel, and redirect to it. smee-client asks by HEAD, and follows no redirect."""
    services = get_services()
    settings = services.settings
    _check_serves()
    check_who_asks()
    is_open = settings.smee_open_channels and not settings.require_secret
    secret = None if is_open else new_secret()
    has_mailbox = secret is not None and services.store.mailboxes is not None
    record = services.relay.issue(
        settings.max_ttl_seconds,
        secret_hash=None if secret is None else hash_of(secret),
        listeners="all",
        mode="ack" if has_mailbox else "notify",
        mailbox=has_mailbox,
    )
    location = f"{_base_url()}/smee/{ChannelKey(record.token, secret)}"
    return Response(status=307, headers={"Location": location})


@blueprint.get("/<channel_key:key>")
def channel(key: str) -> Response:
    """Stream the events of a channel to a client, or show a browser how to use it."""
    if EVENT_STREAM in request.headers.get("Accept", "").lower():
        return _stream(key, is_exact=False)
    _check_serves()
    found, _ = _find(key)
    return Response(_page(found), content_type="text/html; charset=utf-8", headers=files.HEADERS)


@blueprint.get("/events/<key>")
def events(key: str) -> Response:
    """Stream the events of a channel in gosmee's form: its client makes `.../events/X` of `.../X`."""
    return _stream(key, is_exact=True)


@blueprint.post("/<channel_key:key>")
def post(key: str) -> Response:
    """Forward a call to an open channel. The URL of any other is for listening."""
    if get_services().settings.smee_open_channels and is_token(key):
        return forward_call(Target(key, "", request.environ.get("QUERY_STRING", ""), False))
    found, _ = _find(key)
    raise Forbidden(f"This URL is for listening: who posts should not know it. Post to {_posting_url(found)}.")


@blueprint.after_request
def add_headers(response: Response) -> Response:
    """Keep keys out of caches."""
    if response.mimetype != EVENT_STREAM:
        response.headers["Cache-Control"] = "no-store"
        response.headers["Vary"] = "Accept"
    return response


def _stream(key: str, *, is_exact: bool) -> Response:
    services = get_services()
    try:
        if services.lifecycle.is_closed:
            raise ShuttingDown
        _, record = _find(key)
        if request.method == "HEAD":
            return Response(headers=_STREAM_HEADERS)
        head = [*_STREAM_HEADERS, *SECURITY_HEADERS, (request_id.HEADER, request_id.current())]
        stream = services.streams.open(
            *(request.environ, record, head),
            last_event_id=request.headers.get("Last-Event-ID"),
            is_exact=is_exact,
        )
    except RelayError as error:
        if not error.is_temporary:
            raise
        services.answers.note(error)
        return _later(error)
    except Exception as error:
        log.error("a stream was not opened", exc_info=error)
        return _later(RelayError())
    if isinstance(stream, Exception):
        return _Detached(stream)
    return Response(stream, headers=_STREAM_HEADERS)


def _later(error: RelayError) -> Response:
    """Return the answer after which a client connects again: at once if another process is to serve it."""
    settings = get_services().settings
    is_leaving = isinstance(error, ShuttingDown)
    seconds = RETRY_MS / 1000 if is_leaving else error.retry_after_seconds or settings.retry_after_seconds
    return Response(retry(seconds), headers=_STREAM_HEADERS)


class _Detached(Response):
    """The end of a request whose socket is a stream's now."""

    def __init__(self, end: Exception) -> None:
        super().__init__()
        self._end = end

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterator[bytes]:
        raise self._end


def _check_serves() -> None:
    if get_services().lifecycle.is_closed:
        raise ShuttingDown


def _find(text: str) -> tuple[ChannelKey, TokenRecord]:
    """Return the key of a channel that lives, and its token. Raises `UnknownToken`, or `Forbidden` of another."""
    services = get_services()
    key = parse_key(text)
    if key is None:
        raise UnknownToken
    record = services.store.get(key.token) if is_token(key.token) else None
    if key.secret is None:
        may_listen = services.settings.smee_open_channels and record is not None and record.secret_hash is None
    else:
        expected = None if record is None else record.secret_hash
        may_listen = is_secret(key.secret, expected or _NO_HASH) and expected is not None
    if record is None or not may_listen:
        raise UnknownToken
    if record.listeners != "all":
        raise Forbidden(f"A channel is a token with listeners: all. This one has listeners: {record.listeners}.")
    return key, record


def _base_url() -> str:
    return get_services().settings.public_url or request.host_url.rstrip("/")


def _posting_url(key: ChannelKey) -> str:
    """Return where events of a channel are posted to. Only an open one has one URL for both."""
    return f"{_base_url()}/" + (f"smee/{key}" if key.secret is None else f"v1/go/{key.token}")


_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <title>socket2me channel</title>
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <meta name="color-scheme" content="light dark" />
    <meta name="referrer" content="no-referrer" />
    <link rel="icon" href="/static/inspector/icon.svg" type="image/svg+xml" />
    <link rel="stylesheet" href="/static/inspector/app.css" />
  </head>
  <body>
    <main class="start">
      <div class="start-inner channel">
        <h1>A channel for webhooks</h1>
        <section>
          <h2>Webhook URL</h2>
          <p>Give this to GitHub, or to another sender. {who}</p>
          <p class="copy-line"><code>{posting}</code></p>
        </section>
        <section>
          <h2>Listening URL</h2>
          <p>Give this to your client.</p>
          <p class="copy-line"><code>npx smee-client --url {listening} --port 3000</code></p>
          <p class="copy-line"><code>WEBHOOK_PROXY_URL={listening} npm start</code></p>
          <p class="copy-line"><code>gosmee client {listening} http://localhost:3000</code></p>
        </section>
      </div>
    </main>
  </body>
</html>
"""


def _page(key: ChannelKey) -> str:
    listening = f"{_base_url()}/smee/{key}"
    who = (
        "Anyone who knows it can listen as well."
        if key.secret is None
        else "Anyone who knows it can send, and cannot listen."
    )
    return _PAGE.format(who=who, posting=html.escape(_posting_url(key)), listening=html.escape(listening))
