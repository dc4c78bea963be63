"""The positions of listeners in a mailbox, and what they claim: the part of `MailboxStore` that is for several."""

import time

import pytest

from socket2me_flask.errors import TooManyListeners, UnknownEvent
from socket2me_flask.relay.call import this_process
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import MAX_LISTENERS_PER_TOKEN
from tests.support.fakes import AckClient, call_of, mailboxes_on, relay_on


@pytest.fixture(params=["file", "redis"])
def reopen(request):
    """What opens a store that survives the process."""
    return request.getfixturevalue(f"open_{request.param}")


class Mailbox:
    """A mailbox of a store that is opened anew now and then."""

    def __init__(self, reopen):
        self._reopen = reopen
        self.open()
        self.token = new_token()
        self.store.add(self.token, 60, mode="ack", mailbox=True, listeners="all")

    def open(self):
        self.store = self._reopen()
        self.events = self.store.mailboxes

    def put(self, count=1):
        calls = [call_of(self.token) for _ in range(count)]
        for call in calls:
            self.events.put(call)
        return [call.id for call in calls]

    def waiting(self, after):
        return [event.call.id for event in self.events.waiting(self.token, 100, after=after)]

    def number(self, event_id):
        events = self.events.waiting(self.token, 100, after=0)
        return next(event.number for event in events if event.call.id == event_id)

    def kept(self):
        return [event.call.id for event in self.events.summary(self.token)]

    def positions(self):
        return {each.listener: each.waiting for each in self.events.positions(self.token)}


@pytest.fixture
def box(reopen):
    return Mailbox(reopen)


def test_the_first_listener_begins_with_the_oldest_event_and_others_with_the_next(box):
    """And a position survives the process."""
    old = box.put(2)
    first = box.events.register(box.token, "ann")
    assert box.waiting(first) == old
    second = box.events.register(box.token, "bob")
    assert box.waiting(second) == []
    new = box.put()
    assert (box.waiting(first), box.waiting(second)) == (old + new, new)
    box.events.advance(box.token, "ann", box.number(old[0]))
    box.open()
    assert box.waiting(box.events.register(box.token, "ann")) == old[1:] + new
    assert box.waiting(box.events.register(box.token, "bob")) == new
    assert box.positions() == {"ann": 2, "bob": 1}


def test_an_event_is_dropped_when_all_have_passed_it(box):
    """A position never goes back."""
    ann, bob = (box.events.register(box.token, name) for name in ("ann", "bob"))
    ids = box.put(3)
    numbers = [box.number(event_id) for event_id in ids]
    box.events.advance(box.token, "ann", numbers[2])
    box.events.advance(box.token, "ann", numbers[0])
    assert box.kept() == ids
    box.events.advance(box.token, "bob", numbers[1])
    assert box.kept() == ids[2:]
    assert box.positions() == {"ann": 0, "bob": 1}
    assert box.store.totals().events == 1
    box.events.unregister(box.token, "bob")
    assert box.kept() == []
    assert box.store.totals().bytes == 0
    assert ann == bob


def test_events_wait_for_the_first_position(box):
    """Until a listener has."""
    box.events.register(box.token, "ann")
    ids = box.put(2)
    box.events.unregister(box.token, "ann")
    assert box.kept() == ids
    assert box.waiting(box.events.register(box.token, "bob")) == ids


def test_an_event_that_a_listener_failed_at_becomes_a_dead_letter_when_all_have_passed_it(box):
    """Until then the others receive it. Sent again, it is the next event of all."""
    for name in ("ann", "bob"):
        box.events.register(box.token, name)
    ids = box.put(2)
    last = box.number(ids[1])
    box.events.fail(box.token, ids[0])
    box.events.advance(box.token, "ann", last)
    assert box.waiting(0) == ids
    assert not any(event.is_dead_letter for event in box.events.summary(box.token))
    box.events.advance(box.token, "bob", last)
    (dead,) = box.events.summary(box.token)
    assert (dead.call.id, dead.is_dead_letter) == (ids[0], True)
    assert box.waiting(0) == []
    box.events.redeliver(box.token, ids[0])
    assert box.waiting(last) == [ids[0]]
    assert box.positions() == {"ann": 1, "bob": 1}
    (next_id,) = box.put()
    assert box.waiting(last) == [ids[0], next_id]


def test_listeners_that_were_away_for_long_are_forgotten(box):
    """What only they have not had is dropped. Those that were seen since stay."""
    box.events.register(box.token, "ann")
    box.events.register(box.token, "bob")
    ids = box.put()
    between = time.time()
    box.events.touch(box.token, {"bob": box.number(ids[0])})
    assert box.events.drop_absent(between) == 1
    assert box.events.drop_absent(between) == 0
    assert (list(box.positions()), box.kept()) == (["bob"], [])


def test_a_sweep_forgets_listeners_that_stay_away(reopen, caplog):
    """After SOCKET2ME_LISTENER_TTL_SECONDS, and not before; the log and a counter say how many."""
    store = reopen()
    relay = relay_on(store, mailboxes=mailboxes_on(store), listener_ttl_seconds=60)
    token = store.add(new_token(), 60, mode="ack", mailbox=True, listeners="all").token
    away, here = (AckClient() for _ in range(2))
    for client in (away, here):
        client.listeners = "all"
        relay.presence.attach(token, client)
    relay.presence.detach(token, away)
    relay.expire()
    assert len(store.mailboxes.positions(token)) == 2
    relay = relay_on(store, mailboxes=relay.mailboxes, listener_ttl_seconds=-60)
    relay.expire()
    assert store.mailboxes.positions(token) == []
    assert relay.mailboxes.listeners_forgotten == 2
    assert "SOCKET2ME_LISTENER_TTL_SECONDS reached: 2 listeners were forgotten" in caplog.text


def test_a_sweep_forgets_no_listener_that_is_connected(reopen):
    """A sweep notes that it is there, though its position was written long ago. One that is away is forgotten."""
    store = reopen()
    relay = relay_on(store, mailboxes=mailboxes_on(store), listener_ttl_seconds=60)
    token = store.add(new_token(), 60, mode="ack", mailbox=True, listeners="all").token
    away, here = (AckClient() for _ in range(2))
    for client, name in ((away, "away"), (here, "here")):
        client.listeners, client.listener = "all", name
        relay.presence.attach(token, client)
    relay.presence.detach(token, away)
    for name in ("away", "here"):
        store.mailboxes.seen(token, name, time.time() - 3600)
    relay.expire()
    assert [each.listener for each in store.mailboxes.positions(token)] == ["here"]


def test_how_many_positions_a_token_has_is_bounded(box):
    """Those that are away count; one that has a position always finds it."""
    for number in range(MAX_LISTENERS_PER_TOKEN):
        box.events.register(box.token, f"n{number}")
    with pytest.raises(TooManyListeners):
        box.events.register(box.token, "more")
    box.events.register(box.token, "n0")
    box.events.unregister(box.token, "n1")
    box.events.register(box.token, "more")


def test_a_position_without_an_id_of_its_own_ends_with_its_process(box):
    """The next listener that comes drops it, and so nothing is kept for it."""
    own = f"~{getattr(box.store, 'process', this_process())}.a"
    for name in (own, "~v0ended.b", "ann"):
        box.events.register(box.token, name)
    box.events.register(box.token, "ann")
    assert sorted(box.positions()) == ["ann", own]


def test_positions_of_processes_that_have_ended_take_no_room(box):
    """There is room for a listener without an id of its own, which has no position before it is attached."""
    for number in range(1, MAX_LISTENERS_PER_TOKEN):
        box.events.register(box.token, f"n{number}")
    box.events.register(box.token, "~v0ended.b")
    client = AckClient()
    client.listeners, client.listener = "all", "~a"
    mailboxes_on(box.store).check_room(box.token, client)
    assert sorted(box.positions()) == sorted(f"n{number}" for number in range(1, MAX_LISTENERS_PER_TOKEN))
    box.events.register(box.token, "n0")
    with pytest.raises(TooManyListeners):
        mailboxes_on(box.store).check_room(box.token, client)


def test_the_positions_of_a_token_end_with_it(box):
    """Its name may be claimed again by another."""
    box.events.register(box.token, "ann")
    box.store.remove(box.token)
    box.store.add(box.token, 60, mode="ack", mailbox=True, listeners="all")
    assert box.positions() == {}


def test_what_is_claimed_is_returned_as_it_waits(box):
    """In order up to the first that is not known, without the content of those that are."""
    ids = box.put(3)
    claimed = box.events.claim(box.token, 3, [ids[0]])
    assert [event.call.id for event in claimed] == ids[:2]
    assert [event.call.method for event in claimed] == ["", "POST"]
    box.events.acknowledge(box.token, ids[0])
    box.events.release(box.token, ids[1])
    assert [event.call.id for event in box.events.claim(box.token, 3, [])] == [ids[1]]


def test_a_position_may_begin_after_a_given_event(box):
    """Of a listener that is new; one that has a position goes on from there."""
    events = box.put(4)
    box.events.register(box.token, "ann")
    after = box.events.number_of(box.token, events[1])
    assert box.events.register(box.token, "bob", after) == after
    assert box.waiting(after) == events[2:]
    assert box.events.register(box.token, "bob", box.events.number_of(box.token, events[3])) == after
    with pytest.raises(UnknownEvent):
        box.events.number_of(box.token, "none")
    with pytest.raises(UnknownEvent):
        box.events.number_of(new_token(), events[0])


def test_when_a_listener_that_is_away_was_there_last(box):
    """Is noted without a position for one that has none: it counts for how long it is kept."""
    box.events.register(box.token, "ann")
    box.events.seen(box.token, "ann", 1000.5)
    box.events.seen(box.token, "bob", 1000.5)
    assert [(each.listener, each.seen_at) for each in box.events.positions(box.token)] == [("ann", 1000.5)]
    assert box.events.drop_absent(1001) == 1


def test_no_process_alone_counts_the_calls_for_several_listeners(open_redis):
    """Each may be called, so their rate is counted in Redis; that of one client where it is attached."""
    store = open_redis()
    for listeners in ("newest", "all"):
        token = store.add(new_token(), 60, listeners=listeners).token
        store.attach(token, "sid", "notify")
        assert store.routes.has(token) == (listeners == "newest")
        assert store.routes.get_local(token) is not None
