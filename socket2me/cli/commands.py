"""What all commands have in common: their errors, their output, and that each is loaded when it is used."""

import errno
import logging
import os
import re
import signal
import sys
import threading
from importlib import import_module
from typing import Any

import click
from click.core import ParameterSource

from ..exceptions import BadArgument, ClientError
from ..output.terminal import printable

# What a command ends with after Ctrl-C, as shells have it; but `listen`, whose end that is.
INTERRUPTED_STATUS = 128 + signal.SIGINT

DEBUG = bool(os.environ.get("SOCKET2ME_DEBUG"))


# In the `meta` of a context: where the values of files come from, by the names of parameters.
_ORIGINS = f"{__name__}.origins"


def _complete_profile(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    from .profiles import Scope, load

    try:
        files = load(Scope.of(context), lambda warning: None)
    except click.ClickException:
        return []  # the shell shows no errors
    # bash puts a name into the command line as it is: one that a shell or a terminal would obey is not offered.
    safe = re.compile(r"[\w.][\w.-]*").fullmatch
    return sorted({name for file in files for name in file.profiles if name.startswith(incomplete) and safe(name)})


def _use_profile(context: click.Context, option: click.Parameter, profile: str | None) -> None:
    """Take the values of files for what neither the command line nor a variable gives: this runs before others."""
    from .profiles import Scope, default_map, values  # not for the list of commands

    scope = Scope.of(context)
    found = values(scope, profile)
    context.default_map = default_map(scope, found)
    context.meta[_ORIGINS] = {scope.parameters[key].name: value.origin for key, value in found.items()}


class Command(click.Command):
    """A command whose arguments may prove to make no sense when it runs: then it ends with status 2.

    With `reads_files`, it takes what is not given from the files of `profiles.py`. `example` is a command line with
    which its help ends.
    """

    def __init__(self, *args: Any, example: str, reads_files: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.example = example
        self.reads_files = reads_files
        if reads_files:
            profile = click.Option(
                ["--profile"],
                envvar="SOCKET2ME_PROFILE",
                show_envvar=True,
                expose_value=False,
                is_eager=True,
                callback=_use_profile,
                shell_complete=_complete_profile,
                metavar="NAME",
                help="Take what is not given from this profile of socket2me.toml, or of the user's config.toml.",
            )
            self.params.append(profile)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            formatter.write(f"{'':>{formatter.current_indent}}{self.example}\n")

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(context, args)
        except click.BadParameter as error:
            name = error.param.name if error.param is not None else None
            if name and context.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
                message = f"{error.message} It is that of {printable(context.meta[_ORIGINS][name])}."
                raise click.BadParameter(message, context, error.param, error.param_hint) from None
            raise

    def invoke(self, context: click.Context) -> Any:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # until here, Ctrl-C ends the process at once
        try:
            return super().invoke(context)
        except BadArgument as error:
            raise click.UsageError(printable(str(error)), context) from None


class Group(click.Group):
    """Commands whose errors are a line on stderr, and status 1; with `SOCKET2ME_DEBUG` set, a traceback."""

    command_class = Command
    group_class = type

    def main(self, *args: Any, **options: Any) -> Any:
        """Do what click does, help and version included. Nothing that cannot be written ends in a traceback."""
        try:
            return super().main(*args, **options)
        except OSError as error:
            if DEBUG:
                raise
            click.echo(one_line(error), err=True)
            raise SystemExit(1) from None

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ClientError as error:
            raise click.ClickException(printable(str(error))) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # another would end in a traceback, amid the exit
            raise click.exceptions.Exit(INTERRUPTED_STATUS) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if DEBUG or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            raise click.ClickException(one_line(error)) from None


class Unloaded(click.Command):
    """A command as the list of commands needs it: its module is loaded when the command is used."""

    def __init__(self, name: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)

    def load(self) -> click.Command:
        """Return the command itself."""
        command: click.Command = getattr(import_module(f".{self.name}", __package__), str(self.name))
        return command


class LazyGroup(Group):
    """A group that lists its commands, also to a shell that completes, without loading one."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(context, args)
        return name, command and self.load(command.name or ""), rest

    def load(self, name: str) -> click.Command:
        """Return a command itself."""
        command = self.commands[name]
        return command.load() if isinstance(command, Unloaded) else command


def one_line(error: BaseException | None) -> str:
    """Return what is said of an error that nothing explains."""
    return printable(f"socket2me failed: {type(error).__name__}: {error}. SOCKET2ME_DEBUG=1 shows where.")


class _OneLine(logging.Formatter):
    """Log records without tracebacks, and without what a terminal obeys: a relay's text may have it."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}: {one_line(record.exc_info[1])}"
        return "\n".join(map(printable, text.splitlines()))


def set_up_output() -> None:
    """Let nothing that a peer sends, and no defect in a thread, print more than a line.

    Standard streams that are closed, as by `>&-`, are the null device: no socket becomes one of them.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    if not DEBUG:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_OneLine())
        threading.excepthook = lambda failed: click.echo(one_line(failed.exc_value), err=True)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character shows its number
            stream.reconfigure(errors="backslashreplace")
