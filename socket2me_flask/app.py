"""`create_app`: what the relay is made of, and how it is put together."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.middleware.proxy_fix import ProxyFix

from socket2me import __version__
from socket2me.inspector.http import Inspector
from socket2me.signatures import sns

from . import api, config, logs
from .api.hooks import Hooks
from .config import Settings
from .engineio import Engine
from .gateway import Gateway, Scheduler
from .http.answers import ErrorAnswers
from .http.fetch import Fetcher
from .http.hosts import Hosts
from .http.origins import Origins
from .lifecycle import Lifecycle
from .limits import AtOnce, FastRate, NearRate, NoRate, Rate, SharedRate
from .relay.forwarder import Forwarder
from .relay.hold_queue import HoldQueue
from .relay.mailbox import Mailboxes
from .relay.presence import Presence
from .relay.reaper import Reaper
from .relay.recorder import Recorder
from .relay.relay import Relay
from .relay.single_process import SingleProcess
from .relay.token_counts import TokenCounts
from .relay.verification import Verification
from .services import Services, get_services, set_services
from .smee.streams import Streams
from .sockets.server import Sockets, new_engine
from .storage import open_store
from .storage.vault import Vault

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from .cluster.cluster import Cluster
    from .storage.redis import RedisStore

__all__ = ["create_app", "get_services"]


def create_app(overrides: Mapping[str, Any] | None = None, *, clock: Callable[[], float] = time.time) -> Flask:
    """Build the relay: settings, store, sockets, relay, blueprints.

    Settings come from the environment; `overrides` (names in capitals, values of their types) win.
    `clock` returns seconds since the epoch and decides when tokens expire.

    Raises `ConfigError` where a variable holds what its setting does not accept. Starts nothing: serving does
    (`lifecycle.py`).
    """
    settings = config.from_env(os.environ, overrides)
    logs.hide_keys([*settings.api_keys, *filter(None, [settings.metrics_key])])
    app = Flask(__package__ or __name__, static_folder=None)
    app.config["SOCKET2ME"] = settings
    app.session_interface = _NoSessions()
    to_flask = app.wsgi_app  # without the middleware of Flask-SocketIO: the gateway routes
    answers = ErrorAnswers(settings.retry_after_seconds)
    store = open_store(settings, clock)
    recorder = Recorder(store.history, answers)
    origins = Origins(settings.cors_allowed_origins)
    engine = new_engine(settings, answers, origins)
    scheduler = Scheduler(engine.sleep)
    cluster = None
    if settings.store.is_shared:
        shared_store = cast("RedisStore", store)
        cluster = _build_cluster(shared_store, settings, engine, scheduler)
        rate, new_rate = _shared_rates(shared_store, settings)
    else:
        rate, new_rate = _rates(settings)
    peers = cluster or SingleProcess()
    mailboxes = None
    if store.mailboxes is not None:
        mailboxes = Mailboxes(
            store.mailboxes,
            redeliver_seconds=settings.redeliver_seconds,
            max_attempts=settings.max_attempts,
            spawn=engine.start_background_task,
            new_timer=engine.timer,
            send_outcome=peers.send_outcome,
            recorder=recorder,
        )
    held = HoldQueue(
        max_requests=settings.max_held_requests,
        max_requests_per_token=settings.max_held_requests_per_token,
        max_bytes=settings.max_held_bytes,
    )
    counts = TokenCounts()
    presence = Presence(store, held, mailboxes, counts, store.history)
    relay = Relay(
        store,
        presence,
        hold_seconds=settings.hold_seconds,
        ack_timeout_seconds=settings.ack_timeout_seconds,
        reply_timeout_seconds=settings.reply_timeout_seconds,
        mailbox_max_age_seconds=settings.mailbox_max_age_seconds,
        listener_ttl_seconds=settings.listener_ttl_seconds,
        history_max_age_seconds=settings.history_max_age_seconds,
        mailboxes=mailboxes,
        counts=counts,
        recorder=recorder,
        peers=peers,
        rate=rate,
        yield_to_others=scheduler.yield_to_others,
    )
    verification = Verification(
        Vault(settings.encryption_key),
        public_url=settings.public_url,
        rate=settings.rate_limit_requests,
        fetch=Fetcher(max_bytes=sns.MAX_FETCHED_BYTES).fetch if settings.sns else None,
    )
    forwarder = Forwarder(
        relay,
        engine.bodies,
        verification,
        max_body_bytes=settings.max_body_bytes,
        trusted_proxy_hops=settings.trusted_proxy_hops,
    )
    inspector = Inspector(
        store.history,
        replay=api.inspector.Replays(relay, forwarder, engine.start_background_task).send,
        pause=scheduler.yield_to_others,
        max_body_bytes=settings.max_body_bytes,
        max_streams=settings.max_inspector_streams,
        max_streams_of_token=settings.max_inspector_streams_per_token,
        version=__version__,
    )
    if cluster is not None:
        _handle_messages(cluster, relay, settings, engine)
    sockets = Sockets(app, settings, engine, store, presence, answers)
    behind_proxies = partial(_behind_proxies, hops=settings.trusted_proxy_hops)
    reaper = Reaper(relay, interval_seconds=settings.reaper_interval_seconds, sleep=engine.sleep)
    streams = Streams(engine, store, presence, mailboxes)
    lifecycle = Lifecycle(store, relay, engine, reaper, inspector, streams)
    hosts = Hosts(settings.allowed_hosts)
    gateway = Gateway(
        behind_proxies(engine.handle_request), behind_proxies(to_flask), lifecycle, scheduler, answers, hosts
    )
    api.register(app, serves_legacy=settings.legacy_clients, serves_metrics=bool(settings.metrics_key))
    app.wsgi_app = gateway  # type: ignore[method-assign]
    set_services(
        app,
        Services(
            settings=settings,
            store=store,
            relay=relay,
            sockets=sockets,
            streams=streams,
            reaper=reaper,
            scheduler=scheduler,
            lifecycle=lifecycle,
            gateway=gateway,
            inspector=inspector,
            verification=verification,
            forwarder=forwarder,
            hooks_want_calls=Hooks(app).want_calls,
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


def _rates(settings: Settings) -> tuple[Rate, Rate]:
    """Return the rate of calls for a token, and that of new tokens."""
    rate, new_rate = settings.rate_limit_requests, settings.rate_limit_new
    return FastRate(rate) if rate else NoRate(), FastRate(new_rate) if new_rate else NoRate()


def _shared_rates(store: "RedisStore", settings: Settings) -> tuple[Rate, Rate]:
    """Return the same rates, which several processes count together."""
    rate, new_rate = settings.rate_limit_requests, settings.rate_limit_new
    shared = partial(SharedRate, storage=store.counters(), check=store.connection.check)
    return (
        NearRate(FastRate(rate), shared(rate, "calls"), store.routes.has) if rate else NoRate(),
        shared(new_rate, "new") if new_rate else NoRate(),
    )


def _build_cluster(store: "RedisStore", settings: Settings, engine: Engine, scheduler: Scheduler) -> "Cluster":
    """Return what the relay asks of other processes."""
    from .cluster.cluster import Cluster  # with the library for Redis, which takes memory

    return Cluster(
        store,
        answer_wait_seconds=settings.store_timeout_seconds,
        ack_wait_seconds=max(settings.ack_timeout_seconds, settings.reply_timeout_seconds),
        hold_seconds=settings.hold_seconds,
        new_timer=engine.timer,
        note_yield=scheduler.note_yield,
    )


def _handle_messages(cluster: "Cluster", relay: Relay, settings: Settings, engine: Engine) -> None:
    """Carry out what other processes ask of the relay."""
    from .cluster.handlers import Handlers

    Handlers(cluster, relay, hold_seconds=settings.hold_seconds, new_timer=engine.timer)


def _behind_proxies(wsgi_app: "WSGIApplication", hops: int) -> "WSGIApplication":
    """Trust the last `hops` entries of X-Forwarded-For, -Proto and -Host only: callers can send any others."""
    return ProxyFix(wsgi_app, x_for=hops, x_proto=hops, x_host=hops) if hops else wsgi_app
