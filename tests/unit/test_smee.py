"""Channels without a server: keys, events, and what is answered before a stream begins."""

import json
import select
import socket
import time
from urllib.parse import urlsplit

import pytest

from socket2me_flask import create_app, get_services
from socket2me_flask.errors import ClientGone, StoreUnavailable, UnknownEvent
from socket2me_flask.relay.call import Call
from socket2me_flask.smee.channel_keys import ChannelKey, parse_key
from socket2me_flask.smee.frames import PING, READY, gosmee_message, smee_message
from socket2me_flask.smee.receipts import Receipts
from socket2me_flask.smee.resume import Predecessor, find_position, new_listener, predecessor_of
from socket2me_flask.storage import Position
from tests.support.fakes import call_for
from tests.support.servers import DEADLINE_SECONDS, wait_until
from tests.support.smee import EVENT_STREAM

SECRET = f"s2m_{'A-_9' * 10}abc"
LISTENS = {"Accept": EVENT_STREAM}


def call(body: bytes = b"", content_type: str = "", query: str = "", **headers: str) -> Call:
    sent = headers | ({"content-type": content_type} if content_type else {})
    return Call("t" * 24, "POST", "/a", query, sent, body, 1700000000.1234, id="v2ab-1", request_id="r1")


def data_of(event: bytes) -> dict:
    id_line, data, *end = event.decode().split("\n")
    assert (id_line, end) == ("id: v2ab-1", ["", ""])
    return json.loads(data.removeprefix("data: "))


@pytest.mark.parametrize("token", ["t" * 24, "acme-dev", "a-b-c"])
def test_a_key_is_a_token_and_a_secret(token):
    """Of a token or a name, with the dashes that both may have."""
    key = ChannelKey(token, SECRET)
    assert parse_key(str(key)) == key
    assert parse_key(token) == (token, None)


@pytest.mark.parametrize(
    "text", ["", "-", "A", "a/b", f"a-{SECRET}x", f"-{SECRET}", f"a{SECRET}", "a" * 200, "a\n"]
)
def test_what_is_no_key_is_found_out_at_once(text):
    """Or is taken for the name of an open channel, of which there is none."""
    key = parse_key(text)
    assert key is None or key.secret is None


def test_events_are_those_of_smee_io():
    """Headers beside `body`, `query` and `timestamp`, a number of milliseconds; control events have no id."""
    event = smee_message(call(b'{"a": 1}', "application/json", "x=1&y=2&y=3&z", **{"x-github-event": "push"}))
    assert data_of(event) == {
        "content-type": "application/json",
        "x-github-event": "push",
        "body": {"a": 1},
        "query": {"x": "1", "y": ["2", "3"], "z": ""},
        "timestamp": 1700000000123,
    }
    assert READY == b"event: ready\nretry: 1000\ndata: {}\n\n"
    assert PING == b"event: ping\ndata: {}\n\n"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", "application/json", None),
        (b"null", "application/json", None),
        (b'{\n "a":\r\n [1]\r}', "application/json", {"a": [1]}),
        (b'{"a": "\\n"}', "application/vnd.github+json; charset=utf-8", {"a": "\n"}),
        (b"{", "application/json", "{"),
        (b"payload=%7B%7D&a=1&a=2", "application/x-www-form-urlencoded", {"payload": "{}", "a": ["1", "2"]}),
        ("grün".encode(), "text/plain", "grün"),
        (b"a\nb\r\n\nid: 1\n\n", "text/plain", "a\nb\r\n\nid: 1\n\n"),
        (b"a\xff\x00", "application/octet-stream", "a\ufffd\x00"),
        (b"\xff", "application/json", "\ufffd"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; '
            b'name="f"; filename="n"\r\nContent-Type: text/plain\r\n\r\nx\xff\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            {"a": "1", "f": {"filename": "n", "content_type": "text/plain", "data": "x\ufffd"}},
        ),
    ],
)
def test_the_body_is_always_there(body, content_type, expected):
    """As JSON, an object of a form's fields, text or null; whatever is in it, the event is one line of data."""
    data = data_of(smee_message(call(body, content_type)))
    assert data["body"] == expected
    assert "body" in data


def test_numbers_arrive_as_they_were_sent():
    """JSON is not rebuilt: no parser of the relay rounds a number or drops a member that comes twice."""
    body = b'{"id": 12345678901234567890123, "x": 1.10, "x": 2}'
    assert body in smee_message(call(body, "application/json"))


HEADERS_LEFT_OUT = {
    "connection": "close, X-Hop",
    "x-hop": "1",
    "keep-alive": "timeout=5",
    "proxy-authorization": "x",
    "te": "trailers",
    "trailer": "x",
    "transfer-encoding": "chunked",
    "upgrade": "h2c",
    "expect": "100-continue",
    "content-encoding": "gzip",
    "sec-fetch-mode": "navigate",
    "body": "a",
    "bodyb": "a",
    "query": "a",
    "timestamp": "a",
    "x-line": "a\nb",
    "x-delete": "a\x7f",
    "x-beyond": "\u20ac",
    "x(name)": "a",
}


@pytest.mark.parametrize("message", [smee_message, gosmee_message])
def test_headers_that_no_client_can_send_on_are_left_out(message):
    """Hop-by-hop headers, those that clash with a member, and those that Node refuses; all others arrive."""
    kept = {"host": "h", "x-latin": "\xe9\x80", "user-agent": "a\tb", "content-length": "0", "x-empty": ""}
    sent = call()
    sent.headers = HEADERS_LEFT_OUT | kept
    data = data_of(message(sent))
    for name in ("body", "bodyB", "query", "timestamp"):
        data.pop(name, None)
    assert data == kept


def test_the_form_of_gosmee_has_the_exact_bytes():
    """In base64 as `bodyB`, without `body`; the time is a string. `x-request-id` is there if nothing like it is."""
    assert data_of(gosmee_message(call(b"\xff\x00{", **{"user-agent": "curl"}))) == {
        "user-agent": "curl",
        "bodyB": "/wB7",
        "query": {},
        "timestamp": "1700000000123",
    }
    assert data_of(gosmee_message(call()))["x-request-id"] == "r1"


def new_channel(http, **kwargs) -> str:
    answer = http.get("/smee/new", **kwargs)
    assert answer.status_code == 307
    return urlsplit(answer.headers["Location"]).path


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_channel_is_made_and_redirected_to(http, method):
    """307, by an absolute URL that no cache keeps."""
    answer = http.open("/smee/new", method=method, base_url="https://relay.example:8443")
    assert answer.status_code == 307
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Location"].startswith("https://relay.example:8443/smee/")


def test_the_public_url_is_that_of_channels():
    """If the operator has set it, whatever host was asked."""
    http = create_app({"PUBLIC_URL": "https://hooks.example"}).test_client()
    assert http.get("/smee/new").headers["Location"].startswith("https://hooks.example/smee/")


def test_channels_are_for_those_who_may_have_a_token():
    """The keys and the rate of new tokens hold for channels, which count as such."""
    http = create_app({"API_KEYS": ("k",), "RATE_LIMIT_NEW": 0}).test_client()
    assert http.get("/smee/new").status_code == 401
    new_channel(http, headers={"Authorization": "Bearer k"})
    app = create_app()
    http = app.test_client()
    statuses = [http.head("/smee/new").status_code for _ in range(61)]
    assert (statuses[0], statuses[-1]) == (307, 429)
    assert get_services(app).relay.tokens_issued == 60


def test_who_may_post_may_not_listen(http):
    """What is no key of a channel is answered alike: a token, a wrong secret, one of another channel."""
    path, other = new_channel(http), new_channel(http)
    token = path.removeprefix("/smee/").partition("-")[0]
    secret = other.partition("-")[2]
    open_token = http.get("/v1/new").text
    answers = {
        (answer.status_code, answer.data)
        for guess in (token, f"{token}-{secret}", f"{path[6:]}x", open_token, f"{open_token}-{secret}", "none")
        for prefix in ("/smee/", "/smee/events/")
        for answer in [http.get(prefix + guess, headers=LISTENS)]
    }
    assert [status for status, _ in answers] == [404]
    assert http.get(f"/smee/{token}").status_code == 404
    assert http.head(path, headers=LISTENS).headers["Content-Type"] == EVENT_STREAM


def test_a_call_to_the_listening_url_is_refused(http):
    """With the URL to post to, so that no sender is given the key; without a right key, as anything unknown."""
    path = new_channel(http)
    answer = http.post(path)
    assert answer.status_code == 403
    assert f"/v1/go/{path[6:30]}" in answer.json["error"]["message"]
    assert http.post(f"{path}x").status_code == 404


def test_the_page_of_a_channel_shows_both_urls(http):
    """Without a script, and under the policy of the inspector's page."""
    path = new_channel(http)
    answer = http.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert f"http://localhost{path}" in answer.text
    assert f"http://localhost/v1/go/{path[6:30]}<" in answer.text
    assert "<script" not in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert (answer.headers["Cache-Control"], answer.headers["Vary"]) == ("no-store", "Accept")


def test_an_open_channel_has_one_url():
    """Where the operator says so: the token alone may listen, and a call to it is forwarded."""
    http = create_app({"SMEE_OPEN_CHANNELS": True, "HOLD_SECONDS": 0}).test_client()
    path = new_channel(http)
    assert len(path) == len("/smee/") + 24
    with http.get(path, headers=LISTENS) as stream:
        events = iter(stream.response)
        assert next(events) == READY
        assert http.post(f"{path}?a=1", json={"b": 2}).text == "OK"
        event = json.loads(next(events).decode().split("data: ")[1])
        assert (event["body"], event["query"]) == ({"b": 2}, {"a": "1"})
    assert f"http://localhost{path}<" in http.get(path).text


def test_a_relay_whose_tokens_all_have_secrets_makes_no_open_channel():
    """`REQUIRE_SECRET` holds for channels as for any new token."""
    http = create_app({"SMEE_OPEN_CHANNELS": True, "REQUIRE_SECRET": True}).test_client()
    key = parse_key(new_channel(http).rpartition("/")[2])
    assert key is not None
    assert key.secret is not None


def test_a_store_that_is_away_ends_no_client(app, http, monkeypatch):
    """What is temporary is a stream that ends at once, and states when to reconnect."""
    path = new_channel(http)

    def fail(token):
        raise StoreUnavailable

    monkeypatch.setattr(get_services(app).store, "get", fail)
    answer = http.get(path, headers=LISTENS)
    assert (answer.status_code, answer.data) == (200, b"retry: 5000\n\n")
    assert answer.headers["Content-Type"] == EVENT_STREAM
    assert http.get(path).status_code == 503


def test_so_does_no_fault_of_the_relay(app, http, monkeypatch, caplog):
    """A stream that fails to begin is logged, and its client tries again."""
    monkeypatch.setattr(get_services(app).streams, "open", lambda *_, **__: 1 / 0)
    answer = http.get(new_channel(http), headers=LISTENS)
    assert (answer.status_code, answer.data) == (200, b"retry: 5000\n\n")
    assert "ZeroDivisionError" in caplog.text


def test_limits_and_the_end_of_the_process_end_no_client():
    """As many connections as there may be, or a process that drains: a client tries again later."""
    app = create_app({"MAX_CONNECTIONS": 1, "MAX_CONNECTIONS_PER_ADDRESS": 1})
    http = app.test_client()
    path = new_channel(http)
    with http.get(path, headers=LISTENS) as stream:
        assert next(iter(stream.response)) == READY
        assert http.get(path, headers=LISTENS).data == b"retry: 5000\n\n"
        assert get_services(app).answers.limits_reached == {"SOCKET2ME_MAX_CONNECTIONS": 1}
    with http.get(path, headers=LISTENS) as stream:
        events = iter(stream.response)
        assert next(events) == READY
        get_services(app).lifecycle.drain()
        assert list(events) == [b"retry: 1000\n\n"]
    assert http.get(path, headers=LISTENS).data == b"retry: 1000\n\n"
    for answer in (http.get("/smee/new"), http.get(path), http.post(path)):
        assert answer.status_code == 503


def test_a_channel_does_not_expire_while_a_client_listens(app, http, clock):
    """Its token is refreshed when a client connects, if a quarter of its life is over."""
    services = get_services(app)
    ttl = services.settings.max_ttl_seconds

    def listen():
        with http.get(path, headers=LISTENS) as stream:
            next(iter(stream.response))
        return services.store.get(token).expires_at - clock.now

    path = new_channel(http)
    token = path[6:30]
    clock.now += ttl - 5
    assert listen() == ttl
    clock.now += ttl - 5
    assert listen() == ttl


def test_another_token_is_no_channel(http):
    """With listeners: newest, two stock clients would replace each other for ever: a right key is refused."""
    made = http.post("/v1/new", json={}).json
    answer = http.get(f"/smee/{made['token']}-{made['secret']}", headers=LISTENS)
    assert answer.status_code == 403
    assert "listeners: all" in answer.json["error"]["message"]
    assert http.get(f"/smee/{made['token']}-{SECRET}", headers=LISTENS).status_code == 404
    made = http.post("/v1/new", json={"listeners": "all"}).json
    assert http.get(f"/smee/{made['token']}-{made['secret']}").status_code == 200


def test_a_client_that_receives_the_head_is_attached(app, http, monkeypatch):
    """So a call that comes just after is not missed. One that comes before is sent after the head, and not lost."""
    services = get_services(app)
    key = parse_key(new_channel(http).rpartition("/")[2])
    detached, client = socket.socketpair()
    detached.setblocking(False)
    attach, sent_before = services.relay.presence.attach, []

    def attach_and_call(token, stream):
        attach(token, stream)
        sent_before.extend(select.select([client], [], [], 0)[0])
        assert http.post(f"/v1/go/{token}", data=b"1").status_code == 200

    monkeypatch.setattr(services.streams.engine.loop, "detach_socket", lambda environ: detached)
    monkeypatch.setattr(services.streams.engine.loop, "watch", lambda reader: StopIteration())
    monkeypatch.setattr(services.relay.presence, "attach", attach_and_call)
    with client, detached:
        with pytest.raises(StopIteration):
            http.get(f"/smee/{key}", headers=LISTENS, environ_base={"socket2me.connection": None})
        head, _, events = client.recv(65536).partition(b"\r\n\r\n")
    assert sent_before == []
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert events.index(b"event: ready") < events.index(b'"body":"1"')


def test_too_many_streams_of_a_channel_end_no_client(app, http, monkeypatch):
    """It is a limit as any other is: the next one is asked to try again later."""
    monkeypatch.setattr("socket2me_flask.relay.listeners.MAX_LISTENERS_PER_TOKEN", 1)
    path = new_channel(http)
    with http.get(path, headers=LISTENS) as stream:
        assert next(iter(stream.response)) == READY
        assert http.get(path, headers=LISTENS).data == b"retry: 5000\n\n"
        assert get_services(app).answers.limits_reached == {"MAX_LISTENERS_PER_TOKEN": 1}
    assert len(get_services(app).streams) == 0


def test_an_event_is_acknowledged_when_the_peer_has_had_it_for_a_while():
    """Not when it was written, nor while its bytes are in the send queue, nor if the peer has acknowledged nothing
    since, as one that is gone. Later events are acknowledged later."""
    receipts, acknowledged = Receipts(), []

    def check(now, *, up_to, written, received):
        for on_ack in receipts.check(now, 50, lambda number: number <= up_to, written, received):
            on_ack([])
        return acknowledged

    for number in (3, 4, 7):
        receipts.add(number, lambda _, number=number: acknowledged.append(number))
    assert check(0, up_to=2, written=100, received=100) == []  # none was written
    assert check(20, up_to=4, written=200, received=150) == []
    assert check(1000, up_to=4, written=200, received=199) == []  # the peer does not have it all
    assert check(1020, up_to=7, written=300, received=250) == []  # it has the first two, from now on
    assert check(1069, up_to=7, written=320, received=320) == []
    assert check(1070, up_to=7, written=320, received=300) == []
    assert check(1070, up_to=7, written=320, received=301) == [3, 4]
    assert check(1118, up_to=7, written=340, received=340) == [3, 4]
    assert check(1119, up_to=7, written=340, received=320) == [3, 4]
    assert check(1119, up_to=7, written=340, received=321) == [3, 4, 7]
    assert len(receipts) == 0


def test_receipts_are_looked_at_while_there_are_some(channel):
    """By a timer of their own, so that a mailbox holds events for little longer than it has to."""
    streams = channel.streams
    stream = channel.connect()
    assert len(streams.receipts) == 0
    event_id = channel.call()
    assert ids_of(stream, 1) == [event_id]
    assert len(streams.receipts) == 1
    channel.end(stream)
    assert len(streams.receipts) == 0


def test_what_is_not_acknowledged_is_forgotten_or_given_back():
    """An event that is dropped waits no more; those of a stream that ends are taken back."""
    receipts, taken = Receipts(), []
    first = receipts.add(1, taken.append)
    receipts.add(2, taken.append)
    receipts.forget(first)
    for on_ack in receipts.take_all():
        on_ack(None)
    assert taken == [None]
    assert receipts.check(0, 0, lambda _: True, 0, 0) == []


class Positions:
    """Of a store, what `find_position` asks: events 1 to 9 have ids `e1` to `e9`, as far as they are kept."""

    def __init__(self, oldest: int, **numbers: int) -> None:
        self._oldest = oldest
        self._numbers = {name.replace("_", ":"): number for name, number in numbers.items()}

    def number_of(self, token, event_id):
        number = int(event_id.removeprefix("e"))
        if number < self._oldest:
            raise UnknownEvent
        return number

    def positions(self, token):
        return [Position(name, number, 0.0, 0) for name, number in self._numbers.items()]


@pytest.mark.parametrize(
    ("positions", "last_event_id", "connected", "expected"),
    [
        (Positions(1), None, set(), (None, None)),  # the first: it begins with the oldest event
        (Positions(1), "e3", set(), (None, 3)),
        (Positions(1, smee_a=2, smee_b=5), None, set(), ("smee:b", None)),  # a program that was started again
        (Positions(1, smee_a=2, smee_b=5), None, {"smee:b"}, ("smee:a", None)),
        (Positions(1, smee_a=2, smee_b=5), "e6", set(), ("smee:b", 6)),
        (Positions(1, smee_a=2, smee_b=5), "e5", set(), ("smee:b", 5)),
        (Positions(1, smee_a=2, smee_b=5), "e4", set(), ("smee:a", 4)),  # `b` is of a client that has more
        (Positions(1, smee_a=2, smee_b=5), "e1", set(), (None, 1)),
        (Positions(1, smee_a=2), "e4", {"smee:a"}, (None, 4)),  # the end of the connection is not found yet
        (Positions(1, smee_a=2, smee_b=5), "e6", {"smee:a"}, ("smee:b", 6)),
        (Positions(1, smee_a=5, smee_b=5), "e6", {"smee:a"}, ("smee:b", 6)),
        (Positions(1, smee_a=2, smee_b=5), "e6", {"smee:b"}, (None, 6)),  # `b` may be its own, and `a` another's
        (Positions(1, smee_a=2, smee_b=5), "e4", {"smee:b"}, ("smee:a", 4)),
        (Positions(1, ann=2), "e4", set(), (None, 4)),  # of a client that has chosen its id
        (Positions(4, smee_a=5, smee_b=7), "e3", {"smee:a", "smee:b"}, (None, 5)),  # all have passed it
        (Positions(4, smee_a=5, smee_b=7), "e3", {"smee:a"}, ("smee:b", 5)),  # it may be `a`: `b` is moved back
        (Positions(4, smee_a=5, smee_b=7), "e3", {"smee:b"}, (None, 5)),
        (Positions(4, smee_a=5, smee_b=7), "e3", set(), ("smee:b", 5)),
        (Positions(4, smee_a=5), "e3", set(), ("smee:a", 5)),
        (Positions(4), "e3", set(), (None, None)),
    ],
)
def test_where_a_stream_goes_on(positions, last_event_id, connected, expected):
    """At the farthest position that may be its client's, if the client is away; else at one of its own."""
    found = find_position(positions, "t", last_event_id, connected)
    assert (found.listener, found.after) == expected
    assert found.is_ahead == (last_event_id == "e3" and found.listener == "smee:b")


def test_a_stream_that_is_found_dead_late_leaves_no_position(tmp_path):
    """If its client has connected again meanwhile: what it has not had is that of its new stream."""
    app = create_app(
        {
            "STORE_URL": f"sqlite:///{tmp_path}/relay.db",
            "PING_INTERVAL_SECONDS": 1,
            "PING_TIMEOUT_SECONDS": 1,
        }
    )
    services = get_services(app)
    services.lifecycle.start()
    http, store = app.test_client(), services.store.mailboxes
    path = new_channel(http)
    token = path[6:30]
    dead = http.get(path, headers=LISTENS)
    events = iter(dead.response)
    assert next(events) == READY
    first = http.post(f"/v1/go/{token}").json["id"]
    assert f"id: {first}\n" in next(events).decode()
    with http.get(path, headers=LISTENS | {"Last-Event-ID": first}) as again:
        events = iter(again.response)
        assert next(events) == READY
        assert len(store.positions(token)) == 2
        dead.close()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(store.positions(token)) > 1:
            assert time.monotonic() < deadline
            assert next(events) == PING
        assert [each.waiting for each in store.positions(token)] == [0]
        second = http.post(f"/v1/go/{token}").json["id"]
        assert f"id: {second}\n" in next(events).decode()
    wait_until(lambda: len(services.streams) == 0, "the stream is gone")
    assert [each.waiting for each in store.positions(token)] == [1]  # it was not acknowledged
    services.lifecycle.stop()


@pytest.fixture
def durable(tmp_path):
    """A relay whose mailboxes are in a file."""
    app = create_app({"STORE_URL": f"sqlite:///{tmp_path}/relay.db"})
    get_services(app).lifecycle.start()
    yield app
    get_services(app).lifecycle.stop()


def test_a_position_is_taken_over_by_one_stream(durable, monkeypatch):
    """One that another stream takes, and moves on, while the store is asked for positions is not taken as well."""
    services = get_services(durable)
    http, store = durable.test_client(), services.store.mailboxes
    path = new_channel(http)
    token = path[6:30]
    with http.get(path, headers=LISTENS) as a, durable.test_client().get(path, headers=LISTENS) as b:
        assert [next(iter(each.response)) for each in (a, b)] == [READY, READY]
        assert len(store.positions(token)) == 2
    wait_until(lambda: not list(services.relay.presence.attached.of(token)), "the streams are gone")
    ids = [http.post(f"/v1/go/{token}").json["id"] for _ in range(3)]
    positions, others = store.positions, []

    def overtaken(of):
        found = positions(of)
        monkeypatch.setattr(store, "positions", positions)
        others.append(durable.test_client().get(path, headers=LISTENS | {"Last-Event-ID": ids[1]}))
        return found

    monkeypatch.setattr(store, "positions", overtaken)
    with http.get(path, headers=LISTENS | {"Last-Event-ID": ids[0]}) as second, others[0] as other:
        for stream, expected in ((second, ids[1:]), (other, ids[2:])):
            events = iter(stream.response)
            assert next(events) == READY
            received = b""
            while received.count(b"id: ") < len(expected):
                received += next(events)
            assert [line[4:] for line in received.decode().splitlines() if line.startswith("id: ")] == expected


def test_a_position_that_another_process_claims_is_left_to_it(durable, monkeypatch):
    """A stream goes on at a position of its own then, right after the event that its client had."""
    services = get_services(durable)
    http, store = durable.test_client(), services.store.mailboxes
    path = new_channel(http)
    token = path[6:30]
    store.register(token, "smee:theirs")
    ids = [http.post(f"/v1/go/{token}").json["id"] for _ in range(2)]
    elsewhere = []

    def claim(of, listener):
        elsewhere.append(listener)
        return False

    monkeypatch.setattr(services.store, "claim_listener", claim)
    monkeypatch.setattr(services.store, "listeners_elsewhere", lambda of: elsewhere)
    with http.get(path, headers=LISTENS | {"Last-Event-ID": ids[0]}):
        assert elsewhere == ["smee:theirs"]
        first = store.number_of(token, ids[0])
        assert {(each.listener == "smee:theirs", each.number) for each in store.positions(token)} == {
            (True, 0),
            (False, first),
        }


def test_a_stream_that_cannot_begin_leaves_the_position_to_the_next(durable, monkeypatch):
    """The store fails just when the stream is about to replace a position that it has claimed."""
    services = get_services(durable)
    http, store = durable.test_client(), services.store.mailboxes
    path = new_channel(http)
    token = path[6:30]
    for listener in ("smee:behind", "smee:ahead"):
        number = store.number_of(token, http.post(f"/v1/go/{token}").json["id"])
        store.register(token, listener, number)
    register = store.register

    def fail(*args):
        monkeypatch.setattr(store, "register", register)
        raise StoreUnavailable

    monkeypatch.setattr(store, "register", fail)
    reconnects = LISTENS | {"Last-Event-ID": "v2dropped-1"}
    assert http.get(path, headers=reconnects).data.startswith(b"retry:")
    with http.get(path, headers=reconnects) as again:
        assert next(iter(again.response)) == READY
        assert {each.listener for each in store.positions(token)} & {"smee:behind", "smee:ahead"} == {"smee:behind"}


def test_a_new_position_says_that_it_has_a_predecessor():
    """To whoever takes it over: the farthest of those that are nobody's, and had contact last just before."""
    assert predecessor_of(new_listener("a-_1")) is None
    predecessor = predecessor_of(new_listener("a-_1", Predecessor(7, 1000.5)))
    assert predecessor == Predecessor(7, 1000.5)
    positions = [
        Position("smee:a", 3, 999.0, 0),
        Position("smee:b", 6, 999.0, 0),
        Position("smee:c", 7, 999.0, 0),  # connected
        Position("smee:d", 8, 999.0, 0),  # its client had more
        Position("smee:e", 7, 1001.0, 0),  # it was there later
        Position("smee:f", 7, 990.0, 0),  # it was away for long when the client came again
        Position("ann", 7, 999.0, 0),
    ]
    assert predecessor.find(positions, {"smee:c"}, 10) == "smee:b"
    assert predecessor.find(positions[:1], {"smee:a"}, 10) is None
    assert predecessor.find(positions, {"smee:c"}, 11) == "smee:f"


QUEUE_BYTES = 100_000  # what waits for a client, of the channels that keep events


class KeptChannel:
    """A channel with a mailbox, its streams, and what each has acknowledged."""

    def __init__(self, app):
        self._app, self._services = app, get_services(app)
        self.streams = self._services.streams
        self._path = new_channel(app.test_client())
        self._token = self._path[6:30]
        self._store = self._services.store.mailboxes

    def call(self, body=b""):
        return self._app.test_client().post(f"/v1/go/{self._token}", data=body).json["id"]

    def listeners(self):
        return {each.listener for each in self.listening()}

    def listening(self):
        return self._services.relay.presence.attached.of(self._token)

    def positions(self):
        return {each.listener: each.number for each in self._store.positions(self._token)}

    def connect(self, last_event_id=None):
        """Return a stream that has begun, its events, and its listener."""
        before = self.listeners()
        headers = LISTENS | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        response = self._app.test_client().get(self._path, headers=headers)
        events = iter(response.response)
        assert next(events) == READY
        [listener] = self.listeners() - before
        return response, events, listener

    def acknowledge(self, listener, event_id):
        """Acknowledge all up to an event, as a connection does that has had it for a while."""
        self._store.advance(self._token, listener, self._store.number_of(self._token, event_id))

    def end(self, stream):
        """Have the end of a connection be found."""
        response, _, listener = stream
        response.close()
        wait_until(lambda: listener not in self.listeners(), "its end is found")


def ids_of(stream, count):
    """Return the ids of the next events of a stream, so many at least."""
    received = ""
    while received.count("id: ") < count:
        received += next(stream[1]).decode()
    return [line[4:] for line in received.splitlines() if line.startswith("id: ")]


@pytest.fixture
def channel(tmp_path):
    app = create_app({"STORE_URL": f"sqlite:///{tmp_path}/relay.db", "CLIENT_QUEUE_LIMIT_BYTES": QUEUE_BYTES})
    get_services(app).lifecycle.start()
    yield KeptChannel(app)
    get_services(app).lifecycle.stop()


def test_two_clients_that_are_cut_off_at_once_miss_nothing(channel):
    """One comes again before the end of its own connection is found, and after that of the other's: it leaves the
    position of the other, which had less, to it."""
    ann, bob = channel.connect(), channel.connect()
    ids = [channel.call() for _ in range(3)]
    assert ids_of(ann, 3) == ids
    assert ids_of(bob, 1)[0] == ids[0]  # its client does not have what was sent after that
    channel.acknowledge(ann[2], ids[1])
    channel.end(bob)
    ann_again = channel.connect(ids[2])
    channel.end(ann)
    bob_again = channel.connect(ids[0])
    ids.append(channel.call())
    assert (ids_of(bob_again, 3), ids_of(ann_again, 1)) == (ids[1:], ids[3:])
    for stream in (ann_again, bob_again):
        channel.end(stream)


@pytest.mark.parametrize("is_found", [True, False])
def test_a_client_that_others_have_passed_misses_nothing(channel, is_found):
    """The last event that it had is not kept any more, since it and all others have acknowledged it. It receives
    what came since, also if another client that had more is away, and the end of its connection is not found."""
    ann, bob = channel.connect(), channel.connect()
    ids = [channel.call()]
    assert ids_of(ann, 1) == ids
    channel.acknowledge(ann[2], ids[0])
    ids += [channel.call(), channel.call()]
    assert ids_of(bob, 3) == ids
    channel.acknowledge(bob[2], ids[2])
    channel.end(bob)
    if is_found:
        channel.end(ann)
    ann_again = channel.connect(ids[0])
    assert ids_of(ann_again, 2) == ids[1:]
    if not is_found:
        channel.end(ann)
    assert len(channel.positions()) == 2
    bob_again = channel.connect(ids[2])
    ids.append(channel.call())
    assert (ids_of(bob_again, 1), ids_of(ann_again, 1)) == (ids[3:], ids[3:])
    assert channel.positions().keys() == channel.listeners()
    for stream in (ann_again, bob_again):
        channel.end(stream)


def test_events_that_a_queue_has_no_room_for_follow_when_the_client_reads(channel):
    """They wait in the mailbox, in their order; one that is too large for any queue is a dead letter."""
    ann = channel.connect()
    sizes = (QUEUE_BYTES * 2 // 3, QUEUE_BYTES * 2 // 3, QUEUE_BYTES * 2, 1)
    ids = [channel.call(b"x" * size) for size in sizes]
    assert ids_of(ann, 3) == [ids[0], ids[1], ids[3]]
    channel.end(ann)


def test_a_stream_that_has_ended_takes_nothing(channel):
    """Whoever sends to it finds out, so that nothing counts as sent."""
    ann = channel.connect()
    [stream] = channel.listening()
    channel.end(ann)
    with pytest.raises(ClientGone):
        stream.send(call_for("a" * 24))
    with pytest.raises(ClientGone):
        stream.flush()
