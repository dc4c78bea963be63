"""The manual pages of the command, from its help: `make docs` writes them to docs/man."""

import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from socket2me import __version__
from socket2me.cli import main
from socket2me.cli.commands import Command


def pages() -> dict[str, str]:
    """Return the pages by their file names: one of all commands, and one of each, with those of its group."""
    commands = {name: main.load(name) for name in main.commands}
    context = click.Context(main, info_name="socket2me", **main.context_settings)
    listed = [f"{_tagged(f'socket2me {name}')}\n{_text(main.commands[name].short_help)}" for name in commands]
    see = _text(", ".join(f"socket2me-{name}(1)" for name in commands))
    made = {
        "socket2me.1": _page(
            "socket2me", main, context, [".SH COMMANDS", *listed, *_options(main, context), ".SH SEE ALSO", see]
        )
    }
    for name, command in commands.items():
        own = click.Context(command, info_name=name, parent=context)
        body = [*_options(command, own), *_example(command)]
        if isinstance(command, click.Group):
            for part, each in command.commands.items():
                body += [f".SH {_escaped(f'socket2me {name} {part}').upper()}"]
                inner = click.Context(each, info_name=part, parent=own)
                body += [
                    _synopsis(each, inner),
                    ".PP",
                    _prose(each),
                    *_options(each, inner, ".SS"),
                    *_example(each, ".SS"),
                ]
        made[f"socket2me-{name}.1"] = _page(
            f"socket2me-{name}", command, own, [*body, ".SH SEE ALSO", _text("socket2me(1)")]
        )
    return made


def _page(name: str, command: click.Command, context: click.Context, body: list[str]) -> str:
    short = main.commands[context.info_name].short_help if context.parent else cleandoc(main.help or "")
    return "\n".join(
        [
            f'.TH {_escaped(name).upper()} 1 "" "socket2me {__version__}"',
            ".SH NAME",
            f"{_escaped(name)} \\- {_escaped((short or '').rstrip('.'))}",
            ".SH SYNOPSIS",
            _synopsis(command, context),
            ".SH DESCRIPTION",
            _prose(command),
            *body,
            "",
        ]
    )


def _synopsis(command: click.Command, context: click.Context) -> str:
    return f".B {_escaped(context.command_path)}\n{_escaped(' '.join(command.collect_usage_pieces(context)))}"


def _prose(command: click.Command) -> str:
    paragraphs = re.split(r"\n\n+", cleandoc(command.help or ""))
    return "\n.PP\n".join(_text(" ".join(each.split())) for each in paragraphs)


def _options(command: click.Command, context: click.Context, heading: str = ".SH") -> Iterator[str]:
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [record for each in options if (record := each.get_help_record(context)) is not None]
    if records:
        yield f"{heading} OPTIONS"
    for names, meaning in records:
        yield f"{_tagged(names)}\n{_text(meaning)}"


def _example(command: click.Command, heading: str = ".SH") -> Iterator[str]:
    if isinstance(command, Command):
        yield f"{heading} EXAMPLE\n.nf\n{_text(command.example)}\n.fi"


def _tagged(text: str) -> str:
    return f".TP\n.B {_escaped(text)}"


def _text(text: str | None) -> str:
    """Return a line of text. One that began with a dot or an apostrophe would be a request."""
    escaped = _escaped(text or "")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.1"):
        old.unlink()
    for file, page in pages().items():
        (folder / file).write_text(page)
