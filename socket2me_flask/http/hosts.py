"""Which hosts the relay answers for, as requests name them in `Host`.

Against DNS rebinding: the name of a web page's own server is made to point to the relay. Its visitor's browser then
takes the relay for that server, and sends what the page asks for with the page's name as `Host`.
"""

import re
from collections.abc import Collection

# A host, and a port.
_split = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?").fullmatch


class Hosts:
    """`allowed` are hosts, such as `relay.example`, or with one port, `relay.example:8443`. None: every host."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(map(str.lower, allowed))

    @property
    def is_limited(self) -> bool:
        """Whether there is a host that the relay does not answer for."""
        return bool(self._allowed)

    def allow(self, host: str) -> bool:
        """Say whether the relay answers for the value of a `Host` header; `""` if there was none."""
        if not self._allowed:
            return True
        match = _split(host.lower())
        if match is None:
            return False
        name = match[1].removesuffix(".")
        return name in self._allowed or f"{name}:{match[2]}" in self._allowed


def parse(text: str) -> list[str]:
    """Return the hosts of a list that is separated by commas. Raises `ValueError` where one is no host."""
    hosts = [host.strip().lower() for host in text.split(",") if host.strip()]
    if not hosts or not all(map(_is_host, hosts)):
        raise ValueError
    return hosts


_is_host = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::[0-9]{1,5})?").fullmatch
