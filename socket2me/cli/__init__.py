"""The `socket2me` command. Each of its commands is a module, which is loaded when the command is used."""

import click

from .. import __version__
from .commands import LazyGroup, Unloaded, set_up_output


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="socket2me", message="%(prog)s %(version)s")
def main() -> None:
    """From a webhook to an app on this machine, through a socket2me relay."""
    set_up_output()


# The name of each is that of its module, and of the command in it.
for _name, _short_help in {
    "listen": "Give an app on this machine a public URL.",
    "wait": "Wait for requests to a URL, and print them.",
    "serve": "Run a relay.",
    "send": "Send a sample of what a provider sends.",
    "replay": "Send requests again, of files or of a history.",
    "status": "Show the URLs that are kept.",
    "events": "List, show, retry or drop requests that relays keep.",
    "check": "Send one call through a relay and back.",
    "config": "Show what each option is, and where that comes from.",
    "completion": "Print what a shell needs to complete this command.",
    "backup": "Copy a relay's database while the relay runs.",
}.items():
    main.add_command(Unloaded(_name, _short_help))
