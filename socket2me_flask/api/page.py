"""`/`, the page of the inspector, and its files; for programs, what this relay is."""

import json

from flask import Blueprint, Response, request

from socket2me import __version__
from socket2me.inspector import files

from ..errors import UnknownFile
from ..http.answers import prefers

blueprint = Blueprint("page", __name__)


@blueprint.get("/")
def index() -> Response:
    """Show the page to browsers, and describe the relay to programs: JSON, or text where the caller prefers it."""
    accept = request.headers.get("Accept", "")
    if "text/html" in accept and prefers(accept, "text/html", "application/json"):
        response = _file("index.html")
    elif prefers(accept, "text/plain", "application/json"):
        response = Response(
            f"socket2me {__version__}, a webhook relay. POST {request.host_url}v1/new for a token.\n",
            mimetype="text/plain",
        )
    else:
        about = {"name": "socket2me", "version": __version__, "new": f"{request.host_url}v1/new"}
        response = Response(json.dumps(about) + "\n", mimetype="application/json")
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/inspector.json")
def describe() -> Response:
    """Return which program serves the page, and where a replay goes."""
    return Response(files.describe("relay"), mimetype="application/json", headers={"Cache-Control": "no-store"})


@blueprint.get("/static/inspector/<path:name>")
def static_file(name: str) -> Response:
    """Return a file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    file = files.find(name)
    if file is None:
        raise UnknownFile
    response = Response(file.content, content_type=file.content_type, headers=files.HEADERS)
    response.set_etag(file.etag)
    response.make_conditional(request.environ)
    return response
