"""A request as a provider sent it, and why a signature is not accepted. Knows no scheme."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Why a request is not verified. The response has none of them.
#   missing     a header that the scheme needs is not there
#   malformed   a header, or what is signed, has a form that the provider never sends
#   repeated    a header came more than once
#   mismatch    the signature is another
#   stale       the signature is right, and its time is further from now than the tolerance
Reason = Literal["missing", "malformed", "repeated", "mismatch", "stale"]


class BadSignature(Exception):
    """A request is not verified, for a reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Received:
    """A request, before anything of it was parsed.

    method: in upper case.
    headers: names in lower case, values as received, one character a byte. A header that came several times is one
        value, joined with `,`.
    body: the exact bytes, chunked coding removed.
    query: the query string as it was sent, without the `?`.
    url: the whole URL that the provider called, by the public address of the server; `""` if that is not known.
    """

    method: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""
    url: str = ""

    def header(self, name: str) -> str:
        """Return the value of a header that has no comma. Raises `BadSignature` if it is missing or repeated."""
        value = self.headers.get(name)
        if not value:
            raise BadSignature("missing")
        if "," in value:
            raise BadSignature("repeated")
        return value
