"""`/v1/go/<token>`, and `/go/<token>`: a caller's request on its way to the token's client.

The blueprint serves calls under every WSGI server. The relay's own gunicorn worker takes most of them itself
(`worker/accelerator.py`). Both only translate: `relay/forwarder.py` decides.
"""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, request

from ..errors import UnknownToken
from ..gateway import UPGRADE
from ..http.request_body import EnvironBody
from ..relay.forwarder import METHODS, Target, parse_target
from ..services import get_services
from .error_handlers import AnswerResponse

blueprint = Blueprint("forward", __name__)


@blueprint.route("/go/<anypath:tail>", methods=METHODS, provide_automatic_options=False)
def forward(tail: str) -> Response:
    """Forward the call."""
    target = parse_target(_raw_target(request.environ))
    if target is None:
        raise UnknownToken
    return forward_call(target)


def forward_call(target: Target) -> Response:
    """Forward the call that the request is, to a target."""
    environ = request.environ
    address = environ.get("werkzeug.proxy_fix.orig", environ).get("REMOTE_ADDR") or ""
    answer = get_services().forwarder.forward(
        target, environ["REQUEST_METHOD"], partial(_headers, environ), EnvironBody(environ), address
    )
    return AnswerResponse(answer)


def _raw_target(environ: Mapping[str, Any]) -> str:
    """Return the target as it was sent, one character a byte. Servers that do not provide it lose some encoding."""
    target: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if target is None:
        path, query = environ["PATH_INFO"].encode("latin-1"), environ.get("QUERY_STRING", "")
        target = quote(path, safe="/:@!$&'()*+,;=~") + (f"?{query}" if query else "")
    elif "werkzeug.socket" in environ and not target.isascii():
        target = target.encode("latin-1").decode()  # which encodes it once more
    return target


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a request: names in lower case, values of one character a byte.

    They are those that the caller sent: what `ProxyFix` and the gateway changed is undone.
    """
    headers = {}
    for key, value in environ.items():
        name = _header_name(key)
        if name is not None:
            headers[name] = value
    if "werkzeug.proxy_fix.orig" in environ:
        host = environ["werkzeug.proxy_fix.orig"]["HTTP_HOST"]
        if host is None:
            headers.pop("host", None)
        else:
            headers["host"] = host
    if UPGRADE in environ:
        headers["upgrade"] = environ[UPGRADE]
    return headers


@lru_cache(maxsize=512)  # a caller can send any name, so the cache has a bound
def _header_name(key: str) -> str | None:
    """Return the name of the header that a variable of WSGI holds, if it holds one."""
    if not key.startswith("HTTP_") and key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return None
    return key.removeprefix("HTTP_").replace("_", "-").lower()
