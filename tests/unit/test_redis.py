"""The store in Redis and the peers that share it: what no other store has to do. In this process, but for Redis."""

import gc
import threading
import time
from functools import partial

import pytest

from socket2me_flask.cluster.bus import Listener
from socket2me_flask.cluster.cluster import Cluster
from socket2me_flask.cluster.handlers import Handlers
from socket2me_flask.cluster.listeners import FirstOutcome
from socket2me_flask.cluster.messages import unpack_outcome
from socket2me_flask.cluster.routes import Lookup
from socket2me_flask.concurrency.timeout_queue import TimeoutQueue
from socket2me_flask.errors import (
    ClientGone,
    NotAcknowledged,
    PeerSilent,
    RelayError,
    StoreUnavailable,
    TooManyQueued,
    UnknownToken,
)
from socket2me_flask.relay.call import values_of
from socket2me_flask.relay.mailbox import Mailboxes
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage.redis import RedisStore
from tests.support.fakes import AckClient, Caller, FakeClient, call_for, forward, relay_on
from tests.support.servers import wait_until


@pytest.fixture
def open_store(open_redis, redis, clock):
    """Return what opens a store by name, beside others on the same Redis, each with its channel in sync."""
    opened = []

    def open_store(name, **options):
        opened.append(RedisStore(redis.url, clock, process=name, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def listener(**methods):
    """Return a listener of a bus that has these methods."""
    return type("Listening", (Listener,), {name: staticmethod(method) for name, method in methods.items()})()


@pytest.fixture
def stores(open_store):
    """Two stores on one Redis, and a token whose client, `c`, is at the first."""
    here, there = open_store("a"), open_store("b")
    here.start()
    there.start()
    token = here.add(new_token(), 60).token
    here.attach(token, "c", "ack")
    return here, there, token


def test_where_a_client_is_is_known_at_other_processes(stores):
    """And its mode; at its own process calls are served without asking."""
    here, there, token = stores
    assert there.get(token)
    route = there.routes.get(token)
    assert (route.process, route.client, route.mode) == ("a", "c", "ack")
    assert here.routes.has(token)
    assert here.routes.get(token) is None


def test_a_listener_is_claimed_by_one_process(stores):
    """Until that releases it, or is killed; and what another process releases is not freed."""
    here, there, token = stores
    assert here.claim_listener(token, "l")
    assert here.claim_listener(token, "l")
    there.leave(token, "l")
    assert not there.claim_listener(token, "l")
    assert there.listeners_elsewhere(token) == ["l"]
    here.leave(token, "l")
    wait_until(lambda: there.claim_listener(token, "l"), "it is released")
    assert not here.claim_listener(token, "l")
    there.close()
    wait_until(lambda: here.claim_listener(token, "l"), "nobody has it")


def test_a_detach_that_comes_late_changes_nothing(stores):
    """Another client has come meanwhile, to another process or the same."""
    here, there, token = stores
    there.attach(token, "d", "notify")
    here.detach(token, "c")
    here.routes.invalidate(token)  # nobody here listens to what it is told
    assert here.get(token)
    assert here.routes.get(token).client == "d"
    here.attach(token, "e", "notify")
    here.detach(token, "c")
    there.routes.invalidate(token)
    assert there.get(token)
    assert there.routes.get(token).client == "e"


def test_a_client_whose_process_can_be_reached_again_is_where_it_was(stores):
    """Its channel was away for a moment: a process that noticed that does not detach its client."""
    here, there, token = stores
    there.get(token)
    route = there.routes.get(token)
    assert there.refresh_route(token, route, unless_alive=True)
    assert (there.routes.get(token).process, there.routes.get(token).client) == ("a", "c")
    here.close()
    assert there.refresh_route(token, route, unless_alive=True)
    assert there.routes.get(token) is None


def test_what_was_asked_before_there_was_news_is_not_remembered(stores, monkeypatch):
    """The answer may be older than the news."""
    here, _, token = stores
    run_script = here.connection.run_script

    def with_news(*args):
        found = run_script(*args)
        here.routes.invalidate(token)
        return found

    here.routes.invalidate(token)
    monkeypatch.setattr(here.connection, "run_script", with_news)
    assert here.get(token)
    assert not here.routes.has(token)
    monkeypatch.undo()
    assert here.get(token)
    assert here.routes.has(token)


def test_news_of_one_token_is_no_news_of_another(stores, monkeypatch):
    """However many come and go, what is asked of the others is remembered: they expire in time."""
    here, _, token = stores
    run_script = here.connection.run_script

    def with_news(*args):
        found = run_script(*args)
        here.routes.invalidate("another")
        return found

    here.routes.invalidate(token)
    monkeypatch.setattr(here.connection, "run_script", with_news)
    assert here.attach(token, "d", "notify")
    assert here.routes.has(token)
    assert not [each for each in gc.get_objects() if isinstance(each, Lookup)]  # none is in progress


def test_a_process_whose_lease_had_ended_looks_after_its_clients(open_store):
    """To others they were gone, though its channel was never away."""
    store = open_store("a", lease_seconds=0.6)
    gaps = []
    store.bus.subscribe(listener(on_resync=lambda: gaps.append(1)))
    store.start()
    time.sleep(0.1)  # at the start its channel is new, and so is its lease
    gaps.clear()
    store.connection.call("DEL", "s2m:lease:a")
    wait_until(lambda: gaps, "it is noticed")
    assert store.bus.is_in_sync


def test_a_gap_that_is_closed_late_does_not_open_the_next(open_store, redis):
    """The channel was cut twice; the first connection's gap took longer to close."""
    store = open_store("a")
    slow, opened = threading.Event(), []

    def close_gap():
        opened.append(1)
        if len(opened) == 1:
            slow.wait(10)

    store.bus.subscribe(listener(on_resync=close_gap))
    store.connection.start()
    store.bus.start(0)
    wait_until(lambda: opened, "the first is being closed")
    redis.client.client_kill_filter(_type="pubsub", skipme=True)
    wait_until(lambda: store.bus.is_in_sync, "the second is closed")
    slow.set()
    time.sleep(0.2)
    assert store.bus.is_in_sync


def test_a_token_that_is_remembered_elsewhere_expires_to_the_instant(stores, clock):
    """A caller that called it before receives 404 as every caller does."""
    _, there, token = stores
    assert there.get_cached(token)
    clock.now += 61
    assert there.get_cached(token) is None


def test_expired_tokens_are_not_forgotten_while_redis_is_away(stores, clock, monkeypatch):
    """The next sweep says that they have: their clients are still here."""
    here, _, token = stores
    clock.now += 61

    def away(*args):
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(here.connection, "run_script", away)
        with pytest.raises(StoreUnavailable):
            here.pop_expired()
    assert here.pop_expired() == [token]
    assert here.pop_expired() == []


def test_the_process_that_waits_longest_is_notified(stores, redis):
    """A process that waits for a moment does not end the wait of another."""
    here, there, token = stores
    here.detach(token, "c")
    here.watch(token, 30)
    there.watch(token, 1)
    assert redis.client.pttl(f"s2m:waiting:{token}") > 20_000


def test_a_message_arrives_whole_and_in_order_however_large(stores):
    """One that is large goes another way, and the one after it does not overtake it."""
    here, there, _ = stores
    received = []
    there.bus.subscribe(listener(on_messages=received.extend))
    for number in range(5):
        here.bus.post("b", "gone", number)
        here.bus.post("b", "answer", number, b"x" * 100_000)
    here.bus.post("b", "notified", list(range(300)))
    wait_until(lambda: len(received) == 11, "all are received")
    assert [message[:2] for message in received[:-1]] == [
        [kind, number] for number in range(5) for kind in ("gone", "answer")
    ]
    assert received[1][2] == b"x" * 100_000


def test_a_message_to_no_process_is_reported_as_lost(stores):
    """At once: there is no such process, or it is gone."""
    here, _, _ = stores
    lost = []
    here.bus.subscribe(listener(on_lost=lambda messages, is_gone: lost.append((messages, is_gone))))
    here.bus.post("nobody", "gone", 1)
    wait_until(lambda: lost, "it is told")
    assert lost == [([("gone", 1)], True)]


def test_a_message_that_cannot_be_read_does_no_harm_to_the_next(stores, redis, caplog):
    """A later release may send what this one does not know: it is skipped, and that is logged once."""
    here, there, _ = stores
    received = []
    there.bus.subscribe(listener(on_messages=received.extend))
    for unreadable in (b"\xc1", b"\x91\x91\xa1?", b"\x91\x92\xa7outcome\x01"):
        redis.client.publish("s2m:process:b", unreadable)
    here.bus.post("b", "gone", 1)
    wait_until(lambda: received, "it is received")
    assert [message[:2] for message in received] == [["gone", 1]]
    assert caplog.text.count("are skipped") == 1


def test_one_who_fails_at_a_message_does_no_harm_to_others(stores, caplog):
    """It is logged, and whoever else listens to this process receives it."""
    here, there, _ = stores
    received = []
    there.bus.subscribe(listener(on_messages=lambda messages: 1 / 0))
    there.bus.subscribe(listener(on_messages=received.extend))
    here.bus.post("b", "gone", 1)
    wait_until(lambda: received, "it is received")
    assert "ZeroDivisionError" in caplog.text


def test_a_large_message_that_redis_has_no_room_for_is_lost(stores, redis, caplog):
    """Its sender is told, though the process that was to receive it is there; the log says what Redis refused."""
    here, there, _ = stores
    lost = []
    here.bus.subscribe(listener(on_lost=lambda messages, is_gone: lost.append((messages[0][:2], is_gone))))
    redis.client.config_set("maxmemory", 1)
    try:
        here.bus.post("b", "answer", 1, b"x" * 100_000)
        wait_until(lambda: lost, "it is told")
    finally:
        redis.client.config_set("maxmemory", 0)
    assert lost == [(("answer", 1), False)]
    assert caplog.text.count("Redis refused a command") == 1


def test_a_token_that_is_refreshed_elsewhere_lives_on_where_its_client_is(sides, clock):
    """Its process answers for it without asking, so it is told."""
    here, there, token = sides
    client = FakeClient()
    here.relay.presence.attach(token, client)
    expires_at = here.store.get_cached(token).expires_at
    clock.now += 50
    there.store.refresh(token)
    wait_until(lambda: here.store.get_cached(token).expires_at > expires_at, "it is told")
    clock.now += 50
    here.relay.expire()
    assert client.final_events == []


def test_a_token_that_has_ended_is_not_waited_for(sides):
    """It may end between the moment at which its call is admitted and that at which the call begins to wait."""
    here, _, _ = sides
    with pytest.raises(UnknownToken):
        here.peers.watch(new_token(), 1)


class Side:
    """A process: a store, a relay and its peers. Its timers run when a test runs them."""

    def __init__(self, store, **options):
        self.store = store
        self.timers = []
        peers = Cluster(
            store,
            answer_wait_seconds=1,
            ack_wait_seconds=0,
            hold_seconds=0,
            new_timer=self.new_timer,
            note_yield=lambda: None,
        )
        mailboxes = Mailboxes(
            store.mailboxes,
            redeliver_seconds=60,
            max_attempts=5,
            spawn=lambda do: do(),
            new_timer=self.new_timer,
            send_outcome=peers.send_outcome,
        )
        self.peers = peers
        self.relay = relay_on(store, mailboxes=mailboxes, peers=peers, **options)
        self.handlers = Handlers(peers, self.relay, hold_seconds=0, new_timer=self.new_timer)
        store.start()

    def new_timer(self, seconds, action):
        self.timers.append(TimeoutQueue(0, action))
        return self.timers[-1]

    def run_timers(self):
        for timer in self.timers:
            timer.run(lambda: None)


@pytest.fixture
def ack_timeout_seconds():
    """How long the second of two processes waits for acknowledgements, unless a test says otherwise."""
    return 0.05


@pytest.fixture(params=[("va", "vb"), ("a", "b")], ids=["messages by name", "by position"])
def sides(open_store, request, ack_timeout_seconds):
    """Two processes, and a token."""
    first, second = request.param
    sides = [Side(open_store(first)), Side(open_store(second), ack_timeout_seconds=ack_timeout_seconds)]
    return *sides, sides[0].store.add(new_token(), 60).token


def test_nothing_is_left_of_calls_that_no_caller_waits_for(sides):
    """Neither with who asked, nor with who was to answer, nor with the client."""
    here, there, token = sides
    client = AckClient()
    here.relay.presence.attach(token, client)
    for _ in range(3):
        with pytest.raises(NotAcknowledged):
            forward(there.relay, call_for(token))
    wait_until(lambda: len(client.forgotten) == 3, "the client is not waited for")
    assert len(here.peers.remote_acks) == len(there.peers.requests) == 0
    assert [len(timer) for side in (here, there) for timer in side.timers if len(timer)] == []


def test_a_process_that_is_never_told_to_forget_forgets_by_itself(sides, monkeypatch):
    """The waiting process may have ended."""
    here, there, token = sides
    client = AckClient()
    here.relay.presence.attach(token, client)
    post = there.store.bus.post
    monkeypatch.setattr(
        there.store.bus, "post", lambda process, kind, *values: kind == "forget" or post(process, kind, *values)
    )
    with pytest.raises(NotAcknowledged):
        forward(there.relay, call_for(token))
    assert len(here.peers.remote_acks) == 1
    here.run_timers()
    assert len(here.peers.remote_acks) == 0
    assert client.forgotten == [1]


def test_what_is_said_too_late_is_told_so(sides, monkeypatch):
    """The caller was answered already; the other process waits for its client no more."""
    here, there, token = sides
    client = AckClient()
    here.relay.presence.attach(token, client)
    slow = here.relay.deliver_for_peers
    monkeypatch.setattr(here.relay, "deliver_for_peers", lambda calls: (time.sleep(0.3), slow(calls))[1])
    caller = partial(forward, there.relay, call_for(token))
    monkeypatch.setattr(there.peers.requests, "send", after(there.peers.requests.send, there.run_timers))
    with pytest.raises(PeerSilent):
        caller()
    wait_until(lambda: client.forgotten == [1], "it is not waited for")
    assert len(there.peers.requests) == 0


def after(do, then):
    """Return what does the one, and then the other."""

    def both(*args, **options):
        result = do(*args, **options)
        then()
        return result

    return both


def test_two_clients_at_once_leave_one(sides):
    """Even if the last reaches Redis before the first: which client is replaced is looked up."""
    here, there, token = sides
    first, second, newest = FakeClient(), FakeClient(), FakeClient()
    here.relay.presence.attach(token, second)
    here.store.attach(token, first.sid, "notify")  # as if it came earlier, and was late
    there.relay.presence.attach(token, newest)
    wait_until(lambda: second.final_events, "it is sent away")
    assert second.final_events == ["replaced"]
    assert here.relay.presence.clients() == []


def test_a_call_to_a_token_that_ended_elsewhere_is_404(sides):
    """Also where a process has its client cached."""
    here, there, token = sides
    here.relay.presence.attach(token, FakeClient())
    forward(there.relay, call_for(token))
    here.relay.delete(token)
    with pytest.raises(UnknownToken):
        forward(there.relay, call_for(token))


def test_a_client_that_proves_to_be_gone_is_gone_for_all(sides):
    """Its process says so, and no caller receives OK."""
    here, there, token = sides
    client = FakeClient()
    here.relay.presence.attach(token, client)
    client.gone = True
    with pytest.raises(Exception, match="No client is connected"):
        forward(there.relay, call_for(token))
    assert here.relay.presence.clients() == []
    assert not there.peers.is_connected(token)


def test_a_client_that_acknowledges_and_leaves_has_answered_all_the_same(sides):
    """Also if it is found to have left when its process flushes: the call was sent, and goes to no other client."""
    here, there, token = sides
    client = AckClient()

    def acknowledge_and_leave(call, on_ack):
        on_ack([])
        client.gone = True

    client.send, client.has_lost = acknowledge_and_leave, lambda number: False
    here.relay.presence.attach(token, client)
    forward(there.relay, call_for(token))
    assert len(here.peers.remote_acks) == len(there.peers.requests) == 0


def test_of_several_processes_each_fails_once():
    """One that rejects a call and then leaves is not two that have failed: the other may answer yet, and the first
    answer stands."""
    first = FirstOutcome()
    here, there = first.part("ack"), first.part("ack")
    first.close(lambda: None)
    here(["reject", "no"])
    here(None)
    assert not first.is_resolved
    there([])
    there(None)
    assert first.answer().status == "200 OK"


def test_held_calls_look_again_when_something_may_have_been_missed(open_store, redis):
    """Their client connected to another process, and the notification was lost."""
    here, there = (Side(open_store(name), hold_seconds=20) for name in "ab")
    token = here.store.add(new_token(), 60).token
    caller = Caller(there.relay, call_for(token))
    wait_until(lambda: redis.client.delete(f"s2m:waiting:{token}"), "it is held, and Redis does not know any more")
    here.relay.presence.attach(token, FakeClient())
    time.sleep(0.1)
    assert caller.is_alive()
    newest = max(int(each["id"]) for each in redis.client.client_list(_type="pubsub"))  # that of the second process
    redis.client.client_kill_filter(_id=newest)
    caller.join(5)
    assert caller.outcome == "OK"


def test_a_call_that_cannot_be_handed_over_does_no_harm_to_others(sides):
    """Whatever goes wrong with one client, the next call of the same message is delivered."""
    here, _, token = sides
    broken, well, other = FakeClient(), FakeClient(), here.store.add(new_token(), 60).token
    broken.send = lambda *args: 1 / 0
    here.relay.presence.attach(token, broken)
    here.relay.presence.attach(other, well)
    first, second, third = here.relay.deliver_for_peers(
        [(call_for(each), None) for each in (token, other, new_token())]
    )
    assert isinstance(first.error, ZeroDivisionError)
    assert second.delivery.mode == "notify"
    assert isinstance(third.error, ClientGone)
    assert well.calls == [""]


@pytest.mark.parametrize("error", [StoreUnavailable, ZeroDivisionError])
def test_a_message_that_cannot_be_handled_does_no_harm_to_the_next(sides, monkeypatch, caplog, error):
    """Only what has no other reason than a mistake is logged: Redis, when it is back, is asked again anyway."""
    here, _, token = sides
    client, end = FakeClient(), here.relay.presence.end

    def fail_once(ended):
        if ended != token:
            raise error
        end(ended)

    here.relay.presence.attach(token, client)
    monkeypatch.setattr(here.relay.presence, "end", fail_once)
    here.handlers.on_messages([("ended", new_token()), ("ended", token)])
    assert client.final_events == [None]
    assert ("was not handled" in caplog.text) == (error is ZeroDivisionError)


def test_a_process_that_is_not_in_sync_delivers_no_calls_of_others(sides, monkeypatch):
    """What it knows of its clients may be wrong: the caller receives `503`."""
    here, _, token = sides
    client, posted = FakeClient(), []
    here.relay.presence.attach(token, client)
    monkeypatch.setattr(type(here.store.bus), "is_in_sync", False)
    monkeypatch.setattr(here.store.bus, "post", lambda *message: posted.append(message))
    here.handlers.on_messages([("call", "other", 1, *values_of(call_for(token)))])
    assert client.calls == []
    ((process, kind, number, outcome),) = posted
    assert (process, kind, number) == ("other", "outcome", 1)
    assert unpack_outcome(outcome).code == StoreUnavailable.code


def test_a_call_at_which_another_process_fails_is_answered_at_once(sides, caplog):
    """With `500`; that process logs why."""
    here, there, token = sides
    client = FakeClient()
    client.send = lambda *args: 1 / 0
    here.relay.presence.attach(token, client)
    with pytest.raises(RelayError) as raised:
        forward(there.relay, call_for(token))
    assert type(raised.value) is RelayError
    assert "ZeroDivisionError" in caplog.text


def test_a_listener_that_has_come_back_is_not_replaced_by_itself(sides):
    """The message that another process has it comes late: by now this one has it again."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, listeners="all").token
    listeners = [FakeClient(), FakeClient(), FakeClient()]
    for each in listeners:
        each.listeners, each.listener = "all", "named"
    here.relay.presence.attach(token, listeners[0])
    there.relay.presence.attach(token, listeners[1])
    wait_until(lambda: listeners[0].final_events, "it is replaced")
    here.relay.presence.attach(token, listeners[2])
    wait_until(lambda: listeners[1].final_events, "it is replaced")
    here.handlers.on_messages([("replaced", token, "named")])
    assert listeners[2].final_events == []
    assert here.relay.presence.attached.of(token) == [listeners[2]]


def test_a_client_that_may_be_replaced_is_looked_up_until_redis_answers(sides, monkeypatch):
    """A Redis that is full, or was just lost, leaves no token with two clients."""
    here, there, token = sides
    client, attach_again, asked = FakeClient(), here.store.attach_again, []
    here.relay.presence.attach(token, client)

    def fail(clients):
        asked.append(clients)
        raise StoreUnavailable

    monkeypatch.setattr(here.store, "attach_again", fail)
    there.relay.presence.attach(token, FakeClient())
    wait_until(lambda: asked, "it is looked up")
    wait_until(lambda: any(map(len, here.timers)), "it is to be looked up again")
    here.run_timers()
    assert (len(asked), client.final_events) == (2, [])
    monkeypatch.setattr(here.store, "attach_again", attach_again)
    here.run_timers()
    assert client.final_events == ["replaced"]


def test_a_token_that_ended_unnoticed_ends_with_the_next_resync(sides, redis):
    """The message of its end was missed."""
    here, _, token = sides
    client = FakeClient()
    here.relay.presence.attach(token, client)
    redis.client.delete(f"s2m:token:{token}")
    here.handlers.on_resync()
    assert client.final_events == [None]
    assert here.relay.presence.clients() == []


def test_a_client_that_left_while_redis_was_down_is_forgotten_with_its_next_event(sides):
    """Redis says that it is here, and it is not: no other process sends it anything any more."""
    here, there, token = sides
    here.store.attach(token, "gone", "ack")
    assert there.peers.is_connected(token)
    here.handlers.on_messages([("kick", token, "gone")])
    wait_until(lambda: not there.peers.is_connected(token), "it is told")


def listening(side, token, listeners, client):
    """Attach a client to one side, as a listener of the token."""
    client.listeners = listeners
    side.relay.presence.attach(token, client)
    return client


@pytest.mark.parametrize("secret_hash", [None, b"x"], ids=["open channel", "with a secret"])
def test_a_call_for_all_reaches_the_listeners_of_each_process(sides, secret_hash):
    """Whichever process is called, and whether or not the token has a secret: an open channel of /smee has none."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, secret_hash=secret_hash, listeners="all").token
    clients = [listening(side, token, "all", FakeClient()) for side in (here, there)]
    forward(here.relay, call_for(token, "/a"))
    forward(there.relay, call_for(token, "/b"))
    wait_until(lambda: [client.calls for client in clients] == [["/a", "/b"]] * 2, "each has both")


def refuse(*args, **options):
    raise TooManyQueued


@pytest.mark.parametrize("listeners", ["all", "one"])
def test_listeners_of_which_none_can_be_sent_a_call_answer_with_the_error(sides, listeners):
    """One has left and the other has no room, here or there: the caller is told of the one without room."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, secret_hash=b"x", listeners=listeners).token
    gone, full = (listening(side, token, listeners, FakeClient()) for side in (here, there))
    gone.gone, full.send = True, refuse
    with pytest.raises(RelayError) as raised:
        forward(there.relay, call_for(token))
    assert raised.value.code == TooManyQueued.code


def test_a_call_goes_to_a_listener_of_another_process_when_one_has_left(sides):
    """Whoever has its turn: the call is delivered as long as one listener is left."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, secret_hash=b"x", listeners="one").token
    gone, left = (listening(side, token, "one", FakeClient()) for side in (here, there))
    gone.gone = True
    for number in range(2):
        forward(there.relay, call_for(token, f"/{number}"))
    assert left.calls == ["/0", "/1"]


def test_a_process_that_was_killed_has_no_listeners(sides, redis):
    """Its lease lives on for a while. The first call finds out, and goes to the listener that is left."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, secret_hash=b"x", listeners="one").token
    listening(here, token, "one", FakeClient())
    left = listening(there, token, "one", FakeClient())
    here.store.close()
    redis.client.set(f"s2m:lease:{here.store.process}", "", px=60_000)
    assert there.store.groups(token) == (here.store.process,)
    for number in range(2):
        forward(there.relay, call_for(token, f"/{number}"))
    assert left.calls == ["/0", "/1"]
    assert there.store.groups(token) == ()


def test_a_listener_elsewhere_that_is_silent_may_have_the_call(sides, monkeypatch):
    """So no other receives it, and the caller is told that."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, secret_hash=b"x", listeners="one").token
    listening(here, token, "one", FakeClient())
    other = listening(there, token, "one", FakeClient())
    monkeypatch.setattr(here.relay, "deliver_for_peers", lambda calls: time.sleep(0.3) or [])
    monkeypatch.setattr(there.peers.requests, "send", after(there.peers.requests.send, there.run_timers))
    with pytest.raises(PeerSilent):
        forward(there.relay, call_for(token))
    assert other.calls == []


def test_a_listener_elsewhere_that_does_not_acknowledge_is_forgotten(sides):
    """Its caller waits no more, so nobody does."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, secret_hash=b"x", listeners="one").token
    client = listening(here, token, "one", AckClient())
    with pytest.raises(NotAcknowledged):
        forward(there.relay, call_for(token))
    wait_until(lambda: client.forgotten == [1], "the client is not waited for")
    assert len(here.peers.remote_acks) == len(there.peers.requests) == 0


def outcome_after_the_first_left(sides, successor):
    """Return what a caller elsewhere receives whose listener on `one` leaves, when a successor is there."""
    here, there, _ = sides
    token = here.store.add(new_token(), 60, secret_hash=b"x", listeners="one").token
    client = listening(here, token, "one", AckClient())
    caller = Caller(there.relay, call_for(token, "/a"))
    wait_until(lambda: client.calls, "it is sent")
    listening(there, token, "one", successor)
    here.relay.presence.detach(token, client)
    client.on_ack(None)
    caller.join(10)
    return caller.outcome


@pytest.mark.parametrize("ack_timeout_seconds", [20])
def test_what_a_listener_elsewhere_had_when_it_left_goes_to_one_in_mode_notify(sides):
    """Which has it as soon as it is sent: its caller receives `200`."""
    successor = FakeClient()
    assert outcome_after_the_first_left(sides, successor) == "OK"
    assert successor.calls == ["/a"]


@pytest.mark.parametrize("ack_timeout_seconds", [20])
def test_what_a_listener_elsewhere_had_when_it_left_ends_with_the_error_of_the_last(sides):
    """The only one that is left has no room."""
    successor = FakeClient()
    successor.send = refuse
    outcome = outcome_after_the_first_left(sides, successor)
    assert isinstance(outcome, TooManyQueued)
