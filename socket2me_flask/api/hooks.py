"""Whether a hook of the Flask application, beyond the relay's own, wants to see a forwarded call."""

from collections.abc import Sized
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


class Hooks:
    """The hooks of one application. Build it when the relay has registered its own, before others do."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._wsgi_app = app.wsgi_app
        registries: list[Any] = [
            app.url_value_preprocessors,
            app.before_request_funcs,
            app.after_request_funcs,
            app.teardown_request_funcs,
        ]
        watched: list[Sized] = [registry[scope] for registry in registries for scope in _SCOPES]
        watched.append(app.teardown_appcontext_funcs)
        for scope in _SCOPES:  # exception handlers: by status, or for `None` by class
            handlers = app.error_handler_spec[scope]
            watched += [handlers, handlers[None]]
        # Each is a list or a dict that only grows: what it holds now is the relay's own.
        self._watched = [(registry, len(registry)) for registry in watched]

    def want_calls(self) -> bool:
        """Return whether a hook, a handler, a receiver of a signal or middleware is there. Takes about 1 us."""
        if self._app.wsgi_app is not self._wsgi_app:
            return True
        for signal in _SIGNALS:
            if signal.receivers:
                return True
        for registry, length in self._watched:
            if len(registry) != length:
                return True
        return False
