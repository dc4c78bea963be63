"""The version of this library, and what is said of a relay that is older: what its version cannot do."""

import re

__version__ = "0.1.0"

# What needs a relay of this version or a later one. A relay that states no version is older than the first.
FEATURES = (
    ("0.1.0", "--verify"),
    ("0.1.0", "--name"),
    ("0.1.0", "--listeners"),
    ("0.1.0", "--filter"),
    ("0.1.0", "`socket2me events`"),
    ("0.1.0", "`socket2me replay` from its history"),
    ("0.1.0", "a --timeout that is longer than the relay waits"),
)

_is_version = re.compile(r"\d{1,9}(\.\d{1,9}){0,5}", re.ASCII).match


def lacks(version: object, features: tuple[tuple[str, str], ...] = FEATURES, own: str = __version__) -> str:
    """Return what is said of a relay that states this version, None if it states none; "" unless it is older."""
    stated = version if isinstance(version, str) and _is_version(version) else None
    if stated is not None and _parts(stated) >= _parts(own):
        return ""
    missing = [what for since, what in features if stated is None or _parts(stated) < _parts(since)]
    which = f"is of version {stated[:40]}," if stated is not None else "does not state its version, so it is"
    what = f" These may not work with it: {', '.join(missing)}." if missing else ""
    return f"The relay {which} older than this command ({own}).{what}"


def _parts(version: str) -> tuple[int, ...]:
    match = _is_version(version)
    return tuple(map(int, match[0].split("."))) if match is not None else ()
