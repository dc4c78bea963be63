"""What HTTP forbids and gunicorn lets pass, with its own parser or with the one in C: refused before the relay.

`check` is gunicorn's `pre_request` hook; what it raises, gunicorn answers with 400 and closes the connection.
The rules are RFC 9112's: who sees a request differently than the proxy in front does can be made to smuggle.
"""

import re
import weakref
from typing import Any

from gunicorn.http.errors import InvalidHeader, InvalidRequestLine

# RFC 9110, section 5.5: visible characters, space, tab, and bytes above 127.
_FORBIDDEN_IN_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


def check(worker: object, request: Any) -> None:
    """Refuse a request whose target, `Host`, `Transfer-Encoding` or header values are not as they must be."""
    # For `body.py`: nothing in WSGI ends a connection after its answer. Weak, since the request has the body: a
    # circle for each request would keep the garbage collector busy.
    request.body.request = weakref.ref(request)
    if request.uri[0] != "/" and not request.uri.lower().startswith(("http://", "https://")):
        raise InvalidRequestLine("the target is no path and no URL")
    hosts = 0
    for name, value in request.headers:
        if name == "HOST":
            hosts += 1
        elif name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise InvalidHeader(name)
        if not value.isprintable() and _FORBIDDEN_IN_VALUE.search(value):
            raise InvalidHeader(name)
    if hosts != 1 and (hosts > 1 or request.version >= (1, 1)):
        raise InvalidHeader("HOST")
