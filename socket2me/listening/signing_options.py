"""The options `--verify` and `--resign`: a provider and its secret, from the command line, a file or a variable."""

import hashlib
import hmac
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..exceptions import BadArgument
from ..request import Request
from ..signatures import PROVIDERS, BadKey, BadSignature, Resigner

# A request is signed again if its signature is so old, well before the 300 s of most receivers, or if it was sent
# before.
RESIGN_AFTER_SECONDS = 60


def parse_verify(texts: Sequence[str]) -> dict[str, Any] | None:
    """Return what `POST /v1/new` takes as `verify`, from the values of `--verify`; None if there are none.

    A value is `github=SECRET`, `github=@FILE`, `github=env:NAME`, a JSON object or `@FILE` with one. Two values are
    two secrets of one provider. The relay checks the rest. Raises `BadArgument`.
    """
    if not texts:
        return None
    if len(texts) == 1 and texts[0].lstrip().startswith(("{", "@")):
        text = _read(texts[0].strip().removeprefix("@")) if texts[0].strip().startswith("@") else texts[0]
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise BadArgument("--verify is no JSON object, nor a provider with its secret: github=SECRET.")
        return given
    pairs = [parse_secret(text) for text in texts]
    if len({provider for provider, _ in pairs}) != 1 or len(pairs) > 2:
        raise BadArgument("--verify takes one provider, with two secrets at most, while one replaces the other.")
    return {"provider": pairs[0][0], "secrets": [secret for _, secret in pairs]}


def parse_secret(text: str) -> tuple[str, str]:
    """Return the provider and the secret of `github=SECRET`, `github=@FILE` or `github=env:NAME`.

    Raises `BadArgument`, which never has the secret.
    """
    provider, found, secret = text.partition("=")
    if not found or provider not in PROVIDERS:
        raise BadArgument(
            f"The provider is one of {', '.join(PROVIDERS)}, and its secret follows it: github=SECRET."
        )
    if secret.startswith("@"):
        secret = _read(secret[1:]).removesuffix("\n").removesuffix("\r")
    elif secret.startswith("env:"):
        name = secret.removeprefix("env:")
        if name not in os.environ:
            raise BadArgument(f"There is no variable {name} for the secret of {provider}.")
        secret = os.environ[name]
    if not secret.strip():
        raise BadArgument(f"The secret of {provider} is empty.")
    return provider, secret


def fingerprint(verify: dict[str, Any] | None, secret: str | None) -> str | None:
    """Return a mark by which a token that was asked for with this `verify` is recognized; None for none.

    It is keyed with the token's own secret, so that the provider's cannot be searched for by it.
    """
    if verify is None or secret is None:
        return None
    return hmac.digest(secret.encode(), json.dumps(verify, sort_keys=True).encode(), hashlib.sha256).hex()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadArgument(f"{path} cannot be read: {reason}.") from None


class LateSigner:
    """Signs again what arrives late or again, so that it passes the tolerance of its receiver.

    `given` is as `parse_secret` takes it. Raises `BadArgument`.
    """

    def __init__(self, given: str) -> None:
        provider, secret = parse_secret(given)
        try:
            self._resigner = Resigner(provider, secret)
        except BadKey as error:
            raise BadArgument(f"The secret for --resign cannot be used: {error}.") from None

    def late(self, request: Request) -> Request:
        """Return a request, signed again if it is late or was sent before; never one that is not verified."""
        if request.verified != self._resigner.provider:
            return request
        now, signed_at = time.time(), self._resigner.signed_at(request.headers)
        if signed_at is None or (abs(now - signed_at) <= RESIGN_AFTER_SECONDS and (request.attempt or 1) == 1):
            return request
        return self._sign(request, int(now))

    def saved(self, request: Request) -> Request:
        """Return a saved request, signed again. Raises `BadArgument` if this secret has not signed it."""
        if not self._resigner.has_signed(request.headers, request.body):
            raise BadArgument("The request in the file is not signed with this secret: it is not signed again.")
        return self._sign(request, int(time.time()))

    def _sign(self, request: Request, now: int) -> Request:
        try:
            return replace(request, headers=self._resigner.sign(request.headers, request.body, now))
        except BadSignature:
            return request
