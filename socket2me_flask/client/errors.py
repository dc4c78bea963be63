"""What can go wrong for a client, as one exception tree: what may pass by itself, and what does not."""

import re


class ClientError(Exception):
    """Something that the client cannot mend. Its text is for people."""


class Displaced(ClientError):
    """Another client connected with the same token, and the stream is its own now."""


class RelayRefused(ClientError):
    """The relay understood, and said no.

    code: the relay's word for why, such as `unauthorized`; `""` where it gave none.
    status: the HTTP status, or None where a connection was refused.
    """

    def __init__(self, message: str, *, code: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class TokenGone(RelayRefused):
    """The token is unknown to the relay: it expired, or was deleted."""


class RelayUnavailable(ClientError):
    """The relay cannot be reached, or is not able to answer now. It may be in a moment.

    retry_after_seconds: how long the relay asks to be left alone.
    """

    def __init__(self, message: str, *, retry_after_seconds: float = 0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotHandled(Exception):
    """Raised by a handler: the request is not acknowledged. From a mailbox, it comes again."""


class TargetDown(NotHandled):
    """The local app did not answer: nobody listens there, it broke off, or what it said is not HTTP."""


class TargetSlow(NotHandled):
    """The local app took longer than it may."""


class OutsideTarget(Exception):
    """A request whose path would leave the URL that the target was fixed to."""


def reason_of(error: object) -> str:
    """Return what the operating system said, where a library wrapped it in the names of its classes."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", str(error))
    return found[1] if found else str(error) or type(error).__name__
