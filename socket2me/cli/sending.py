"""What `replay` and `send` do: send a request to an app, and print its answer."""

import click

from ..exceptions import NotHandled, OutsideTarget
from ..local_app.target import Answer, Target
from ..output.terminal import printable
from ..request import Request


def send(request: Request, target: Target) -> Answer:
    """Print the status and the body of what the target answers, and return it. Fails if it does not answer."""
    try:
        answer = target.send(request)
    except NotHandled as error:
        raise click.ClickException(printable(f"{target.origin}: {error}")) from None
    except OutsideTarget as error:
        raise click.ClickException(printable(str(error))) from None
    click.echo(answer.status)
    click.echo(answer.body, nl=not answer.body.endswith(b"\n"))
    return answer
