"""Encrypts what a store keeps of the secrets of providers, if the operator has set a key.

AES-256-GCM with a random nonce. The token is authenticated with it: what is stored for one token is of no use for
another. Without a key the text is stored as it is.
"""

import os
from base64 import b64decode, b64encode
from collections.abc import Sequence

from ..errors import ConfigError, SecretsUnreadable

# What begins an encrypted text. One that is not encrypted is JSON, and begins with a brace.
_PREFIX = "aes-256-gcm:"

_NONCE_BYTES = 12


class Vault:
    """Encrypts with the first of `keys`, of 32 bytes each, and decrypts with any; no keys: it does neither.

    Raises `ConfigError` if there is a key, and the package `cryptography` is not installed.
    """

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = []
        if keys:
            try:
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            except ImportError:
                raise ConfigError(
                    "SOCKET2ME_ENCRYPTION_KEY needs the extra `crypto`: pip install 'socket2me[crypto]'"
                ) from None
            self._ciphers = [AESGCM(key) for key in keys]

    def seal(self, token: str, text: str) -> str:
        """Return what is stored of a text for a token."""
        if not self._ciphers:
            return text
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._ciphers[0].encrypt(nonce, text.encode(), token.encode())
        return _PREFIX + b64encode(sealed).decode()

    def open(self, token: str, stored: str) -> str:
        """Return the text. Raises `SecretsUnreadable` if none of the keys has encrypted it for this token."""
        if not stored.startswith(_PREFIX):
            return stored
        if not self._ciphers:
            raise SecretsUnreadable
        from cryptography.exceptions import InvalidTag

        sealed = b64decode(stored.removeprefix(_PREFIX))
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], token.encode()).decode()
            except InvalidTag:
                continue
        raise SecretsUnreadable
