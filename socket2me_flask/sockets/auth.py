"""What a client may say in the `auth` of its connect. Pure."""

from collections.abc import Mapping
from typing import Any

from ..errors import BadAuth
from ..storage import MODES

# What a client may say in `auth`, and the values that each takes: none listed, any string.
AUTH_VALUES: Mapping[str, tuple[str, ...]] = {"body": ("parsed", "raw"), "secret": (), "mode": MODES}

# What socket.io-client itself adds to `auth` after it was connected to a server with connection state recovery.
PASSED_OVER = ("pid", "offset")

# All names that a client may give.
OPTION_NAMES = (*AUTH_VALUES, "window")


def parse_auth(auth: Any, max_window: int) -> dict[str, Any]:
    """Return the options of a connect's `auth`. Refuses what it does not know, never guesses."""
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
    return options
