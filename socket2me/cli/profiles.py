"""`socket2me.toml` and the user's `config.toml`: what a command takes where neither it nor a variable says.

A file has `server`, `api-key` and `target` for all commands but `serve`, a table of options for each command, and
profiles, which have the same under `[profiles.NAME]`.
"""

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..output.terminal import printable
from ..suggestions import nearest

# The file in the current folder.
FOLDER_FILE = Path("socket2me.toml")

# What stands outside of the tables of commands. To `serve`, `api-key` is another thing.
SHARED = ("server", "api-key", "target")
NOT_SHARED_WITH = ("serve",)

PROFILES = "profiles"

# Options that a file does not have.
_NO_KEYS = ("help", "profile", "version")

# Options whose values are never shown.
SECRETS = {"api-key", "header-add", "resign", "secret", "signing-secret", "store", "verify"}

# What the file in the current folder may not have: a folder of another user would run programs.
NOT_IN_A_FOLDER = {"exec"}

# What of an option it may not have either: `--verify` sends the relay, which the same file may name, what is in a
# file or a variable of the user.
SENT_TO_THE_RELAY = {"verify"}
_reads = re.compile(r"\s*(?:[^={]*=)?(?:@|env:)").match

# A larger file is none of these.
MAX_BYTES = 1_000_000


class BadFile(click.ClickException):
    """A file, or the profile that is asked for, makes no sense."""

    exit_code = 2


@dataclass(frozen=True)
class Value:
    """A value of a file.

    origin: the file, and the table in it, for people.
    """

    value: Any
    origin: str


@dataclass(frozen=True)
class Scope:
    """The command whose options are looked for.

    table: the name of its table, which a group shares with its commands.
    parameters: the parameters by their keys, of the command or of all in its group.
    tables: the names of all tables that there may be.
    """

    table: str
    parameters: Mapping[str, click.Parameter]
    tables: tuple[str, ...]

    @classmethod
    def of(cls, context: click.Context) -> "Scope":
        """Return that of the command that is about to run."""
        root = context.find_root()
        if context.parent is None or context.parent is root:
            return cls.of_command(context.command, context.info_name or "", root.command)
        return cls.of_command(context.parent.command, context.parent.info_name or "", root.command)

    @classmethod
    def of_command(cls, command: click.Command, name: str, root: click.Command) -> "Scope":
        """Return that of a command, or of a group of commands."""
        commands = command.commands.values() if isinstance(command, click.Group) else [command]
        parameters = {key: each for one in commands for each in one.params if (key := key_of(each)) is not None}
        return cls(name, parameters, tuple(root.commands) if isinstance(root, click.Group) else ())


def key_of(parameter: click.Parameter) -> str | None:
    """Return the key that a parameter has in a file: its longest name without hyphens; None if it has none."""
    if isinstance(parameter, click.Argument):
        return "target" if parameter.name in ("target", "targets") else None
    name = max(parameter.opts, key=len).lstrip("-")
    return name if name not in _NO_KEYS else None


class ConfigFile:
    """A file, checked as far as one command needs it. Raises `BadFile` that names what is wrong."""

    def __init__(self, path: Path, scope: Scope) -> None:
        self.path = path
        self._is_of_folder = path == FOLDER_FILE
        self._scope = scope
        self._top = _read(path)
        self.profiles = self._top.pop(PROFILES, {})
        if not isinstance(self.profiles, dict):
            raise self._wrong(f"{PROFILES} is a table of tables")
        self._check(self._top, "", (PROFILES,))
        for name, profile in self.profiles.items():
            if not isinstance(profile, dict):
                raise self._wrong(f"[{PROFILES}.{name}] is a table")
            self._check(profile, f"{PROFILES}.{name}")

    def values(self, profile: str | None) -> dict[str, Value]:
        """Return the values by their keys, of a profile, or of what stands outside of all."""
        table = self._top if profile is None else self.profiles.get(profile, {})
        within = "" if profile is None else f"{PROFILES}.{profile}"
        found: dict[str, Value] = {}
        if self._scope.table not in NOT_SHARED_WITH:
            found |= {key: Value(table[key], self._origin(within)) for key in SHARED if key in table}
        own = table.get(self._scope.table, {})
        found |= {key: Value(value, self._origin(_join(within, self._scope.table))) for key, value in own.items()}
        return {key: value for key, value in found.items() if key in self._scope.parameters}

    @property
    def has_secrets(self) -> bool:
        """Whether a key or the like is in it, in whichever table."""
        return any(key in SECRETS for key in _keys({**self._top, PROFILES: self.profiles}))

    def _check(self, table: dict[str, Any], within: str, also: tuple[str, ...] = ()) -> None:
        for key, value in table.items():
            if key in SHARED:
                self._check_value(key, value, within)
            elif key not in self._scope.tables:
                raise self._unknown(key, (*SHARED, *self._scope.tables, *also), within)
            elif not isinstance(value, dict):
                raise self._wrong(f"[{_join(within, key)}] is a table of options")
            elif key == self._scope.table:
                for name, each in value.items():
                    if name not in self._scope.parameters:
                        raise self._unknown(name, tuple(self._scope.parameters), _join(within, key))
                    self._check_value(name, each, _join(within, key))

    def _check_value(self, key: str, value: Any, within: str) -> None:
        if self._is_of_folder and key in NOT_IN_A_FOLDER:
            raise self._wrong(f"{key} is for the file of your own, {user_file()}: a folder's file runs no program")
        if (
            self._is_of_folder
            and key in SENT_TO_THE_RELAY
            and any(isinstance(one, str) and _reads(one) for one in (value if isinstance(value, list) else [value]))
        ):
            raise self._wrong(
                f"{key} with @FILE or env:NAME is for the file of your own, {user_file()}:"
                " a folder's file sends a relay nothing of yours"
            )
        parameter = self._scope.parameters.get(key)
        is_flag = isinstance(parameter, click.Option) and parameter.is_flag
        is_list = parameter is not None and (parameter.multiple or parameter.nargs != 1)
        each = value if is_list and isinstance(value, list) else [value]
        if parameter is not None and not all(
            isinstance(one, bool) if is_flag else isinstance(one, str | int | float) and not isinstance(one, bool)
            for one in each
        ):
            takes = (
                "true or false" if is_flag else "a text or a number" + (", or a list of them" if is_list else "")
            )
            raise self._wrong(f"{_join(within, key)} takes {takes}")

    def _origin(self, table: str) -> str:
        return f"{self.path} [{table}]" if table else str(self.path)

    def _unknown(self, key: str, known: tuple[str, ...], within: str) -> BadFile:
        where = f"[{within}] has" if within else "it has"
        if not known:
            return self._wrong(f"{where} {key!r}, and takes nothing")
        return self._wrong(f"{where} {key!r}, which it does not take. The nearest is {nearest(key, known)!r}")

    def _wrong(self, what: str) -> BadFile:
        return BadFile(printable(f"{self.path}: {what}."))


def user_file() -> Path:
    """Return the file of the user, in the system's folder for such things."""
    return Path(click.get_app_dir("socket2me")) / "config.toml"


def load(scope: Scope, warn: Callable[[str], None]) -> list[ConfigFile]:
    """Return the files that there are, that of the current folder first, and warn of what is unsafe."""
    found = []
    for path in (FOLDER_FILE, user_file()):
        status = _status(path)
        if status is None:
            continue
        if path == FOLDER_FILE and not _is_own(status):
            warn(f"{path} is not read: it belongs to another user, or others may write to it.")
            continue
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise BadFile(printable(f"{path} cannot be read: it is no file."))
        file = ConfigFile(path, scope)
        if file.has_secrets and status.st_mode & (stat.S_IRGRP | stat.S_IROTH) and _has_modes():
            warn(f"{path} has a key, and other users may read it: chmod 600 {path}")
        found.append(file)
    return found


def values(scope: Scope, profile: str | None, warn: Callable[[str], None] | None = None) -> dict[str, Value]:
    """Return what the files say for a command: what the profile says, else what stands outside of all.

    `warn` is called with what is unsafe; without it, that is a line on stderr. Raises `BadFile`.
    """
    files = load(scope, warn or _warn)
    if profile is not None and not any(profile in file.profiles for file in files):
        known = tuple(name for file in files for name in file.profiles)
        hint = f"The nearest is {nearest(profile, known)!r}." if known else f"{FOLDER_FILE} may have profiles."
        raise BadFile(printable(f"There is no profile {profile!r}. {hint}"))
    merged: dict[str, Value] = {}
    for name in (profile, None) if profile is not None else (None,):
        for file in files:
            merged = file.values(name) | merged
    return merged


def default_map(scope: Scope, found: Mapping[str, Value]) -> dict[str, Any]:
    """Return values as click takes them: by the names of parameters, lists where it wants lists."""
    wanted = {}
    for key, value in found.items():
        parameter = scope.parameters[key]
        is_list = parameter.multiple or parameter.nargs != 1
        wanted[parameter.name or ""] = (
            [value.value] if is_list and not isinstance(value.value, list) else value.value
        )
    return wanted


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # only where there is a file

    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return tomllib.loads(text.decode())
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadFile(printable(f"{path} cannot be read: {why}")) from None


def _keys(table: dict[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        yield key
        if isinstance(value, dict):
            yield from _keys(value)


def _join(within: str, key: str) -> str:
    return f"{within}.{key}" if within else key


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _has_modes() -> bool:
    return sys.platform != "win32"


def _is_own(status: os.stat_result) -> bool:
    """Return whether only this user, or the administrator, may have written a file."""
    if sys.platform == "win32":
        return True
    return status.st_uid in (0, os.getuid()) and not status.st_mode & stat.S_IWOTH


def _warn(text: str) -> None:
    click.echo(printable(text), err=True)
