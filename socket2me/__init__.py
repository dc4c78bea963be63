"""Listen to a socket2me relay from Python.

    from socket2me import Client, Reply, Request


    def handle(request: Request) -> Reply:
        print(request.method, request.path, request.body)
        return Reply(201, {"taken": request.id})


    client = Client("https://relay.example", mode="reply")
    print(client.open())
    client.listen(handle)

Nothing of the relay is imported, and what is named here when it is asked for. The `socket2me` command (`cli/`) is
made of this.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .relay_version import __version__ as __version__

if TYPE_CHECKING:
    from .client.client import Client
    from .client.client_token import Notice
    from .exceptions import ClientError, NotHandled, RelayRefused, RelayUnavailable, Replaced, TokenGone
    from .request import Reply, Request

__all__ = [
    "Client",
    "ClientError",
    "Replaced",
    "NotHandled",
    "Notice",
    "RelayRefused",
    "RelayUnavailable",
    "Reply",
    "Request",
    "TokenGone",
]

_MODULES = {"Client": "client.client", "Notice": "client.client_token", "Reply": "request", "Request": "request"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'exceptions')}", __name__), name)
