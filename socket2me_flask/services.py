"""The one typed way from a Flask application to what it was built with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, current_app

from .answers import ErrorAnswers
from .body import BodyReader
from .front import Front
from .limits import Rate
from .origins import Origins
from .reaper import Reaper
from .relay import Relay
from .sockets import Sockets
from .stores import TokenStore

_KEY = "socket2me"


@dataclass(frozen=True)
class Services:
    """What `create_app` built."""

    settings: Mapping[str, Any]
    store: TokenStore
    relay: Relay
    sockets: Sockets
    reaper: Reaper
    front: Front
    bodies: BodyReader
    answers: ErrorAnswers
    origins: Origins
    new_rate: Rate


def set_services(app: Flask, services: Services) -> None:
    """Give `app` its services; `create_app` does this once."""
    app.extensions[_KEY] = services


def get_services(app: Flask | None = None) -> Services:
    """Return the services of `app`, or of the application that serves the current request."""
    services: Services = (app or current_app).extensions[_KEY]
    return services
