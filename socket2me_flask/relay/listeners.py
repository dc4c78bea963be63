"""The listeners of a token that may have several: which of them receive a call, and which of their answers counts.

To the rest of the relay, the listeners of a token at this process are one client.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from socket2me.inspector.filters import Filter, Subject

from ..errors import ClientGone, NoListener, RelayError, TooManyListeners
from ..storage import MAX_LISTENERS_PER_TOKEN
from .call import Call
from .delivery import Answering, Client, OnAck, mode_for
from .replies import rejection_of

log = logging.getLogger(__name__)

# How many terms the filters of all listeners of a token may have: each call costs as much.
MAX_FILTER_TERMS_PER_TOKEN = 100


def wants(client: Client, call: Call) -> bool:
    """Say whether the filter of a client holds for a call. One without a filter receives every call."""
    return client.filter is None or client.filter.holds(subject_of(call))


def subject_of(call: Call) -> Subject:
    """Return a call as filters see it."""
    return Subject(
        *(call.id, call.received_at, call.method, call.path, call.query, call.headers.items()),
        *(call.body, len(call.body), call.remote_addr, call.replay_of),
    )


def common_mode(clients: Iterable[Client]) -> str:
    """Return the mode of the callers of listeners with several modes: those in mode `notify` do not count."""
    modes = {client.mode for client in clients}
    return next((mode for mode in ("reply", "ack") if mode in modes), "notify")


class ListenerGroup:
    """The listeners of a token at this process, by their ids: one client to the rest of the relay.

    A call is sent to them, and on its way, when `send` returns; so `flush` has nothing to do.
    """

    is_silent = False
    bounds_calls = True  # so that each call is sent whole, and in order
    window = 1
    number = 0
    listener = ""
    filter: Filter | None = None
    since = 0.0
    answering: Answering | None = None
    secret_hash: bytes | None = None

    def __init__(self, sid: str, listeners: str) -> None:
        self.sid = sid
        self.listeners = listeners
        self.mode = "notify"
        self._members: dict[str, Client] = {}  # by the id of the listener, in the order in which they came
        self._ack_ids = count(1)
        self.unanswered: dict[int, _Answers | _Assigned] = {}  # calls that were sent, by the id to forget each by
        self._has_filters = False

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._members.values()))

    def __contains__(self, client: Client) -> bool:
        return self._members.get(client.listener) is client

    def check_room(self, client: Client) -> None:
        """Raise `TooManyListeners` if the token has no room for another listener, or for its filter."""
        others = [member for member in self._members.values() if member.listener != client.listener]
        if len(others) >= MAX_LISTENERS_PER_TOKEN:
            raise TooManyListeners
        if client.filter is not None:
            filters = {each.filter.text: each.filter for each in (*others, client) if each.filter is not None}
            if sum(len(each.tests) for each in filters.values()) > MAX_FILTER_TERMS_PER_TOKEN:
                raise TooManyListeners(
                    f"The filters of all listeners of a token have at most {MAX_FILTER_TERMS_PER_TOKEN} terms."
                )

    def add(self, client: Client) -> Client | None:
        """Add a listener. Return the one with the same id that it replaces. Raises `TooManyListeners`."""
        self.check_room(client)
        replaced = self._members.get(client.listener)
        self._members[client.listener] = client
        self.secret_hash = client.secret_hash
        self._update()
        return replaced

    def remove(self, client: Client) -> None:
        """Remove a listener, unless another has its id by now."""
        if client in self:
            del self._members[client.listener]
            self._update()

    def get(self, listener: str) -> Client | None:
        """Return the listener with this id."""
        return self._members.get(listener)

    def _update(self) -> None:
        self.mode = common_mode(self._members.values())
        self._has_filters = any(member.filter is not None for member in self._members.values())

    def has_room_for(self, call: Call) -> bool:
        return True

    @property
    def in_flight(self) -> int:
        return sum(member.in_flight for member in self._members.values())

    def send(
        self,
        call: Call,
        on_ack: OnAck | None = None,
        attempt: int | None = None,
        encoded: dict[bool, Any] | None = None,
    ) -> int | None:
        return self._send(call, on_ack)

    def _send(self, call: Call, on_ack: OnAck | None) -> int | None:
        raise NotImplementedError

    def forget(self, ack_id: int | None) -> None:
        sent = self.unanswered.pop(ack_id or 0, None)
        if sent is not None:
            sent.forget()

    def flush(self) -> None:
        pass

    def has_lost(self, number: int) -> bool:
        return False

    def send_dropped(self, event_id: str) -> None:
        for member in self:
            member.send_dropped(event_id)

    def disconnect(self, final_event: str | None = None) -> None:
        for member in self:
            try:
                member.disconnect(final_event)
            except Exception:
                log.exception("a listener was not disconnected")

    def drop_connection(self) -> None:
        for member in self:
            member.drop_connection()

    def _wanting(self, call: Call) -> list[Client]:
        """Return the listeners whose filters hold. Raises `NoListener` if there is none."""
        members = list(self._members.values())
        if self._has_filters:
            subject, verdicts = subject_of(call), {"": True}
            for member in members:
                if member.filter is not None and member.filter.text not in verdicts:
                    verdicts[member.filter.text] = member.filter.holds(subject)
            members = [each for each in members if verdicts["" if each.filter is None else each.filter.text]]
            if not members:
                raise NoListener
        return members

    def _not_delivered(self, tried: Collection[Client], errors: Iterable[Exception]) -> Exception:
        """Return what a call raises that reached none of those that were to receive it.

        `ClientGone` says that all listeners have left, so it is raised only then.
        """
        relevant = [error for error in errors if not isinstance(error, ClientGone)]
        if relevant:
            return relevant[-1]
        return ClientGone() if len(tried) >= len(self._members) else NoListener()


class _Answers:
    """The answers of listeners that were sent a call: its caller receives the first.

    A rejection, or a listener that leaves, answers it when nothing else can any more.
    """

    __slots__ = ("_group", "_is_answered", "_lock", "_mode", "_number", "_on_ack", "_waits_for")

    def __init__(
        self, group: ListenerGroup, number: int, mode: str, on_ack: OnAck, asked: Iterable[Client]
    ) -> None:
        self._group = group
        self._number = number
        self._mode = mode
        self._on_ack = on_ack
        self._waits_for: dict[Client, int | None] = dict.fromkeys(asked)  # and the id to forget each by
        self._is_answered = False
        self._lock = threading.Lock()

    def send(self, call: Call, member: Client, encoded: dict[bool, Any]) -> None:
        """Send the call to a listener, which is to acknowledge it if its answer counts. Raises as `Client.send`."""
        if member not in self._waits_for:
            member.send(call, encoded=encoded)
            return
        ack_id = member.send(call, partial(self._on_answer, member), encoded=encoded)
        if member in self._waits_for:  # it has not left at once
            self._waits_for[member] = ack_id

    def lose(self, member: Client) -> None:
        """Wait no more for a listener that was not sent the call."""
        member.forget(self._waits_for.pop(member, None))

    def end(self) -> None:
        """Answer the caller if no listener can any more."""
        if not self._waits_for:
            self._answer(None)

    def forget(self) -> None:
        """Wait no more for any answer."""
        for member, ack_id in list(self._waits_for.items()):
            member.forget(ack_id)
        self._waits_for.clear()

    def _on_answer(self, member: Client, args: list[Any] | None) -> None:
        self._waits_for.pop(member, None)
        is_failure = args is None or rejection_of(args, self._mode) is not None
        if not (is_failure and self._waits_for):
            self._answer(args)

    def _answer(self, args: list[Any] | None) -> None:
        with self._lock:
            if self._is_answered:
                return
            self._is_answered = True
        self._group.forget(self._number)
        self._on_ack(args)


class Broadcast(ListenerGroup):
    """Listeners each of which receives each call once. Their windows bound events of a mailbox only."""

    def _send(self, call: Call, on_ack: OnAck | None) -> int | None:
        members = self._wanting(call)
        encoded: dict[
            bool, Any
        ] = {}  # filled by the first of those that have the body raw, and by the first of the others
        ack_id, answers = None, None
        if on_ack is not None:
            ack_id = next(self._ack_ids)
            asked = members if self.mode == "notify" else [each for each in members if each.mode != "notify"]
            answers = self.unanswered[ack_id] = _Answers(self, ack_id, mode_for(call, self.mode), on_ack, asked)
        sent: list[tuple[Client, int]] = []
        errors: list[Exception] = []
        for member in members:
            try:
                if answers is not None:
                    answers.send(call, member, encoded)
                else:
                    member.send(call, encoded=encoded)
            except (ClientGone, RelayError) as failure:
                errors.append(failure)
                if answers is not None:
                    answers.lose(member)
            else:
                sent.append((member, member.number))
        arrived = 0
        for member, number in sent:
            try:
                member.flush()
            except ClientGone as failure:
                errors.append(failure)
                if member.has_lost(number):
                    if answers is not None:
                        answers.lose(member)
                    continue
            arrived += 1
        if not arrived:
            self.forget(ack_id)
            raise self._not_delivered(members, errors)
        if answers is not None:
            answers.end()
        return ack_id


class Workers(ListenerGroup):
    """Listeners one of which receives each call: of those with room in their windows, the one with least in flight.

    A call that a listener had when it left goes to another. A rejection answers the caller.
    """

    def has_room_for(self, call: Call) -> bool:
        try:
            return any(member.has_room_for(call) for member in self._wanting(call))
        except NoListener:
            return True  # its caller is to receive that at once

    def _send(self, call: Call, on_ack: OnAck | None) -> int | None:
        if on_ack is None:
            self.send_to_one(call, None)
            return None
        ack_id = next(self._ack_ids)
        assigned = self.unanswered[ack_id] = _Assigned(self, ack_id, call, on_ack)
        try:
            assigned.send()
        except Exception:
            self.unanswered.pop(ack_id, None)
            raise
        return ack_id

    def send_to_one(
        self,
        call: Call,
        on_ack: Callable[[Client, list[Any] | None], None] | None,
        without: Collection[Client] = (),
    ) -> tuple[Client, int | None]:
        """Send a call to one listener. Return it, and the id to forget its answer by.

        Raises `ClientGone` or `NoListener`, or another error of the last that had one.
        """
        wanting = self._wanting(call)
        members = [each for each in wanting if each not in without]
        errors: list[Exception] = []
        while members:
            member = min(members, key=partial(_load, call))
            answers = on_ack is not None and (member.mode != "notify" or self.mode == "notify")
            try:
                ack_id = member.send(call, partial(on_ack, member) if on_ack is not None and answers else None)
                number = member.number
                try:
                    member.flush()
                except ClientGone:
                    if member.has_lost(number):
                        member.forget(ack_id)
                        raise
            except (ClientGone, RelayError) as failure:
                errors.append(failure)
                members.remove(member)
                continue
            if member in self:  # to the end: of those with as little in flight, it is the last now
                self._members[member.listener] = self._members.pop(member.listener)
            if on_ack is not None and not answers:
                on_ack(member, [])  # of mode `notify`: it has it
            return member, ack_id
        raise self._not_delivered(wanting, errors)


def _load(call: Call, client: Client) -> tuple[bool, int]:
    return not client.has_room_for(call), client.in_flight


class _Assigned:
    """A call that one of several listeners has, whose answer its caller waits for."""

    __slots__ = ("_call", "_group", "_had", "_has", "_number", "_on_ack")

    def __init__(self, group: Workers, number: int, call: Call, on_ack: OnAck) -> None:
        self._group = group
        self._number = number
        self._call = replace(call)  # the relay forgets the body of the other once it was sent
        self._on_ack = on_ack
        self._had: set[Client] = set()  # those that had it and left
        self._has: tuple[Client, int | None] | None = None  # the one that has it, and the id to forget it by

    def send(self) -> None:
        """Send the call to a listener that has not had it. Raises as `Workers.send_to_one`."""
        self._has = None
        has = self._group.send_to_one(self._call, self._on_answer, self._had)
        if has[0] not in self._had:
            self._has = has

    def forget(self) -> None:
        """Wait no more for the answer."""
        if self._has is not None:
            member, ack_id = self._has
            member.forget(ack_id)

    def _on_answer(self, member: Client, args: list[Any] | None) -> None:
        if args is None:
            self._had.add(member)
            try:
                self.send()
            except (ClientGone, RelayError):
                pass  # there is no other
            else:
                return
        self._group.forget(self._number)
        self._on_ack(args)


def new_group(listeners: str, sid: str) -> ListenerGroup:
    """Return the group of a token whose record has these `listeners`."""
    return (Workers if listeners == "one" else Broadcast)(sid, listeners)


class Clients(dict[str, Client]):
    """The clients of this process by their tokens: a client, or the group of those that a token has.

    Its user holds one lock around each step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._more = 0  # how many there are beyond the first of each token

    @property
    def count(self) -> int:
        """How many clients there are."""
        return len(self) + self._more

    def of(self, token: str) -> list[Client]:
        """Return the clients of a token."""
        found = self.get(token)
        return list(found) if isinstance(found, ListenerGroup) else [found] if found is not None else []

    def has(self, token: str, listener: str) -> bool:
        """Say whether a token has a listener with this id."""
        found = self.get(token)
        return isinstance(found, ListenerGroup) and found.get(listener) is not None

    def check_room(self, token: str, client: Client) -> None:
        """Raise `TooManyListeners` if a token has no room for another listener."""
        found = self.get(token)
        if isinstance(found, ListenerGroup):
            found.check_room(client)

    def attached_with(self, token: str, client: Client) -> Client | None:
        """Return what is attached to a token, if a client is that or one of that group."""
        found = self.get(token)
        is_in = found is client or (isinstance(found, ListenerGroup) and client in found)
        return found if is_in else None

    def join(self, token: str, client: Client) -> tuple[ListenerGroup, Client | None]:
        """Add a listener to those of a token. Return the group, and the listener that it replaces.

        Raises `TooManyListeners`.
        """
        found = self.get(token)
        group = found if isinstance(found, ListenerGroup) else new_group(client.listeners, client.sid)
        replaced = group.add(client)
        self._more += len(group) > 1 and replaced is None
        self[token] = group
        return group, replaced

    def remove(self, token: str, client: Client) -> Client | None:
        """Remove a client. Return what is not attached to the token any more: None while others are."""
        found = self.attached_with(token, client)
        if isinstance(found, ListenerGroup) and len(found) > 1:
            found.remove(client)
            self._more -= 1
            return None
        return self.remove_all(token) if found is not None else None

    def remove_all(self, token: str) -> Client | None:
        """Remove and return what is attached to a token."""
        found = self.pop(token, None)
        if isinstance(found, ListenerGroup):
            self._more -= len(found) - 1
        return found
