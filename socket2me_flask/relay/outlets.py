"""The outlets of the listeners of a token, which are one outlet to `mailbox.py`."""

from .back_off import BackOffs
from .delivery import Client
from .listeners import common_mode
from .outlet import Mailboxes, Outlet
from .recorder import Recorder


class Outlets(BackOffs):
    """An outlet for each listener of a token that is attached to this process."""

    def __init__(self, mailboxes: Mailboxes, token: str) -> None:
        super().__init__()
        self._mailboxes = mailboxes
        self._token = token
        self._outlets: dict[Client, Outlet] = {}

    def __len__(self) -> int:
        return len(self._outlets)

    @property
    def mode(self) -> str:
        """The mode of the callers."""
        return common_mode(self._outlets)

    @property
    def sent(self) -> set[str]:
        """The ids of the events that are on their way to some listener."""
        return {event_id for outlet in self._all() for event_id in outlet.sent}

    def open(self, client: Client, recorder: Recorder | None, position: int) -> None:
        """Deliver to one more listener, and no longer to one with the same id."""
        for other in list(self._outlets):
            if other.listener == client.listener:
                self.remove(other)
        self._outlets[client] = self._new(client, recorder, position)
        self.notify()

    def remove(self, client: Client) -> list[str]:
        """Deliver no more to a listener. Return the ids of what it has not acknowledged."""
        outlet = self._outlets.pop(client, None)
        return outlet.close() if outlet is not None else []

    def detach(self, client: Client) -> bool:
        """Deliver no more to a listener. Return whether it was the only one."""
        if client not in self._outlets:
            return False
        self.remove(client)
        return not self._outlets

    def sweep(self) -> None:
        """Do what is due now and then."""
        raise NotImplementedError

    def close(self) -> list[str]:
        """Deliver no more. Return the ids of what is not acknowledged."""
        unfinished = [event_id for client in list(self._outlets) for event_id in self.remove(client)]
        for event_id in list(self.backed_off):
            self.end_wait(event_id)
        return unfinished

    def notify(self) -> None:
        """Look for events to deliver."""
        for outlet in self._all():
            outlet.notify()

    def send_dropped(self, event_id: str) -> None:
        """Send `dropped` to the listeners that have an event which they did not acknowledge."""
        for outlet in self._all():
            outlet.send_dropped(event_id)

    def drop(self, event_id: str) -> None:
        """Know nothing of an event any more: it was dropped."""
        self.end_wait(event_id)
        for outlet in self._all():
            outlet.drop(event_id)

    def start_again(self, event_id: str) -> None:
        """Let an event be sent again at once."""
        for outlet in self._all():
            outlet.start_again(event_id)

    def _all(self) -> list[Outlet]:
        return list(self._outlets.values())

    def _new(self, client: Client, recorder: Recorder | None, position: int) -> Outlet:
        raise NotImplementedError
