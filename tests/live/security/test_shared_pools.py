"""What many share, one address does not take from the others: attacks from 127.0.0.2, seen from 127.0.0.1.

`attack.py` has the bounds.
"""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest
import requests

from tests.support.attack import ATTACKER, assert_harmless, connect
from tests.support.raw import Raw, RawWebSocket
from tests.support.redis_server import Redis
from tests.support.servers import Server, wait_until


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def relay(request, tmp_path_factory):
    """A relay with mailboxes, in each of the stores that has them."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/relay.db"
        with Server(STORE_URL=url, MAX_BODY_BYTES=8_000_000) as server:
            yield server
    else:
        with Redis() as redis, Server(STORE_URL=redis.url, MAX_BODY_BYTES=8_000_000) as server:
            yield server


def ask_and_do_not_read(port, path, secret, count, seconds):
    """Ask for the same again and again over connections of their own, and read no more than each status."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n".encode()
    socks = [connect(port) for _ in range(count)]
    statuses = []
    for sock in socks:
        with contextlib.suppress(OSError):  # where few files may be open, one address has fewer connections
            sock.sendall(request)
    for sock in socks:
        with contextlib.suppress(OSError):
            statuses.append(sock.recv(12))
    assert b"HTTP/1.1 200" in statuses and b"HTTP/1.1 429" in statuses, set(statuses)
    time.sleep(seconds)
    for sock in socks:
        sock.close()


def test_events_that_are_asked_for_and_not_read(relay):
    """300 unread answers with an event of 2 MB: few are on their way, and the others are refused at once."""
    made = relay.new_with_secret(mailbox=True)
    event_id = relay.go(made["token"], data=bytes(2_000_000)).json()["id"]
    path = f"/v1/tokens/{made['token']}/events/{event_id}"
    assert_harmless(relay, ask_and_do_not_read, path, made["secret"], 300, 2, growth_bytes=40_000_000)
    shown = requests.get(relay.url + path, headers={"Authorization": f"Bearer {made['secret']}"}, timeout=5)
    assert shown.status_code == 200
    assert len(shown.json()["body"]) == 4 * -(-2_000_000 // 3)


def test_an_answer_counts_until_it_was_read(relay):
    """For one token two at a time, and again as soon as one caller has left; other tokens are not concerned."""
    made, other = (relay.new_with_secret(mailbox=True) for _ in range(2))
    ids = [relay.go(each["token"], data=bytes(8_000_000)).json()["id"] for each in (made, other)]

    def show(each, event_id):
        raw = Raw(relay.port)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else all of it may fit in there
        raw.send(
            f"GET /v1/tokens/{each['token']}/events/{event_id} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {each['secret']}\r\n\r\n".encode()
        )
        return raw, int(raw.read_until(b"\r\n\r\n")[9:12])

    (first, first_status), (second, second_status), (third, third_status) = (show(made, ids[0]) for _ in range(3))
    fourth, fourth_status = show(other, ids[1])
    assert (first_status, second_status, third_status, fourth_status) == (200, 200, 429, 200)
    first.close()
    deadline = time.monotonic() + 15
    while True:
        fifth, status = show(made, ids[0])
        fifth.close()
        if status == 200:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for raw in (second, third, fourth):
        raw.close()


@pytest.mark.parametrize("relay", ["sqlite"], indirect=True)
def test_how_often_the_events_of_a_token_may_be_asked_for(relay):
    """Beyond the rate it is 429, which says when to call again. No store knows of it."""
    made = relay.new_with_secret(mailbox=True)
    url = f"{relay.url}/v1/tokens/{made['token']}/events/none"
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {made['secret']}"
        statuses = []
        while 429 not in statuses and len(statuses) < 2500:  # two whole windows
            answer = session.delete(url, timeout=5)
            statuses.append(answer.status_code)
    assert set(statuses) == {404, 429}
    assert len(statuses) > 1200
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


def send_bodies(port, path, content_type, kind, seconds):
    """Send one large body after another."""
    deep = b"[" + (b"[" * 499 + b"0" + b"]" * 499 + b",") * 2000 + b"0]"
    body = {"deep": deep, "escapes": b"a=" + "é%41".encode() * 199_000}[kind]
    connection = HTTPConnection("127.0.0.1", port, source_address=(ATTACKER, 0))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.request("POST", path, body, {"Content-Type": content_type})
        assert connection.getresponse().read()
    connection.close()


def read_and_forget(sock):
    with contextlib.suppress(OSError):
        while sock.recv(1_000_000):
            pass


@pytest.mark.parametrize(
    ("content_type", "kind"), [("application/json", "deep"), ("application/x-www-form-urlencoded", "escapes")]
)
def test_bodies_that_are_dear_to_parse(content_type, kind):
    """JSON nested as deep as may be, and a form of as many escapes as may be, delay no other call for long."""
    with Server() as relay, RawWebSocket(relay.port) as client:
        token = relay.new()
        client.join(token)
        threading.Thread(target=read_and_forget, args=(client.socket,), daemon=True).start()
        assert_harmless(relay, send_bodies, f"/v1/go/{token}", content_type, kind, 2, growth_bytes=150_000_000)


def call_and_wait(port, tokens, count, seconds):
    """Call tokens that have no client, all at the same time, and wait for no answer."""
    socks = [connect(port) for _ in range(count)]
    for number, sock in enumerate(socks):
        path = f"/v1/go/{tokens[number % len(tokens)]}"
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    time.sleep(seconds)
    for sock in socks:
        sock.close()


def test_one_address_leaves_places_where_calls_are_held():
    """It calls 10 tokens at once; a stranger's call is held meanwhile, and served when its client comes."""
    with Server(HOLD_SECONDS=6) as relay, ThreadPoolExecutor() as pool:
        tokens = [relay.new() for _ in range(10)]
        attack = pool.submit(assert_harmless, relay, call_and_wait, tokens, 700, 3)
        wait_until(lambda: "MAX_HELD_REQUESTS or MAX_HELD_BYTES reached" in relay.log, "the attacker has its share")
        call = pool.submit(relay.go, token := relay.new())
        with RawWebSocket(relay.port) as client:
            time.sleep(0.2)  # it would have been refused at once
            assert not call.done()
            client.join(token)
            assert call.result().text == "OK"
        attack.result()


def fill_mailboxes(port, tokens, size):
    """Send large events to each token until one is refused for all tokens."""
    connection = HTTPConnection("127.0.0.1", port, source_address=(ATTACKER, 0))
    statuses = []
    while 503 not in statuses:
        for token in tokens:
            connection.request("POST", f"/v1/go/{token}", bytes(size))
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            assert answer.status in (202, 429, 503), answer.status
    connection.close()


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_few_tokens_leave_room_in_mailboxes(store, tmp_path):
    """They fill the pool with large events; a stranger's event is kept all the same, and has its own bound."""
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/relay.db" if store == "sqlite" else stack.enter_context(Redis()).url
        bounds = {"MAILBOX_TOTAL_BYTES": 20_000_000, "MAILBOX_MAX_BYTES": 8_000_000}
        relay = stack.enter_context(Server(STORE_URL=url, **bounds))
        tokens = [relay.new_with_secret(mailbox=True)["token"] for _ in range(4)]
        assert_harmless(relay, fill_mailboxes, tokens, 1_000_000)
        stranger = relay.new_with_secret(mailbox=True)["token"]
        assert relay.go(stranger, data=bytes(50_000)).status_code == 202
        assert relay.go(stranger, data=bytes(1_000_000)).status_code == 503
