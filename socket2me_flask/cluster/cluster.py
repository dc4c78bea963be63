"""The relay as several processes: a call that came to one reaches the client of another.

A call goes to the one process that has the token's client. That process delivers it and confirms this, and only
then is the caller answered `OK`. The outcome of an acknowledgement or a reply follows in the same way. A call that
may have been lost between processes is answered `503`. What this process does for others is in `handlers.py`.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ..concurrency.timeout_queue import NewTimer
from ..errors import ClientGone, PeerSilent, ProcessGone, RelayError, UnknownToken
from ..http.answers import Answer
from ..relay.call import READS_NAMES, Call, process_of, values_of
from ..relay.delivery import Delivery
from ..relay.presence import Presence
from ..relay.single_process import SingleProcess
from ..storage import Counts
from ..storage.redis import RedisStore
from .listeners import ListenersElsewhere
from .messages import pack_outcome
from .remote_acks import RemoteAcks
from .requests import Requests
from .routes import Route


class Cluster(SingleProcess):
    """What the relay asks of other processes.

    answer_wait_seconds: how long another process may take to confirm that it delivered a call.
    ack_wait_seconds: how long the caller waits for the acknowledgement after that.
    hold_seconds: how long a call waits before that for room in its client's window.
    new_timer: makes a timeout queue that the engine runs.
    note_yield: called when a caller has waited, so that other green threads have run.
    """

    has_peers = True

    def __init__(
        self,
        store: RedisStore,
        *,
        answer_wait_seconds: float,
        ack_wait_seconds: float,
        hold_seconds: float,
        new_timer: NewTimer,
        note_yield: Callable[[], None],
    ) -> None:
        self.store = store
        self._bus = store.bus
        self._routes = store.routes
        self._note_yield = note_yield
        self.requests = Requests(
            self._bus, answer_seconds=answer_wait_seconds, hold_seconds=hold_seconds, new_timer=new_timer
        )
        self._listeners = ListenersElsewhere(store, self.requests)
        self.remote_acks = RemoteAcks(
            self._bus, ack_seconds=answer_wait_seconds + ack_wait_seconds, new_timer=new_timer
        )

    def deliver(self, call: Call) -> Delivery | None:
        for _ in range(2):  # where it is, and where it is if it is not there any more
            route = self._routes.get(call.token)
            if route is None:
                break
            try:
                return self._deliver_to(call, route)
            except ClientGone as error:
                is_process = isinstance(error, ProcessGone)
                if self.store.refresh_route(call.token, route, unless_alive=is_process) is None:
                    raise UnknownToken from None
            except PeerSilent:
                self._routes.forget(call.token)  # the next call asks Redis whether that process still lives
                raise
        return None

    def deliver_to_listeners(self, call: Call, listeners: str, presence: Presence) -> Delivery | None:
        delivery = self._listeners.deliver(call, listeners, presence)
        self._note_yield()
        return delivery

    def deliver_again(self, call: Call, presence: Presence) -> Delivery | None:
        return self._listeners.deliver_again(call, presence)

    def watch(self, token: str, wait_seconds: float) -> bool:
        if self.store.watch(token, wait_seconds) is None:
            raise UnknownToken
        return self._is_elsewhere(token)

    def is_connected(self, token: str) -> bool:
        self.store.get(token)
        return self._is_elsewhere(token)

    def in_flight(self, token: str) -> set[str]:
        return {event_id for answer in self._ask("in_flight", token) for event_id in answer}

    def listeners(self, token: str) -> list[dict[str, Any]]:
        return [shown for answer in self._ask("listeners", token) for shown in answer]

    def _is_elsewhere(self, token: str) -> bool:
        return self._routes.get(token) is not None or bool(self._routes.groups(token))

    def _ask(self, kind: str, token: str) -> list[Any]:
        """Return what the other processes answer that have clients of a token."""
        route = self._routes.get(token)
        processes = (route.process,) if route is not None else self.store.groups(token)
        if kind == "listeners":  # which the release before does not answer
            processes = tuple(each for each in processes if each.startswith(READS_NAMES))
        answers = []
        for request in [self.requests.send(process, kind, token) for process in processes]:
            with suppress(ClientGone):
                answers.append(request.wait())
        return answers

    def counts(self, token: str) -> Counts:
        return self.store.counts(token)

    def send_outcome(self, token: str, event_id: str, outcome: Answer | RelayError) -> None:
        self._bus.post(process_of(event_id), "settled", token, event_id, pack_outcome(outcome))

    @property
    def has_waiting_peers(self) -> bool:
        return bool(self.remote_acks)

    def _deliver_to(self, call: Call, route: Route) -> Delivery:
        self._bus.check()
        request = self.requests.send(route.process, "call", *values_of(call))
        mode: str = request.wait()
        self._note_yield()
        if request.pending_ack is None:
            return Delivery(mode)
        return Delivery(mode, request.pending_ack, partial(self.requests.cancel, request))
