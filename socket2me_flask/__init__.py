"""socket2me: a self-hosted webhook relay. `create_app` builds it; `wsgi.py` serves it."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from . import api, config
from .reaper import Reaper
from .relay import Relay
from .services import Services, get_services, set_services
from .sockets import Sockets
from .stores import MemoryStore

__all__ = ["create_app", "get_services"]


def create_app(
    overrides: Mapping[str, Any] | None = None, *, clock: Callable[[], float] = time.time
) -> Flask:
    """Build the relay: settings, store, relay, sockets, blueprints.

    Settings come from the environment; `overrides` (names of `config.SETTINGS`, values of their types) win.
    `clock` returns seconds since the epoch and decides when tokens expire.

    Raises `ConfigError` where a variable holds what its setting does not accept. Starts nothing: `wsgi.py`
    starts the reaper.
    """
    settings = config.from_env(os.environ, overrides)
    store = MemoryStore(clock)
    relay = Relay(
        store,
        hold_seconds=settings["HOLD_SECONDS"],
        max_held_requests=settings["MAX_HELD_REQUESTS"],
        max_held_bytes=settings["MAX_HELD_BYTES"],
        retry_after_seconds=settings["RETRY_AFTER_SECONDS"],
    )
    sockets = Sockets(store, relay, settings)
    reaper = Reaper(relay, interval_seconds=settings["REAPER_INTERVAL_SECONDS"], sleep=sockets.socketio.sleep)

    app = Flask(__name__, static_folder=None)
    set_services(app, Services(settings, store, relay, sockets, reaper))
    api.register(app)
    sockets.socketio.init_app(app)
    app.wsgi_app = api.ConnectionCap(app.wsgi_app, app)  # type: ignore[method-assign]
    return app
