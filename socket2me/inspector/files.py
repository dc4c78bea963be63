"""The page: its files with the headers that go with them, and what it receives about the server."""

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from .. import __version__

FOLDER = Path(str(files(__package__))) / "static"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}

# No inline code, no other origin, no frame: what a call brings can neither run nor send anything elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# On each file. A browser asks each time, and is answered 304: the files of two versions never mix.
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}


class File(NamedTuple):
    """A file of the page. `etag` is without quotes."""

    content: bytes
    content_type: str
    etag: str


def find(name: str) -> File | None:
    """Return the file of this name below the folder, such as `views/body.js`; None if there is none."""
    return _files().get(name)


@cache
def _files() -> dict[str, File]:
    found = {}
    for path in FOLDER.rglob("*"):
        if path.suffix in TYPES and path.is_file():
            content = path.read_bytes()
            etag = hashlib.sha256(content).hexdigest()[:32]
            found[path.relative_to(FOLDER).as_posix()] = File(content, TYPES[path.suffix], etag)
    return found


def describe(kind: str) -> bytes:
    """Return `inspector.json`. `kind` is `relay` or `client`: what serves the page, and where a replay goes."""
    return json.dumps({"kind": kind, "version": __version__, "replay": [kind]}).encode()
