"""The contract of `TokenStore`, held against every store."""

from functools import partial

import pytest

from socket2me_flask.errors import TooManyTokens
from socket2me_flask.stores import MemoryStore, TokenRecord
from socket2me_flask.tokens import new_token

STORES = {"memory": MemoryStore}


@pytest.fixture(params=STORES)
def make_store(request, clock):
    return partial(STORES[request.param], clock)


@pytest.fixture
def store(make_store):
    return make_store()


def test_a_token_lives_until_its_time_is_over(store, clock):
    """Expiry is checked on read, to the instant, and waits for no sweep."""
    token = new_token()
    assert not store.get(token)
    store.add(token, 60.5)
    clock.now += 60.4
    assert store.get(token)
    clock.now += 0.1
    assert not store.get(token)
    assert not store.refresh(token)


def test_refresh_gives_a_token_its_whole_time_again(store, clock):
    """A refreshed token lives as long as a new one; the sweep at its old time spares it."""
    token = new_token()
    store.add(token, 60)
    clock.now += 50
    assert store.refresh(token)
    clock.now += 50
    assert store.pop_expired() == []
    assert store.get(token)
    clock.now += 11
    assert store.pop_expired() == [token]


def test_refresh_of_an_unknown_token_is_refused(store):
    """Refresh creates nothing."""
    token = new_token()
    assert not store.refresh(token)
    assert not store.get(token)


def test_expired_tokens_are_popped_once(store, clock):
    """A sweep returns each expired token once, at the latest a second after it expired, and no live one."""
    short, long = new_token(), new_token()
    store.add(short, 10)
    store.add(long, 1000)
    clock.now += 9
    assert store.pop_expired() == []
    clock.now += 2
    assert store.pop_expired() == [short]
    assert store.pop_expired() == []
    assert store.get(long)


def test_a_popped_token_can_be_added_again(store, clock):
    """Nothing of an expired token stays behind."""
    token = new_token()
    store.add(token, 10)
    clock.now += 20
    store.pop_expired()
    store.add(token, 10)
    assert store.get(token)
    clock.now += 20
    assert store.pop_expired() == [token]


def test_a_record_says_what_was_kept(store, clock):
    """Lifetime, end and secret, also after a refresh."""
    token = new_token()
    record = store.add(token, 60, secret_hash=b"hash")
    assert record == store.get(token) == TokenRecord(token, 60, clock.now + 60, b"hash")
    clock.now += 10
    assert store.refresh(token) == store.get(token) == TokenRecord(token, 60, clock.now + 60, b"hash")


def test_a_removed_token_is_gone(store, clock):
    """At once, once, and no sweep finds it."""
    token, other = new_token(), new_token()
    store.add(token, 60)
    store.add(other, 60)
    assert store.remove(token)
    assert store.get(token) is None
    assert not store.remove(token)
    assert store.refresh(token) is None
    clock.now += 61
    assert store.pop_expired() == [other]
    assert not store.remove(other)


def test_the_number_of_tokens_has_a_bound(make_store, clock):
    """The next one is refused; when one has gone, there is room."""
    store = make_store(max_tokens=2)
    store.add(new_token(), 10)
    token = new_token()
    store.add(token, 60)
    with pytest.raises(TooManyTokens):
        store.add(new_token(), 60)
    clock.now += 12
    store.pop_expired()
    store.add(new_token(), 60)
    store.remove(token)
    store.add(new_token(), 60)


def test_tokens_that_have_expired_take_no_place(make_store, clock):
    """Whether or not they were swept; the sweep still hears of them."""
    store = make_store(max_tokens=1)
    first, second = new_token(), new_token()
    store.add(first, 10)
    clock.now += 12
    store.add(second, 10)
    assert store.pop_expired() == [first]
    assert store.get(second)


def test_ping_answers(store):
    """A store that works says so by returning."""
    store.ping()


def test_the_work_of_a_sweep_follows_what_expired(clock):
    """A sweep of the memory store touches what expired and nothing else, however many tokens live."""

    class CountingBuckets(dict):
        popped = 0

        def pop(self, key):
            type(self).popped += 1
            return super().pop(key)

        def __iter__(self):
            raise AssertionError("a sweep walked over all buckets")

        keys = values = items = __iter__

    store = MemoryStore(clock)
    store._buckets = CountingBuckets()
    for number in range(10_000):
        store.add(new_token(), 1000 + number % 500)
    for _ in range(10):
        store.add(new_token(), 5)
    clock.now += 6
    assert len(store.pop_expired()) == 10
    assert CountingBuckets.popped == 1
