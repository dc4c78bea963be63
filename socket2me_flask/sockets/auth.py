"""The options in the `auth` of a client's connect. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from socket2me.inspector import filters
from socket2me.inspector.errors import BadFilter

from ..errors import BadAuth
from ..storage import LISTENERS, MODES

# What a client may say in `auth`, and the values that each takes: none listed, any string.
AUTH_VALUES: Mapping[str, tuple[str, ...]] = {
    "body": ("parsed", "raw"),
    "secret": (),
    "mode": MODES,
    "listeners": LISTENERS,
    "listener": (),
    "filter": (),
}

# What socket.io-client itself adds to `auth` after it was connected to a server with connection state recovery.
PASSED_OVER = ("pid", "offset")

# The id by which a client is known among the listeners of its token.
_is_listener = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch

# All names that a client may give.
OPTION_NAMES = (*AUTH_VALUES, "window")


def parse_auth(auth: Any, max_window: int) -> dict[str, Any]:
    """Return the options of a connect's `auth`, the filter parsed. Refuses unknown options.

    Raises `BadAuth`.
    """
    options = {name: value for name, value in (auth or {}).items() if name not in PASSED_OVER}
    for name, value in options.items():
        if name == "window":
            if type(value) is not int or not 1 <= value <= max_window:
                raise BadAuth(f"auth.window is a whole number from 1 to {max_window}.")
            continue
        if name not in AUTH_VALUES:
            raise BadAuth(f"auth takes {', '.join(AUTH_VALUES)}, window, and nothing else.")
        values = AUTH_VALUES[name]
        if not isinstance(value, str) or (values and value not in values):
            raise BadAuth(f"auth.{name} must be {' or '.join(values) or 'a string'}.")
    if "listener" in options and _is_listener(options["listener"]) is None:
        raise BadAuth("auth.listener is up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.")
    if "filter" in options:
        try:
            options["filter"] = filters.parse(options["filter"], knows_outcome=False)
        except BadFilter as error:
            raise BadAuth(f"auth.filter: {error}") from None
    return options
