"""What can go wrong for a client, as one exception tree: what may pass by itself, and what does not."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .local_app.http_exchange import Answer


class ClientError(Exception):
    """Something that the client cannot mend. Its text is for people."""


class BadArgument(ClientError):
    """An address, a key or a header is none. The command ends with status 2."""


class Replaced(ClientError):
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
    is_address: whether the address looks wrong: its name does not resolve, or its TLS fails.
    """

    def __init__(self, message: str, *, retry_after_seconds: float = 0, is_address: bool = False) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.is_address = is_address


class NotHandled(Exception):
    """Raised by a handler: the delivery is rejected.

    From a mailbox, the request comes again after a while. Otherwise its caller receives `status`, which is 502, 503
    or 504, and the text, which should hold nothing that callers must not read. `detail` is for the user only.
    """

    status = 503
    detail = ""

    @property
    def in_words(self) -> str:
        """All of it, for the user."""
        return f"{self} It wrote: {self.detail}" if self.detail else str(self)


class TargetDown(NotHandled):
    """The local app did not answer: it does not listen, broke off, or sent something that is not HTTP."""

    status = 502


class TargetSlow(NotHandled):
    """The local app took longer than it may."""

    status = 504


class CommandFailed(NotHandled):
    """The command of `--exec` ended with another status than 0, or by a signal. `detail` is from its stderr."""

    status = 502

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class AnswerRefused(NotHandled):
    """The local app answered with a status that does not acknowledge the request."""

    status = 502

    def __init__(self, message: str, answer: "Answer") -> None:
        super().__init__(message)
        self.answer = answer


class Dropped(NotHandled):
    """The relay has sent `dropped` while the local app had the request: its answer has no effect."""


class OutsideTarget(Exception):
    """A request whose path would leave the URL that the target was fixed to."""


def unreachable(server: str, error: object) -> RelayUnavailable:
    """Return the error for a relay that does not answer as one, with what the user can do about it."""
    text = str(error)
    host = server.partition("://")[2]
    if "NameResolutionError" in text or "getaddrinfo" in text or "Name or service" in text:
        return RelayUnavailable(f"There is no host {host}: its name does not resolve", is_address=True)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return RelayUnavailable(f"The certificate of {host} is not one that this machine trusts", is_address=True)
    if "SSL" in text:
        return RelayUnavailable(f"{host} does not speak TLS. Is it http://{host}?", is_address=True)
    if "timed out" in text:
        return RelayUnavailable(f"{server} does not answer in time")
    return RelayUnavailable(f"{server} does not answer: {reason_of(error)}")


def reason_of(error: object) -> str:
    """Return what the operating system said, where a library wrapped it in the names of its classes."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", str(error))
    return found[1] if found else str(error) or type(error).__name__
