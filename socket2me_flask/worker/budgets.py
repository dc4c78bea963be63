"""The memory that all connections of callers share: incomplete heads, and responses that callers have not read."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..limits import Pool, address_key

# The bytes of a head that are accepted.
MAX_HEAD_BYTES = 65_536

# Up to this size a head is not counted among those of all connections, nor the unread part of a response.
SMALL_HEAD_BYTES = 8192
SMALL_UNREAD_BYTES = 65_536

# Beyond those small parts: what all heads that are being read may take, and all responses that wait for their peers
# to read. One address may have no more of it than it leaves free: half, if it is alone.
MAX_HEADS_BYTES = 32_000_000
MAX_UNREAD_BYTES = 96_000_000


class HeadTooLarge(Exception):
    """A head has more than `MAX_HEAD_BYTES`, or there is no room for it in `MAX_HEADS_BYTES`."""


class TooMuchUnread(OSError):
    """A peer does not read a response as fast as it is sent, and there is no room for it in `MAX_UNREAD_BYTES`."""


class Budgets:
    """The bytes that all connections take, by address."""

    def __init__(self) -> None:
        self._heads = Pool(MAX_HEADS_BYTES)
        self._unread = Pool(MAX_UNREAD_BYTES)

    def take_head(self, host: str, size: int) -> None:
        """Count a piece of a head. Raises `HeadTooLarge`."""
        key = address_key(host)
        if not self._heads.has_room(key, size):
            raise HeadTooLarge
        self._heads.take(key, size)

    def give_back_head(self, host: str, size: int) -> None:
        """Count a head no more."""
        self._heads.give_back(address_key(host), size)

    @contextmanager
    def unread(self, host: str, size: int) -> Iterator[None]:
        """Count a response while its peer does not read it. Raises `TooMuchUnread`."""
        key = address_key(host)
        if not self._unread.has_room(key, size):
            raise TooMuchUnread
        self._unread.take(key, size)
        try:
            yield
        finally:
            self._unread.give_back(key, size)
