"""Counts the calls for tokens with a secret. The API shows no others, so nothing is counted for them."""

from ..storage import Counts


class TokenCounts:
    """What this process has counted since `take` was last called."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}

    def add(self, token: str, counts: Counts) -> None:
        """Count for a token that lives."""
        self._counts[token] = self.of(token) + counts

    def of(self, token: str) -> Counts:
        """Return what was counted for a token."""
        return self._counts.get(token, Counts())

    def forget(self, token: str) -> None:
        """Forget a token that lives no more."""
        self._counts.pop(token, None)

    def take(self) -> dict[str, Counts]:
        """Return everything, and count from the start."""
        counts, self._counts = self._counts, {}
        return counts
