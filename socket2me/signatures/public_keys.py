"""Signatures by a public key. They need the package `cryptography`, which is imported when there is such a key."""

from __future__ import annotations

import base64
import binascii
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .received import BadSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519_KEY_BYTES = 32
ED25519_SIGNATURE_BYTES = 64


class BadKey(ValueError):
    """A secret or a key cannot be used. The text says why, and has nothing of it."""


def require_package() -> None:
    """Raise `BadKey` unless the package `cryptography` is installed."""
    if find_spec("cryptography") is None:
        raise _needs_package()


def ed25519_key(raw: bytes) -> Ed25519PublicKey:
    """Return the Ed25519 key of 32 bytes (RFC 8032). Raises `BadKey`."""
    if len(raw) != ED25519_KEY_BYTES:
        raise BadKey(f"an Ed25519 public key has {ED25519_KEY_BYTES} bytes")
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise _needs_package() from None
    return Ed25519PublicKey.from_public_bytes(raw)  # any 32 bytes are one


def p256_key(text: str) -> EllipticCurvePublicKey:
    """Return the ECDSA key on P-256 whose SubjectPublicKeyInfo, in DER, is base64 in `text`. Raises `BadKey`."""
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError:
        raise BadKey("it is not base64") from None
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key
    except ImportError:
        raise _needs_package() from None
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("it is no public key in DER") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise BadKey("it is no ECDSA public key on the curve P-256")
    return key


def is_ed25519(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """Say whether a signature of 64 bytes is right."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def is_ecdsa_sha256(key: EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Say whether a signature in DER is right."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(signature, data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def decode_hex(text: str, size: int) -> bytes:
    """Return the `size` bytes that are hexadecimal in `text`. Raises `BadSignature`."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise BadSignature("malformed") from None
    if len(data) != size or len(text) != 2 * size:  # `fromhex` skips spaces
        raise BadSignature("malformed")
    return data


def decode_base64(text: str) -> bytes:
    """Return the bytes that are base64 in `text`, in the one form that RFC 4648 demands. Raises `BadSignature`."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise BadSignature("malformed") from None
    if binascii.b2a_base64(data, newline=False) != text.encode():  # bits that decode to nothing
        raise BadSignature("malformed")
    return data


def _needs_package() -> BadKey:
    return BadKey("public keys need the extra `crypto`: pip install 'socket2me[crypto]'")
