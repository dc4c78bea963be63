"""The listeners of a token, as plain objects: which of them receive a call, and whose answer counts."""

import pytest

from socket2me.inspector import filters
from socket2me_flask.errors import (
    ClientGone,
    ClientLeft,
    NoListener,
    Rejected,
    StoreUnavailable,
    TooManyListeners,
    TooManyQueued,
)
from socket2me_flask.relay.call import Call
from socket2me_flask.relay.delivery import deliver
from socket2me_flask.relay.listeners import (
    MAX_FILTER_TERMS_PER_TOKEN,
    MAX_LISTENERS_PER_TOKEN,
    new_group,
)
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import MemoryStore
from tests.support.fakes import FakeClient, call_for, forward, relay_on


class Listener(FakeClient):
    """A listener that keeps what it is to acknowledge, and whose body a call had."""

    def __init__(self, listeners="all", mode="notify", name=None, asks=""):
        super().__init__()
        self.listeners, self.mode = listeners, mode
        self.listener = name or self.listener
        self.filter = filters.parse(asks) if asks else None
        self.awaited, self.bodies, self.encoded = {}, [], []

    def send(self, call, on_ack=None, attempt=None, encoded=None):
        super().send(call)
        self.bodies.append(call.body)
        self.encoded.append(encoded)
        if on_ack is not None:
            self.awaited[len(self.calls)] = on_ack
            return len(self.calls)
        return None

    def forget(self, ack_id):
        self.awaited.pop(ack_id, None)

    @property
    def in_flight(self):
        return len(self.awaited)

    def acknowledge(self, *args):
        self.awaited.pop(min(self.awaited))(list(args))

    def leave(self):
        self.gone, awaited, self.awaited = True, self.awaited, {}
        for on_ack in awaited.values():
            on_ack(None)


def raises(error):
    def send(*args, **options):
        raise error

    return send


@pytest.fixture
def relay(clock):
    store = MemoryStore(clock)
    relay = relay_on(store)
    relay.store = store
    return relay


def attach(relay, *listeners):
    token = new_token()
    relay.store.add(token, 60, listeners=listeners[0].listeners)
    for listener in listeners:
        relay.presence.attach(token, listener)
    return token


def group_of(*listeners):
    group = new_group(listeners[0].listeners, "sid")
    for listener in listeners:
        group.add(listener)
    return group


def test_each_listener_receives_each_call_once_and_shares_its_encoding(relay):
    """In order; the event of a call is encoded by the first of them, and by no other."""
    listeners = [Listener() for _ in range(3)]
    token = attach(relay, *listeners)
    for path in ("/a", "/b"):
        forward(relay, call_for(token, path))
    assert [each.calls for each in listeners] == [["/a", "/b"]] * 3
    first, second = listeners[0].encoded
    assert first is not second
    assert all(each.encoded[0] is first and each.encoded[1] is second for each in listeners)


def test_a_listener_that_proves_to_have_left_does_not_matter_to_the_others(relay):
    """The caller is answered OK if one received the call. If none did, the call was not delivered."""
    gone, here = Listener(), Listener()
    token = attach(relay, gone, here)
    gone.gone = True
    forward(relay, call_for(token, "/a"))
    assert here.calls == ["/a"]
    here.gone = True
    with pytest.raises(ClientGone):
        group_of(gone, here).send(call_for(token))


@pytest.mark.parametrize("listeners", ["all", "one"])
def test_one_that_proves_to_have_left_leaves_the_others_attached(relay, listeners):
    """The call has no listener any more, and the next one has. A full one is reported before one that left."""
    gone, other = Listener(listeners, asks="POST /a"), Listener(listeners, asks="POST /b")
    token = attach(relay, gone, other)
    gone.gone = True
    with pytest.raises(NoListener):
        forward(relay, call_for(token, "/a"))
    forward(relay, call_for(token, "/b"))
    assert other.calls == ["/b"]
    full = Listener(listeners)
    full.send = raises(TooManyQueued)
    with pytest.raises(TooManyQueued):
        group_of(full, gone).send(call_for(token, "/a"))


def lost_at_flush(listener, *, is_sent=False):
    """Have a listener prove to have left when its queue is flushed. `is_sent`: it was sent that already."""
    listener.flush, listener.has_lost = raises(ClientGone), lambda number: not is_sent
    return listener


@pytest.mark.parametrize("listeners", ["all", "one"])
def test_a_listener_that_leaves_before_it_was_sent_a_call_is_not_waited_for(listeners):
    """The answer of the other one counts, also if it is a rejection. If none is left, nothing is waited for."""
    lost, other = lost_at_flush(Listener(listeners, "ack")), Listener(listeners, "ack")
    group, answers = group_of(lost, other), []
    group.send(call_for("a" * 24, "/a"), answers.append)
    assert (lost.awaited, other.calls, answers) == ({}, ["/a"], [])
    other.acknowledge("reject", "no")
    assert answers == [["reject", "no"]]
    group.remove(other)
    with pytest.raises(ClientGone):
        group.send(call_for("a" * 24, "/b"), answers.append)
    assert (group.unanswered, lost.awaited) == ({}, {})


@pytest.mark.parametrize("listeners", ["all", "one"])
def test_a_listener_that_leaves_when_it_was_sent_a_call_has_it(listeners):
    """No other receives it in its place before it is known that it was not acknowledged."""
    left = lost_at_flush(Listener(listeners, "ack"), is_sent=True)
    group, answers = group_of(left), []
    group.send(call_for("a" * 24, "/a"), answers.append)
    left.acknowledge()
    assert (left.calls, answers) == (["/a"], [[]])


@pytest.mark.parametrize("method", ["attach", "join"])
def test_a_listener_that_the_store_does_not_learn_of_connects_again(relay, monkeypatch, method):
    """As does the one that it replaced; the others stay."""
    replaced, newest, other = Listener(name="a"), Listener(name="a"), Listener(name="b")
    token = attach(relay, replaced, other)
    monkeypatch.setattr(relay.store, method, raises(StoreUnavailable), raising=False)
    relay.presence.attach(token, newest)
    assert (replaced.is_dropped, newest.is_dropped, other.is_dropped) == (True, True, False)
    assert relay.presence.attached.of(token) == [other]


def test_a_listener_for_which_another_process_left_no_room_is_not_attached(relay, monkeypatch):
    """Others came there since it was accepted here."""
    first, late = Listener(), Listener()
    token = attach(relay, first)
    monkeypatch.setattr(relay.store, "join", raises(TooManyListeners), raising=False)
    with pytest.raises(TooManyListeners):
        relay.presence.attach(token, late)
    assert relay.presence.attached.of(token) == [first]


def test_a_listener_whose_token_ends_while_it_connects_is_disconnected(relay):
    """With it all others."""
    first, late = Listener(), Listener()
    token = attach(relay, first)
    relay.store.remove(token)
    relay.presence.attach(token, late)
    assert (first.final_events, late.final_events) == ([None], [None])
    assert token not in relay.presence


def test_a_listener_that_cannot_be_disconnected_keeps_no_other_connected(caplog):
    """Whatever goes wrong with one is logged."""
    broken, other = Listener(), Listener()
    broken.disconnect = raises(ValueError("broken"))
    group_of(broken, other).disconnect("expired")
    assert other.final_events == ["expired"]
    assert "ValueError: broken" in caplog.text


def test_who_has_left_is_detached_alone(relay):
    """The last one detaches the token; `len` is the number of clients, whatever their tokens."""
    first, second = Listener(), Listener()
    token = attach(relay, first, second)
    attach(relay, FakeClient())
    assert len(relay.presence) == 3
    relay.presence.detach(token, first)
    relay.presence.detach(token, first)
    assert (len(relay.presence), relay.presence.attached.of(token)) == (2, [second])
    relay.presence.detach(token, second)
    assert (len(relay.presence), token in relay.presence) == (1, False)


def test_the_end_of_a_token_disconnects_all_its_listeners(relay):
    """And nothing of them is counted any more."""
    listeners = [Listener() for _ in range(3)]
    token = attach(relay, *listeners)
    relay.delete(token)
    assert [each.final_events for each in listeners] == [[None]] * 3
    assert len(relay.presence) == 0


def test_the_newest_with_an_id_replaces_the_one_before(relay):
    """Alone: the others stay, and its late disconnect detaches no client."""
    old, new, other = Listener(name="ann"), Listener(name="ann"), Listener(name="bob")
    token = attach(relay, old, other, new)
    assert (old.final_events, other.final_events) == (["replaced"], [])
    relay.presence.detach(token, old)
    assert {each.listener for each in relay.presence.attached.of(token)} == {"ann", "bob"}
    assert len(relay.presence) == 2


@pytest.mark.parametrize("listeners", ["all", "one"])
def test_how_many_listeners_a_token_has_is_bounded(listeners):
    """One more is refused; one with the id of another takes its place."""
    group = group_of(*(Listener(listeners, name=f"n{number}") for number in range(MAX_LISTENERS_PER_TOKEN)))
    with pytest.raises(TooManyListeners):
        group.add(Listener(listeners))
    assert group.add(Listener(listeners, name="n0")) is not None
    assert len(group) == MAX_LISTENERS_PER_TOKEN


def test_how_many_terms_the_filters_of_a_token_have_is_bounded():
    """The same filter counts once: it is evaluated once for a call."""
    group = group_of(*(Listener(asks="POST /a") for _ in range(60)))
    for number in range(MAX_FILTER_TERMS_PER_TOKEN // filters.MAX_TERMS - 1):
        group.add(Listener(asks=" ".join(f"/{number}" for _ in range(filters.MAX_TERMS))))
    group.add(Listener(asks=" ".join("/" for _ in range(filters.MAX_TERMS - 2))))
    with pytest.raises(TooManyListeners, match="terms"):
        group.add(Listener(asks="/another"))
    group.add(Listener(asks="POST /a"))


FIRST_ANSWERS = [
    ([["one"]], "one", None),  # who says nothing does not matter
    ([["reject", "no"], ["two"]], "two", None),
    ([None, ["two"]], "two", None),
    ([["reject", "no"], None, None], None, ClientLeft),
    ([None, None, ["reject", "no"]], None, Rejected),
]


@pytest.mark.parametrize(("answers", "body", "error"), FIRST_ANSWERS)
def test_the_first_answer_is_the_callers(answers, body, error):
    """A rejection, or a listener that leaves, is the answer if no listener is left that could give another."""
    listeners = [Listener(mode="reply") for _ in range(3)]
    delivery = deliver(call_for("t"), group := group_of(*listeners))
    for listener, args in zip(listeners, answers, strict=False):
        assert not delivery.pending_ack.is_resolved
        listener.leave() if args is None else listener.acknowledge(*args)
    assert delivery.pending_ack.is_resolved
    assert all(not listener.awaited for listener in listeners)
    assert group.unanswered == {}
    if error is None:
        assert delivery.pending_ack.answer().body == body.encode()
    else:
        with pytest.raises(error):
            delivery.pending_ack.answer()


@pytest.mark.parametrize("listeners", ["all", "one"])
def test_a_caller_that_waits_no_more_is_forgotten(listeners):
    """Nothing of a call is kept at its listeners or its group."""
    client = Listener(listeners, mode="ack")
    group = group_of(client)
    delivery = deliver(call_for("t"), group)
    delivery.forget()
    assert (client.awaited, group.unanswered) == ({}, {})


def test_of_listeners_in_several_modes_those_answer_that_acknowledge():
    """One of mode notify receives the call, and the caller waits for another."""
    silent, answering = Listener(), Listener(mode="ack")
    delivery = deliver(call_for("t"), group_of(silent, answering))
    assert (delivery.mode, silent.awaited, silent.calls) == ("ack", {}, [""])
    answering.acknowledge()
    assert delivery.pending_ack.is_resolved
    answering.gone = True  # found when it is sent the call: nobody can answer then
    with pytest.raises(ClientLeft):
        deliver(call_for("t"), group_of(silent, answering)).pending_ack.answer()


def test_one_listener_receives_a_call_the_one_with_the_least_in_flight():
    """Among equals, the one that has waited longest."""
    listeners = [Listener("one", mode="ack") for _ in range(3)]
    group = group_of(*listeners)
    for number in range(5):
        deliver(call_for("t", f"/{number}"), group)
    assert [each.calls for each in listeners] == [["/0", "/3"], ["/1", "/4"], ["/2"]]
    listeners[1].acknowledge()
    listeners[1].acknowledge()
    deliver(call_for("t", "/5"), group)
    assert listeners[1].calls[-1] == "/5"


def test_listeners_without_acknowledgements_take_turns(relay):
    """For listeners in mode notify nothing counts as in flight."""
    listeners = [Listener("one") for _ in range(3)]
    token = attach(relay, *listeners)
    for number in range(7):
        forward(relay, call_for(token, f"/{number}"))
    assert [each.calls for each in listeners] == [["/0", "/3", "/6"], ["/1", "/4"], ["/2", "/5"]]


def test_there_is_room_for_a_call_if_one_that_asks_for_it_has_room():
    """The window of a listener holds, whatever room those have whose filters leave the call out."""
    billing = Listener("one", mode="ack", asks="path:/billing")
    other = Listener("one", mode="ack", asks="path:/other")
    group = group_of(billing, other)
    billing.has_room = False
    assert not group.has_room_for(call_for("t", "/billing"))
    assert group.has_room_for(call_for("t", "/other"))
    assert group.has_room_for(call_for("t", "/none"))  # which is refused at once


def test_what_a_listener_had_when_it_left_goes_to_another_whole():
    """Never to two at once, and never again to one that had it; without any other the caller receives an error."""
    first, second = Listener("one", mode="ack"), Listener("one", mode="ack")
    group = group_of(first, second)
    call = call_for("t", body=b"whole")
    delivery = deliver(call, group)
    call.body = b""  # as the relay does while the caller waits
    assert second.calls == []
    first.leave()
    assert (second.bodies, delivery.pending_ack.is_resolved) == ([b"whole"], False)
    second.leave()
    with pytest.raises(ClientLeft):
        delivery.pending_ack.answer()
    assert group.unanswered == {}


def test_a_rejection_of_the_one_listener_is_the_answer():
    """Its caller decides whether to call again."""
    first, second = Listener("one", mode="ack"), Listener("one", mode="ack")
    delivery = deliver(call_for("t"), group_of(first, second))
    first.acknowledge("reject", "no")
    with pytest.raises(Rejected):
        delivery.pending_ack.answer()
    assert second.calls == []


def test_the_one_listener_in_mode_notify_has_the_call_as_soon_as_it_is_sent():
    """Also where another listener would acknowledge it."""
    silent, answering = Listener("one"), Listener("one", mode="ack")
    delivery = deliver(call_for("t"), group_of(silent, answering))
    assert delivery.pending_ack.answer().status == "200 OK"
    assert answering.calls == []


@pytest.mark.parametrize("listeners", ["all", "one"])
def test_a_call_goes_to_those_whose_filters_hold(listeners):
    """One without a filter receives all; if no filter holds, the caller receives `no_listener`."""
    first, second = Listener(listeners, asks="GET"), Listener(listeners, asks="body.$.a:1 /x*")
    group = group_of(first, second)
    group.send(Call("t", "POST", "/xy", "", {}, b'{"a": 1}', 0.0))
    group.send(Call("t", "GET", "/", "", {}, b"", 0.0))
    assert (first.calls, second.calls) == (["/"], ["/xy"])
    with pytest.raises(NoListener):
        group.send(call_for("t"))
    third = Listener(listeners)
    group.add(third)
    group.send(call_for("t", "/z"))
    assert third.calls == ["/z"]


def test_the_body_of_a_call_is_read_once_for_all_filters(monkeypatch):
    """However many listeners ask for what; and none that is larger than a filter reads."""
    read = []
    loads = filters.json.loads
    monkeypatch.setattr(filters.json, "loads", lambda *args, **kwargs: read.append(args) or loads(*args, **kwargs))
    group = group_of(*(Listener(asks=f"body.$.n:{number} body.$.a:1") for number in range(40)))
    group.send(Call("t", "POST", "/", "", {}, b'{"n": 3, "a": 1}', 0.0))
    assert len(read) == 1
    assert sum(len(each.calls) for each in group) == 1
    large = b'{"n": 3, "a": 1}' + b" " * filters.MAX_READ_BYTES
    with pytest.raises(NoListener):
        group.send(Call("t", "POST", "/", "", {}, large, 0.0))
    assert len(read) == 1
