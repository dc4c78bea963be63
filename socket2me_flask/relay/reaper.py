"""The reaper: removes what expired, at an interval. Nothing else depends on the time of its last run."""

import logging
from collections.abc import Callable

from ..errors import StoreUnavailable
from .relay import Relay

log = logging.getLogger(__name__)


class Reaper:
    """Calls `Relay.expire` every `interval_seconds`. `sleep` is that of the server's threads."""

    def __init__(self, relay: Relay, *, interval_seconds: float, sleep: Callable[[float], object]) -> None:
        self._relay = relay
        self._interval_seconds = interval_seconds
        self._sleep = sleep

    def sweep(self) -> int:
        """Remove what has expired by now and return how many tokens that were."""
        expired = self._relay.expire()
        if expired:
            log.info("%d expired tokens removed", expired)
        return expired

    def run(self) -> None:
        """Sweep for ever. A sweep that fails is logged, and the next one comes all the same."""
        while True:
            self._sleep(self._interval_seconds)
            try:
                self.sweep()
            except StoreUnavailable:
                pass  # which the store has logged
            except Exception:
                log.exception("a sweep failed")
