"""Channels over real connections: stock clients from npm, Probot, and gosmee's client by its protocol."""

import base64
import hashlib
import hmac
import json
import random
import socket
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests import smee_chaos
from tests.support.local_app import App
from tests.support.nginx import NGINX
from tests.support.raw import Raw
from tests.support.redis_server import redis_server_path
from tests.support.servers import Pair, Server, free_port, wait_until
from tests.support.smee import EVENT_STREAM, Channel, StockClient, StreamReader, path_of

STOCK = ["smee-client", "smee-client-4"]


@pytest.fixture(params=STOCK)
def stock(server, request):
    """A stock client that has asked for a channel and listens at it, its target, and its channel's token."""
    with (
        App() as app,
        StockClient("smee.mjs", request.param, f"{server.url}/smee/new", f"{app.url}/hook?a=1") as client,
    ):
        url = client.expect("channel")
        token = url.rpartition("/")[2].partition("-")[0]
        server.giveaways |= {token, url.rpartition("/")[2]}
        yield client, app, token


def test_a_stock_client_makes_a_channel_and_is_sent_its_calls(server, stock):
    """By `createChannel`, with its own options: headers, query and body arrive at its target."""
    _, app, token = stock
    answer = server.go(
        token,
        tail="?b=2",
        data=b'{"zen": "\xc3\xa9", "id": 1}',
        headers={"X-GitHub-Event": "ping", "Content-Type": "application/json"},
    )
    assert answer.text == "OK"
    received = app.expect()
    assert received.line == "POST /hook?a=1&b=2 HTTP/1.1"
    assert received.by_name["x-github-event"] == "ping"
    assert received.body == '{"zen":"é","id":1}'.encode()


# What was seen to crash smee-client, or to make it lose the call: as smee.io sends it.
HOSTILE = [
    ("no body", b"", b"", b"null"),
    ("no UTF-8", b"Content-Type: application/json\r\n", b"\xff{", '"\ufffd{"'.encode()),
    ("bytes", b"Content-Type: image/png\r\n", b"\x89PNG\x00", '"\ufffdPNG\\u0000"'.encode()),
    ("half of a pair", b"Content-Type: application/json\r\n", b'"\\ud800"', b'"\\"\\\\ud800\\""'),
    ("lines", b"Content-Type: text/plain\r\n", b"a\n\nid: x\ndata: y\r\r\n", b'"a\\n\\nid: x\\ndata: y\\r\\r\\n"'),
    ("JSON of lines", b"Content-Type: application/json\r\n", b'{\r\n"a"\n:\r1}', b'{"a":1}'),
    ("a member that clashes", b"Body: x\r\nQuery: x\r\nTimestamp: x\r\n", b"x", b'"x"'),
    (
        "hop-by-hop",
        b"Connection: keep-alive, Foo\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nFoo: 1\r\nTE: trailers\r\n",
        b"1",
        b'"1"',
    ),
    ("a browser's", b"Sec-Fetch-Mode: navigate\r\n", b"1", b'"1"'),
    ("an expectation", b"Expect: 100-continue\r\n", b"1", b'"1"'),
    ("coded", b"Content-Encoding: gzip\r\nContent-Type: application/json\r\n", b"[1]", b"[1]"),
    ("Latin-1", b"X-Name: \xe9\x80\xff\r\n", b"1", b'"1"'),
    ("names of members of every object", b"Constructor: a\r\nToString: b\r\nHasOwnProperty: c\r\n", b"1", b'"1"'),
    ("a prototype", b"Content-Type: application/json\r\n", b'{"__proto__": {"a": 1}}', b'{"__proto__":{"a":1}}'),
]


def test_what_would_crash_a_stock_client_arrives(server, stock):
    """Bodies and headers that smee-client cannot take as smee.io sends them: each call arrives, in order."""
    client, app, token = stock
    with Raw(server.port) as caller:
        for what, headers, body, _ in HOSTILE:
            head = f"POST /v1/go/{token}?what={len(what)} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            caller.send(head.encode() + headers + b"\r\n")
            if b"Expect" in headers:
                caller.read_until(b"100 Continue\r\n\r\n")
            caller.send(body)
            assert caller.answer() == (200, b"OK"), what
    received = {json.dumps([each.line, each.body.decode()]) for each in (app.expect() for _ in HOSTILE)}
    assert received == {
        json.dumps([f"POST /hook?a=1&what={len(what)} HTTP/1.1", body.decode()]) for what, _, _, body in HOSTILE
    }
    assert client.process.poll() is None
    with_text = requests.post(f"{server.url}/v1/go/{token}", headers={"X-Name": "é".encode("latin-1")}, timeout=5)
    assert with_text.ok
    assert app.expect().by_name["x-name"] == "é"


def test_a_probot_app_handles_what_github_signed(server):
    """Probot 14 with WEBHOOK_PROXY_URL: its signature is that of the bytes that smee-client sends on."""
    channel = Channel(server)
    title = "It bröke"
    payload = {
        "action": "opened",
        "issue": {"number": 1, "title": title},
        "repository": {"name": "r", "owner": {"login": "o"}},
    }
    body = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    with StockClient("probot.mjs", channel.url, str(free_port()), "hush") as app:
        app.expect("started")
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "issues",
            "X-GitHub-Delivery": "d1",
            "X-Hub-Signature-256": "sha256=" + hmac.new(b"hush", body, hashlib.sha256).hexdigest(),
        }
        assert server.go(channel.token, data=body, headers=headers).text == "OK"
        assert app.expect("issue") == "d1"


class Gosmee:
    """gosmee's client (`gosmee/client.go`): reads a stream line by line, and makes the call that it would make."""

    def __init__(self, server: Server, url: str, *, is_old: bool) -> None:
        base, _, channel = url.rpartition("/")
        target = f"{path_of(base)}/events/{channel}" + (f"?stream={channel}" if is_old else "")
        lines = [f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "User-Agent: gosmee/0.28.2"]
        lines += ["Accept: text/event-stream", "Cache-Control: no-cache"]
        lines += ["Connection: keep-alive"] if is_old else []
        lines += ["X-Accel-Buffering: no", "Accept-Encoding: gzip", "", ""]
        self.raw = Raw(server.port)
        self.raw.send("\r\n".join(lines).encode())
        self.head = self.raw.read_until(b"\r\n\r\n")
        self._body = b""

    def event(self) -> bytes:
        """Return the bytes of the next event."""
        while b"\n\n" not in self._body:
            size = int(self.raw.read_until(b"\r\n"), 16)
            self._body += self.raw.read_exactly(size)
            assert self.raw.read_exactly(2) == b"\r\n"
        event, end, self._body = self._body.partition(b"\n\n")
        return event + end

    def call(self) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of the call that it would make of the next event."""
        fields = dict(line.split(": ", 1) for line in self.event().decode().splitlines() if line)
        assert "event" not in fields, "a control event"
        payload = json.loads(fields["data"])
        # Go's parser does not distinguish case, and takes the last one.
        [encoded] = [value for name, value in payload.items() if name.lower() == "bodyb"]
        assert isinstance(payload["timestamp"], str)
        assert int(payload["timestamp"]) > 1_600_000_000_000
        headers = {
            name: value
            for name, value in payload.items()
            if isinstance(value, str) and (name.startswith("x-") or name in ("user-agent", "content-type"))
        }
        assert headers, "no headers found in message"
        return headers, base64.b64decode(encoded, validate=True)


@pytest.mark.parametrize("is_old", [False, True], ids=["newest", "with r3labs/sse"])
def test_the_client_of_gosmee_is_sent_the_exact_bytes(server, is_old):
    """Of its own request, byte for byte: `ready`, then each call as bytes in base64, the time as a string."""
    channel = Channel(server)
    gosmee = Gosmee(server, channel.url, is_old=is_old)
    assert gosmee.head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    assert gosmee.event() == b"event: ready\nretry: 1000\ndata: {}\n\n"
    body = bytes(range(256)) * 10
    headers = {"X-GitHub-Event": "push", "User-Agent": "GitHub-Hookshot/1", "Content-Type": "a/b"}
    assert server.go(channel.token, data=body, headers=headers).text == "OK"
    assert gosmee.call() == (
        {"x-github-event": "push", "user-agent": "GitHub-Hookshot/1", "content-type": "a/b"},
        body,
    )
    with Raw(server.port) as caller:  # with no header that the client passes on
        caller.send(f"POST /v1/go/{channel.token} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        assert caller.answer() == (200, b"OK")
    headers, body = gosmee.call()
    assert (list(headers), body) == (["x-request-id"], b"")
    gosmee.raw.socket.close()


def test_every_stream_is_sent_every_call(either_server):
    """Under each HTTP server: several streams of a channel, in both forms, and none of another channel's."""
    channel, other = Channel(either_server), Channel(either_server)
    paths = [f"/smee/{channel.key}", f"/smee/{channel.key}", f"/smee/events/{channel.key}"]
    readers = [StreamReader(either_server, path) for path in paths]
    aside = StreamReader(either_server, f"/smee/{other.key}")
    for reader in (*readers, aside):
        assert reader.status == 200
        assert reader.response.headers["X-Accel-Buffering"] == "no"
        assert "no-transform" in reader.response.headers["Cache-Control"]
        assert reader.next() == {"event": "ready", "retry": "1000", "data": "{}"}
    for number in range(3):
        assert either_server.go(channel.token, data=str(number)).text == "OK"
    assert either_server.go(other.token, data="9").text == "OK"
    for reader in readers[:2]:
        assert [reader.message()["body"] for _ in range(3)] == ["0", "1", "2"]
    assert [readers[2].message()["bodyB"] for _ in range(3)] == ["MA==", "MQ==", "Mg=="]
    assert aside.message()["body"] == "9"
    for reader in (*readers, aside):
        reader.close()


def test_a_proxy_of_http_1_0_is_sent_no_chunks(server):
    """nginx speaks it by default: events come as they are, until the connection ends."""
    channel = Channel(server)
    with Raw(server.port) as proxy:
        proxy.send(f"GET /smee/{channel.key} HTTP/1.0\r\nHost: a\r\nAccept: {EVENT_STREAM}\r\n\r\n".encode())
        assert b"Transfer-Encoding" not in proxy.read_until(b"\r\n\r\n")
        assert proxy.read_until(b"\n\n") == b"event: ready\nretry: 1000\ndata: {}\n\n"
        assert server.go(channel.token, data="1").text == "OK"
        assert proxy.read_until(b"\n\n").startswith(b"id: ")


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


PROXY = """
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {paths}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{relay}; }}
    }}
}}
"""


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_proxy_passes_events_on_at_once(server, tmp_path):
    """nginx with its defaults, which buffers what is no stream, and speaks HTTP/1.0."""
    port = free_port()
    modules = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{module}_temp_path {tmp_path}/{module}; " for module in modules)
    conf = tmp_path / "nginx.conf"
    conf.write_text(PROXY.format(folder=tmp_path, paths=paths, port=port, relay=server.port))
    channel = Channel(server)
    nginx = subprocess.Popen([NGINX, "-c", conf, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_open(port), "nginx serves")
        with Raw(port) as raw:
            head = f"GET /smee/{channel.key} HTTP/1.1\r\nHost: a\r\nAccept: {EVENT_STREAM}\r\n\r\n"
            raw.send(head.encode())
            raw.read_until(b"event: ready\nretry: 1000\ndata: {}\n\n")
            for number in range(3):
                assert server.go(channel.token, data=f"event {number}").text == "OK"
                raw.read_until(f'"event {number}"'.encode())
        wait_until(lambda: server.go(channel.token).status_code == 503, "the proxy has closed its connection")
    finally:
        nginx.terminate()
        nginx.wait(10)


def test_what_is_no_request_for_a_stream_begins_none(server):
    """A request with a body is refused, and one that is followed by another: neither is a stream's. So is one
    with a `Last-Event-ID` that no event can have, with a clear error."""
    channel = Channel(server)
    head = f"GET /smee/{channel.key} HTTP/1.1\r\nHost: a\r\nAccept: {EVENT_STREAM}\r\n"
    for rest in ("Content-Length: 1\r\n\r\nx", "\r\nGET / HTTP/1.1\r\n"):
        with Raw(server.port) as raw:
            raw.send((head + rest).encode())
            assert raw.answer()[0] == 400
    with Raw(server.port) as raw:
        raw.send(f"{head}Last-Event-ID: {'x' * 10_000}\r\n\r\n".encode())
        status, body = raw.answer()
        assert (status, json.loads(body)["error"]["code"]) == (431, "head_too_large")
    with Raw(server.port) as raw:  # or later on
        raw.send((head + "\r\n").encode())
        raw.read_until(b"data: {}\n\n\r\n")
        raw.send(b"GET / HTTP/1.1\r\n")
        assert raw.read_to_end() == b""


@pytest.fixture(scope="module")
def small():
    """A relay with small bounds and fast timers."""
    with Server(
        PING_INTERVAL_SECONDS=1,
        PING_TIMEOUT_SECONDS=1,
        MAX_CONNECTIONS_PER_ADDRESS=4,
        CLIENT_QUEUE_LIMIT_BYTES=1_000_000,
        RETRY_AFTER_SECONDS=1,
        METRICS_KEY="key",
    ) as server:
        yield server


def test_a_slow_stream_is_ended_alone(small):
    """At the bound of its queue: the call that reaches it, and all others, arrive at the other stream."""
    channel = Channel(small)
    with Raw(small.port) as slow, StreamReader(small, f"/smee/{channel.key}") as fast:
        slow.send(f"GET /smee/{channel.key} HTTP/1.1\r\nHost: a\r\nAccept: {EVENT_STREAM}\r\n\r\n".encode())
        slow.read_until(b"data: {}\n\n")
        for number in range(25):
            body = f"{number}{'x' * 400_000}"
            assert small.go(channel.token, data=body, headers={"Content-Type": "text/plain"}).text == "OK"
            assert fast.message()["body"] == body
        received = slow.read_to_end()
    assert 0 < received.count(b"\nid: ") < 25
    assert not received.endswith(b"\r\n0\r\n\r\n"), "it does not look as if it were whole"
    assert "CLIENT_QUEUE_LIMIT_BYTES reached" in small.log


def test_a_stream_is_pinged(small):
    """So that no proxy takes it for dead; a ping has no id, which would be taken for an event's."""
    channel = Channel(small)
    with StreamReader(small, f"/smee/{channel.key}") as reader:
        assert reader.next()["event"] == "ready"
        assert reader.next() == {"event": "ping", "data": "{}"}
        assert reader.next() == {"event": "ping", "data": "{}"}


@pytest.mark.parametrize("package", STOCK)
def test_a_stock_client_outlives_a_limit(small, package):
    """As many connections as its address may have: it asks again, and is served once there is room."""
    channel = Channel(small)
    readers = [StreamReader(small, f"/smee/{channel.key}") for _ in range(4)]
    with App() as app, StockClient("smee.mjs", package, channel.url, app.url) as client:
        client.expect("error", after=["channel", "info"])  # its stream ended
        for reader in readers:
            reader.close()
        wait_until(lambda: small.go(channel.token, data="x") and not app.received.empty(), "it was served again")
        assert client.process.poll() is None


def test_stock_clients_outlive_a_restart(tmp_path):
    """Of a relay that drains, ends and begins again: they connect again, and are sent what comes then."""
    settings = {"STORE_URL": f"sqlite:///{tmp_path}/relay.db", "HOLD_SECONDS": 10, "port": free_port()}
    with ExitStack() as stack:
        server = stack.enter_context(Server(**settings))
        channels = [Channel(server) for _ in STOCK]
        apps = [stack.enter_context(App()) for _ in STOCK]
        clients = [
            stack.enter_context(StockClient("smee.mjs", package, channel.url, app.url))
            for package, channel, app in zip(STOCK, channels, apps, strict=True)
        ]
        for channel, app in zip(channels, apps, strict=True):
            assert server.go(channel.token, data="1").status_code == 202
            assert app.expect().body == b'"1"'
        assert server.stop() == 0
        server = stack.enter_context(Server(**settings))
        for channel, app, client in zip(channels, apps, clients, strict=True):
            server.giveaways |= {channel.key}
            assert server.go(channel.token, data="2").status_code == 202
            assert app.expect().body == b'"2"'
            assert client.process.poll() is None


def held_of_streams(server: Server) -> dict[str, float]:
    """Return what a process holds of its streams: clients, files, memory of the allocator aside."""
    answer = requests.get(f"{server.url}/metrics", headers={"Authorization": "Bearer key"}, timeout=5)
    names = ("socket2me_streams", "socket2me_clients", "process_open_fds", "socket2me_queued_bytes")
    samples = dict(
        line.split(" ") for line in answer.text.splitlines() if line.startswith(tuple(f"{n} " for n in names))
    )
    threads = Path(f"/proc/{server.worker_pid}/task")
    return {name: float(value) for name, value in samples.items()} | {"threads": len(list(threads.iterdir()))}


def test_streams_that_are_gone_leave_nothing(small):
    """However they end: no client, file, thread or byte is left. `benchmarks/streams.py` does so 10,000 times."""
    channel = Channel(small)
    head = f"GET /smee/{channel.key} HTTP/1.1\r\nHost: a\r\nAccept: {EVENT_STREAM}\r\n\r\n".encode()
    before = held_of_streams(small)
    for number in range(200):
        with Raw(small.port) as raw:
            raw.send(head)
            if number % 4:
                raw.read_until(b"\n\n")
            if number % 4 == 2:
                small.go(channel.token, data="x" * 1000)
            if number % 4 == 3:  # a reset
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: held_of_streams(small) == before, "everything of the streams is gone")


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """A relay that keeps events. One is acknowledged 2.5 s after it was had."""
    store = f"sqlite:///{tmp_path_factory.mktemp('store')}/relay.db"
    with Server(STORE_URL=store, PING_INTERVAL_SECONDS=1, PING_TIMEOUT_SECONDS=1, REDELIVER_SECONDS=0.2) as server:
        yield server


def keep(server: Server, channel: Channel, *bodies: str) -> list[str]:
    """Call a channel, and return the ids of the events. No caller waits for an acknowledgement."""
    ids = []
    for body in bodies:
        answer = server.go(channel.token, data=body, headers={"Content-Type": "text/plain"})
        assert answer.status_code == 202
        ids.append(answer.json()["id"])
    return ids


def messages(reader: StreamReader, count: int) -> list[str]:
    return [reader.message()["body"] for _ in range(count)]


def test_what_a_client_has_not_had_waits_for_it(keeping):
    """It says what it had last: all up to there is acknowledged, and the rest comes in order, without gaps."""
    channel = Channel(keeping)
    ids = keep(keeping, channel, "1", "2")  # before anyone listens
    with StreamReader(keeping, f"/smee/{channel.key}") as reader:
        assert messages(reader, 2) == ["1", "2"]
        ids += keep(keeping, channel, "3", "4")
        assert messages(reader, 2) == ["3", "4"]
    ids += keep(keeping, channel, "5", "6")
    wait_until(lambda: not channel.connected(keeping), "its end is found")
    with StreamReader(keeping, f"/smee/{channel.key}", Last_Event_ID=ids[2]) as reader:
        assert messages(reader, 3) == ["4", "5", "6"]
        assert channel.kept(keeping) == ids[3:]
        assert [each["id"][:5] for each in channel.listeners(keeping)] == ["smee:"]
    wait_until(lambda: not channel.connected(keeping), "its end is found")
    with StreamReader(keeping, f"/smee/{channel.key}") as reader:  # a client that was started again
        assert messages(reader, 3) == ["4", "5", "6"]
        keep(keeping, channel, "7")
        assert messages(reader, 1) == ["7"]


def test_each_client_has_its_own_position(keeping):
    """One that was away receives what it has not had, and another that was there nothing twice."""
    channel = Channel(keeping)
    path = f"/smee/{channel.key}"
    with StreamReader(keeping, path) as there:
        with StreamReader(keeping, path) as away:
            [first] = keep(keeping, channel, "1")
            assert (messages(there, 1), messages(away, 1)) == (["1"], ["1"])
        wait_until(lambda: channel.connected(keeping) == 1, "its end is found")
        keep(keeping, channel, "2", "3")
        assert messages(there, 2) == ["2", "3"]
        with StreamReader(keeping, path, Last_Event_ID=first) as back:
            assert messages(back, 2) == ["2", "3"]
            keep(keeping, channel, "4")
            assert (messages(there, 1), messages(back, 1)) == (["4"], ["4"])
            wait_until(lambda: len(channel.listeners(keeping)) == 2, "nobody else has a position")


def test_a_client_leaves_the_position_of_another_to_it(keeping):
    """One connects again while its connection is taken for alive: another that is away, misses nothing."""
    channel = Channel(keeping)
    path = f"/smee/{channel.key}"
    with StreamReader(keeping, path) as lost:
        with StreamReader(keeping, path) as away:
            ids = keep(keeping, channel, "1")
            assert (messages(lost, 1), messages(away, 1)) == (["1"], ["1"])
        wait_until(lambda: channel.connected(keeping) == 1, "its end is found")
        ids += keep(keeping, channel, "2")
        assert messages(lost, 1) == ["2"]
        waiting = lambda: sorted(each["waiting"] for each in channel.listeners(keeping))  # noqa: E731
        wait_until(lambda: waiting() == [0, 2], "the one that stays has acknowledged both")
        ids += keep(keeping, channel, "3")
        assert messages(lost, 1) == ["3"]
        again = StreamReader(keeping, path, Last_Event_ID=ids[2])
    with again:
        wait_until(lambda: channel.connected(keeping) == 1, "the end of the lost connection is found")
        with StreamReader(keeping, path, Last_Event_ID=ids[0]) as back:
            assert messages(back, 2) == ["2", "3"]
            keep(keeping, channel, "4")
            assert (messages(again, 1), messages(back, 1)) == (["4"], ["4"])


def test_a_mailbox_does_not_fill_under_a_client_that_reads(keeping):
    """A while after its kernel has an event it counts as acknowledged, and is not sent again before that."""
    channel = Channel(keeping)
    with StreamReader(keeping, f"/smee/{channel.key}") as reader:
        ids = keep(keeping, channel, "1", "2")
        assert messages(reader, 2) == ["1", "2"]
        assert channel.kept(keeping) == ids
        wait_until(lambda: channel.kept(keeping) == [], "they are acknowledged")
        keep(keeping, channel, "3")
        assert messages(reader, 1) == ["3"]


def test_a_client_that_does_not_read_has_acknowledged_nothing(keeping):
    """What is in the relay's send queue, or waits for room in it, is kept however long the connection lives."""
    channel = Channel(keeping)
    with Raw(keeping.port) as slow:
        slow.send(f"GET /smee/{channel.key} HTTP/1.1\r\nHost: a\r\nAccept: {EVENT_STREAM}\r\n\r\n".encode())
        slow.read_until(b"data: {}\n\n")
        ids = keep(keeping, channel, *["x" * 1_900_000] * 6)
        wait_until(lambda: not channel.connected(keeping), "it is ended, since it reads nothing")
    assert channel.kept(keeping)[-2:] == ids[-2:]
    with StreamReader(keeping, f"/smee/{channel.key}") as reader:
        while reader.message() and reader.last_id != ids[-1]:
            pass


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("store", "faults"),
    [
        ("sqlite", ("kill_relay", "reset")),
        pytest.param(
            *("cluster", ("kill_relay",)),
            marks=pytest.mark.skipif(redis_server_path() is None, reason="there is no redis-server"),
        ),
    ],
)
def test_a_stock_client_loses_nothing(store, faults):
    """While its relay is killed and its connection is cut, as `make smee-chaos` does 50 times with each store."""
    seed = random.randrange(10**6)
    wrong = smee_chaos.run(store, seed, len(faults), faults)
    assert wrong is None, f"seed {seed}: {wrong}"


def test_a_client_goes_on_at_another_process(redis):
    """A stream is sent what comes to another process, and its client goes on there, beside one that stays."""
    with Pair(redis.url, PING_INTERVAL_SECONDS=1, PING_TIMEOUT_SECONDS=1) as server:
        channel = Channel(server)
        path = f"/smee/{channel.key}"
        with StreamReader(server, path) as stays:
            with StreamReader(server, path) as moves:
                ids = keep(server, channel, "1", "2")
                assert (messages(stays, 2), messages(moves, 2)) == (["1", "2"], ["1", "2"])
            ids += keep(server, channel, "3")
            with StreamReader(server.other, path, Last_Event_ID=ids[0]) as moved:
                assert messages(moved, 2) == ["2", "3"]
                keep(server, channel, "4")
                assert (messages(stays, 2), messages(moved, 1)) == (["3", "4"], ["4"])
                wait_until(lambda: len(channel.listeners(server)) == 2, "nobody else has a position")
                wait_until(lambda: channel.kept(server) == [], "all is acknowledged")
