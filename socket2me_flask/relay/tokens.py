"""Tokens, names and secrets: how one is made, what one looks like, and what is kept of it (where: `storage/`)."""

import hashlib
import hmac
import re
import secrets
import string

# A token is 24 characters, a letter first: no lenient JSON parser takes a bare one for a number.
TOKEN = "[a-z][a-z0-9]{23}"

# A name is a token that its owner chose: letters and digits, and single hyphens between them.
NAME = "[a-z0-9](?:-?[a-z0-9]){2,62}"

# A secret has a prefix that shows what it is, so that scanners find it and the log can leave it out.
SECRET = "s2m_[A-Za-z0-9_-]{43}"

_LETTERS = string.ascii_lowercase
_ALPHABET = string.ascii_lowercase + string.digits
_is_made = re.compile(TOKEN).fullmatch
_is_token = re.compile(f"{TOKEN}|{NAME}").fullmatch  # most are no names: the first half is enough for those
_is_secret = re.compile(SECRET).fullmatch


def new_token() -> str:
    """Return a new token of 24 characters of `a-z0-9` (about 123 bits)."""
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_ALPHABET) for _ in range(23))


def is_token(text: str) -> bool:
    """Say whether `text` has the form of a token, made or a name. Whether it lives, the store decides."""
    return _is_token(text) is not None


def is_name(text: str) -> bool:
    """Say whether `text` has the form of a name. What looks like a token that was made is none."""
    return _is_token(text) is not None and _is_made(text) is None


def fold_name(text: str) -> str | None:
    """Return the name that a text is, in lower case, or None. Only ASCII has a lower case here.

    Unicode folds other characters to ASCII, too: U+212A, the sign of the unit kelvin, to `k`.
    """
    name = text.lower() if text.isascii() else ""
    return name if is_name(name) else None


def tag_of(token: str) -> str:
    """Return what the log has in place of a token: the same in all lines of all processes, and no way back.

    A token that was made has 123 bits, so a hash without a key cannot be searched for. A name is public anyway.
    """
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()[:16]


def new_secret() -> str:
    """Return a new secret of 256 bits."""
    return f"s2m_{secrets.token_urlsafe(32)}"


def has_form_of_secret(text: str) -> bool:
    """Say whether a text may be a secret that `new_secret` made."""
    return _is_secret(text) is not None


def hash_of(secret: str) -> bytes:
    """Return what is kept of a secret. It has 256 bits of its own, so it needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def is_secret(secret: str | None, expected_hash: bytes) -> bool:
    """Say whether a secret is the one with that hash, in a time that does not depend on how much of it is right."""
    return secret is not None and hmac.compare_digest(hash_of(secret), expected_hash)
