"""The peers of a relay that is a single process: there are none."""

from typing import Any

from ..errors import RelayError
from ..http.answers import Answer
from ..storage import Counts
from .call import Call
from .delivery import Delivery


class SingleProcess:
    """The only process of a relay. `cluster.Cluster` has the same methods where there may be others."""

    has_peers = False

    def deliver(self, call: Call) -> Delivery | None:
        """Have another process deliver a call to its client. Return None if none has one.

        Raises `UnknownToken`, `PeerSilent`, or what the other process answers.
        """
        return None

    def deliver_to_listeners(self, call: Call, listeners: str, presence: Any) -> Delivery | None:
        """Deliver a call to listeners of other processes, and to those of this one if there are any.

        Return None if no other process has any, or if none could be sent it at once. Raises `NoListener`,
        `PeerSilent`, or what another process answers.
        """
        return None

    def deliver_again(self, call: Call, presence: Any) -> Delivery | None:
        """Deliver a call that one listener had when it left to another one. Return None and raise as above."""
        return None

    def listeners(self, token: str) -> list[dict[str, Any]]:
        """Return what is shown of the clients of a token at other processes."""
        return []

    def watch(self, token: str, wait_seconds: float) -> bool:
        """Say whether another process has the client. If it comes in that time, `Presence.retry_held` is called."""
        return False

    def is_connected(self, token: str) -> bool:
        """Say whether another process has the client."""
        return False

    def in_flight(self, token: str) -> set[str]:
        """Return the ids of the events that are on their way to a client of another process."""
        return set()

    def counts(self, token: str) -> Counts:
        """Return what all processes have counted, but for what this one has since its last heartbeat."""
        return Counts()

    def send_outcome(self, token: str, event_id: str, outcome: Answer | RelayError) -> None:
        """Send the outcome of an event to the process that accepted it."""

    @property
    def has_waiting_peers(self) -> bool:
        """Whether another process waits for a client of this one."""
        return False
