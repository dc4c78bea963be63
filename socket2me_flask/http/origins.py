"""Which web pages may connect and ask for tokens, as their browsers say it in `Origin`."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


class Origins:
    """`allowed`: None (pages of the relay's own host), `"*"` (every page), or a list of origins."""

    def __init__(self, allowed: str | tuple[str, ...] | None) -> None:
        self._allowed = allowed

    def allow(self, environ: Mapping[str, Any]) -> bool:
        """Say whether the caller may ask. Without an `Origin` it is no page that asks.

        The same host is enough: a proxy may speak TLS for the relay.
        """
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or self._allowed == "*":
            return True
        if self._allowed is not None:
            return origin in self._allowed
        try:
            return bool(urlsplit(origin).netloc == environ.get("HTTP_HOST"))
        except ValueError:
            return False

    def headers(self, environ: Mapping[str, Any], methods: str, headers: str) -> list[tuple[str, str]]:
        """Return what lets a page that may ask read the answer, and send such requests."""
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not self.allow(environ):
            return []
        cors = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if environ["REQUEST_METHOD"] == "OPTIONS":
            cors += [("Access-Control-Allow-Methods", methods), ("Access-Control-Allow-Headers", headers)]
        return cors
