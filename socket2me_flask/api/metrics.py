"""`/metrics`: what an operator's Prometheus reads. Registered only where `SOCKET2ME_METRICS_KEY` is set."""

import hmac

from flask import Blueprint, Response

from ..errors import Unauthorized
from ..relay.tokens import hash_of
from ..services import get_services
from ..telemetry.prometheus import CONTENT_TYPE, render
from .tokens import bearer

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Show what was counted, to callers that have the key."""
    services = get_services()
    key = services.settings.metrics_key or ""
    if not hmac.compare_digest(hash_of(bearer() or ""), hash_of(key)):
        raise Unauthorized("The metrics ask for a key: Authorization: Bearer <key>.")
    response = Response(render(services), content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response
