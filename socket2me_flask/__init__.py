"""socket2me: a self-hosted webhook relay. `create_app` builds it; `wsgi.py` serves it."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from . import api, config
from .api.forward import FastPath
from .front import Front, Turns
from .reaper import Reaper
from .relay import Relay
from .services import Services, get_services, set_services
from .sockets import Sockets
from .stores import MemoryStore

__all__ = ["create_app", "get_services"]


def create_app(overrides: Mapping[str, Any] | None = None, *, clock: Callable[[], float] = time.time) -> Flask:
    """Build the relay: settings, store, sockets, relay, blueprints.

    Settings come from the environment; `overrides` (names of `config.SETTINGS`, values of their types) win.
    `clock` returns seconds since the epoch and decides when tokens expire.

    Raises `ConfigError` where a variable holds what its setting does not accept. Starts nothing: `wsgi.py`
    starts the reaper.
    """
    settings = config.from_env(os.environ, overrides)
    app = Flask(__name__, static_folder=None)
    flask_app = app.wsgi_app
    store = MemoryStore(clock)
    sockets = Sockets(app, settings)
    engine = sockets.engine
    turns = Turns(engine.sleep)
    relay = Relay(
        store,
        hold_seconds=settings["HOLD_SECONDS"],
        max_held_requests=settings["MAX_HELD_REQUESTS"],
        max_held_bytes=settings["MAX_HELD_BYTES"],
        retry_after_seconds=settings["RETRY_AFTER_SECONDS"],
        give_way=turns.give_way,
    )
    sockets.serve(store, relay)
    reaper = Reaper(relay, interval_seconds=settings["REAPER_INTERVAL_SECONDS"], sleep=engine.sleep)
    fast_path = FastPath(flask_app, relay, max_body_bytes=settings["MAX_BODY_BYTES"])
    front = Front(fast_path, engine, relay, turns, retry_after_seconds=settings["RETRY_AFTER_SECONDS"])
    set_services(app, Services(settings, store, relay, sockets, reaper, front))
    api.register(app)
    app.wsgi_app = front  # type: ignore[method-assign]
    return app
