"""Signatures of webhook providers: who signed a request, and what providers ask before they send any.

Pure: bytes and texts in, an outcome out. No network, no clock, nothing of the relay or of the client. Public keys
need the package `cryptography`, all else the standard library.

    verifier = Verifier.parse({"provider": "github", "secrets": ["It's a Secret to Everybody"]})
    reason = verifier.check(Received("POST", headers, body), time.time())  # None: it is verified
"""

from .config import BadConfig, Config, Verifier
from .handshakes import HandshakeAnswer
from .providers import DEFAULT_TOLERANCE_SECONDS, PROVIDERS
from .public_keys import BadKey
from .received import BadSignature, Reason, Received
from .resigning import ORIGINAL_PREFIX, RESIGNABLE, Resigner

__all__ = [
    "DEFAULT_TOLERANCE_SECONDS",
    "ORIGINAL_PREFIX",
    "PROVIDERS",
    "RESIGNABLE",
    "BadConfig",
    "BadKey",
    "BadSignature",
    "Config",
    "HandshakeAnswer",
    "Reason",
    "Received",
    "Resigner",
    "Verifier",
]
