"""`socket2me config`."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from ..output.terminal import printable
from .commands import Command, LazyGroup
from .profiles import FOLDER_FILE, SECRETS, Scope, Value, user_file, values

# As of a file that cannot be used.
INVALID_STATUS = 2


@click.command(cls=Command, reads_files=False, example="socket2me config listen --profile staging")
@click.argument("names", metavar="[COMMAND]...", nargs=-1)
@click.option(
    "--profile", envvar="SOCKET2ME_PROFILE", show_envvar=True, metavar="NAME", help="As if it were given to them."
)
@click.pass_context
def config(context: click.Context, names: tuple[str, ...], profile: str | None) -> None:
    """Show the value of each option of each COMMAND, or of all, and where it comes from.

    The command line wins over variables, these over socket2me.toml in this folder, and that over the config.toml of
    the user. The profile wins over what stands outside of profiles. What may be a secret is shown as ***.

    A value that its option does not take is marked, with the reason.

    Ends with status 2 if a value is invalid, or a file has a key, or no profile, of that name; the line has the
    nearest.
    """
    root = context.find_root().command
    if not isinstance(root, LazyGroup):
        raise TypeError("the root is the group of all commands")
    commands = {name: root.load(name) for name in root.commands}
    for name in names:
        if name not in commands:
            raise click.UsageError(f"There is no command {printable(name)!r}.", context)
    warnings: dict[str, None] = {}
    sections = []
    for name, command in commands.items():
        one = command if isinstance(command, Command | click.Group) else None
        if one is None or (isinstance(one, Command) and not one.reads_files):
            continue
        scope = Scope.of_command(command, name, root)
        found = values(scope, profile, warnings.setdefault)
        if not names or name in names:
            sections.append((name, list(_rows(scope, found, click.Context(one, context, resilient_parsing=True)))))
    for warning in warnings:
        click.echo(printable(warning), err=True)
    for path in (FOLDER_FILE, user_file()):
        click.echo(printable(f"{path}: {'read' if path.is_file() else 'there is none'}"))
    for name, rows in sections:
        click.echo(f"\n{name}")
        for key, value, origin, why in rows:
            invalid = f"  INVALID: {why}" if why else ""
            click.echo(printable(f"  {key:<16} {value:<32} {origin}{invalid}"))
    if any(why for _, rows in sections for *_, why in rows):
        raise SystemExit(INVALID_STATUS)


def _rows(scope: Scope, found: Mapping[str, Value], context: click.Context) -> Iterator[tuple[str, str, str, str]]:
    """Yield for each parameter its key, its value as it is shown, where that comes from, and why it is invalid."""
    for key, parameter in scope.parameters.items():
        variable = next((name for name in _variables(parameter) if os.environ.get(name)), None)
        if variable is not None:
            text = os.environ[variable]
            yield key, _shown(key, text), variable, _invalid(key, parameter, text, context)
        elif key in found:
            value = found[key]
            yield key, _shown(key, value.value), value.origin, _invalid(key, parameter, value.value, context)
        else:
            default = parameter.get_default(context)
            yield key, _shown(key, default), "default" if _is_value(default) else "not set", ""


def _invalid(key: str, parameter: click.Parameter, value: Any, context: click.Context) -> str:
    """Return why an option does not take a value, or an empty text. `context` is one that only looks."""
    is_list = parameter.multiple or parameter.nargs != 1
    try:
        parameter.process_value(context, [value] if is_list and not isinstance(value, list) else value)
    except click.UsageError as error:
        texts = map(str, value if isinstance(value, list) else [value])
        if key in SECRETS and any(text in error.message or repr(text)[1:-1] in error.message for text in texts):
            return "the option does not take this."
        return error.message
    return ""


def _variables(parameter: click.Parameter) -> list[str]:
    variables = parameter.envvar or []
    return [variables] if isinstance(variables, str) else list(variables)


def _is_value(value: object) -> bool:
    """Return whether a default is one: click says in several ways that there is none."""
    return isinstance(value, str | int | float)


def _shown(key: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(key, each) for each in value)
    if not _is_value(value):
        return "-"
    if key in SECRETS:
        return "***"
    return str(value).lower() if isinstance(value, bool) else str(value)
