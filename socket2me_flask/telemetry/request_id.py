"""The id of the request that this thread serves, and the trace context that goes on with a call.

A caller that sends one `X-Request-Id` keeps it. Otherwise an id is made when it is first asked for; for a call, it
is the id of the call. Knows no framework: whatever reads requests calls `begin`.
"""

import re
import secrets
from contextvars import ContextVar

HEADER = "X-Request-Id"

_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch

# W3C Trace Context, section 3.2.2: version, trace, parent, flags. There is no version ff, and no trace or parent of
# zeros only. A version after 00 may have more behind a hyphen.
_is_traceparent = re.compile(
    r"(?!ff|00-.{52}-)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?"
).fullmatch

# None: no request. "": a request without an id until now.
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin(sent: str = "") -> None:
    """Begin a request that came with `sent` in its header: `""` for none, values joined with `,` for several."""
    _current.set(sent if sent and _is_request_id(sent) else "")


def resolve(default: str) -> str:
    """Return the id of this request, which is `default` from now on if it has none."""
    request_id = _current.get()
    if not request_id:
        request_id = default
        _current.set(request_id)
    return request_id


def current() -> str:
    """Return the id of this request, made if it has none; `""` outside of a request."""
    request_id = _current.get()
    if request_id == "":
        return resolve(secrets.token_hex(8))
    return request_id or ""


def continue_trace(headers: dict[str, str]) -> None:
    """Keep the `traceparent` of a call. One that is malformed begins a new trace (W3C Trace Context, section 4.3).

    `tracestate`, which belongs to the trace that was sent, is removed then.
    """
    if not _is_traceparent(headers["traceparent"]):
        headers["traceparent"] = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
        headers.pop("tracestate", None)
