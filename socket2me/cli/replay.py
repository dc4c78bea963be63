"""`socket2me replay`."""

from pathlib import Path

import click

from .. import saved_requests
from ..signing_options import LateSigner
from ..target import Target
from .commands import Command
from .options import insecure, resign, timeout
from .sending import send


@click.command(cls=Command, example="socket2me replay requests/1764143000-x1.http --to http://localhost:3000/hooks")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "url", required=True, metavar="URL", help="The app, such as http://localhost:3000/hooks.")
@resign
@timeout
@insecure
def replay(file: Path, url: str, signer: LateSigner | None, timeout_seconds: float, insecure: bool) -> None:
    """Send the request in FILE, which `socket2me listen --save` wrote, again, byte for byte.

    With --resign its signature is another, if it was signed with that secret.

    Prints the status of the answer and its body. Ends with status 1 if there was no answer.
    """
    request = saved_requests.load(file)
    if signer is not None:
        request = signer.saved(request)
    send(request, Target(url, timeout_seconds=timeout_seconds, is_insecure=insecure, what="URL"))
