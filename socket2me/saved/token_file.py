"""The tokens that are kept, so that a URL is the same the next day."""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

from platformdirs import user_state_path

from ..client.http_api import is_name
from ..exceptions import ClientError

_ANOTHER_FOLDER = "" if sys.platform in ("win32", "darwin") else " XDG_STATE_HOME may name another folder."


@dataclass(frozen=True)
class SavedToken:
    """A token and what it is for: one for each pair of a relay and a local app.

    verify: `signing_options.fingerprint` of what its calls are verified with; None for a token without.
    """

    server: str
    target: str
    token: str
    secret: str | None
    verify: str | None = None

    def __post_init__(self) -> None:
        if not all(
            isinstance(value, str)
            for value in (self.server, self.target, self.token, self.secret or "", self.verify or "")
        ):
            raise TypeError("a kept token is made of texts")


class SavedTokens:
    """The file that they are in, in the user's folder for such things; only its owner may read it.

    Raises `ClientError` if the user has no home, and no variable names the folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            self._path = (folder or user_state_path("socket2me", appauthor=False)) / "tokens.json"
        except RuntimeError:
            raise ClientError(f"URLs are kept in the home folder, and there is none.{_ANOTHER_FOLDER}") from None

    def check(self) -> None:
        """Raise `ClientError` if nothing can be kept in the folder. It is not made."""
        folder = self._path.parent
        try:
            with TemporaryFile(dir=next(each for each in (folder, *folder.parents) if each.exists())):
                pass
        except OSError as error:
            raise self._not_kept(error) from None

    def all(self) -> list[SavedToken]:
        """Return all of them. Raises `ClientError` if the file is damaged."""
        try:
            return [SavedToken(**each) for each in json.loads(self._path.read_text())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ClientError(f"{self._path} cannot be read; move it away to begin anew: {why}") from None

    def find(self, server: str, target: str) -> SavedToken | None:
        """Return the token that is kept for an app at a relay."""
        return next((kept for kept in self.all() if (kept.server, kept.target) == (server, target)), None)

    def find_token(self, server: str, token: str) -> SavedToken | None:
        """Return what is kept of a token of a relay, whatever app it is for."""
        return next((kept for kept in self.all() if (kept.server, kept.token) == (server, token)), None)

    def keep(self, new: SavedToken) -> None:
        """Keep a token, in place of the one before. Raises `ClientError` if it cannot be written.

        Names stay, after what is for the same app now: without its secret, a name could not be claimed again.
        """
        others = [
            replace(kept, secret=new.secret) if (kept.server, kept.token) == (new.server, new.token) else kept
            for kept in self.all()
            if (kept.server, kept.target) != (new.server, new.target)
            or (is_name(kept.token) and kept.secret is not None and kept.token != new.token)
        ]
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Written whole, then put in place: neither a crash nor a second listener leaves half of it.
            draft = self._path.with_suffix(f".{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(list(map(_members, [new, *others])), indent=1))
            draft.replace(self._path)
        except OSError as error:
            raise self._not_kept(error) from None

    def _not_kept(self, error: OSError) -> ClientError:
        why = error.strerror or error
        return ClientError(f"URLs cannot be kept in {self._path.parent}: {why}.{_ANOTHER_FOLDER}")


def _members(kept: SavedToken) -> dict[str, str | None]:
    """Return what is written: without `verify` if there is none, which an earlier release does not know."""
    members = vars(kept).copy()
    if kept.verify is None:
        del members["verify"]
    return members
