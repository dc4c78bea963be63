"""Whether a hook of the Flask application, beyond the relay's own, wants to see a forwarded call."""

from typing import Any

import flask.signals
from flask import Flask

# The signals that Flask sends while it serves a request.
_SIGNALS = (
    flask.signals.appcontext_pushed,
    flask.signals.appcontext_popped,
    flask.signals.appcontext_tearing_down,
    flask.signals.got_request_exception,
    flask.signals.request_finished,
    flask.signals.request_started,
    flask.signals.request_tearing_down,
)

# The blueprints that serve forwarded calls. `None` is the application.
_SCOPES = (None, "forward", "legacy")

# Where they begin.
_PREFIXES = ("/v1/go/", "/go/")

# What a developer may replace of an application to see each request.
_REPLACEABLE = frozenset(
    "dispatch_request ensure_sync finalize_request full_dispatch_request handle_exception handle_http_exception "
    "handle_user_exception make_response preprocess_request process_response request_class request_context "
    "response_class".split()
)


class Hooks:
    """The hooks of one application. Build it when the relay has registered its own, before others do."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._wsgi_app = app.wsgi_app
        self._class = type(app)
        registries: list[Any] = [
            app.url_value_preprocessors,
            app.before_request_funcs,
            app.after_request_funcs,
            app.teardown_request_funcs,
        ]
        # Lists that only grow: what each holds now is the relay's own.
        watched = [registry[scope] for registry in registries for scope in _SCOPES]
        watched.append(app.teardown_appcontext_funcs)
        # Exception handlers: by status, or for `None` by class.
        tables = [app.error_handler_spec[scope] for scope in _SCOPES]
        self._handlers = [(table[None], dict(table[None])) for table in tables]
        self._lengths = [(registry, len(registry)) for registry in [*watched, *tables]]
        self._views = [(name, view) for name, view in app.view_functions.items() if name.endswith(".forward")]
        self._routes = len(app.view_functions)
        self._has_other_route = False
        self._own = {rule.endpoint for rule in app.url_map.iter_rules()}

    def want_calls(self) -> bool:
        """Return whether a hook, a handler, a receiver of a signal or middleware is there. Takes about 1 us."""
        app = self._app
        if app.wsgi_app is not self._wsgi_app or type(app) is not self._class:
            return True
        for signal in _SIGNALS:
            if signal.receivers:
                return True
        for registry, length in self._lengths:
            if len(registry) != length:
                return True
        for handlers, own in self._handlers:
            if handlers != own:
                return True
        for name, view in self._views:
            if app.view_functions[name] is not view:
                return True
        if len(app.view_functions) != self._routes:
            self._look_at_routes()
        return self._has_other_route or not _REPLACEABLE.isdisjoint(app.__dict__)

    def _look_at_routes(self) -> None:
        """Look whether a route that was added takes calls that the relay would forward."""
        self._routes = len(self._app.view_functions)
        self._has_other_route = any(
            rule.rule.startswith(_PREFIXES) and rule.endpoint not in self._own
            for rule in self._app.url_map.iter_rules()
        )
