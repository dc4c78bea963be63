"""What all commands have in common: their errors, their output, and that each is loaded when it is used."""

import errno
import logging
import os
import signal
import sys
import threading
from importlib import import_module
from typing import Any

import click

from ..exceptions import BadArgument, ClientError
from ..terminal import printable

# What a command ends with after Ctrl-C, as shells have it; but `listen`, whose end that is.
INTERRUPTED_STATUS = 128 + signal.SIGINT

DEBUG = bool(os.environ.get("SOCKET2ME_DEBUG"))


class Command(click.Command):
    """A command whose arguments may prove to make no sense when it runs: then it ends with status 2."""

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
        return name, command.load() if isinstance(command, Unloaded) else command, rest


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
    """Let nothing that a stranger sends, and no defect in a thread, print more than a line."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    if not DEBUG:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_OneLine())
        threading.excepthook = lambda failed: click.echo(one_line(failed.exc_value), err=True)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character shows its number
            stream.reconfigure(errors="backslashreplace")
