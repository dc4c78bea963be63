"""`socket2me send`."""

import binascii
import os

import click

from ..local_app.target import Target
from ..samples import SAMPLES
from .commands import Command
from .options import insecure, timeout
from .sending import send as send_request


@click.command(cls=Command, example="socket2me send https://relay.example/v1/go/TOKEN/github --sample github")
@click.argument("url")
@click.option("--sample", type=click.Choice(list(SAMPLES)), default="github", show_default=True, help="Whose.")
@click.option(
    "--signing-secret", default="socket2me", show_default=True, help="What the sample is signed with, as they sign."
)
@timeout
@insecure
def send(url: str, sample: str, signing_secret: str, timeout_seconds: float, insecure: bool) -> None:
    """Send a sample of what a provider sends to URL, such as that which `listen` printed, to try a set-up.

    `github` is a push, `stripe` a payment, `slack` a slash command, `standard` an event of standardwebhooks.com.

    Prints the status of the answer and its body. Ends with status 1 if there was none, or one of 400 and above.
    """
    target = Target(url, timeout_seconds=timeout_seconds, is_insecure=insecure, what="URL")
    try:
        request = SAMPLES[sample](os.fsencode(signing_secret))
    except binascii.Error as error:
        raise click.BadParameter(f"after whsec_ comes base64: {error}.", param_hint="--signing-secret") from None
    if send_request(request, target).status >= 400:
        raise SystemExit(1)
