"""`/v1/new` and `/v1/refresh/<token>`: how an app comes by a token and keeps it."""

from flask import Blueprint, Response, jsonify, request

from ..errors import UnknownToken
from ..services import get_services
from ..tokens import is_token, new_token
from .errors import prefers

blueprint = Blueprint("tokens", __name__)


@blueprint.get("/new")
def new() -> Response:
    """Issue a token: plain text, or a JSON string where the caller prefers JSON."""
    services = get_services()
    token = new_token()
    if request.method != "HEAD":  # which would throw the token away
        services.store.add(token, services.settings["TOKEN_EXPIRE_SECONDS"])
    if prefers("application/json", "text/plain"):
        return jsonify(token)
    return Response(token, mimetype="text/plain")


@blueprint.get("/refresh/<anypath:token>")
def refresh(token: str) -> Response:
    """Let a token live for its whole time again."""
    if not is_token(token) or not get_services().store.refresh(token):
        raise UnknownToken
    return Response("OK", mimetype="text/plain")


@blueprint.after_request
def add_headers(response: Response) -> Response:
    """Keep tokens out of caches, and let the pages that may connect ask for one."""
    response.headers["Cache-Control"] = "no-store"
    allowed = get_services().settings["CORS_ALLOWED_ORIGINS"]
    origin = request.headers.get("Origin")
    if allowed is not None and origin is not None and (allowed == "*" or origin in allowed):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"
    return response
