"""`/healthz` and `/readyz`: what a platform asks before it sends traffic."""

from flask import Blueprint, Response

from ..services import get_services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process lives."""
    return Response("OK", mimetype="text/plain")


@blueprint.get("/readyz")
def readyz() -> Response:
    """The store answers."""
    get_services().store.ping()
    return Response("OK", mimetype="text/plain")
