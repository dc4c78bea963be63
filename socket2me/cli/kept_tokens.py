"""The URLs that are kept, for `status` and `events`."""

from collections.abc import Iterator

import click

from ..http_api import RelayApi, Token
from ..saved_tokens import SavedToken, SavedTokens


def kept_tokens(server: str | None) -> Iterator[tuple[SavedToken, RelayApi, Token]]:
    """Yield the tokens that are kept, of one relay or of all; say so if there is none."""
    wanted = RelayApi(server).server if server is not None else None
    found = [kept for kept in SavedTokens().all() if wanted in (None, kept.server)]
    if not found:
        of = f" for {wanted}" if wanted is not None else ""
        click.echo(f"No URL is kept{of}. `socket2me listen` asks for one.", err=True)
    for kept in found:
        yield kept, RelayApi(kept.server), Token(kept.token, kept.secret)
