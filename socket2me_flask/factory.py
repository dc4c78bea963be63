"""`create_app`: what the relay is made of, and how it is put together."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.middleware.proxy_fix import ProxyFix

from . import api, config, logs
from .answers import ErrorAnswers
from .api.forward import Forwarder
from .api.hooks import Hooks
from .engine import Engine
from .gateway import Gateway, Scheduler
from .hosts import Hosts
from .lifecycle import Lifecycle
from .limits import AtOnce, FastRate, NearRate, NoRate, Rate, SharedRate
from .mailboxes import Mailboxes
from .origins import Origins
from .reaper import Reaper
from .relay import Alone, Relay
from .services import Services, get_services, set_services
from .sockets import Sockets
from .stores import is_shared, open_store

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from .stores.redis import RedisStore

__all__ = ["create_app", "get_services"]


def create_app(overrides: Mapping[str, Any] | None = None, *, clock: Callable[[], float] = time.time) -> Flask:
    """Build the relay: settings, store, sockets, relay, blueprints.

    Settings come from the environment; `overrides` (names of `config.SETTINGS`, values of their types) win.
    `clock` returns seconds since the epoch and decides when tokens expire.

    Raises `ConfigError` where a variable holds what its setting does not accept. Starts nothing: serving does
    (`lifecycle.py`).
    """
    settings = config.from_env(os.environ, overrides)
    logs.hide_keys(settings["API_KEYS"])
    app = Flask(__package__ or __name__, static_folder=None)
    app.session_interface = _NoSessions()
    to_flask = app.wsgi_app  # without the middleware of Flask-SocketIO: the gateway routes
    answers = ErrorAnswers(settings["RETRY_AFTER_SECONDS"])
    store = open_store(settings["STORE_URL"], settings, clock)
    origins = Origins(settings["CORS_ALLOWED_ORIGINS"])
    sockets = Sockets(app, settings, answers, origins)
    engine = sockets.engine
    scheduler = Scheduler(engine.sleep)
    mailboxes = None
    if store.mailboxes is not None:
        mailboxes = Mailboxes(
            store.mailboxes,
            redeliver_seconds=settings["REDELIVER_SECONDS"],
            max_attempts=settings["MAX_ATTEMPTS"],
            spawn=engine.start_background_task,
            new_timer=engine.timer,
        )
    peers, rate, new_rate = _together(store, settings, engine, scheduler) if is_shared(store) else _alone(settings)
    relay = Relay(
        store,
        hold_seconds=settings["HOLD_SECONDS"],
        max_held_requests=settings["MAX_HELD_REQUESTS"],
        max_held_requests_per_token=settings["MAX_HELD_REQUESTS_PER_TOKEN"],
        max_held_bytes=settings["MAX_HELD_BYTES"],
        ack_timeout_seconds=settings["ACK_TIMEOUT_SECONDS"],
        reply_timeout_seconds=settings["REPLY_TIMEOUT_SECONDS"],
        mailbox_max_age_seconds=settings["MAILBOX_MAX_AGE_SECONDS"],
        mailboxes=mailboxes,
        peers=peers,
        rate=rate,
        give_way=scheduler.yield_to_others,
        address_of=methodcaller("caller", settings["TRUSTED_PROXY_HOPS"]),
    )
    peers.serve(relay)
    sockets.serve(store, relay)
    behind_proxies = partial(_behind_proxies, hops=settings["TRUSTED_PROXY_HOPS"])
    reaper = Reaper(relay, interval_seconds=settings["REAPER_INTERVAL_SECONDS"], sleep=engine.sleep)
    lifecycle = Lifecycle(store, relay, engine, reaper)
    hosts = Hosts(settings["ALLOWED_HOSTS"])
    gateway = Gateway(
        behind_proxies(engine.handle_request), behind_proxies(to_flask), lifecycle, scheduler, answers, hosts
    )
    api.register(app, serves_legacy=settings["LEGACY_CLIENTS"])
    app.wsgi_app = gateway  # type: ignore[method-assign]
    set_services(
        app,
        Services(
            settings=settings,
            store=store,
            relay=relay,
            sockets=sockets,
            reaper=reaper,
            scheduler=scheduler,
            lifecycle=lifecycle,
            gateway=gateway,
            forwarder=Forwarder(relay, engine.bodies, max_body_bytes=settings["MAX_BODY_BYTES"]),
            hooks=Hooks(app),
            hosts=hosts,
            bodies=engine.bodies,
            answers=answers,
            origins=origins,
            new_rate=new_rate,
            event_rate=FastRate(api.events.RATE_LIMIT_EVENTS),
            event_answers=AtOnce(),
        ),
    )
    return app


class _NoSessions(SessionInterface):
    """The relay has no sessions: to look for one would cost each request."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return _NO_SESSION

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Do nothing."""


_NO_SESSION = NullSession()


def _alone(settings: Mapping[str, Any]) -> tuple[Alone, Rate, Rate]:
    """Return what a single process needs: no peers, the rate of calls for a token, and that of new tokens."""
    rate, new_rate = settings["RATE_LIMIT_REQUESTS"], settings["RATE_LIMIT_NEW"]
    return Alone(), FastRate(rate) if rate else NoRate(), FastRate(new_rate) if new_rate else NoRate()


def _together(
    store: "RedisStore", settings: Mapping[str, Any], engine: Engine, scheduler: Scheduler
) -> tuple[Alone, Rate, Rate]:
    """Return the same for a process that has peers."""
    from .peers import Peers  # with the library for Redis, which takes memory

    rate, new_rate = settings["RATE_LIMIT_REQUESTS"], settings["RATE_LIMIT_NEW"]
    shared = partial(SharedRate, storage=store.counters(), check=store.check_link)
    return (
        Peers(
            store,
            silence_seconds=settings["STORE_TIMEOUT_SECONDS"],
            patience_seconds=max(settings["ACK_TIMEOUT_SECONDS"], settings["REPLY_TIMEOUT_SECONDS"]),
            hold_seconds=settings["HOLD_SECONDS"],
            new_timer=engine.timer,
            gave_way=scheduler.note_yield,
        ),
        NearRate(FastRate(rate), shared(rate, "calls"), store.is_remembered) if rate else NoRate(),
        shared(new_rate, "new") if new_rate else NoRate(),
    )


def _behind_proxies(wsgi_app: "WSGIApplication", hops: int) -> "WSGIApplication":
    """Believe the last `hops` entries of X-Forwarded-For, -Proto and -Host, and no others: anybody sends them."""
    return ProxyFix(wsgi_app, x_for=hops, x_proto=hops, x_host=hops) if hops else wsgi_app
