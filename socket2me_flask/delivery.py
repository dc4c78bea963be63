"""What the relay and the mailboxes know of a client: something that takes calls, and may acknowledge them."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from .messages import Call
from .replies import Answer, from_acknowledgement

# Called with the arguments of an acknowledgement, or with None if the client leaves without one.
OnAck = Callable[[list[Any] | None], None]


class Client(Protocol):
    """Whoever is connected for a token.

    mode: what its callers hear when, one of `stores.MODES`.
    window: how many events of a mailbox may be on their way to it.
    """

    mode: str
    window: int

    def send(self, call: Call, on_ack: OnAck | None = None, attempt: int | None = None) -> int | None:
        """Queue a call for the client. If it raises, it was not queued.

        Raises `ClientGone`, `ClientTooSlow` or `EventTooLarge`; for one from a mailbox, which has an `attempt`,
        `NoRoom` as well.
        With `on_ack` it is asked to acknowledge it, and the number to forget that by is returned.
        """

    def forget(self, ack_id: int | None) -> None:
        """Wait for an acknowledgement no more."""

    def flush(self) -> None:
        """Send what is queued. Raises `ClientGone` if the client proves to have left."""

    def dismiss(self, farewell: str | None = None) -> None:
        """Disconnect the client; `farewell` is an event that it hears first."""


def mode_for(call: Call, client: Client) -> str:
    """Return what the caller hears when. Whoever calls `/go` waits for a reply, as of the later originals."""
    return "reply" if call.is_legacy else client.mode


class Awaited:
    """An acknowledgement that somebody waits for. It is its own `OnAck`."""

    __slots__ = ("_args", "_is_here", "ack_id", "client")

    def __init__(self) -> None:
        self._args: list[Any] | None = None
        self._is_here = threading.Event()
        self.ack_id: int | None = None
        self.client: Client | None = None  # who acknowledged, where that is not known before

    def __call__(self, args: list[Any] | None) -> None:
        self._args = args
        self._is_here.set()

    def wait(self, seconds: float) -> bool:
        """Return whether there is something to know within that time."""
        return self._is_here.wait(seconds)

    @property
    def has_failed(self) -> bool:
        """Whether the client left without acknowledging."""
        return self._args is None

    def reply(self) -> Answer:
        """Return what the client says that its caller should hear. Raises `BadReply`."""
        return from_acknowledgement(self._args or [])
