"""Tokens: how one is made and what one looks like. Where they are kept is `stores/`."""

import re
import secrets
import string

TOKEN_LENGTH = 24

_LETTERS = string.ascii_lowercase
_ALPHABET = string.ascii_lowercase + string.digits
_TOKEN = re.compile(rf"[a-z][a-z0-9]{{{TOKEN_LENGTH - 1}}}")


def new_token() -> str:
    """Return a new token of 24 characters of `a-z0-9` (about 123 bits), a letter first.

    The letter keeps a lenient JSON parser from reading a bare token as a number.
    """
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_LENGTH - 1))


def is_token(text: str) -> bool:
    """Say whether `text` has the form of a token. Whether it lives, only the store knows."""
    return _TOKEN.fullmatch(text) is not None
