"""The one typed way from a Flask application to what it was built with."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, current_app

from socket2me.inspector.http import Inspector

from .config import Settings
from .gateway import Gateway, Scheduler
from .http.answers import ErrorAnswers
from .http.hosts import Hosts
from .http.origins import Origins
from .http.request_body import BodyReader
from .lifecycle import Lifecycle
from .limits import AtOnce, Rate
from .relay.forwarder import Forwarder
from .relay.reaper import Reaper
from .relay.relay import Relay
from .relay.verification import Verification
from .smee.streams import Streams
from .sockets.server import Sockets
from .storage import TokenStore

_KEY = "socket2me"

# What was built in this process and is still in use.
_built: "weakref.WeakSet[Services]" = weakref.WeakSet()


@dataclass(frozen=True, eq=False)
class Services:
    """What `create_app` built.

    hooks_want_calls: returns whether a hook of the application, beyond the relay's own, wants to see calls.
    """

    settings: Settings
    store: TokenStore
    relay: Relay
    sockets: Sockets
    streams: Streams
    reaper: Reaper
    scheduler: Scheduler
    lifecycle: Lifecycle
    gateway: Gateway
    inspector: Inspector
    verification: Verification
    forwarder: Forwarder
    hooks_want_calls: Callable[[], bool]
    hosts: Hosts
    bodies: BodyReader
    answers: ErrorAnswers
    origins: Origins
    new_rate: Rate
    event_rate: Rate
    event_answers: AtOnce


def set_services(app: Flask, services: Services) -> None:
    """Give `app` its services; `create_app` does this once."""
    app.extensions[_KEY] = services
    _built.add(services)


def get_services(app: Flask | None = None) -> Services:
    """Return the services of `app`, or of the application that serves the current request."""
    services: Services = (app or current_app).extensions[_KEY]
    return services


def find_services(wsgi_app: object) -> Services | None:
    """Return the services of a relay's Flask application, or None for any other WSGI application."""
    extensions = getattr(wsgi_app, "extensions", None)
    return extensions.get(_KEY) if isinstance(extensions, dict) else None


def the_only_services() -> Services | None:
    """Return the services of the one relay of this process, however its application is wrapped; None if not one."""
    return next(iter(_built)) if len(_built) == 1 else None
