"""From the request of a caller, as any server has read it, to the answer: the call is made of it and checked.

The grammar of a call's URL is here, too.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ..errors import RelayError, UnknownToken
from ..http.answers import OUTCOMES, Answer
from ..http.request_body import BodyReader, BodySource
from ..storage import TokenRecord
from ..telemetry import request_id
from ..telemetry.histogram import Histogram
from .call import Call
from .relay import Relay
from .tokens import fold_name, is_token
from .verification import Verification

# The methods of calls that are forwarded.
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")


@dataclass(slots=True)
class Target:
    """The target of a call, taken apart.

    Fields:
        token: the token, which need not live nor be one.
        path: what follows the token, `""` or `/a/b%20c`, percent-encoding kept.
        query: the query string as it was sent, without the `?`.
        is_legacy: it begins with `/go`, not with `/v1/go`.
    """

    token: str
    path: str
    query: str
    is_legacy: bool


# The target of a forwarded call: origin-form or absolute-form (RFC 9112, section 3.2).
_match_target = re.compile(
    r"(?:[Hh][Tt][Tt][Pp][Ss]?://[^/?#]*)?(?P<version>/v1)?/go/(?P<token>[^/?#]*)(?P<path>/[^?#]*)?"
    r"(?:\?(?P<query>[^#]*))?(?:#.*)?",
    re.DOTALL,
).fullmatch


def parse_target(target: str) -> Target | None:
    """Take the target of a request apart, as it was sent. Return None if it is no call to `/v1/go` or `/go`.

    Characters that a caller percent-encodes although it need not are the same (RFC 3986, section 6.2.2.2): in the
    prefix and in the token. What follows them is left as it is.
    """
    match = _match_target(target)
    if match is None and "%" in target:
        head, mark, query = target.partition("?")
        segments = head.split("/", 4)
        match = _match_target("/".join([*map(_unquote_segment, segments[:3]), *segments[3:]]) + mark + query)
    if match is None:
        return None
    version, token, path, query = match.groups()
    if "%" in token:
        token = _unquote_segment(token)
    return Target(token, path or "", query or "", version is None)


def _unquote_segment(segment: str) -> str:
    """Decode a segment, unless there is a `/` or something that ends a path in it."""
    decoded = unquote(segment)
    return segment if re.search(r"[/?#]", decoded) else decoded


class Forwarder:
    """Forwards the calls of every server. `max_body_bytes` bounds their bodies."""

    def __init__(
        self,
        relay: Relay,
        bodies: BodyReader,
        verification: Verification,
        *,
        max_body_bytes: int,
        trusted_proxy_hops: int,
    ) -> None:
        self._relay = relay
        self._bodies = bodies
        self._verification = verification
        self._max_body_bytes = max_body_bytes
        self._trusted_proxy_hops = trusted_proxy_hops
        self.calls = dict.fromkeys(OUTCOMES, 0)  # how many there were, by outcome
        self.call_seconds = Histogram()

    def forward(
        self, target: Target, method: str, headers: Callable[[], dict[str, str]], source: BodySource, address: str
    ) -> Answer:
        """Return what the caller of a call receives; `address` is the peer's. Raises `RelayError`.

        A call for a token that does not live, or is called too often, costs neither `headers` nor its body.
        """
        return self._count(self._forward, target, method, headers, source, address)

    def replay(self, call: Call, record: TokenRecord) -> Answer:
        """Forward a call of a history again, for a token that `Relay.admit` has returned. Raises `RelayError`."""
        return self._count(self._relay.forward, call, record)

    def _count(self, forward: Callable[..., Answer], *args: Any) -> Answer:
        """Forward a call, and count it by its outcome."""
        started_at = time.monotonic()
        outcome = "error"
        try:
            answer = forward(*args)
            outcome = answer.outcome
        except RelayError as error:
            outcome = error.outcome
            raise
        finally:
            self.calls[outcome] += 1
            self.call_seconds.add(time.monotonic() - started_at)
        return answer

    def _forward(
        self, target: Target, method: str, headers: Callable[[], dict[str, str]], source: BodySource, address: str
    ) -> Answer:
        try:
            if not is_token(target.token):
                target.token = fold_name(target.token) or ""
                if not target.token:
                    raise UnknownToken
            record = self._relay.admit(target.token)
        except RelayError:
            self._bodies.discard(source)
            raise
        sent_headers = headers()
        if "traceparent" in sent_headers:
            request_id.continue_trace(sent_headers)
        call = Call(
            target.token,
            method,
            decode_sent(target.path),
            decode_sent(target.query),
            sent_headers,
            self._bodies.read(source, self._max_body_bytes),
            time.time(),
            is_legacy=target.is_legacy,
            remote_addr=caller_address(sent_headers, address, self._trusted_proxy_hops),
        )
        call.request_id = request_id.resolve(call.id)
        if record.verify is not None:
            try:
                answer = self._verification.check(call, target.path, target.query, record.verify)
            except RelayError:
                self._relay.count_refused(record)
                raise
            if answer is not None:
                return answer
        return self._relay.forward(call, record)


def caller_address(headers: Mapping[str, str], peer: str, trusted_hops: int) -> str:
    """Return the caller's address: what that many proxies in front say in `X-Forwarded-For`, else the peer's."""
    addresses = headers.get("x-forwarded-for", "").split(",") if trusted_hops else []
    return addresses[-trusted_hops].strip() if 0 < trusted_hops <= len(addresses) else peer


def decode_sent(text: str) -> str:
    """Return text of one character a byte, as servers read it, as the text that the bytes are if they are UTF-8."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return text
