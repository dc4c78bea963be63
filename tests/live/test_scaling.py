"""Three relays behind nginx: examples/nginx.conf and the commands of docs/scaling.md, on other ports and paths."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from requests.adapters import HTTPAdapter

from socket2me_flask.relay.call import process_of
from tests.support.delivery import Acknowledging, Caller, error_code
from tests.support.nginx import NGINX, Nginx
from tests.support.raw import Raw
from tests.support.redis_server import Redis
from tests.support.servers import ROOT, NodeListener, PythonListener, Server, WebSocket, wait_until

COMMANDS = re.findall(r"^(?:export|gunicorn) .*", (ROOT / "docs" / "scaling.md").read_text(), re.MULTILINE)

# So many new tokens an hour for an address: more than the other tests here ask for.
NEW_TOKENS = 60

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Relay(Server):
    """A relay, started by a line of docs/scaling.md with another port. `name` is what it calls itself."""

    name: str

    @staticmethod
    def command(runner, port):
        return shlex.split(re.sub(r"\d+$", str(port), runner)), {}


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    variables, *commands = COMMANDS
    settings = dict(variable.split("=", 1) for variable in shlex.split(variables)[1:])
    with Redis() as redis, contextlib.ExitStack() as stack:
        settings["STORE_URL"] = redis.url
        settings["RATE_LIMIT_NEW"] = f"{NEW_TOKENS}/hour"
        with ThreadPoolExecutor() as pool:  # side by side, as they stop
            relays = list(pool.map(lambda line: stack.enter_context(Relay(line, **settings)), commands))
        stack.callback(lambda: [relay.process.send_signal(signal.SIGTERM) for relay in relays])
        nginx = stack.enter_context(Nginx(tmp_path_factory.mktemp("nginx"), redis, relays))
        nginx.learn_names()
        yield nginx


def session_from(address):
    """Return a session of requests whose connections come from `address`, one of this machine's own."""

    class From(HTTPAdapter):
        def init_poolmanager(self, *args, **kwargs):
            super().init_poolmanager(*args, source_address=(address, 0), **kwargs)

    session = requests.Session()
    session.mount("http://", From())
    return session


def websocket_from(address, nginx, token):
    connection = socket.create_connection(("127.0.0.1", nginx.port), source_address=(address, 0))
    return WebSocket(nginx, token, socket=connection)


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], None], ids=["websocket", "polling", "upgrade"])
@pytest.mark.parametrize("listener", [PythonListener, NodeListener])
def test_clients_get_their_calls(nginx, listener, transports):
    """Over WebSocket, long-polling, and an upgrade from one to the other; whichever relay the caller comes to."""
    token = nginx.new()
    with listener(nginx, token, transports=transports) as client:
        client.expect("connect")
        names, came_to, number = {relay.name for relay in nginx.relays}, set(), 0
        while came_to != names:  # each of nginx's workers begins with any of them
            number += 1
            assert nginx.go(token, json=number).text == "OK"
            request = client.expect("request")
            assert request["body"] == number
            came_to.add(process_of(request["id"]))
            assert number < 100


def test_clients_are_spread_by_their_addresses(nginx):
    """Many addresses are at more than one relay, which callers do not notice; one address is always at the same."""
    token_of = {f"127.0.0.{number}": nginx.new() for number in range(2, 14)}
    with contextlib.ExitStack() as stack:
        clients = {a: stack.enter_context(websocket_from(a, nginx, token)) for a, token in token_of.items()}
        relays = {address: nginx.relay_with_client_of(token) for address, token in token_of.items()}
        assert len(set(relays.values())) > 1
        for address, token in token_of.items():
            assert nginx.go(token, json=address).text == "OK"
            assert json.dumps(address) in clients[address].receive()
        for address, token in list(token_of.items())[:4]:
            stack.enter_context(websocket_from(address, nginx, token))
            assert nginx.relay_with_client_of(token) == relays[address]


def test_large_bodies(nginx):
    """One of MAX_BODY_BYTES arrives byte for byte; a larger one is answered 413, by the relay or by nginx."""
    token, body = nginx.new(), os.urandom(2_048_000)
    with NodeListener(nginx, token, auth={"body": "raw"}) as client:
        client.expect("connect")
        for data in (body, iter([body[:1000], body[1000:]])):  # with a length, and in chunks
            assert nginx.go(token, data=data).text == "OK"
            assert client.expect("request")["body"] == body
        answer = nginx.go(token, data=body + b"!")
        assert (answer.status_code, error_code(answer)) == (413, "body_too_large")
        assert nginx.go(token, data=bytes(4_000_001)).status_code == 413
        client.expect_silence(0)


def test_a_call_arrives_as_it_was_sent(nginx):
    """Its path and query as they were written, its headers but those for one hop, and a request line of 8 KB."""
    token = nginx.new()
    target = f"/v1/go/{token}/a%20b//c/./%2e%2E/%2f?x=%2F&y=a+b&z="
    target += "z" * (8190 - len(f"PUT {target} HTTP/1.1"))
    head = f"PUT {target} HTTP/1.1\r\nHost: relay.example:81\r\nX.Dotted: 1\r\nX-Twice: a\r\nx-twice:  b \r\n"
    head += "Connection: close\r\nTE: trailers\r\nX-Forwarded-For: 192.0.2.1\r\nX-Latin: \xe9\r\n"
    with NodeListener(nginx, token, auth={"body": "raw"}) as client, Raw(nginx.port) as caller:
        client.expect("connect")
        caller.send(f"{head}Content-Length: 3\r\n\r\na=b".encode("latin-1"))
        assert caller.answer() == (200, b"OK")
        request = client.expect("request")
        assert f"/v1/go/{token}{request['path']}?{request['query']}" == target
        assert (request["method"], request["body"]) == ("PUT", b"a=b")
        assert request["remote_addr"] == "127.0.0.1"  # nginx's peer, not what that says
        assert request["headers"] == {
            "host": "relay.example:81",
            "x.dotted": "1",
            "x-twice": "a,b",
            "x-latin": "\xe9",
            "content-length": "3",
            "x-forwarded-for": "192.0.2.1, 127.0.0.1",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "relay.example:81",
        }


def test_a_reply_arrives_as_the_client_sent_it(nginx):
    """Status, body and headers, repeated ones too."""
    token = nginx.new()
    headers = {"Link": ["<a>", "<b>"], "Location": "http://callers/x", "X-Long": "x" * 12_000}
    reply = (418, b"\x00\xff", headers)
    with PythonListener(nginx, token, auth={"mode": "reply"}, replies=[reply]) as client:
        client.expect("connect")
        answer = nginx.go(token)
        assert (answer.status_code, answer.content) == (418, b"\x00\xff")
        assert answer.raw.headers.getlist("Link") == ["<a>", "<b>"]
        assert {name: answer.headers[name] for name in ("Location", "X-Long")} == {
            name: headers[name] for name in ("Location", "X-Long")
        }


def test_the_url_of_a_new_token_is_that_of_nginx(nginx):
    """With its port; what a caller forges is not believed."""
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "1"}
    made = requests.post(f"{nginx.url}/v1/new", headers=forged, timeout=5).json()
    nginx.giveaways |= {made["token"], made["secret"]}
    assert made["url"] == f"{nginx.url}/v1/go/{made['token']}"


def test_a_forged_address_gets_no_more_tokens(nginx):
    """RATE_LIMIT_NEW counts for the address that nginx saw, over all relays, and for no other."""
    statuses = []
    with session_from("127.0.0.99") as session:
        for number in range(2 * NEW_TOKENS + 1):  # an hour may end meanwhile
            forged = {"X-Forwarded-For": f"192.0.2.{number}", "X-Real-IP": f"192.0.2.{number}"}
            statuses.append(session.get(f"{nginx.url}/v1/new", headers=forged, timeout=5).status_code)
            if statuses[-1] != 200:
                break
    assert len(statuses) > NEW_TOKENS
    assert statuses[-1] == 429
    assert nginx.new()


def test_a_call_that_a_relay_took_is_not_sent_to_another(nginx):
    """The relay dies before it answers: the caller receives 502. The client, which is elsewhere, had it once."""
    token = nginx.new()
    with Acknowledging(nginx, token, mode="ack") as client:
        while True:
            caller = Caller(nginx, token, json="taken")
            ack_id, request = client.event()
            relay = nginx.relay_named(process_of(request["id"]))
            if relay is not nginx.relay_with_client_of(token):
                break
            client.acknowledge(ack_id)
        os.kill(relay.worker_pid, signal.SIGKILL)
        assert caller.answer.status_code == 502
        caller = Caller(nginx, token, json="next")
        ack_id, request = client.event()
        assert request["body"] == "next"
        client.acknowledge(ack_id)
        assert caller.answer.text == "OK"
    nginx.learn_names()  # gunicorn has started another


def test_a_caller_whose_relay_stands_still_is_answered(nginx):
    """504 after the `proxy_read_timeout` of callers, 1 s here, which is shorter than that of clients."""
    shipped, short = "proxy_read_timeout 15s", "proxy_read_timeout 1s"
    token, relay = nginx.new(), nginx.relays[0]
    nginx.configure(shipped, short)
    nginx.reload()
    os.kill(relay.worker_pid, signal.SIGSTOP)
    try:
        wait_until(lambda: nginx.go(token).status_code == 504, "the call came to the relay that stands still")
    finally:
        os.kill(relay.worker_pid, signal.SIGCONT)
        nginx.configure(short, shipped)
        nginx.reload()


def coming_back(nginx, token):
    return NodeListener(nginx, token, transports=["websocket"], reconnectionDelay=100, reconnectionDelayMax=200)


class Callers:
    """Callers who call `token` until this is left: when each call began, and its answer."""

    def __init__(self, nginx, token):
        self._nginx, self._token = nginx, token
        self._is_over = threading.Event()
        self.answers = []
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def _run(self):
        while not self._is_over.wait(0.02):
            began = time.monotonic()
            self.answers.append((began, self._nginx.go(self._token)))

    def wait_for(self, number):
        """Wait until so many more calls were answered."""
        enough = len(self.answers) + number
        wait_until(lambda: len(self.answers) >= enough, "calls are answered")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def test_a_relay_that_is_taken_out_first_is_not_missed(nginx):
    """`down` and a reload send its clients to others; when it stops then, no caller receives anything but OK."""
    token = nginx.new()
    with coming_back(nginx, token) as client:
        client.expect("connect")
        relay = nginx.relay_with_client_of(token)
        with Callers(nginx, token) as callers:
            callers.wait_for(3)
            nginx.configure(f"127.0.0.1:{relay.port} max_fails=0;", f"127.0.0.1:{relay.port} down;")
            nginx.process.send_signal(signal.SIGHUP)  # `nginx -s reload`
            wait_until(lambda: nginx.relay_with_client_of(token) not in (relay, None), "its client is elsewhere")
            assert relay.stop() == 0
            callers.wait_for(20)
        assert {answer.text for _, answer in callers.answers} == {"OK"}


def test_a_relay_that_stops_while_it_is_called(nginx):
    """Its client reconnects through nginx; callers may receive 503 and Retry-After until then, then only OK."""
    token = nginx.new()
    with coming_back(nginx, token) as client:
        client.expect("connect")
        relay = nginx.relay_with_client_of(token)
        with Callers(nginx, token) as callers:
            callers.wait_for(3)
            assert relay.stop() == 0
            gone_at = time.monotonic()
            wait_until(lambda: nginx.relay_with_client_of(token) not in (relay, None), "its client is elsewhere")
            callers.wait_for(30)
        for began, answer in callers.answers:
            is_sent_away = answer.status_code == 503 and "Retry-After" in answer.headers
            assert answer.text == "OK" or (is_sent_away and began < gone_at)


def test_what_nginx_logs(nginx):
    """Of each request the status and the relays that were tried, and no token, which the end makes sure of."""
    token = nginx.new()
    with WebSocket(nginx, token):
        for tail in ("", f"/{token}?{token}", "/%zz"):  # nginx refuses the last one by itself
            nginx.go(token, tail=tail, headers={"Referer": token, "User-Agent": token})
    log = (nginx.folder / "access.log").read_text().splitlines()
    tried = r"(127\.0\.0\.1:\d+(, )?)+ (\d{3}(, )?)+"
    line = rf"\S+ 127\.0\.0\.\d+ [A-Z]+ \d{{3}} \d+ [\d.]+ ({tried}|- -)"
    assert len(log) > 3
    assert [each for each in log if not re.fullmatch(line, each)] == []
