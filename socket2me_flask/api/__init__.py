"""The HTTP API: one blueprint for each job, and one shape for every error."""

from flask import Flask
from werkzeug.routing import BaseConverter, PathConverter

from ..relay.tokens import fold_name
from . import error_handlers, events, forward, health, inspector, legacy, openapi, page, smee, tokens


class _AnyPath(PathConverter):
    """What follows a token: anything, `""` and `//` too."""

    regex = "(?s:.*)"
    part_isolating = False


class _Token(BaseConverter):
    """A token, or a name, whose capitals become small letters."""

    def to_python(self, value: str) -> str:
        return fold_name(value) or value


class _RequestId(BaseConverter):
    """The id of a request of a history. `stream` is none: its URL has methods of its own."""

    regex = "(?!stream$)[^/]+"


class _ChannelKey(BaseConverter):
    """The key of a channel of smee's. `new` is none: its URL has methods of its own."""

    regex = "(?!new$)[^/]+"


def register(app: Flask, *, serves_legacy: bool, serves_metrics: bool) -> None:
    """Give `app` the routes of the relay, those of 2016 and the metrics if they are wanted, and its error shape."""
    # A relay passes on the path that it was called with: no redirect from `//` to `/`.
    app.url_map.merge_slashes = False
    app.url_map.converters |= {
        "anypath": _AnyPath,
        "request_id": _RequestId,
        "channel_key": _ChannelKey,
        "token": _Token,
    }
    app.register_blueprint(tokens.blueprint, url_prefix="/v1")
    app.register_blueprint(events.blueprint, url_prefix="/v1")
    app.register_blueprint(forward.blueprint, url_prefix="/v1")
    app.register_blueprint(inspector.blueprint, url_prefix="/v1/tokens/<token:token>")
    app.register_blueprint(smee.blueprint)
    app.register_blueprint(page.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(openapi.blueprint)
    if serves_legacy:
        app.register_blueprint(legacy.blueprint)
        app.register_blueprint(legacy.token_blueprint)
    if serves_metrics:
        from . import metrics  # with its library, whose memory only its users should miss

        app.register_blueprint(metrics.blueprint)
    error_handlers.register(app)
