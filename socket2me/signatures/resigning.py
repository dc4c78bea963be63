"""Signs a request again with the current time: what waited fails the tolerance of its receiver otherwise."""

import math
from collections.abc import Mapping
from typing import cast

from .hmac_key import HmacKey
from .providers import PROVIDERS
from .public_keys import BadKey
from .received import BadSignature, Received
from .schemes import TimedScheme

# What the names of the headers that were replaced begin with.
ORIGINAL_PREFIX = "x-socket2me-original-"


class Resigner:
    """Signs for one provider with one secret. Raises `BadKey` if the provider or the secret cannot be used."""

    def __init__(self, provider: str, secret: str) -> None:
        if provider not in RESIGNABLE:
            raise BadKey(f"requests of {provider} cannot be signed again, only those of {', '.join(RESIGNABLE)}")
        self.provider = provider
        self._scheme = cast(TimedScheme, PROVIDERS[provider].scheme)
        self._key = self._scheme.key(secret)
        if not isinstance(self._key, HmacKey):
            raise BadKey("a public key signs nothing")

    def signed_at(self, headers: Mapping[str, str]) -> int | None:
        """Return the time of the signature that a request has, in seconds since the epoch; None if it has none."""
        text = self._scheme.time_of(headers)
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None

    def has_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Say whether a request was signed with this secret, at whatever time."""
        try:
            self._scheme.check(Received("POST", headers, body), [self._key], 0, math.inf)
        except BadSignature:
            return False
        return True

    def sign(self, headers: Mapping[str, str], body: bytes, now: int) -> dict[str, str]:
        """Return the headers of a request with a signature of `now`, those that it replaces kept under other names.

        The body and the id of the event are as they were. Raises `BadSignature` if a header that is signed is
        missing.
        """
        new = self._scheme.sign_again(self._key, Received("POST", headers, body), str(now))
        kept = {f"{ORIGINAL_PREFIX}{name}": headers[name] for name in new if name in headers}
        return {**{name: value for name, value in headers.items() if name not in new}, **new, **kept}


# The providers that sign a time, and whose receivers refuse an old one, by a secret that the receiver knows.
RESIGNABLE = ("slack", "standard", "stripe", "zoom")
