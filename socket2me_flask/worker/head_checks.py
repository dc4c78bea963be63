"""What HTTP forbids in the head of a request and gunicorn's parsers let pass.

The rules are RFC 9112's: a server that reads a request differently than the proxy in front of it can be made to
take a body for a request. `tests/live/security/test_hostile_callers.py` tries each with both parsers.
"""

import re
from typing import Any

from gunicorn.http.errors import InvalidHeader, InvalidHTTPVersion, InvalidRequestLine

# RFC 9110, section 5.5: visible characters, space, tab, and bytes above 127.
_FORBIDDEN_IN_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")

# RFC 9110, section 7.2, and RFC 3986, section 3.2.2: a name, an IPv4 address or one of IPv6 in brackets; a port.
_NAME = r"[A-Za-z0-9\-._~!$&'()*+,;=]*"
_is_host = re.compile(
    rf"(?:{_NAME}(?:%[0-9A-Fa-f]{{2}}{_NAME})*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9\-._~%]+)?\])(?::[0-9]{{0,5}})?"
).fullmatch


def check_head(request: Any) -> None:
    """Refuse a request whose target, version, `Host`, `Transfer-Encoding` or header values are malformed.

    Raises what gunicorn's parsers raise.
    """
    uri = request.uri
    if uri[0] != "/":
        _check_absolute(request)
    hosts = 0
    for name, value in request.headers:
        if name == "HOST":
            hosts += 1
            if not _is_host(value):
                raise InvalidHeader(name)
        elif name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise InvalidHeader(name)
        if not value.isprintable() and _FORBIDDEN_IN_VALUE.search(value):
            raise InvalidHeader(name)
    if hosts != 1 and (hosts > 1 or request.version >= (1, 1)):
        raise InvalidHeader("HOST")
    if request.version not in ((1, 0), (1, 1)):
        raise InvalidHTTPVersion(request.version)


def _check_absolute(request: Any) -> None:
    """Refuse a target that is neither a path nor a URL of this host (RFC 9112, section 3.2.2)."""
    match = re.fullmatch(r"https?://([^/?#]*).*", request.uri, re.IGNORECASE | re.DOTALL)
    if match is None:
        raise InvalidRequestLine("the target is no path and no URL")
    for name, value in request.headers:
        if name == "HOST" and value.lower() != match[1].lower():
            raise InvalidRequestLine("the target and Host name different hosts")
