"""Relays of two versions on one Redis, as during a rolling upgrade; and messages of a version yet to come."""

import os
import time

import msgspec
import pytest
import redis as redis_library
import requests

from socket2me_flask.cluster.messages import FIELDS
from tests.support.delivery import Acknowledging, Caller, bearer, events
from tests.support.redis_server import Redis
from tests.support.servers import Previous, PythonListener, Server, wait_until

HEADERS = {"X-Test": "7", "Content-Type": "text/plain"}

SETTINGS = {
    "HOLD_SECONDS": 5,
    "ACK_TIMEOUT_SECONDS": 5,
    "REPLY_TIMEOUT_SECONDS": 5,
    "REAPER_INTERVAL_SECONDS": 0.2,
}


@pytest.fixture(scope="module")
def relays(previous):
    """A relay of the previous release, and one of this, on one Redis."""
    with (
        Redis() as redis,
        Previous(previous, STORE_URL=redis.url, **SETTINGS) as old,
        Server(STORE_URL=redis.url, **SETTINGS) as new,
    ):
        yield {"old": old, "new": new, "redis": redis}


@pytest.fixture(params=["client at the new", "client at the old"])
def sides(request, relays):
    """Where the client is, and where its callers are."""
    sides = relays["new"], relays["old"]
    return sides if request.param == "client at the new" else sides[::-1]


def test_a_call_crosses(sides):
    """Whole: method, path, query, headers and body, small and large."""
    here, there = sides
    token = there.new()
    with PythonListener(here, token) as client:
        client.expect("connect")
        for size in (10, 100_000):
            body = os.urandom(size)
            answer = there.go(token, "PUT", "/a%20b?c=d", data=body, headers={"X-Test": "7"})
            assert (answer.status_code, answer.text) == (200, "OK")
            got = client.expect("request")
            assert (got["method"], got["path"], got["query"]) == ("PUT", "/a%20b", "c=d")
            assert (got["headers"]["x-test"], got["body"]) == ("7", body)
            assert "remote_addr" not in got  # the release before neither sends nor shows it


def test_what_a_client_says_crosses(sides):
    """In mode `ack` and in mode `reply`; and that it left."""
    here, there = sides
    made = there.new_with_secret()
    with Acknowledging(here, made["token"], secret=made["secret"], mode="reply") as client:
        caller = Caller(there, made["token"])
        client.acknowledge(client.event()[0], 201, {"made": True}, {"X-Id": "7"})
        assert (caller.answer.status_code, caller.answer.json()) == (201, {"made": True})
        assert caller.answer.headers["X-Id"] == "7"
        caller = Caller(there, made["token"])
        client.acknowledge(client.event()[0], "no reply", 7)
        assert caller.answer.status_code == 502
        caller = Caller(there, made["token"])
        client.event()
    assert caller.answer.status_code == 503


def test_a_held_call_reaches_a_client_that_comes_elsewhere(sides):
    """The process that holds it is notified."""
    here, there = sides
    token = there.new()
    caller = Caller(there, token)
    wait_until(lambda: requests.get(f"{there.url}/readyz", timeout=5).ok, "it is ready")
    with PythonListener(here, token) as client:
        client.expect("connect")
        assert caller.answer.text == "OK"
        client.expect("request")


def test_a_mailbox_is_shared(sides):
    """Each delivers what the other kept, and the caller receives what the client says."""
    here, there = sides
    made = there.new_with_secret(mailbox=True)
    kept = [there.go(made["token"], data=b"x" * 5000, headers=HEADERS).json()["id"] for _ in range(3)]
    assert events(here, made)["waiting"] == kept
    with Acknowledging(here, made["token"], secret=made["secret"], mode="ack") as client:
        for event_id in kept:
            ack_id, request = client.event()
            assert (request["id"], request["headers"]["x-test"], len(request["body"])) == (event_id, "7", 5000)
            client.acknowledge(ack_id)
        caller = Caller(there, made["token"])
        client.acknowledge(client.event()[0])
        assert caller.answer.status_code == 200
        wait_until(lambda: not events(there, made)["waiting"], "nothing waits")
        caller = Caller(there, made["token"])
        _, request = client.event()
        url = f"{there.url}/v1/tokens/{made['token']}/events/{request['id']}"
        assert events(there, made)["in_flight"] == [request["id"]]
        assert requests.post(f"{url}/redeliver", headers=bearer(made), timeout=5).status_code == 202
        assert client.event()[1]["id"] == request["id"]  # and no word that it was dropped
        assert requests.delete(url, headers=bearer(made), timeout=5).status_code == 204


def test_news_of_a_token_cross(sides):
    """A newer client, a refresh, the end."""
    here, there = sides
    made = there.new_with_secret(ttl_seconds=60)
    with PythonListener(here, made["token"], auth={"secret": made["secret"]}) as first:
        first.expect("connect")
        with PythonListener(there, made["token"], auth={"secret": made["secret"]}) as second:
            second.expect("connect")
            first.expect("replaced")
            url = f"{here.url}/v1/refresh/{made['token']}"
            assert requests.get(url, headers=bearer(made), timeout=5).ok
            url = f"{here.url}/v1/tokens/{made['token']}"
            assert requests.delete(url, headers=bearer(made), timeout=5).status_code == 204
            second.expect("disconnect")


def test_no_relay_had_to_pass_anything_over(relays):
    """Run after the others: neither has failed at a message, or has lost one."""
    for name in ("old", "new"):
        assert "Traceback" not in relays[name].log
        assert "was not handled" not in relays[name].log
        assert "passed over" not in relays[name].log


# A version that is still to come

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.decode


class NewerPeer:
    """A process of a later version, with its client, as Redis has it."""

    def __init__(self, redis, token):
        self.name = "v9" + "0" * 16
        self.client = redis_library.Redis.from_url(redis.url)
        self._bus = self.client.pubsub()
        self._bus.subscribe(f"s2m:process:{self.name}")
        self.client.set(f"s2m:lease:{self.name}", "newer", ex=60)
        (self.relay,) = (key.decode().removeprefix("s2m:lease:") for key in self.client.keys("s2m:lease:v2*"))
        self.token = token

    def take_the_client(self):
        fields = {"process": self.name, "client": "c", "client_mode": "notify", "colour": "blue"}
        self.client.hset(f"s2m:token:{self.token}", mapping=fields)

    def receive(self):
        """Return the next message, not a subscription."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = self._bus.get_message(timeout=1)
            if found is not None and found["type"] == "message":
                return _decode(found["data"])
        raise AssertionError("nothing came")

    def send(self, *messages):
        self.client.publish(f"s2m:process:{self.relay}", _encode(messages))


@pytest.fixture
def newer():
    with Redis() as redis, Server(STORE_URL=redis.url, **SETTINGS) as server:
        yield server, NewerPeer(redis, server.new())


UNREADABLE = [["dance", {"slowly": True}], ["call", {"number": 1}], ["call", 1], [], 7, None, {"kind": "call"}]


def call_from(peer, number, token, **more):
    """A call with the fields that the release before knows, and more."""
    values = (peer.name, number, token, "POST", "/x", "", {}, b"hello", time.time(), f"{peer.name}-1", False)
    return ["call", {**dict(zip(FIELDS["call"], values, strict=False)), **more}]


def test_what_a_newer_peer_adds_is_passed_over(newer):
    """Kinds and fields that are unknown drop nothing but themselves, in whichever place of a batch."""
    server, peer = newer
    with PythonListener(server, peer.token) as client:
        client.expect("connect")
        peer.send(*UNREADABLE, call_from(peer, 7, peer.token, priority="high"), *UNREADABLE)
        assert client.expect("request")["path"] == "/x"
        assert peer.receive() == [["notified", {"numbers": [7]}]]
        peer.client.publish(f"s2m:process:{peer.relay}", b"\xc1 no message at all")
        peer.send(["call", *call_from(peer, 8, peer.token)[1].values(), "and more"])  # longer, by position
        assert client.expect("request")
        assert peer.receive() == [["notified", {"numbers": [8]}]]
        assert server.log.count("are skipped") == 1
        assert "Traceback" not in server.log
        assert server.go(peer.token).text == "OK"


def test_a_newer_peer_is_asked_by_name(newer):
    """A call to its client has named fields; its answers may have more than this version knows."""
    server, peer = newer
    peer.take_the_client()
    caller = Caller(server, peer.token, data=b"hello")
    ((kind, fields),) = peer.receive()
    assert kind == "call"
    assert set(fields) == set(FIELDS["call"])
    assert (fields["token"], fields["body"]) == (peer.token, b"hello")
    outcome = {"status": 201, "headers": [["X-Id", "7"]], "body": b"made", "trailers": []}
    peer.send(["handed", {"process": peer.name, "number": fields["number"], "mode": "reply", "priority": 1}])
    peer.send(["outcome", {"number": fields["number"], "outcome": outcome, "cost": 3}])
    assert (caller.answer.status_code, caller.answer.headers["X-Id"], caller.answer.text) == (201, "7", "made")


def test_an_event_that_a_newer_peer_kept_is_delivered(newer):
    """Its entry may have other fields, and its content be by name."""
    server, peer = newer
    made = server.new_with_secret(mailbox=True)
    token, event_id = made["token"], server.go(made["token"], data=b"hello", headers=HEADERS).json()["id"]
    stream = f"s2m:events:{token}"
    ((number, kept),) = peer.client.xrange(stream)
    method, _, query, headers, received_at, is_legacy = _decode(kept[b"content"])
    assert _decode(kept[b"more"])["remote_addr"] == "127.0.0.1"
    named = {"method": method, "path": "/newer", "query": query, "headers": headers, "received_at": received_at}
    named |= {"is_legacy": is_legacy, "colour": "blue"}
    peer.client.delete(stream)
    peer.client.xadd(
        stream, {"version": 9, "body": kept[b"body"], "content": _encode(named)}, id=number
    )  # no `more`
    state = _decode(peer.client.hget(f"s2m:box:{token}", event_id), strict=False)
    peer.client.hset(f"s2m:box:{token}", event_id, _encode({**state, "colour": "blue"}))
    with Acknowledging(server, token, secret=made["secret"], mode="ack") as client:
        ack_id, request = client.event()
        assert (request["id"], request["path"], request["body"]) == (event_id, "/newer", "hello")
        assert "remote_addr" not in request
        wait_until(
            lambda: _decode(peer.client.hget(f"s2m:box:{token}", event_id))["attempts"] == 1,
            "the attempt is counted",
        )
        assert _decode(peer.client.hget(f"s2m:box:{token}", event_id))["colour"] == "blue"
        client.acknowledge(ack_id)
        wait_until(lambda: not events(server, made)["waiting"], "nothing waits")
