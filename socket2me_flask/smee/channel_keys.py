"""The keys of channels: who has one may listen. Pure."""

import re
from typing import NamedTuple

from ..relay.tokens import SECRET

# What a stock client accepts as the last part of its URL: smee.io's channels match this.
_KEY = re.compile(rf"(?P<token>[a-z0-9-]{{1,64}}?)(?:-(?P<secret>{SECRET}))?").fullmatch


class ChannelKey(NamedTuple):
    """A key, taken apart. An open channel has no secret."""

    token: str
    secret: str | None

    def __str__(self) -> str:
        return self.token if self.secret is None else f"{self.token}-{self.secret}"


def parse_key(text: str) -> ChannelKey | None:
    """Return the key that this is, which need not be of any channel; None if it cannot be one."""
    match = _KEY(text)
    return None if match is None else ChannelKey(match["token"], match["secret"])
