"""How providers sign: what is signed, with which hash, and in which header the signature is.

Each scheme makes a key of a secret once, and checks requests with it. Comparisons take a time that does not depend
on how much of a signature is right, and go over all secrets and all signatures.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, Protocol
from urllib.parse import parse_qs, parse_qsl, urlsplit

from .hmac_key import HmacKey
from .public_keys import (
    ED25519_SIGNATURE_BYTES,
    BadKey,
    decode_base64,
    decode_hex,
    ed25519_key,
    is_ecdsa_sha256,
    is_ed25519,
    p256_key,
)
from .received import BadSignature, Received

# How many signatures a header may have. Stripe and Standard Webhooks send one for each secret that is valid.
MAX_SIGNATURES = 16

# How many fields a form may have whose fields are signed; as many as forms have that the relay parses.
MAX_FORM_FIELDS = 1000

# The largest body that is parsed to find what authenticates it.
MAX_PARSED_BYTES = 1_000_000

# The encodings of a signature, and the characters that each has.
ENCODINGS = {"hex": "[0-9A-Fa-f]", "base64": "[A-Za-z0-9+/]"}

# The hashes of HMACs, and their sizes in bytes.
HASHES = {"sha1": 20, "sha256": 32, "sha512": 64}

_is_timestamp = re.compile(r"[0-9]{1,12}").fullmatch


class Scheme(Protocol):
    """How one provider authenticates requests."""

    def key(self, secret: str) -> Any:
        """Return what `check` needs of a secret. Raises `BadKey`."""

    def check(self, request: Received, keys: Sequence[Any], now: float, tolerance: float) -> None:
        """Return if one of the keys signed a request. Raises `BadSignature`.

        `now` is seconds since the epoch, `tolerance` how many seconds the time of the signature may differ from it.
        """


class TimedScheme(Scheme, Protocol):
    """A scheme that signs a time, and whose keys can sign."""

    def time_of(self, headers: Mapping[str, str]) -> str:
        """Return the time of a signature as it was sent; `""` if there is none."""

    def sign_again(self, key: Any, request: Received, timestamp: str) -> dict[str, str]:
        """Return the headers that authenticate a request at another time. Raises `BadSignature` as `check`."""


@dataclass(frozen=True)
class HmacScheme:
    """One HMAC in one header.

    header, timestamp_header, id_header: the names of headers, in lower case.
    prefix: what precedes the signature in the header.
    encoding, hash: of `ENCODINGS` and `HASHES`.
    template: what is signed: text with `{body}`, `{timestamp}`, `{id}` and `{url}`.
    """

    header: str
    prefix: str = ""
    encoding: str = "hex"
    hash: str = "sha256"
    template: str = "{body}"
    timestamp_header: str | None = None
    id_header: str | None = None
    _parts: tuple[str, ...] = field(init=False, repr=False)
    _length: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", tuple(re.split(r"(\{\w+\})", self.template)))
        size = HASHES[self.hash]
        object.__setattr__(self, "_length", 2 * size if self.encoding == "hex" else (size + 2) // 3 * 4)

    def key(self, secret: str) -> HmacKey:
        return HmacKey(secret.encode(), self.hash)

    def check(self, request: Received, keys: Sequence[HmacKey], now: float, tolerance: float) -> None:
        value = request.header(self.header)
        timestamp = request.header(self.timestamp_header) if self.timestamp_header is not None else ""
        signature = value[len(self.prefix) :]
        if len(signature) != self._length or not value.startswith(self.prefix) or not value.isascii():
            raise BadSignature("malformed")
        if self.encoding == "hex":
            signature = signature.lower()
        signed = (request.body,) if self.template == "{body}" else self._signed(request, timestamp)
        is_signed = False
        for key in keys:  # all are compared
            is_signed |= compare_digest(signature, self.sign(key, *signed))
        if not is_signed:
            is_encoded = re.fullmatch(f"{ENCODINGS[self.encoding]}+={{0,2}}", signature) is not None
            raise BadSignature("mismatch" if is_encoded else "malformed")
        if self.timestamp_header is not None:
            check_time(timestamp, now, tolerance)

    def time_of(self, headers: Mapping[str, str]) -> str:
        return headers.get(self.timestamp_header or "", "")

    def sign_again(self, key: HmacKey, request: Received, timestamp: str) -> dict[str, str]:
        signature = self.sign(key, *self._signed(request, timestamp))
        return {self.timestamp_header or "": timestamp, self.header: self.prefix + signature}

    def sign(self, key: HmacKey, *signed: bytes) -> str:
        """Return the signature of what is signed, without the prefix."""
        digest = key.digest(*signed)
        return digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode()

    def _signed(self, request: Received, timestamp: str) -> list[bytes]:
        values = {"{timestamp}": timestamp.encode("latin-1"), "{body}": request.body}
        if self.id_header is not None:
            values["{id}"] = request.header(self.id_header).encode("latin-1")
        if "{url}" in self._parts:
            values["{url}"] = request.url.encode("latin-1", "replace")
        return [values[part] if part in values else part.encode() for part in self._parts]


@dataclass(frozen=True)
class SecretScheme:
    """The secret itself in a header, after a prefix. It authenticates the sender, and not the body."""

    header: str
    prefix: str = ""

    def key(self, secret: str) -> bytes:
        if not secret.isascii() or not secret.isprintable() or "," in secret or secret != secret.strip():
            raise BadKey("a secret that is sent in a header is printable ASCII without commas")
        return (self.prefix + secret).encode()

    def check(self, request: Received, keys: Sequence[bytes], now: float, tolerance: float) -> None:
        value = request.header(self.header).encode("latin-1", "replace")
        if not any([compare_digest(value, key) for key in keys]):
            raise BadSignature("mismatch")


class StripeScheme:
    """`Stripe-Signature: t=<time>,v1=<hex>`, with several `v1` while a secret is replaced.

    https://docs.stripe.com/webhooks#verify-manually
    """

    header = "stripe-signature"

    def key(self, secret: str) -> HmacKey:
        return HmacKey(secret.encode(), "sha256")

    def check(self, request: Received, keys: Sequence[HmacKey], now: float, tolerance: float) -> None:
        value = request.headers.get(self.header)
        if not value:
            raise BadSignature("missing")
        timestamp, signatures = None, []
        for item in value.split(",", MAX_SIGNATURES + 2):
            if item.startswith("v1="):
                signatures.append(item[3:])
            elif item.startswith("t="):
                if timestamp is not None:
                    raise BadSignature("repeated")
                timestamp = item[2:]
        if timestamp is None or not 0 < len(signatures) <= MAX_SIGNATURES or not value.isascii():
            raise BadSignature("malformed")
        is_signed = False
        for key in keys:  # all are compared
            expected = self.sign(key, timestamp, request.body)
            for signature in signatures:
                is_signed |= compare_digest(signature, expected)
        if not is_signed:
            raise BadSignature("mismatch")
        check_time(timestamp, now, tolerance)

    def time_of(self, headers: Mapping[str, str]) -> str:
        items = headers.get(self.header, "").split(",")
        return next((item[2:] for item in items if item.startswith("t=")), "")

    def sign_again(self, key: HmacKey, request: Received, timestamp: str) -> dict[str, str]:
        return {self.header: f"t={timestamp},v1={self.sign(key, timestamp, request.body)}"}

    @staticmethod
    def sign(key: HmacKey, timestamp: str, body: bytes) -> str:
        """Return a signature of the version `v1`."""
        return key.digest(timestamp.encode(), b".", body).hex()


class StandardScheme:
    """Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`; Svix names them `svix-*`.

    A secret is `whsec_` and base64, for signatures `v1,`; or `whpk_` and base64, an Ed25519 public key for `v1a,`.
    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    def key(self, secret: str) -> Any:
        is_public = secret.startswith("whpk_")
        try:
            raw = base64.b64decode(secret.removeprefix("whpk_" if is_public else "whsec_"), validate=True)
        except ValueError:
            raise BadKey("after whsec_ or whpk_ comes base64") from None
        if is_public:
            return ed25519_key(raw)
        if not raw:
            raise BadKey("it is empty")
        return HmacKey(raw, "sha256")

    def check(self, request: Received, keys: Sequence[Any], now: float, tolerance: float) -> None:
        family = family_of(request.headers)
        event_id, timestamp = request.header(f"{family}-id"), request.header(f"{family}-timestamp")
        value = request.headers.get(f"{family}-signature")
        if not value:
            raise BadSignature("missing")
        signatures = value.split(" ", MAX_SIGNATURES)
        if len(signatures) > MAX_SIGNATURES:
            raise BadSignature("malformed")
        head = _standard_head(event_id, timestamp)
        expected = [self.sign(key, head, request.body) for key in keys if isinstance(key, HmacKey)]
        public = [key for key in keys if not isinstance(key, HmacKey)]
        outcomes = [False]
        for item in signatures:
            if item.count(",") != 1:
                raise BadSignature("repeated" if item.count(",") > 1 else "malformed")
            version, _, text = item.partition(",")
            if version == "v1":
                outcomes += [is_same(text, each) for each in expected]
            elif version == "v1a" and public:
                signature = decode_base64(text)
                if len(signature) != ED25519_SIGNATURE_BYTES:
                    raise BadSignature("malformed")
                outcomes += [is_ed25519(key, signature, head + request.body) for key in public]
        if not any(outcomes):
            raise BadSignature("mismatch")
        check_time(timestamp, now, tolerance)

    def time_of(self, headers: Mapping[str, str]) -> str:
        return headers.get(f"{family_of(headers)}-timestamp", "")

    def sign_again(self, key: HmacKey, request: Received, timestamp: str) -> dict[str, str]:
        family = family_of(request.headers)
        head = _standard_head(request.header(f"{family}-id"), timestamp)
        return {
            f"{family}-timestamp": timestamp,
            f"{family}-signature": f"v1,{self.sign(key, head, request.body)}",
        }

    @staticmethod
    def sign(key: HmacKey, *signed: bytes) -> str:
        """Return a signature of the version `v1`."""
        return base64.b64encode(key.digest(*signed)).decode()


def _standard_head(event_id: str, timestamp: str) -> bytes:
    return f"{event_id}.{timestamp}.".encode("latin-1")


class GitLabScheme:
    """`X-Gitlab-Token`, the secret itself; or, for a signing token, which begins with `whsec_`, Standard Webhooks.

    https://docs.gitlab.com/user/project/integrations/webhooks/
    """

    _token = SecretScheme("x-gitlab-token")
    _signed = StandardScheme()

    def key(self, secret: str) -> tuple[Scheme, Any]:
        scheme: Scheme = self._signed if secret.startswith("whsec_") else self._token
        return scheme, scheme.key(secret)

    def check(self, request: Received, keys: Sequence[tuple[Scheme, Any]], now: float, tolerance: float) -> None:
        failed: BadSignature | None = None
        for scheme, key in keys:
            try:
                scheme.check(request, [key], now, tolerance)
            except BadSignature as error:
                failed = error
            else:
                return
        raise failed or BadSignature("missing")


class TwilioScheme:
    """HMAC-SHA-1 of the URL and the sorted fields of a form; of another body, the URL has the hash.

    With `X-Twilio-Webhooks-Signature-Settings` that names it, HMAC-SHA-256. Twilio signs URLs with and without the
    standard port. https://www.twilio.com/docs/usage/security#validating-requests
    """

    settings_header = "x-twilio-webhooks-signature-settings"

    def key(self, secret: str) -> tuple[HmacKey, HmacKey]:
        return HmacKey(secret.encode(), "sha1"), HmacKey(secret.encode(), "sha256")

    def check(
        self, request: Received, keys: Sequence[tuple[HmacKey, HmacKey]], now: float, tolerance: float
    ) -> None:
        signature = request.header("x-twilio-signature")
        settings = [item.strip() for item in request.headers.get(self.settings_header, "").split(",")]
        chosen = int("algorithm=HMAC_SHA256" in settings)
        fields = b""
        if _is_form(request.headers):
            fields = _sorted_fields(request.body)
        elif request.body:
            _check_body_hash(request)
        urls = [url.encode("latin-1", "replace") for url in _urls_of(request.url)]
        digests = [key[chosen].digest(url, fields) for key in keys for url in urls]
        if not any([is_same(signature, base64.b64encode(digest).decode()) for digest in digests]):
            raise BadSignature("mismatch")


class DiscordScheme:
    """An Ed25519 signature of the timestamp and the body; the secret is the application's public key, in hex.

    https://docs.discord.com/developers/interactions/overview
    """

    def key(self, secret: str) -> Any:
        try:
            return ed25519_key(bytes.fromhex(secret))
        except BadKey:
            raise
        except ValueError:
            raise BadKey("it is not hexadecimal") from None

    def check(self, request: Received, keys: Sequence[Any], now: float, tolerance: float) -> None:
        signature = decode_hex(request.header("x-signature-ed25519"), ED25519_SIGNATURE_BYTES)
        timestamp = request.header("x-signature-timestamp")
        signed = timestamp.encode("latin-1") + request.body
        if not any([is_ed25519(key, signature, signed) for key in keys]):
            raise BadSignature("mismatch")
        check_time(timestamp, now, tolerance)


class SendGridScheme:
    """An ECDSA signature of the timestamp and the body; the secret is the verification key, base64 of DER.

    https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
    """

    def key(self, secret: str) -> Any:
        return p256_key(secret)

    def check(self, request: Received, keys: Sequence[Any], now: float, tolerance: float) -> None:
        signature = decode_base64(request.header("x-twilio-email-event-webhook-signature"))
        timestamp = request.header("x-twilio-email-event-webhook-timestamp")
        signed = timestamp.encode("latin-1") + request.body
        if not any([is_ecdsa_sha256(key, signature, signed) for key in keys]):
            raise BadSignature("mismatch")
        check_time(timestamp, now, tolerance)


class XScheme(HmacScheme):
    """The HMAC of the body. X has the same key answer challenges, so only a JSON object counts as a body.

    Anyone may ask for the answer to a challenge, which has no `{`: `handshakes.x`.
    https://docs.x.com/x-api/webhooks/quickstart
    """

    def check(self, request: Received, keys: Sequence[HmacKey], now: float, tolerance: float) -> None:
        if not request.body.startswith(b"{"):
            raise BadSignature("malformed")
        super().check(request, keys, now, tolerance)


class GraphScheme:
    """Microsoft Graph signs nothing: each notification has the `clientState` that the subscriber chose.

    https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
    """

    def key(self, secret: str) -> bytes:
        return secret.encode()

    def check(self, request: Received, keys: Sequence[bytes], now: float, tolerance: float) -> None:
        body = parse_object(request.body)
        if body is None:
            raise BadSignature("malformed")
        notifications = body.get("value")
        if not isinstance(notifications, list) or not notifications:
            raise BadSignature("malformed")
        for notification in notifications:
            state = notification.get("clientState") if isinstance(notification, dict) else None
            if not isinstance(state, str):
                raise BadSignature("missing")
            given = state.encode(errors="surrogatepass")
            if not any([compare_digest(given, key) for key in keys]):
                raise BadSignature("mismatch")


def is_same(given: str, expected: str) -> bool:
    """Say whether a signature is the expected one, in constant time. What is given may have any characters."""
    return given.isascii() and compare_digest(given, expected)


def check_time(timestamp: str, now: float, tolerance: float) -> None:
    """Raise `BadSignature` unless a time, seconds since the epoch, differs from now by `tolerance` at most."""
    if _is_timestamp(timestamp) is None:
        raise BadSignature("malformed")
    if abs(now - int(timestamp)) > tolerance:
        raise BadSignature("stale")


def family_of(headers: Any) -> str:
    """Return how the names of the headers of Standard Webhooks begin."""
    return "svix" if "svix-signature" in headers and "webhook-signature" not in headers else "webhook"


def parse_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body is; None if it is none, or is larger than `MAX_PARSED_BYTES`."""
    if len(body) > MAX_PARSED_BYTES:
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_form(headers: Any) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0]
    return bool(media_type.strip().lower() == "application/x-www-form-urlencoded")


def _sorted_fields(body: bytes) -> bytes:
    """Return the names and values of a form, sorted, each pair once: `twilio.request_validator` has it so."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise BadSignature("malformed") from None
    return "".join([name + value for name, value in sorted(set(pairs))]).encode()


def _check_body_hash(request: Received) -> None:
    try:
        hashes = parse_qs(request.query, max_num_fields=MAX_FORM_FIELDS).get("bodySHA256", [])
    except ValueError:
        raise BadSignature("malformed") from None
    if len(hashes) != 1:
        raise BadSignature("repeated" if hashes else "missing")
    if not is_same(hashes[0].lower(), hashlib.sha256(request.body).hexdigest()):
        raise BadSignature("mismatch")


def _urls_of(url: str) -> list[str]:
    """Return a URL with its port, and without."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    with_port = f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    rest = url.removeprefix(f"{parts.scheme}://{parts.netloc}")
    return [f"{parts.scheme}://{each}{rest}" for each in (host, with_port)]
