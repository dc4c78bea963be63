"""The URLs that are kept, for `status` and `events`, and their secrets, for `listen` and `replay`."""

from collections.abc import Iterator

import click

from ..client.http_api import RelayApi, Token
from ..saved.token_file import SavedToken, SavedTokens
from .options import ask_secret


def kept_tokens(server: str | None) -> Iterator[tuple[SavedToken, RelayApi, Token]]:
    """Yield the tokens that are kept, of one relay or of all; say so if there is none."""
    wanted = RelayApi(server).server if server is not None else None
    found = [kept for kept in SavedTokens().all() if wanted in (None, kept.server)]
    if not found:
        of = f" for {wanted}" if wanted is not None else ""
        click.echo(f"No URL is kept{of}. `socket2me listen` asks for one.", err=True)
    for kept in found:
        yield kept, RelayApi(kept.server), Token(kept.token, kept.secret)


def secret_of(server: str, token: str) -> str:
    """Return the secret of a token: that which is kept, or is typed. Raises `BadArgument` without a terminal."""
    kept = SavedTokens().find_token(server, token)
    return kept.secret if kept is not None and kept.secret is not None else ask_secret()
