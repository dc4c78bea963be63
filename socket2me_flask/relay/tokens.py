"""Tokens and secrets: how one is made, what one looks like, what is kept of it. Where it is kept: `storage/`."""

import hashlib
import hmac
import re
import secrets
import string

# A token is 24 characters, a letter first: no lenient JSON parser takes a bare one for a number.
TOKEN = "[a-z][a-z0-9]{23}"

# A secret has a prefix that shows what it is, so that scanners find it and the log can leave it out.
SECRET = "s2m_[A-Za-z0-9_-]{43}"

_LETTERS = string.ascii_lowercase
_ALPHABET = string.ascii_lowercase + string.digits
_is_token = re.compile(TOKEN).fullmatch


def new_token() -> str:
    """Return a new token of 24 characters of `a-z0-9` (about 123 bits)."""
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_ALPHABET) for _ in range(23))


def is_token(text: str) -> bool:
    """Say whether `text` has the form of a token. Whether it lives, only the store knows."""
    return _is_token(text) is not None


def tag_of(token: str) -> str:
    """Return what the log has in place of a token: the same in all lines of all processes, and no way back.

    A token has 123 bits of its own, so a hash without a key cannot be searched for.
    """
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()[:16]


def new_secret() -> str:
    """Return a new secret of 256 bits."""
    return f"s2m_{secrets.token_urlsafe(32)}"


def hash_of(secret: str) -> bytes:
    """Return what is kept of a secret. It has 256 bits of its own, so it needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def is_secret(secret: str | None, expected_hash: bytes) -> bool:
    """Say whether a secret is the one with that hash, in a time that does not depend on how much of it is right."""
    return secret is not None and hmac.compare_digest(hash_of(secret), expected_hash)
