"""`/`, the page of the inspector, and its files; for programs, what this relay is."""

import hashlib
import json
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, request

from ..errors import UnknownFile
from ..http.answers import prefers

blueprint = Blueprint("page", __name__)

# The files that `socket2me.inspector` has for the page.
FOLDER = Path(str(files("socket2me.inspector"))) / "static"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/vnd.microsoft.icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}

# No inline code, no other origin, no frame: what a call brings can neither run nor send anything elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}


def package_version() -> str:
    """Return the version of the relay; `0` if it was not installed as a package."""
    try:
        return version("socket2me")
    except PackageNotFoundError:
        return "0"


@blueprint.get("/")
def index() -> Response:
    """Show the page to browsers, and tell programs what this is: JSON, or text where the caller prefers it."""
    accept = request.headers.get("Accept", "")
    if "text/html" in accept and prefers(accept, "text/html", "application/json"):
        response = _file("index.html")
    elif prefers(accept, "text/plain", "application/json"):
        response = Response(
            f"socket2me {package_version()}, a webhook relay. POST {request.host_url}v1/new for a token.\n",
            mimetype="text/plain",
        )
    else:
        about = {"name": "socket2me", "version": package_version(), "new": f"{request.host_url}v1/new"}
        response = Response(json.dumps(about) + "\n", mimetype="application/json")
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/inspector.json")
def describe() -> Response:
    """Tell the page who serves it, and where a replay goes."""
    about = {"kind": "relay", "version": package_version(), "replay": ["relay"]}
    return Response(json.dumps(about), mimetype="application/json", headers={"Cache-Control": "no-store"})


@blueprint.get("/static/inspector/<path:name>")
def static_file(name: str) -> Response:
    """Return a file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    found = _read(FOLDER, name)
    if found is None:
        raise UnknownFile
    content, etag = found
    response = Response(content, content_type=TYPES[Path(name).suffix], headers=PAGE_HEADERS)
    # A browser asks each time, and is answered 304: the files of two versions never mix.
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(etag)
    response.make_conditional(request.environ)
    return response


@lru_cache(maxsize=256)
def _read(folder: Path, name: str) -> tuple[bytes, str] | None:
    """Return the content of a file below a folder and its ETag; None if there is none of a known type."""
    path = folder / name
    is_below = folder.resolve() in path.resolve().parents
    if not is_below or path.suffix not in TYPES or not path.is_file():
        return None
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:32]
