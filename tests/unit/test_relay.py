"""The relay's decisions, with clients that are plain objects."""

from functools import partial

import limits
import pytest

from socket2me_flask.errors import (
    ClientLeft,
    NobodyConnected,
    ShuttingDown,
    StoreUnavailable,
    TooManyHeld,
    TooManyHeldOfToken,
    TooManyRequests,
    UnknownToken,
)
from socket2me_flask.limits import FastRate
from socket2me_flask.relay.reaper import Reaper
from socket2me_flask.relay.replies import OK
from socket2me_flask.relay.single_process import SingleProcess
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import MemoryStore
from tests.support.fakes import Caller, FakeClient, call_for, forward, relay_on
from tests.support.servers import wait_until

LONG = 30  # a hold that no test waits out


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def make_relay(store):
    return partial(relay_on, store)


@pytest.fixture
def token(store):
    token = new_token()
    store.add(token, 60)
    return token


def test_a_call_reaches_the_client(make_relay, token):
    """A connected client gets the call at once."""
    relay, client = make_relay(), FakeClient()
    relay.presence.attach(token, client)
    forward(relay, call_for(token, "/a"))
    assert client.calls == ["/a"]


def test_unknown_and_expired_tokens_are_the_same(make_relay, token, clock):
    """Whether a token was never issued or has expired, the caller receives the same, swept or not."""
    relay, client = make_relay(), FakeClient()
    relay.presence.attach(token, client)
    clock.now += 61
    for unknown in (token, new_token()):
        with pytest.raises(UnknownToken):
            forward(relay, call_for(unknown))
    assert client.calls == []


def test_nobody_connected(make_relay, token):
    """Without a client the caller receives 503, with Retry-After."""
    with pytest.raises(NobodyConnected) as caught:
        forward(make_relay(), call_for(token))
    assert caught.value.status == 503
    assert caught.value.is_temporary


def test_the_newest_client_wins(make_relay, token):
    """A second client gets the calls; the first is sent `replaced`."""
    relay, old, new = make_relay(), FakeClient(), FakeClient()
    relay.presence.attach(token, old)
    relay.presence.attach(token, new)
    forward(relay, call_for(token, "/a"))
    assert (old.calls, old.final_events) == ([], ["replaced"])
    assert (new.calls, new.final_events) == (["/a"], [])


def test_a_late_disconnect_leaves_the_successor_attached(make_relay, token):
    """The replaced client's own disconnect, which comes later, detaches no other."""
    relay, old, new = make_relay(), FakeClient(), FakeClient()
    relay.presence.attach(token, old)
    relay.presence.attach(token, new)
    relay.presence.detach(token, old)
    forward(relay, call_for(token, "/a"))
    assert new.calls == ["/a"]


def test_held_calls_go_to_the_next_client_in_order(make_relay, token):
    """Calls that came before their client are delivered in their order, and their callers receive OK."""
    relay, client = make_relay(hold_seconds=LONG), FakeClient()
    callers = []
    for number in range(5):
        callers.append(Caller(relay, call_for(token, f"/{number}")))
        wait_until(lambda expected=number + 1: relay.presence.held.requests.used == expected, "the call is held")
    relay.presence.attach(token, client)
    for caller in callers:
        caller.join()
        assert caller.outcome == "OK"
    assert client.calls == ["/0", "/1", "/2", "/3", "/4"]
    assert (relay.presence.held.tokens(), relay.presence.held.requests.used, relay.presence.held.bytes.used) == (
        [],
        0,
        0,
    )


def test_a_hold_ends(make_relay, token):
    """After the hold the caller receives 503, and nothing of the call stays behind."""
    relay, client = make_relay(hold_seconds=0.01), FakeClient()
    with pytest.raises(NobodyConnected):
        forward(relay, call_for(token, body=b"1234"))
    assert (relay.presence.held.tokens(), relay.presence.held.requests.used, relay.presence.held.bytes.used) == (
        [],
        0,
        0,
    )
    relay.presence.attach(token, client)
    assert client.calls == []


def test_the_number_of_held_calls_has_a_bound(make_relay, token):
    """One call too many is refused at once, and says when to call again."""
    relay = make_relay(hold_seconds=LONG, max_requests=1)
    first = Caller(relay, call_for(token))
    wait_until(lambda: relay.presence.held.requests.used == 1, "the call is held")
    with pytest.raises(TooManyHeld) as caught:
        forward(relay, call_for(token))
    assert caught.value.is_temporary
    relay.presence.attach(token, FakeClient())
    first.join()
    assert first.outcome == "OK"


def test_one_token_cannot_take_all_places(make_relay, token, store):
    """The calls that wait for one client have a bound of their own."""
    relay = make_relay(hold_seconds=LONG, max_requests_per_token=1)
    store.add(other := new_token(), 60)
    callers = [Caller(relay, call_for(token)), Caller(relay, call_for(other))]
    wait_until(lambda: relay.presence.held.requests.used == 2, "both wait")
    with pytest.raises(TooManyHeldOfToken):
        relay.forward(call_for(token), relay.admit(token))
    relay.drain()
    for caller in callers:
        caller.join()


def test_one_address_cannot_take_all_places(make_relay, token, store):
    """Whatever tokens it calls, it may hold no more than it leaves free, and others are held."""
    relay = make_relay(hold_seconds=LONG, max_requests=4)
    tokens = [store.add(new_token(), 60).token for _ in range(3)]
    callers = [Caller(relay, call_for(each, address="192.0.2.1")) for each in tokens[:2]]
    wait_until(lambda: relay.presence.held.requests.used == 2, "both wait")
    with pytest.raises(TooManyHeld):
        forward(relay, call_for(tokens[2], address="192.0.2.1"))
    callers.append(Caller(relay, call_for(token, address="192.0.2.2")))
    wait_until(lambda: relay.presence.held.requests.used == 3, "another address has a place")
    relay.drain()
    for caller in callers:
        caller.join()
    assert not relay.presence.held.requests and not relay.presence.held.bytes


def test_one_address_cannot_take_all_bytes(make_relay, token):
    """Headers count as bodies do."""
    relay = make_relay(hold_seconds=LONG, max_bytes=1000)
    caller = Caller(relay, call_for(token, body=bytes(400), address="192.0.2.1"))
    wait_until(lambda: relay.presence.held.requests.used == 1, "it waits")
    for large in ({"body": bytes(300)}, {"headers": {"x": "y" * 300}}):
        with pytest.raises(TooManyHeld):
            forward(relay, call_for(token, address="192.0.2.1", **large))
    other = Caller(relay, call_for(token, body=bytes(300), address="192.0.2.2"))
    wait_until(lambda: relay.presence.held.requests.used == 2, "another address has room")
    relay.drain()
    caller.join()
    other.join()


def test_a_token_that_ends_while_its_client_connects_ends_the_client(make_relay, token, store):
    """A client that is attached late is disconnected."""
    relay, client = make_relay(), FakeClient()
    store.remove(token)
    relay.presence.attach(token, client)
    assert client.final_events == [None]
    assert not relay.is_connected(token)


def unavailable(*args, **options):
    raise StoreUnavailable


def test_a_client_that_the_store_does_not_learn_of_leaves_the_token_to_the_one_before(
    make_relay, token, store, monkeypatch
):
    """Its connection is dropped, so that it connects again: a client that is refused does not."""
    relay, first, second = make_relay(), FakeClient(), FakeClient()
    relay.presence.attach(token, first)
    monkeypatch.setattr(store, "attach", unavailable)
    relay.presence.attach(token, second)
    assert (first.is_dropped, first.final_events, second.is_dropped) == (False, [], True)
    forward(relay, call_for(token, "/a"))
    assert (first.calls, second.calls) == (["/a"], [])


def test_a_client_that_is_not_the_newest_any_more_is_replaced_once(make_relay, token):
    """Another process says so late, when it has reconnected: its connection of now is left alone."""
    relay, client = make_relay(), FakeClient()
    relay.presence.attach(token, client)
    relay.presence.replace_client(token, "its connection before")
    assert client.final_events == []
    relay.presence.replace_client(token, client.sid)
    assert client.final_events == ["replaced"]


class LostStore(SingleProcess):
    """Other processes that cannot be asked, while something else happens."""

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile

    def watch(self, token, wait_seconds):
        self.meanwhile()
        raise StoreUnavailable


def test_a_call_that_cannot_be_held_for_other_processes_is_not_held(make_relay, token):
    """The store has become unavailable: the caller is told, and nothing is left of the call."""
    relay = make_relay(hold_seconds=LONG, peers=LostStore())
    with pytest.raises(StoreUnavailable):
        forward(relay, call_for(token))
    assert relay.presence.held.requests.used == 0


def test_a_call_that_is_delivered_while_the_store_is_lost_is_delivered(make_relay, token):
    """Its client came at the last moment."""
    client = FakeClient()
    relay = make_relay(hold_seconds=LONG, peers=LostStore(lambda: relay.presence.attach(token, client)))
    forward(relay, call_for(token, "/a"))
    assert client.calls == ["/a"]


def test_a_sweep_gives_way_to_others(make_relay, store, clock):
    """However many tokens have expired at once."""
    turns = []
    relay = make_relay(yield_to_others=lambda: turns.append(None))
    for _ in range(250):
        store.add(new_token(), 60)
    clock.now += 61
    assert relay.expire() == 250
    assert len(turns) == 2


def test_what_was_counted_of_a_token_goes_with_it(make_relay, store):
    """Also if a call of it was under way."""
    relay = make_relay()
    record = store.add(new_token(), 60, secret_hash=b"x")
    relay.admit(record.token)
    relay.delete(record.token)
    with pytest.raises(NobodyConnected):
        relay.forward(call_for(record.token), record)
    assert relay.token_counts.take() == {}


def test_a_call_that_was_delivered_is_ok_whatever_the_store_says_then(make_relay, store, monkeypatch):
    """To count it, the store is asked whether the token lives still. It may be away by now."""
    relay, client = make_relay(), FakeClient()
    record = store.add(new_token(), 60, secret_hash=b"x")
    relay.presence.attach(record.token, client)

    def leave_and_lose_the_store(call, on_ack=None, attempt=None):
        client.calls.append(call.path)
        relay.presence.detach(record.token, client)
        monkeypatch.setattr(store, "get_cached", lambda token: (_ for _ in ()).throw(StoreUnavailable()))

    client.send = leave_and_lose_the_store
    assert relay.forward(call_for(record.token, "/a"), record) is OK
    assert client.calls == ["/a"]
    assert relay.counts(record.token).forwarded == 1


def test_the_bytes_of_held_calls_have_a_bound(make_relay, token):
    """A body that does not fit beside those that wait is refused at once."""
    relay = make_relay(hold_seconds=LONG, max_bytes=10)
    first = Caller(relay, call_for(token, body=b"123456"))
    wait_until(lambda: relay.presence.held.requests.used == 1, "the call is held")
    with pytest.raises(TooManyHeld):
        forward(relay, call_for(token, body=b"12345"))
    relay.presence.attach(token, FakeClient())
    first.join()


@pytest.mark.parametrize("bounds_calls", [False, True])
def test_a_client_that_has_left_gets_nothing_and_costs_nothing(make_relay, token, bounds_calls):
    """A call that finds its client gone waits for the next one: it is not lost and not called OK."""
    relay, gone, fresh = make_relay(hold_seconds=LONG), FakeClient(), FakeClient()
    gone.bounds_calls = bounds_calls
    relay.presence.attach(token, gone)
    gone.gone = True
    caller = Caller(relay, call_for(token, "/a"))
    wait_until(lambda: relay.presence.held.requests.used == 1, "the call is held")
    relay.presence.attach(token, fresh)
    caller.join()
    assert (caller.outcome, fresh.calls) == ("OK", ["/a"])


def test_a_client_that_leaves_while_it_is_attached_leaves_held_calls_for_the_next(make_relay, token):
    """Held calls survive a client that came and went."""
    relay, gone, fresh = make_relay(hold_seconds=LONG), FakeClient(), FakeClient()
    gone.gone = True
    caller = Caller(relay, call_for(token, "/a"))
    wait_until(lambda: relay.presence.held.requests.used == 1, "the call is held")
    relay.presence.attach(token, gone)
    relay.presence.attach(token, fresh)
    caller.join()
    assert (caller.outcome, fresh.calls) == ("OK", ["/a"])


def test_a_held_call_that_makes_its_client_fail_harms_no_other(make_relay, token):
    """Its own caller receives the error; the client is attached, and the calls behind it arrive."""

    class Fussy(FakeClient):
        def send(self, call):
            if call.path == "/bad":
                raise TypeError("a fault of ours")
            super().send(call)

    relay, client = make_relay(hold_seconds=LONG), Fussy()
    bad = Caller(relay, call_for(token, "/bad"))
    wait_until(lambda: relay.presence.held.requests.used == 1, "the call is held")
    good = Caller(relay, call_for(token, "/good"))
    wait_until(lambda: relay.presence.held.requests.used == 2, "the call is held")
    relay.presence.attach(token, client)
    bad.join()
    good.join()
    assert isinstance(bad.outcome, TypeError)
    assert (good.outcome, client.calls) == ("OK", ["/good"])
    forward(relay, call_for(token, "/next"))
    assert client.calls == ["/good", "/next"]


def test_a_token_that_expires_during_the_hold_is_unknown(make_relay, token, clock):
    """404, as for any token that has expired."""
    relay = make_relay(hold_seconds=0.2)
    caller = Caller(relay, call_for(token))
    wait_until(lambda: relay.presence.held.requests.used == 1, "the call is held")
    clock.now += 61
    caller.join()
    assert isinstance(caller.outcome, UnknownToken)


def test_a_relay_that_stops_holds_nothing(make_relay, token):
    """Held calls are answered at once that the relay stops, with Retry-After."""
    relay = make_relay(hold_seconds=LONG)
    callers = [Caller(relay, call_for(token)) for _ in range(3)]
    wait_until(lambda: relay.presence.held.requests.used == 3, "the calls are held")
    relay.drain()
    for caller in callers:
        caller.join()
        assert isinstance(caller.outcome, ShuttingDown)
        assert caller.outcome.is_temporary


def test_a_call_gives_way_between_its_place_in_the_queue_and_its_dispatch(make_relay, token):
    """What others queue meanwhile goes out in one piece with it, in the order of acceptance."""
    client = FakeClient()
    relay = make_relay(yield_to_others=lambda: client.send(call_for(token, "/other")))
    order = []
    client.flush = lambda: order.append(list(client.calls))
    relay.presence.attach(token, client)
    forward(relay, call_for(token, "/a"))
    assert order == [["/a", "/other"]]


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_call_whose_client_leaves_before_the_dispatch(make_relay, token, is_lost):
    """If it went out with what another caller flushed, it is delivered, and to no other; else to the next."""
    first, second = FakeClient(), FakeClient()
    relay = make_relay(hold_seconds=LONG, yield_to_others=lambda: leave())
    first.number = 7
    first.has_lost = lambda number: (number == 7) is is_lost

    def leave():
        first.gone, first.number = True, 8
        relay.presence.detach(token, first)
        relay.presence.attach(token, second)

    relay.presence.attach(token, first)
    forward(relay, call_for(token, "/a"))
    assert (first.calls, second.calls) == (["/a"], ["/a"] if is_lost else [])


def test_a_call_that_was_sent_to_a_client_that_left_is_not_called_undelivered(make_relay, token):
    """Its caller receives what the acknowledgement says, here that the client left; it waits for no other."""
    relay, client = make_relay(hold_seconds=LONG, yield_to_others=lambda: leave()), FakeClient()
    client.mode = "ack"
    client.has_lost = lambda number: False
    pending_ack = []

    def send(call, on_ack=None, attempt=None):
        pending_ack.append(on_ack)
        return 1

    def leave():
        client.gone = True
        pending_ack[0](None)

    client.send, client.forget = send, print
    relay.presence.attach(token, client)
    with pytest.raises(ClientLeft):
        forward(relay, call_for(token, "/a"))


def test_one_failed_dismissal_spares_the_others(make_relay, store, clock, caplog):
    """A sweep that cannot disconnect one client still disconnects the rest."""

    class Stubborn(FakeClient):
        def disconnect(self, final_event=None):
            raise OSError("stays")

    relay, clients = make_relay(), [Stubborn(), FakeClient(), Stubborn(), FakeClient()]
    for client in clients:
        token = new_token()
        store.add(token, 10)
        relay.presence.attach(token, client)
    clock.now += 20
    assert relay.expire() == 4
    assert [len(client.final_events) for client in clients] == [0, 1, 0, 1]
    assert "a client was not disconnected" in caplog.text


def test_a_deleted_token_ends_at_once(make_relay, token):
    """Its client is disconnected, its held calls are answered 404, and it is unknown from then on."""
    relay, client = make_relay(), FakeClient()
    relay.presence.attach(token, client)
    relay.delete(token)
    assert client.final_events == [None]
    for end in (lambda: forward(relay, call_for(token)), lambda: relay.delete(token)):
        with pytest.raises(UnknownToken):
            end()


def test_held_calls_of_a_deleted_token_hear_404(make_relay, token):
    """At once, not after the hold."""
    relay = make_relay(hold_seconds=LONG)
    caller = Caller(relay, call_for(token))
    wait_until(lambda: relay.presence.held.requests.used == 1, "the call is held")
    relay.delete(token)
    caller.join()
    assert isinstance(caller.outcome, UnknownToken)


def test_what_was_forwarded_and_refused_is_counted_for_tokens_with_a_secret(make_relay, store):
    """And for no other token."""
    relay = make_relay()
    token, open_token = new_token(), new_token()
    store.add(token, 60, secret_hash=b"x")
    store.add(open_token, 60)
    for each in (token, open_token):
        with pytest.raises(NobodyConnected):
            forward(relay, call_for(each))
        relay.presence.attach(each, FakeClient())
        forward(relay, call_for(each))
        forward(relay, call_for(each))
    counts = relay.counts(token)
    assert (counts.forwarded, counts.refused, counts.last_request_at) == (2, 1, 0.0)
    assert relay.token_counts.of(token).forwarded
    relay.delete(token)
    assert relay.token_counts.take() == {}


def test_a_token_is_called_as_often_as_it_may_be(make_relay, token, store, clock):
    """One call more is refused, until the window is over; other tokens have their own count."""
    relay = make_relay(rate=FastRate(limits.parse("3/minute"), clock))
    other = new_token()
    store.add(other, 1000)
    relay.presence.attach(token, FakeClient())
    relay.presence.attach(other, FakeClient())
    for _ in range(3):
        forward(relay, call_for(token))
    clock.now += 20
    with pytest.raises(TooManyRequests) as caught:
        forward(relay, call_for(token))
    assert (caught.value.status, caught.value.setting) == (429, "SOCKET2ME_RATE_LIMIT_REQUESTS")
    assert caught.value.retry_after_seconds == 40
    forward(relay, call_for(other))
    clock.now += 39
    with pytest.raises(TooManyRequests):
        forward(relay, call_for(token))
    store.refresh(token)
    clock.now += 1
    forward(relay, call_for(token))


def test_the_reaper_dismisses_the_client_of_an_expired_token(make_relay, token, store, clock):
    """A sweep disconnects the clients whose tokens expired, and no other."""
    relay, client, other_client = make_relay(), FakeClient(), FakeClient()
    other = new_token()
    store.add(other, 1000)
    relay.presence.attach(token, client)
    relay.presence.attach(other, other_client)
    reaper = Reaper(relay, interval_seconds=1, sleep=lambda _: None)
    assert reaper.sweep() == 0
    clock.now += 62
    assert reaper.sweep() == 1
    assert (client.final_events, other_client.final_events) == ([None], [])
    forward(relay, call_for(other, "/a"))
    assert other_client.calls == ["/a"]


def test_the_reaper_survives_a_failed_sweep(caplog):
    """One failed sweep is logged and does not end the reaper."""

    class Relay:
        sweeps = 0

        def expire(self):
            self.sweeps += 1
            raise OSError("the store is away")

    class Stop(BaseException):
        pass

    naps = iter([None, None, Stop()])

    def sleep(_):
        nap = next(naps)
        if nap:
            raise nap

    relay = Relay()
    with pytest.raises(Stop):
        Reaper(relay, interval_seconds=1, sleep=sleep).run()
    assert relay.sweeps == 2
    assert "a sweep failed" in caplog.text
