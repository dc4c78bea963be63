"""`socket2me completion`."""

import click
from click.shell_completion import get_completion_class

from .commands import Command

PROGRAM = "socket2me"


@click.command(cls=Command, reads_files=False, example='eval "$(socket2me completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what SHELL needs to complete commands, options, files and profiles.

    In ~/.bashrc: eval "$(socket2me completion bash)". In ~/.zshrc the same with zsh, after compinit. For fish,
    write it to ~/.config/fish/completions/socket2me.fish.
    """
    complete = get_completion_class(shell)
    if complete is None:
        raise click.ClickException(f"This version of click knows no {shell}.")
    click.echo(complete(context.find_root().command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
