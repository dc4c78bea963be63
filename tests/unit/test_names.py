"""The contract of names, held against every store: `TokenStore.claim` and `release`."""

import sqlite3
import tracemalloc
from contextlib import closing
from functools import partial

import pytest

from socket2me_flask.errors import ConfigError, NameTaken, StoreUnavailable, TooManyNames, TooManyTokens
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.storage import Claim, MemoryStore
from socket2me_flask.storage.names import MAX_NAMES_PER_OWNER, SPARE_ENTRIES, Hold, Names
from socket2me_flask.storage.sqlite_names import mark_released
from tests.support.fakes import FakeClient, call_of, relay_on

GRACE_SECONDS = 100

# Claims of two askers who may have a free name; of the first, with the secret that the name has; and of somebody
# with that secret who may claim no name.
ANN, BOB = (Claim(None, secret, owner) for secret, owner in ((b"ann", "ann"), (b"bob", "bob")))
ANN_AGAIN = Claim(b"ann", b"other", "ann")
ANN_WITHOUT_KEY = Claim(b"ann", None, "")


@pytest.fixture(params=["file", "redis"])
def reopen(request):
    """What opens a store whose names survive the process."""
    return partial(request.getfixturevalue(f"open_{request.param}"), name_grace_seconds=GRACE_SECONDS)


@pytest.fixture(params=["memory", "file", "redis"])
def make_store(request, clock):
    if request.param == "memory":
        return partial(MemoryStore, clock, name_grace_seconds=GRACE_SECONDS)
    return partial(request.getfixturevalue(f"open_{request.param}"), name_grace_seconds=GRACE_SECONDS)


@pytest.fixture
def store(make_store):
    return make_store()


def test_a_name_is_a_token_with_the_secret_of_its_claim(store, clock):
    """It has the options that were given, and all that is done with a token is done with it."""
    record, is_new = store.claim("acme-dev", 60, ANN, mode="ack", inspect=True)
    assert is_new
    assert (record.token, record.secret_hash, record.mode, record.inspect) == ("acme-dev", b"ann", "ack", True)
    assert record.expires_at == clock.now + 60
    assert store.get("acme-dev") == store.get_cached("acme-dev") == record


def test_a_name_that_lives_is_no_other_s(store):
    """A claim without its secret, or with another one, is refused, and changes nothing."""
    record, _ = store.claim("acme", 60, ANN)
    for claim in (BOB, ANN, Claim(b"bob", b"bob", "bob"), Claim(b"bob", None, "")):
        with pytest.raises(NameTaken):
            store.claim("acme", 1000, claim, mode="reply")
    assert store.get("acme") == record


def test_the_secret_takes_a_name_again_while_it_lives(store, clock):
    """It is returned as it is: the secret shows whose it is, and no key is needed."""
    record, _ = store.claim("acme", 60, ANN, mode="ack")
    clock.now += 10
    for claim in (ANN_AGAIN, ANN_WITHOUT_KEY):
        assert store.claim("acme", 1000, claim, mode="reply") == (record, False)
    assert store.get("acme") == record


@pytest.mark.parametrize("is_swept", [True, False])
def test_the_secret_takes_a_name_again_after_its_end(store, clock, is_swept):
    """Until the grace is over, and no other secret does, whether or not it was swept. It has the options of now."""
    store.claim("acme", 60, ANN)
    clock.now += 61
    if is_swept:
        assert store.pop_expired() == ["acme"]
    assert store.get("acme") is None
    with pytest.raises(NameTaken):
        store.claim("acme", 60, BOB)
    clock.now += GRACE_SECONDS - 2
    with pytest.raises(NameTaken):
        store.claim("acme", 60, BOB)
    record, is_new = store.claim("acme", 60, ANN_WITHOUT_KEY, mode="reply")
    assert is_new
    assert (record.secret_hash, record.mode) == (b"ann", "reply")
    assert store.get("acme") == record
    assert store.pop_expired() == []
    assert store.get("acme") == record


def test_after_the_grace_a_name_is_free(store, clock):
    """The one who had it is refused from then on; an unknown secret takes a free name as none does."""
    store.claim("acme", 60, ANN)
    clock.now += 60 + GRACE_SECONDS + 1
    assert store.claim("acme", 60, ANN_WITHOUT_KEY) is None
    record, is_new = store.claim("acme", 60, Claim(b"ann", b"bob", "bob"))
    assert is_new
    assert record.secret_hash == b"bob"
    with pytest.raises(NameTaken):
        store.claim("acme", 60, ANN_AGAIN)
    store.pop_expired()
    assert store.get("acme") == record


def test_a_refreshed_name_is_held_for_longer(store, clock):
    """The grace begins when its token expires, and that is later then."""
    store.claim("acme", 60, ANN)
    clock.now += 50
    store.refresh("acme")
    clock.now += 55 + GRACE_SECONDS
    store.pop_expired()
    with pytest.raises(NameTaken):
        store.claim("acme", 60, BOB)
    clock.now += 10
    assert store.claim("acme", 60, BOB)


def test_a_removed_name_is_free_at_once(store):
    """Its owner has released it."""
    store.claim("acme", 60, ANN)
    assert store.remove("acme")
    assert store.claim("acme", 60, BOB)[0].secret_hash == b"bob"


def test_a_name_is_released_with_its_secret_or_by_the_operator(store, clock):
    """While it lives and in its grace; with another secret it stays."""
    for seconds in (0, 61):
        for secret_hash in (b"ann", None):
            store.claim("acme", 60, ANN)
            clock.now += seconds
            assert not store.release("acme", b"bob")
            assert store.release("acme", secret_hash)
            assert store.get("acme") is None
            assert not store.release("acme", secret_hash)
            assert store.claim("acme", 60, BOB)[0].secret_hash == b"bob"
            assert store.remove("acme")
    assert not store.release("nothing")


def test_an_owner_holds_no_more_names_than_one_may(store, clock):
    """Those in their grace count, and what was let go does not; another's do not count for it."""
    for number in range(MAX_NAMES_PER_OWNER):
        store.claim(f"name-{number}", 60, ANN)
    with pytest.raises(TooManyNames):
        store.claim("another", 60, ANN)
    assert store.claim("another", 60, BOB)
    clock.now += 61
    store.pop_expired()
    with pytest.raises(TooManyNames):
        store.claim("one-more", 60, ANN)
    assert store.claim("name-0", 60, ANN_AGAIN)
    store.remove("name-0")
    assert store.claim("one-more", 60, ANN)
    clock.now += GRACE_SECONDS
    for number in range(1, 4):
        assert store.claim(f"name-{number}", 60, ANN)


def test_the_number_of_names_has_a_bound(make_store, clock):
    """That of tokens: a name in its grace takes a place among the names, and none among the tokens that live."""
    store = make_store(max_tokens=2)
    store.claim("first", 60, ANN)
    clock.now += 61
    store.claim("second", 60, BOB)
    with pytest.raises(TooManyTokens):
        store.claim("third", 60, BOB)
    store.add(new_token(), 60)
    with pytest.raises(TooManyTokens):
        store.claim("first", 60, ANN_AGAIN)


def test_a_name_that_was_refreshed_takes_a_place_until_its_grace_ends(clock):
    """And no longer, though it was passed over when its grace would have ended without that."""
    store = MemoryStore(clock, name_grace_seconds=GRACE_SECONDS, max_tokens=2)
    store.claim("first", 60, ANN)
    clock.now += 50
    store.refresh("first")
    clock.now += 10 + GRACE_SECONDS
    store.claim("second", 1, BOB)
    with pytest.raises(TooManyTokens):
        store.claim("third", 60, BOB)
    clock.now += 1 + GRACE_SECONDS
    store.claim("third", 60, BOB)
    store.claim("fourth", 60, BOB)


def test_names_survive_the_process(reopen, clock):
    """Those that live, those in their grace, and what one may have; what was let go is free."""
    store = reopen()
    record, _ = store.claim("acme", 60, ANN)
    store.claim("short", 10, ANN)
    store.claim("gone", 60, ANN)
    store.remove("gone")
    clock.now += 20
    record = store.refresh("acme")
    for _ in range(2):
        store = reopen()
        store.pop_expired()
        assert store.get("acme") == record
        for name in ("acme", "short"):
            with pytest.raises(NameTaken):
                store.claim(name, 60, BOB)
    assert store.claim("acme", 60, ANN_WITHOUT_KEY) == (record, False)
    assert store.claim("short", 60, ANN_WITHOUT_KEY)[1]
    assert store.claim("gone", 60, BOB)


def test_a_mailbox_is_not_inherited(reopen, clock):
    """Who claims a name that another had receives nothing of what was sent to that one."""
    store = reopen()
    store.claim("acme", 60, ANN, mailbox=True)
    store.mailboxes.put(call_of("acme"))
    clock.now += 61 + GRACE_SECONDS
    store.claim("acme", 60, BOB, mailbox=True)
    assert store.mailboxes.summary("acme") == []
    assert store.totals().events == 0
    store.pop_expired()
    assert store.mailboxes.put(call_of("acme")) is None


def test_of_two_processes_one_gets_a_name(open_redis):
    """The script decides: each claims at once, and the other receives `taken`."""
    store = open_redis(name_grace_seconds=GRACE_SECONDS)
    jobs = [
        store.connection.submit_script(
            "claim_name", "acme", "p", 1000, 0, 1000, "", secret, secret, 10, "mode", "ack"
        )
        for secret in ("ann", "bob")
    ]
    assert [job.wait() for job in jobs] == [b"new", b"taken"]


def test_a_client_does_not_reconnect_to_a_name_of_another(open_redis):
    """Its process may have missed that the name was let go, and attaches again what it has: that one is refused."""
    store = open_redis(name_grace_seconds=GRACE_SECONDS)
    store.claim("acme", 60, ANN)
    store.attach("acme", "client of ann", "ack")
    assert store.attach_again([("acme", "client of ann", "ack", b"ann")]) == [True]
    store.remove("acme")
    store.claim("acme", 60, BOB)
    assert store.attach_again([("acme", "client of ann", "ack", b"ann")]) == [None]
    assert store.attach_again([("acme", "client of bob", "ack", b"bob")]) == [True]


def test_a_client_whose_name_changes_hands_while_it_connects_is_disconnected(clock):
    """Between the check of its secret and the moment at which it is attached."""
    store = MemoryStore(clock)
    relay = relay_on(store)
    store.claim("acme", 60, BOB)
    client = FakeClient()
    client.secret_hash = b"ann"
    relay.presence.attach("acme", client)
    assert "acme" not in relay.presence
    assert client.final_events == [None]


def test_a_name_that_cannot_be_written_is_not_claimed(open_file, clock):
    """Nothing of the claim stays in memory: it would be forgotten at the next start."""
    store = open_file(name_grace_seconds=GRACE_SECONDS)
    store.claim("short", 10, ANN)
    clock.now += 20
    store.database.run(lambda: store.database.execute("ALTER TABLE names RENAME TO away"))
    for name, claim in (("acme", BOB), ("short", ANN_WITHOUT_KEY)):
        with pytest.raises(StoreUnavailable):
            store.claim(name, 60, claim)
        assert store.get(name) is None
    store.database.run(lambda: store.database.execute("ALTER TABLE away RENAME TO names"))
    assert store.claim("acme", 60, ANN)[0].secret_hash == b"ann"
    with pytest.raises(NameTaken):
        store.claim("short", 60, BOB)


def test_the_operator_releases_a_name_in_the_file(open_file, tmp_path):
    """Beside the relay that serves it, whose next sweep ends the token; a name that is not held is not found."""
    store = open_file(name_grace_seconds=GRACE_SECONDS)
    store.claim("acme", 60, ANN)
    path = str(tmp_path / "relay.db")
    assert not mark_released(path, "nothing")
    assert mark_released(path, "acme")
    assert store.pop_expired() == ["acme"]
    assert store.pop_expired() == []
    assert store.get("acme") is None
    assert store.claim("acme", 60, BOB)


def test_the_operator_is_told_of_a_file_that_is_none(tmp_path):
    """No file is made, and one of another version is not touched."""
    with pytest.raises(ConfigError):
        mark_released(str(tmp_path / "none.db"), "acme")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE names (name TEXT, is_released INTEGER)")
    with pytest.raises(ConfigError, match="no file of this version"):
        mark_released(str(tmp_path / "other.db"), "acme")
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]


def test_names_that_come_and_go_take_no_memory(clock):
    """The heap is made anew when most of it is of names that were let go or extended."""
    names = Names(clock, grace_seconds=10**6)

    def come_and_go(times):
        for number in range(times):
            names.restore(Hold("acme", b"x", "ann", clock.now + 10**6 + number))
            names.release("acme")

    tracemalloc.start()
    come_and_go(SPARE_ENTRIES)  # what is spare is used by then
    before, _ = tracemalloc.get_traced_memory()
    come_and_go(3 * SPARE_ENTRIES)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(names) == 0
    assert after - before < SPARE_ENTRIES * 64  # less than an entry of the heap for each
