"""Signs a request again with the current time: what waited fails the tolerance of its receiver otherwise."""

import math
from collections.abc import Mapping

from .hmac_key import HmacKey
from .providers import PROVIDERS
from .public_keys import BadKey
from .received import BadSignature, Received
from .schemes import HmacScheme, StandardScheme, StripeScheme, family_of

# What the names of the headers that were replaced begin with.
ORIGINAL_PREFIX = "x-socket2me-original-"


class Resigner:
    """Signs for one provider with one secret. Raises `BadKey` if the provider or the secret cannot be used."""

    def __init__(self, provider: str, secret: str) -> None:
        if provider not in RESIGNABLE:
            raise BadKey(f"requests of {provider} cannot be signed again, only those of {', '.join(RESIGNABLE)}")
        self.provider = provider
        self._scheme = PROVIDERS[provider].scheme
        assert isinstance(self._scheme, HmacScheme | StandardScheme | StripeScheme)  # noqa: S101  # as `RESIGNABLE` says
        self._key = self._scheme.key(secret)
        if not isinstance(self._key, HmacKey):
            raise BadKey("a public key signs nothing")

    def signed_at(self, headers: Mapping[str, str]) -> int | None:
        """Return the time of the signature that a request has, in seconds since the epoch; None if it has none."""
        name = self._timestamp_header(headers)
        text = headers.get(name, "")
        if isinstance(self._scheme, StripeScheme):
            text = next((item[2:] for item in text.split(",") if item.startswith("t=")), "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None

    def has_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Say whether a request was signed with this secret, at whatever time."""
        assert self._scheme is not None  # noqa: S101  # as `RESIGNABLE` says
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
        timestamp = str(now)
        match self._scheme:
            case StripeScheme() as stripe:
                new = {stripe.header: f"t={timestamp},v1={stripe.sign(self._key, timestamp, body)}"}
            case StandardScheme() as standard:
                family = family_of(headers)
                event_id = Received("", headers, b"").header(f"{family}-id")
                head = f"{event_id}.{timestamp}.".encode("latin-1")
                new = {
                    f"{family}-timestamp": timestamp,
                    f"{family}-signature": f"v1,{standard.sign(self._key, head, body)}",
                }
            case HmacScheme(timestamp_header=str() as name) as scheme:
                signature = scheme.sign(self._key, f"v0:{timestamp}:".encode(), body)
                new = {name: timestamp, scheme.header: scheme.prefix + signature}
            case _:
                raise BadSignature("malformed")
        kept = {f"{ORIGINAL_PREFIX}{name}": headers[name] for name in new if name in headers}
        return {**{name: value for name, value in headers.items() if name not in new}, **new, **kept}

    def _timestamp_header(self, headers: Mapping[str, str]) -> str:
        if isinstance(self._scheme, HmacScheme):
            return self._scheme.timestamp_header or ""
        return StripeScheme.header if isinstance(self._scheme, StripeScheme) else f"{family_of(headers)}-timestamp"


# The providers that sign a time, and whose receivers refuse an old one, by a secret that the receiver knows.
RESIGNABLE = ("slack", "standard", "stripe", "zoom")
