"""Rates in memory, and pools that many share."""

import limits
import pytest
from limits.errors import StorageError
from limits.storage import MemoryStorage

from socket2me_flask import limits as ours
from socket2me_flask.errors import StoreUnavailable
from socket2me_flask.limits import FastRate, Pool, SharedRate, address_key


def test_a_rate_counts_each_key_in_a_window():
    """A call over it receives the time until the window ends."""
    now = [100.0]
    rate = FastRate(limits.parse("2/minute"), lambda: now[0])
    assert [rate.hit("a"), rate.hit("a"), rate.hit("b")] == [None, None, None]
    now[0] += 20.5
    assert rate.hit("a") == 40
    now[0] += 40
    assert rate.hit("a") is None


def test_a_rate_counts_so_many_keys(monkeypatch):
    """A peer with very many addresses takes no more memory: all are counted from the start again."""
    monkeypatch.setattr(ours, "MAX_RATE_KEYS", 3)
    rate = FastRate(limits.parse("1/minute"), lambda: 0.0)
    assert [rate.hit("a"), rate.hit("b")] == [None, None]
    assert rate.hit("a") is not None
    assert rate.hit("c") is None
    assert rate.hit("a") is None


def test_one_key_takes_half_of_a_pool():
    """The next takes half of what is left, and what is given back is free."""
    pool = Pool(100)
    pool.take("a", 50)
    assert not pool.has_room("a", 1)
    assert pool.has_room("b", 25)
    pool.take("b", 25)
    assert not pool.has_room("b", 1)
    pool.give_back("a", 50)
    assert pool.has_room("b", 25)
    assert pool.used == 25


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:8000", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:8000", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("[2001:db8::5]:8000", "2001:db8::/64"),
        ("unix", "unix"),
    ],
)
def test_what_counts_as_one_address(address, key):
    """However it is written: with a port, or as IPv6 where a listener of both families accepts IPv4."""
    assert address_key(address) == key


class LostStorage(MemoryStorage):
    """A storage that fails when it is asked."""

    def incr(self, *args, **options):
        raise StorageError(ConnectionError())


def test_a_rate_whose_storage_fails_is_unavailable():
    """Its callers are answered `503`, and are not let through uncounted."""
    with pytest.raises(StoreUnavailable):
        SharedRate(limits.parse("1/minute"), "new", LostStorage()).hit("a")
