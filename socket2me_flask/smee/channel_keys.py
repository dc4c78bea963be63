"""The keys of channels: the owner of one may listen. Pure."""

import re
from typing import NamedTuple

from ..relay.tokens import NAME, SECRET, TOKEN

# Of the characters that smee.io's channels have. No name has a `_`, as every secret has.
_KEY = re.compile(rf"(?P<token>{TOKEN}|{NAME})(?:-(?P<secret>{SECRET}))?").fullmatch


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
