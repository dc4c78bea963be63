"""The `verify` member of `POST /v1/new`: which provider signs the calls of a token, and with which secrets."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .handshakes import Context, HandshakeAnswer
from .providers import DEFAULT_TOLERANCE_SECONDS, PROVIDERS, Provider
from .public_keys import BadKey, require_package
from .received import BadSignature, Reason, Received
from .schemes import ENCODINGS, HASHES, HmacScheme, Scheme
from .sns import region_of

# One, or two while a secret is replaced.
MAX_SECRETS = 2

MAX_SECRET_CHARACTERS = 1024
MAX_OPTION_CHARACTERS = 256
MAX_TOLERANCE_SECONDS = 86_400

_is_header = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+").fullmatch  # of RFC 9110, but for `_`: such do not arrive
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


class BadConfig(ValueError):
    """A configuration that cannot be used. The text says why, and has nothing of a secret."""


@dataclass(frozen=True)
class Config:
    """Which provider signs, and with what. Neither secrets nor options are shown by `repr`.

    provider: a key of `PROVIDERS`.
    secrets: any of them may have signed.
    tolerance_seconds: how far the time of a signature may be from its arrival, where the provider signs a time.
    options: what the provider has beside: `verify_token` of Meta, `topic` of SNS, the members of the generic HMAC.
    """

    provider: str
    secrets: tuple[str, ...] = field(repr=False)
    tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, given: object) -> "Config":
        """Return the configuration that was given as JSON. Raises `BadConfig`."""
        return Verifier.parse(given).config

    @classmethod
    def read(cls, given: object) -> "Config":
        """Return the same before its keys and options were tried: `Verifier` does that. Raises `BadConfig`."""
        if not isinstance(given, dict):
            raise BadConfig("verify is an object with a provider and its secrets.")
        name = given.get("provider")
        provider = PROVIDERS.get(name) if isinstance(name, str) else None
        if provider is None:
            raise BadConfig(f"verify.provider {_shown(name)} is none of {', '.join(PROVIDERS)}.")
        known = ("provider", "secrets", "tolerance_seconds", *provider.options)
        for member in given:
            if member not in known:
                raise BadConfig(f"verify of {name} may have {', '.join(known)}, and not {_shown(member)}.")
        return cls(
            str(name),
            _secrets(str(name), given.get("secrets", [])),
            _tolerance(given.get("tolerance_seconds", DEFAULT_TOLERANCE_SECONDS)),
            {option: _text(option, given[option]) for option in provider.options if option in given},
        )

    def as_json(self) -> str:
        """Return the text that `parse` reads, as JSON. It has the secrets."""
        members = {"provider": self.provider, "secrets": self.secrets, "tolerance_seconds": self.tolerance_seconds}
        return json.dumps({**members, **self.options}, separators=(",", ":"))


class Verifier:
    """Checks requests for one configuration. Keys are made of its secrets once. Raises `BadConfig`."""

    def __init__(self, config: Config) -> None:
        provider = PROVIDERS[config.provider]
        self.provider = config.provider
        self.verified = {"provider": config.provider}
        self.signs_url = provider.signs_url
        self.asks = provider.handshake is not None
        self.topic: str | None = None
        self._tolerance_seconds = config.tolerance_seconds
        self._handshake = provider.handshake
        self._signs_handshake = provider.signs_handshake
        self.config = config
        self._scheme = _scheme(config, provider)
        self._keys: list[Any] = []
        if self._scheme is None:
            self.topic = _topic(config)
            return
        for number, secret in enumerate(config.secrets, 1):
            try:
                self._keys.append(self._scheme.key(secret))
            except BadKey as error:
                raise BadConfig(f"verify.secrets, number {number}, cannot be used: {error}.") from None

    @classmethod
    def parse(cls, given: object) -> "Verifier":
        """Return the verifier of a configuration that was given as JSON. Raises `BadConfig`."""
        return cls(Config.read(given))

    def check(self, request: Received, now: float) -> Reason | None:
        """Return None if the provider signed a request, else why it is not verified. `now` is when it arrived."""
        if self._scheme is None:
            return "malformed"
        try:
            self._scheme.check(request, self._keys, now, self._tolerance_seconds)
        except BadSignature as error:
            return error.reason
        return None

    def answer(
        self, request: Received, *, is_verified: bool, calls_per_minute: int | None = None
    ) -> HandshakeAnswer | None:
        """Return the answer to a question of the provider, if the request is one.

        Some providers sign their question: call it before `check`, and again after a request was verified.
        `calls_per_minute` is how often the URL may be called; None for no limit.
        """
        if self._handshake is None or self._signs_handshake is not is_verified:
            return None
        secrets = self.config.secrets
        if is_verified and len(secrets) > 1:
            secrets = tuple(
                secret
                for secret, key in zip(secrets, self._keys, strict=True)
                if self._is_signed_with(request, key)
            )
        return self._handshake(request, Context(secrets, self.config.options, calls_per_minute))

    def _is_signed_with(self, request: Received, key: Any) -> bool:
        """Say whether a request that is verified was signed with this key."""
        assert self._scheme is not None  # noqa: S101  # it has verified the request
        try:
            self._scheme.check(request, [key], 0, math.inf)
        except BadSignature:
            return False
        return True


def _secrets(provider: str, given: object) -> tuple[str, ...]:
    if provider == "sns":
        if given != []:
            raise BadConfig("verify of sns has no secrets: Amazon publishes what it signs with.")
        return ()
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_SECRETS:
        raise BadConfig("verify.secrets is a list of one secret, or of two while one replaces the other.")
    for number, secret in enumerate(given, 1):
        if not isinstance(secret, str) or not secret.strip() or len(secret) > MAX_SECRET_CHARACTERS:
            raise BadConfig(
                f"verify.secrets, number {number}, is not a text of 1 to {MAX_SECRET_CHARACTERS} characters."
            )
        try:
            secret.encode()
        except UnicodeEncodeError:
            raise BadConfig(f"verify.secrets, number {number}, has half a surrogate pair.") from None
    return tuple(given)


def _tolerance(given: object) -> float:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not 1 <= given <= MAX_TOLERANCE_SECONDS:  # type: ignore[operator]
        raise BadConfig(f"verify.tolerance_seconds is a number from 1 to {MAX_TOLERANCE_SECONDS}.")
    return float(given)  # type: ignore[arg-type]


def _text(option: str, given: object) -> str:
    if not isinstance(given, str) or not given or len(given) > MAX_OPTION_CHARACTERS or not given.isprintable():
        raise BadConfig(f"verify.{option} is a printable text of 1 to {MAX_OPTION_CHARACTERS} characters.")
    return given


def _topic(config: Config) -> str:
    try:
        require_package()
        region_of(config.options.get("topic", ""))
    except BadKey as error:
        raise BadConfig(f"verify of sns: {error}.") from None
    return config.options["topic"]


def _scheme(config: Config, provider: Provider) -> Scheme | None:
    """Return how a provider signs; what the options say for the generic HMAC; None for Amazon SNS."""
    if config.provider != "hmac":
        return provider.scheme
    options = dict(config.options)
    for name in ("header", "timestamp_header", "id_header"):
        if name in options:
            if _is_header(options[name]) is None:
                raise BadConfig(f"verify.{name} {_shown(options[name])} is not the name of a header.")
            options[name] = options[name].lower()
    if "header" not in options:
        raise BadConfig("verify of hmac needs the header that has the signature.")
    for name, allowed in (("encoding", ENCODINGS), ("hash", HASHES)):
        if name in options and options[name] not in allowed:
            raise BadConfig(f"verify.{name} {_shown(options[name])} is none of {', '.join(allowed)}.")
    if "," in options.get("prefix", "") or not options.get("prefix", "").isascii():
        raise BadConfig("verify.prefix is ASCII without a comma.")
    _check_template(options)
    return HmacScheme(**options)


def _check_template(options: dict[str, str]) -> None:
    template = options.get("template", "{body}")
    names = [match[0] for match in _PLACEHOLDER.finditer(template)]
    needed = {
        "{body}": True,
        "{timestamp}": "timestamp_header" in options,
        "{id}": "id_header" in options,
    }
    rest = _PLACEHOLDER.sub("", template)
    if set(names) - set(needed) or "{" in rest or "}" in rest or names.count("{body}") != 1:
        raise BadConfig("verify.template has {body} once, and may have {timestamp} and {id}, and no other braces.")
    for name, is_given in needed.items():
        if (name in names) is not is_given:
            member = f"{name.strip('{}')}_header"
            raise BadConfig(f"verify.template has {name} if, and only if, there is verify.{member}.")


def _shown(given: object) -> str:
    """Return what was given as JSON, cut short."""
    text = json.dumps(given, default=str)
    return text if len(text) <= 40 else f"{text[:40]}..."
