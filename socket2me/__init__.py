"""Listen to a socket2me relay from Python.

    from socket2me import Client, Reply, Request


    def handle(request: Request) -> Reply:
        print(request.method, request.path, request.body)
        return Reply(201, {"taken": request.id})


    client = Client("https://relay.example", mode="reply")
    print(client.open())
    client.listen(handle)

Nothing of the relay is imported. The `socket2me` command (`cli.py`) is made of this.
"""

from .client import Client, Notice
from .exceptions import ClientError, Displaced, NotHandled, RelayRefused, RelayUnavailable, TokenGone
from .request import Reply, Request

__all__ = [
    "Client",
    "ClientError",
    "Displaced",
    "NotHandled",
    "Notice",
    "RelayRefused",
    "RelayUnavailable",
    "Reply",
    "Request",
    "TokenGone",
]
