"""The log: one JSON object a line, a line for each client, and the id of each request."""

import hashlib
import json
import os
import signal
from datetime import datetime

import pytest
import requests

from tests.support.raw import Raw
from tests.support.servers import (
    HookedServer,
    PythonListener,
    WebSocket,
    run_to_end,
    wait_until,
)

KEY = "a-key-of-the-api"


class JSONServer(HookedServer):
    """A relay that logs JSON, its requests too, and keeps what it logs."""

    def __init__(self, runner="gunicorn", **settings):
        super().__init__(runner, LOG_FORMAT="json", LOG_LEVEL="DEBUG", **settings)

    @classmethod
    def command(cls, runner, port):
        command, environment = super().command(runner, port)
        return command, {
            **environment,
            "GUNICORN_CMD_ARGS": f"{environment['GUNICORN_CMD_ARGS']} --access-logfile -",
        }

    def lines(self):
        return [json.loads(line) for line in self.log.splitlines()]

    def find(self, **members):
        """Return the first line with these members, which may still be on its way."""

        def found():
            return [line for line in self.lines() if members.items() <= line.items()]

        return wait_until(found, f"a line with {members}")[0]

    def lines_of(self, level):
        """Return the lines of a level, once there are some."""
        return wait_until(lambda: [line for line in self.lines() if line["level"] == level], f"a line of {level}")


@pytest.fixture(scope="module", params=["", "1"], ids=["accelerated", "blueprint"])
def server(request):
    with JSONServer(HOOKED=request.param, MAX_BODY_BYTES=10, API_KEYS=KEY, HOLD_SECONDS=0) as server:
        server.giveaways.add(KEY)
        yield server


@pytest.fixture(scope="module")
def token(server):
    answer = requests.get(f"{server.url}/v1/new", headers={"Authorization": f"Bearer {KEY}"}, timeout=5)
    server.giveaways.add(answer.text)
    return answer.text


def tag(token):
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def test_every_line_is_an_object(server, token):
    """Of the master, the worker, the relay, requests, a fault with its traceback, and SIGABRT, each in one line."""
    with PythonListener(server, token) as client:
        client.expect("connect")
        assert server.go(token, headers={"X-Explode": "1", "X-Request-Id": "exploded"}).status_code == 500
    server.process.send_signal(signal.SIGWINCH)  # the master says that it ignores it
    fault = server.find(event="a call failed")
    assert fault["request_id"] == "exploded"
    assert fault["exception"].startswith("Traceback (most recent call last):\n")
    assert fault["exception"].endswith("RuntimeError: the secret inside")
    access = server.find(logger="gunicorn.access", request_id="exploded")
    assert (access["event"], access["method"], access["status"]) == ("request", "POST", 500)
    assert access["target"] == "/v1/go/<token>"
    assert access["token_hash"] == tag(token)
    os.kill(server.worker_pid, signal.SIGABRT)  # as the master does when it has not heard of its worker
    stacks = next(line for line in server.lines_of("CRITICAL") if "SIGABRT" in line["event"])["exception"]
    assert "eventlet_worker.py" in stacks
    for line in server.lines():
        assert {"time", "level", "event", "logger"} <= line.keys()
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
    assert {"gunicorn.error", "gunicorn.access", "socket2me_flask.lifecycle"} <= {
        line["logger"] for line in server.lines()
    }


def test_each_client_has_a_line(server, token):
    """When it is accepted, refused and has left, with the hash of its token; one that is unknown, too."""
    unknown = "z" * 24
    server.giveaways.add(unknown)
    with WebSocket(server, token) as client:
        client.send(f"41/{token},")
        connected = server.find(event="a client connected", token_hash=tag(token))
        left = server.find(event="a client disconnected", token_hash=tag(token), reason="client")
        assert connected["level"] == left["level"] == "INFO"
    with WebSocket(server) as client:
        client.send(f"40/{unknown},")
        assert client.receive().startswith(f"44/{unknown},")
        server.find(event="a client was refused", token_hash=tag(unknown), reason="unknown_token")
        client.send(f'40/{token},{{"mode":"none"}}')
        server.find(event="a client was refused", token_hash=tag(token), reason="bad_auth")


KEPT = ["a", "A-z.0_9", "0af7651916cd43dd8448eb211c80319c", "X" * 128]
REPLACED = ["", "a b", "a,b", "é", "x" * 129, "a/b", "%0a", "<script>", '"', "{}"]


@pytest.mark.parametrize("sent", KEPT)
def test_a_request_id_is_kept(server, token, sent):
    """In the response, the event and the log; of a call that fails, too."""
    with PythonListener(server, token) as client:
        client.expect("connect")
        assert server.go(token, headers={"X-Request-Id": sent}).headers["X-Request-Id"] == sent
        assert client.expect("request")["request_id"] == sent
        answer = server.go(token, data="x" * 11, headers={"X-Request-Id": sent})
        assert (answer.status_code, answer.headers["X-Request-Id"]) == (413, sent)
    server.find(logger="gunicorn.access", status=413, request_id=sent)


@pytest.mark.parametrize("sent", REPLACED)
def test_a_hostile_request_id_is_replaced(server, token, sent):
    """By the id of the event. What was sent is in no line."""
    with PythonListener(server, token) as client:
        client.expect("connect")
        answer = server.go(token, headers={"X-Request-Id": sent.encode()})
        event = client.expect("request")
    assert answer.headers["X-Request-Id"] == event["request_id"] == event["id"]
    server.find(logger="gunicorn.access", request_id=event["id"])
    if len(sent) > 2:
        assert sent not in server.log


def test_two_request_ids_are_none(server, token):
    """Neither is kept: no proxy says which one it means."""
    with PythonListener(server, token) as client, Raw(server.port) as raw:
        client.expect("connect")
        raw.send(
            f"GET /v1/go/{token} HTTP/1.1\r\nHost: x\r\nX-Request-Id: one\r\nX-Request-Id: two\r\n\r\n".encode()
        )
        head = raw.read_until(b"\r\n\r\n").decode()
        event = client.expect("request")
        assert event["request_id"] == event["id"]
        assert head.count("X-Request-Id: ") == 1
        assert f"X-Request-Id: {event['id']}\r\n" in head


def test_a_token_as_a_request_id_is_in_no_line(server, token):
    """It is echoed, and the log leaves it out, as it leaves out an API key. So `Server.stop` finds neither."""
    for sent in (token, KEY):
        assert server.go("z" * 24, headers={"X-Request-Id": sent}).headers["X-Request-Id"] == sent
    server.find(logger="gunicorn.access", request_id="<token>")
    server.find(logger="gunicorn.access", request_id="<key>")


def test_every_response_has_an_id(server):
    """Of each path and of Engine.IO, of errors, and to what is no HTTP; those of one connection differ."""
    with requests.Session() as session:
        paths = ("/healthz", "/v1/new", "/none", "/socket.io/?EIO=4&transport=polling", "/socket.io/", "/healthz")
        ids = [session.get(server.url + path, timeout=5).headers["X-Request-Id"] for path in paths]
        assert len(set(ids)) == len(ids)
        for path in paths:
            answer = session.get(server.url + path, headers={"X-Request-Id": "mine"}, timeout=5)
            assert answer.headers["X-Request-Id"] == "mine"
    with Raw(server.port) as raw:
        raw.send(b"this is no HTTP\r\n\r\n")
        assert b"X-Request-Id: " in raw.read_to_end()


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_trace_goes_on(server, token):
    """`traceparent` and `tracestate` arrive as they were sent. A malformed one is replaced and has no state."""
    with PythonListener(server, token) as client:
        client.expect("connect")
        for sent in (TRACE, f"{TRACE.replace('00-', 'cc-', 1)}-more"):
            server.go(token, headers={"traceparent": sent, "tracestate": "a=b"})
            headers = client.expect("request")["headers"]
            assert (headers["traceparent"], headers["tracestate"]) == (sent, "a=b")
        for sent in (
            "x",
            TRACE.upper(),
            f"{TRACE.replace('00-', 'cc-', 1)}-{'x' * 300}",
            f"{TRACE}-more",
            TRACE.replace("00-", "ff-", 1),
            f"00-{'0' * 32}-00f067aa0ba902b7-01",
            f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
            "é",
            f"{TRACE},{TRACE}",
        ):
            server.go(token, headers={"traceparent": sent.encode(), "tracestate": "a=b"})
            headers = client.expect("request")["headers"]
            assert headers["traceparent"] != sent
            assert len(headers["traceparent"]) == len(TRACE)
            assert "tracestate" not in headers


def test_a_reply_does_not_set_the_id(server, token):
    """The relay's is the one of the response."""
    with PythonListener(
        server, token, auth={"mode": "reply"}, replies=[(200, "x", {"X-Request-Id": "evil", "X-Other": "1"})]
    ) as client:
        client.expect("connect")
        answer = server.go(token, headers={"X-Request-Id": "mine"})
        assert (answer.headers["X-Request-Id"], answer.headers["X-Other"]) == ("mine", "1")


@pytest.mark.parametrize(
    ("command", "environment", "named"),
    [
        ("gunicorn -k eventlet -w 2 wsgi:app", {}, "SOCKET2ME_STORE_URL=redis://"),
        ("gunicorn -k sync -w 2 wsgi:app", {}, "SOCKET2ME_STORE_URL=redis://"),
        (
            "gunicorn -k eventlet wsgi:app",
            {"SOCKET2ME_PING_INTERVAL_SECONDS": "x"},
            "SOCKET2ME_PING_INTERVAL_SECONDS",
        ),
        ("gunicorn -k eventlet wsgi:app", {"SOCKET2ME_STORE_URL": "sqlite:////dev/null/x"}, "SOCKET2ME_STORE_URL"),
        ("flask run", {"SOCKET2ME_HOLD_SECONDS": "x"}, "SOCKET2ME_HOLD_SECONDS"),
    ],
)
def test_a_start_that_is_refused_is_a_line_too(command, environment, named):
    """Every line is JSON where the relay ends at once, and one names what is wrong."""
    ended = run_to_end(command, LOG_FORMAT="json", **environment)
    assert ended.returncode != 0
    lines = [json.loads(line) for line in (ended.stdout + ended.stderr).splitlines()]
    (line,) = [line for line in lines if line["event"].startswith("socket2me: ")]
    assert named in line["event"]
