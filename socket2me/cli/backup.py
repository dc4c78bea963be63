"""`socket2me backup`."""

from pathlib import Path

import click

from ..backup import back_up
from ..output.terminal import printable
from .commands import Command


@click.command(cls=Command, reads_files=False, example="socket2me backup relay.db backup/relay.db")
@click.argument("source", metavar="RELAY_DB", type=click.Path(path_type=Path))
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
def backup(source: Path, target: Path) -> None:
    """Copy a relay's database to FILE, while the relay runs.

    RELAY_DB is the file of its SOCKET2ME_STORE_URL, relay.db for sqlite:///relay.db. The copy has every request
    that the relay accepted before. FILE is replaced when the copy is whole.
    """
    found = back_up(source, target)
    urls = f"{found.urls} URL{'s' if found.urls != 1 else ''}"
    requests = f"{found.requests} request{'s' if found.requests != 1 else ''}"
    click.echo(f"{printable(str(target))} has {urls} and {requests}.")
