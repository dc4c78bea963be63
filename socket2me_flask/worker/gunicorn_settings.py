"""gunicorn's configuration and loggers, as this worker uses them."""

import os
import sys
from typing import Any

from gunicorn import config

from .. import logs
from ..config import from_env
from ..errors import ConfigError


class CachedConfig:
    """The configuration, each setting looked up once: gunicorn reads dozens of them for each request."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._cfg, name)
        setattr(self, name, value)
        return value


def has_request_hooks(cfg: Any) -> bool:
    """Return whether the configuration has hooks that are called for each request."""
    return bool(
        cfg.settings["pre_request"].get() is not config.PreRequest.default
        or cfg.settings["post_request"].get() is not config.PostRequest.default
    )


def check_workers(workers: int) -> None:
    """End the start, in one line, if so many workers would share no store. Bad settings are reported elsewhere."""
    try:
        is_shared = from_env(os.environ).store.is_shared
    except ConfigError:
        return
    if workers > 1 and not is_shared:
        sys.exit(
            f"socket2me: {workers} workers need SOCKET2ME_STORE_URL=redis://..., which they share; "
            "with the memory and SQLite stores each would be a relay of its own."
        )


def add_log_filters(logger: Any) -> None:
    """Have gunicorn's loggers write no tokens, and no error more often than the relay's own logs would."""
    logger.error_log.addFilter(logs.Flood())
    for each in (logger.error_log, logger.access_log):
        each.addFilter(logs.Redact())
