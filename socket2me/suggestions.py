"""What a name that is none was meant to be. The relay's settings and the command's files share this."""

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the known name that is most like `name`."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
