"""The contract of `History`, held against every store's."""

import tracemalloc

import pytest

from socket2me.inspector import stream as stream_module
from socket2me.inspector.errors import UnknownRequest
from socket2me.inspector.filters import parse
from socket2me.inspector.history import SPARE_WRITES, Bounds, MemoryHistory
from socket2me.inspector.record import Entry, RequestRecord, Response, Update
from socket2me.inspector.stream import Stream
from socket2me_flask.cluster.bus import Listener
from socket2me_flask.errors import StoreUnavailable
from socket2me_flask.http.answers import ErrorAnswers
from socket2me_flask.relay.recorder import Recorder
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import MemoryStore, history_writes
from socket2me_flask.storage.redis import RedisStore
from tests.support.fakes import FakeClient, call_for, forward, relay_on

ANY_BYTES = bytes(range(256))


@pytest.fixture(params=["memory", "file", "redis"])
def open_store(request, clock):
    if request.param == "memory":
        return lambda **options: MemoryStore(clock, **options)
    return request.getfixturevalue(f"open_{request.param}")


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def token(store):
    return token_of(store)


def token_of(store):
    store.add(token := new_token(), 1000, secret_hash=b"hash", inspect=True)
    return token


def record_of(number, body=b"", **members):
    received_at = float(number)
    return RequestRecord(
        **{"id": f"v2-{number:x}", "received_at": received_at, "method": "POST", "path": f"/{number}"}
        | {"query": "a=1", "headers": (("x-a", "gr\xfc\xdfe"),), "body": body, "size": len(body)}
        | {"remote_addr": "192.0.2.1", "timeline": [Entry(received_at, "received")]}
        | members
    )


def ids(records):
    return [int(record.id.partition("-")[2], 16) for record in records]


def shown(changes):
    return [(change.record.path, change.entry.what if change.entry else "request") for change in changes[0]]


def test_a_request_is_found_as_it_was_kept(store, token):
    """Every byte, header and number of a request; `inspect` of the token."""
    assert store.get(token).inspect
    kept = record_of(1, ANY_BYTES, replay_of="v2-0")
    store.history.add(token, kept)
    found = store.history.find(token, kept.id)
    assert found.body == ANY_BYTES
    assert tuple(map(tuple, found.headers)) == (("x-a", "gr\xfc\xdfe"),)
    assert found.summary() == kept.summary()
    assert found.details() == kept.details()
    assert found.replay_of == "v2-0"


def test_an_update_changes_what_it_says(store, token):
    """Entries follow those before; status, time, outcome and response are kept; `kept` replaces no outcome."""
    store.history.add(token, record_of(1))
    response = Response(201, [("content-type", "text/plain")], ANY_BYTES)
    store.history.update(
        token, "v2-1", Update([Entry(2.0, "sent"), Entry(3.0, "acknowledged")], outcome="acknowledged")
    )
    store.history.update(token, "v2-1", Update([Entry(4.0, "kept", "202 Accepted")], 202, 1.5, "kept", response))
    found = store.history.find(token, "v2-1")
    assert [entry.what for entry in found.timeline] == ["received", "sent", "acknowledged", "kept"]
    assert found.timeline[3] == Entry(4.0, "kept", "202 Accepted")
    assert (found.status, found.ms, found.outcome) == (202, 1.5, "acknowledged")
    assert (found.response.status, found.response.body) == (201, ANY_BYTES)
    (listed,) = store.history.records(token, with_bodies=True)
    assert listed.state() == found.state()
    assert listed.response.body == ANY_BYTES


def test_what_is_not_kept_is_unknown(store, token):
    """No request of another token is found, no update makes one, and none is kept for a token that has ended."""
    store.history.add(token, record_of(1))
    other = token_of(store)
    store.history.update(other, "v2-1", Update([Entry(2.0, "sent")]))
    store.history.update(other, "v2-9", Update([Entry(2.0, "sent")]))
    assert list(store.history.records(other)) == []
    for ask in (store.history.find, store.history.position, store.history.delete):
        with pytest.raises(UnknownRequest):
            ask(other, "v2-1")
    with pytest.raises(UnknownRequest):
        store.history.records(other, before="v2-1")
    assert len(store.history.find(token, "v2-1").timeline) == 1


def test_requests_are_listed_newest_first(store, token):
    """All of them, in as many pages as it takes; before one; and oldest first."""
    for number in range(120):
        store.history.add(token, record_of(number, b"x" * 50_000 if number < 60 else b""))
    assert ids(store.history.records(token)) == list(range(119, -1, -1))
    assert ids(store.history.records(token, before="v2-3c")) == list(range(59, -1, -1))
    oldest = list(store.history.records(token, oldest_first=True, with_bodies=True))
    assert ids(oldest) == list(range(120))
    assert {record.body for record in oldest[:60]} == {b"x" * 50_000}


def test_changes_follow_a_position(store, token):
    """A stream that goes on after any change sends each later one once, in order."""
    history = store.history
    beginning = history.position(token)
    history.add(token, record_of(1, timeline=[Entry(1.0, "received"), Entry(1.1, "sent"), Entry(1.2, "replied")]))
    history.add(token, record_of(2))
    history.update(token, "v2-1", Update([Entry(3.0, "redelivered"), Entry(3.0, "acknowledged")]))
    history.update(token, "v2-2", Update([Entry(4.0, "refused")], status=503, ms=1.0, outcome="refused"))
    expected = [("/1", "request"), ("/1", "sent"), ("/1", "replied"), ("/2", "request")]
    expected += [("/1", "redelivered"), ("/1", "acknowledged"), ("/2", "refused")]
    changes = history.changes(token, beginning, 100)
    assert shown(changes) == expected
    assert [change.position for change in changes[0]] == sorted({change.position for change in changes[0]})
    for number, change in enumerate(changes[0], 1):
        assert shown(history.changes(token, change.position, 100)) == expected[number:]
    assert history.changes(token, changes[1], 100) == ([], changes[1])
    assert history.position(token) == changes[1]
    assert history.position(token, "v2-1") == changes[0][0].position
    assert changes[0][3].record.status == 503


def test_changes_come_in_pieces(store, token):
    """A limit loses nothing and repeats nothing."""
    for number in range(30):
        store.history.add(token, record_of(number, timeline=[Entry(1.0, "received"), Entry(1.0, "sent")]))
    found, position = [], store.history.position(token, "v2-0") - 1
    while piece := store.history.changes(token, position, 7, with_bodies=True)[0]:
        position = piece[-1].position
        found += piece
    assert len(found) == 60
    assert ids(change.record for change in found[::2]) == list(range(30))


def test_deleted_requests_are_gone(store, token):
    """One, and all; a stream that goes on after one that stays has missed nothing."""
    for number in range(5):
        store.history.add(token, record_of(number))
    store.history.delete(token, "v2-2")
    assert ids(store.history.records(token)) == [4, 3, 1, 0]
    assert ids(
        change.record for change in store.history.changes(token, store.history.position(token, "v2-1"), 9)[0]
    ) == [3, 4]
    store.history.delete(token)
    assert list(store.history.records(token)) == []
    store.history.add(token, record_of(9))
    assert ids(store.history.records(token)) == [9]


def test_the_oldest_request_goes_first(open_store):
    """Beyond `max_requests` of a token, which is counted; another token's stay."""
    store = open_store(history_bounds=Bounds(max_requests=3))
    token, other = token_of(store), token_of(store)
    store.history.add(other, record_of(100))
    for number in range(5):
        store.history.add(token, record_of(number))
    assert ids(store.history.records(token)) == [4, 3, 2]
    assert ids(store.history.records(other)) == [100]
    assert store.history.dropped_of(token) == store.history.dropped == 2
    assert store.history.dropped_of(other) == 0


def test_a_stream_that_missed_a_dropped_request_is_said_so(open_store):
    """Where a request was dropped that came after the position, nothing is returned; else all that came."""
    store = open_store(history_bounds=Bounds(max_requests=3))
    token = token_of(store)
    for number in range(3):
        store.history.add(token, record_of(number))
    first = store.history.position(token, "v2-0")
    third = store.history.position(token, "v2-2")
    for number in range(3, 5):
        store.history.add(token, record_of(number))
    assert store.history.changes(token, first, 10) is None
    assert ids(change.record for change in store.history.changes(token, third, 10)[0]) == [3, 4]


def test_bytes_are_bounded(open_store):
    """Of a token, bodies, updates and responses included; of all, where the one with more loses its own."""
    store = open_store(history_bounds=Bounds(max_bytes=100_000, total_bytes=150_000))
    token, small = token_of(store), token_of(store)
    store.history.add(small, record_of(0))
    for number in range(1, 21):
        store.history.add(token, record_of(number, b"x" * 10_000))
    assert ids(store.history.records(token)) == [20, 19, 18, 17, 16, 15, 14, 13]
    store.history.update(
        token, "v2-14", Update([Entry(1.0, "replied")], 200, 1.0, "sent", Response(200, [], b"x" * 30_000))
    )
    assert len(ids(store.history.records(token))) == 6
    large = token_of(store)
    for number in range(50, 70):
        store.history.add(large, record_of(number, b"x" * 10_000))
    assert ids(store.history.records(small)) == [0]
    assert ids(store.history.records(token)) == [20, 19, 18, 17, 16, 15]
    assert ids(store.history.records(large)) == [69, 68, 67, 66]


def test_a_request_larger_than_a_history_is_not_kept(open_store):
    """The history of its token is empty then, and goes on."""
    store = open_store(history_bounds=Bounds(max_bytes=50_000, total_bytes=60_000))
    token = token_of(store)
    store.history.add(token, record_of(1, b"x" * 70_000))
    assert list(store.history.records(token)) == []
    store.history.add(token, record_of(2))
    assert ids(store.history.records(token)) == [2]


def test_old_requests_are_dropped(store, token):
    """By age, and only those."""
    other = token_of(store)
    for number in range(5):
        store.history.add(token if number % 2 else other, record_of(number))
    assert store.history.drop_older(3.0) == 3
    assert ids(store.history.records(token)) == [3]
    assert ids(store.history.records(other)) == [4]
    assert store.history.dropped == 3


def test_a_history_ends_with_its_token(store, clock):
    """Deleted or expired: its bytes are free, and a watcher is notified."""
    lasting, deleted = token_of(store), token_of(store)
    store.add(expired := new_token(), 10, secret_hash=b"hash", inspect=True)
    for number, token in enumerate((lasting, deleted, expired)):
        store.history.add(token, record_of(number))
    watches = [store.history.watches.watch(token) for token in (lasting, deleted, expired)]
    store.remove(deleted)
    clock.now += 20
    for token in [deleted, *store.pop_expired()]:
        store.history.end(token)
    assert [watch.is_closed for watch in watches] == [False, True, True]
    assert [ids(store.history.records(token)) for token in (lasting, deleted, expired)] == [[0], [], []]
    store.history.add(deleted, record_of(9))
    if not isinstance(store, MemoryStore):  # there, nobody calls for a token that has ended
        assert list(store.history.records(deleted)) == []


def test_watchers_are_notified_of_a_change(store, token):
    """Once it is there to be read, and no change of another token."""
    watch = store.history.watches.watch(token)
    other = store.history.watches.watch(token_of(store))
    store.history.add(token, record_of(1))
    assert watch.wait(10)
    assert ids(change.record for change in store.history.changes(token, 0, 10)[0]) == [1]
    store.history.update(token, "v2-1", Update([Entry(2.0, "sent")]))
    assert watch.wait(10)
    assert not other.wait(0.01)
    watch.close()
    other.close()
    assert store.history.watches.tokens() == []


@pytest.mark.parametrize("open_lasting", ["open_file", "open_redis"])
def test_a_history_survives_the_process(request, open_lasting):
    """Requests, positions and what counts for the bounds."""
    reopen = request.getfixturevalue(open_lasting)
    store = reopen(history_bounds=Bounds(max_requests=3))
    token = token_of(store)
    for number in range(3):
        store.history.add(token, record_of(number, ANY_BYTES))
    position = store.history.position(token)
    store = reopen(history_bounds=Bounds(max_requests=3))
    assert store.get(token).inspect
    store.history.add(token, record_of(3))
    assert ids(store.history.records(token)) == [3, 2, 1]
    assert store.history.find(token, "v2-2").body == ANY_BYTES
    assert shown(store.history.changes(token, position, 10)) == [("/3", "request")]


@pytest.mark.parametrize("open_lasting", ["open_file", "open_redis"])
def test_what_finds_no_room_is_counted_as_lost(request, open_lasting, monkeypatch, caplog):
    """Writes that wait are bounded; beyond that, a request is not kept, and the call goes on."""
    store = request.getfixturevalue(open_lasting)()
    token = token_of(store)
    monkeypatch.setattr(history_writes, "MAX_UNWRITTEN_BYTES", 10_000)
    store.history.add(token, record_of(1, b"x" * 20_000))
    store.history.add(token, record_of(2))
    assert ids(store.history.records(token)) == [2]
    assert store.history.lost == 1
    assert "MAX_UNWRITTEN_BYTES" in caplog.text


def test_no_key_of_a_history_outlives_its_token(open_redis, redis):
    """Redis has nothing of a token that has ended, and counts no bytes for it."""
    store = open_redis()
    tokens = [token_of(store) for _ in range(2)]
    for first, token in enumerate(tokens):
        for number in range(first, 6, 2):
            store.history.add(token, record_of(number, b"x" * 1000))
        store.history.delete(token, f"v2-{first:x}")
        store.history.watches.watch(token)
    for token in tokens:
        store.remove(token)
    left = [key for key in redis.client.scan_iter("s2m:*") if any(token.encode() in key for token in tokens)]
    assert left == []
    assert int(redis.client.get("s2m:history")) == 0
    assert redis.client.zcard("s2m:calls") == 0


def test_redis_that_is_away_loses_the_history_and_nothing_else(open_redis):
    """`add` and `update` raise nothing; what they would have kept is counted."""
    store = open_redis()
    token = token_of(store)
    store.connection.is_up = False
    store.history.add(token, record_of(1))
    store.history.update(token, "v2-1", Update([Entry(2.0, "sent")]))
    assert store.history.lost == 2
    with pytest.raises(StoreUnavailable):
        store.history.find(token, "v2-1")


def test_another_process_is_notified_of_a_change(redis, clock):
    """A stream at one process shows at once what came to another."""
    stores = [RedisStore(redis.url, clock, process=f"v2{name}") for name in "ab"]
    for store in stores:
        store.start()
        store.bus.subscribe(_Notify(store))
    try:
        token = token_of(stores[0])
        watch = stores[0].history.watches.watch(token)
        assert stores[0].history.position(token) == 0  # which is answered after the watch was registered
        stores[1].history.add(token, record_of(1))
        assert watch.wait(10)
        assert ids(stores[0].history.records(token)) == [1]
    finally:
        for store in stores:
            store.close()


class _Notify(Listener):
    def __init__(self, store):
        self._store = store

    def on_messages(self, messages):
        for kind, *values in messages:
            if kind == "changed":
                self._store.history.watches.notify(*values)


def test_memory_is_counted_as_it_is():
    """What the histories count for is at least what CPython holds of them, within a fifth."""
    history = MemoryHistory(Bounds(total_bytes=5_000_000))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(6000):
        headers = tuple((f"x-header-{index}", f"value {number} {index}") for index in range(8))
        timeline = [
            Entry(float(number), "received"),
            Entry(number + 0.5, "sent"),
            Entry(number + 0.7, "replied", "200 OK"),
        ]
        record = record_of(
            number, body=b"%d" % number + b"x" * 200, headers=headers, timeline=timeline, ms=number / 7
        )
        record.response = Response(200, (), b"OK")
        history.add(f"token {number % 1000}", record)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert history.bytes <= 5_000_000
    assert history.dropped > 0
    assert held <= 1.2 * history.bytes


def test_a_log_does_not_grow_by_what_was_deleted():
    """A request that stays keeps none of the later ones that were deleted."""
    history = MemoryHistory(Bounds())
    tracemalloc.start()
    history.add("token", record_of(0))
    sizes = []
    for number in range(1, 20 * SPARE_WRITES):
        history.add("token", record_of(number))
        history.delete("token", f"v2-{number:x}")
        if number % SPARE_WRITES == 0:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(sizes[-5:]) < 3 * max(sizes[:2])


def test_a_call_is_forwarded_though_the_disk_is_full(open_file, caplog):
    """Its caller is answered, what is missing in the history is counted, and later calls are kept again."""
    store = open_file()
    token = token_of(store)
    recorder = Recorder(store.history, ErrorAnswers(5))
    relay = relay_on(store, recorder=recorder)
    relay.presence.attach(token, client := FakeClient())
    store.database.run(lambda: store.database.execute("PRAGMA max_page_count = 1"))
    for number in range(3):
        forward(relay, call_for(token, f"/{number}", b"x" * 100_000))
    assert client.calls == ["/0", "/1", "/2"]
    assert list(store.history.records(token)) == []
    assert store.history.lost == 3
    assert "calls are missing in histories" in caplog.text
    store.database.run(lambda: store.database.execute("PRAGMA max_page_count = 1000000"))
    forward(relay, call_for(token, "/3", b"x"))
    (record,) = store.history.records(token)
    assert (record.path, record.status, record.outcome) == ("/3", 200, "sent")


def test_a_call_at_which_the_relay_fails_is_in_the_history():
    """With the `500` that its caller is answered."""
    store = MemoryStore()
    token = token_of(store)
    relay = relay_on(store, recorder=Recorder(store.history, ErrorAnswers(5)))
    client = FakeClient()
    client.send = lambda *_: 1 / 0
    relay.presence.attach(token, client)
    with pytest.raises(ZeroDivisionError):
        forward(relay, call_for(token, "/a"))
    (record,) = store.history.records(token)
    assert (record.path, record.status) == ("/a", 500)


def test_a_call_is_forwarded_though_its_history_fails(caplog):
    """Whatever is raised there is logged, and the call goes on."""
    store = MemoryStore()
    token = token_of(store)
    store.history.add = lambda *_: 1 / 0
    relay = relay_on(store, recorder=Recorder(store.history, ErrorAnswers(5)))
    relay.presence.attach(token, client := FakeClient())
    forward(relay, call_for(token, "/a"))
    assert client.calls == ["/a"]
    assert store.history.lost == 1
    assert "ZeroDivisionError" in caplog.text


def stream_of(history, shown="", **options):
    defaults = {"lives": lambda: True, "is_gone": lambda: False, "pause": lambda: None, "on_close": lambda _: None}
    stream = Stream(history, "token", parse(shown), None, **defaults | options)
    pieces = iter(stream)
    next(pieces)
    return stream, pieces


def events_of(piece):
    return [line.removeprefix("event: ") for line in piece.decode().splitlines() if line.startswith("event: ")]


def test_a_reader_that_is_too_slow_is_told():
    """What it missed was dropped: `reset`, and then what comes. Nothing is held for it."""
    history = MemoryHistory(Bounds(max_requests=5))
    _, pieces = stream_of(history)
    for number in range(20):
        history.add("token", record_of(number))
    assert events_of(next(pieces)) == ["reset"]
    history.add("token", record_of(20))
    assert events_of(next(pieces)) == ["request"]


def test_a_filter_that_may_come_to_hold_shows_the_request_first():
    """A stream of `status:5xx` has nothing of a call that waits, and all of it once it was refused."""
    history = MemoryHistory(Bounds())
    _, pieces = stream_of(history, "status:5xx")
    history.add("token", record_of(1))
    history.add("token", record_of(2))
    history.update("token", "v2-1", Update([Entry(2.0, "refused")], status=503, ms=1.0, outcome="refused"))
    piece = next(pieces)
    assert events_of(piece) == ["request", "request", "update"]  # as it is now, and with its change
    assert b"v2-2" not in piece


def test_a_stream_ends_with_its_token(monkeypatch):
    """At once where this process ends it; with the next comment where another did."""
    monkeypatch.setattr(stream_module, "COMMENT_SECONDS", 0.01)
    history = MemoryHistory(Bounds())
    _, pieces = stream_of(history)
    assert next(pieces).startswith(b": ")
    history.end("token")
    assert list(pieces) == []
    closed = []
    stream, pieces = stream_of(history, lives=lambda: False, on_close=closed.append)
    assert list(pieces) == []
    stream.close()
    stream.close()
    assert closed == [stream] and history.watches.tokens() == []
