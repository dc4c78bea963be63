"""The inspector on this machine: its bounds, and what is no HTTP. Over real connections, in this process."""

import contextlib
import http.client
import json
import socket
import threading

import pytest

from socket2me.inspector.history import Bounds
from socket2me.listening.inspector_server import (
    MAX_CONNECTIONS,
    MAX_REPLAY_BYTES,
    MAX_REPLAYS,
    MAX_STREAMS,
    InspectorServer,
)
from socket2me.listening.recorder import BOUNDS, Recorder
from socket2me.request import Request
from tests.support.servers import wait_until

# How many requests the history of these tests holds.
KEPT = MAX_REPLAYS + 5

SECONDS = 10  # for whatever should happen at once; only a failure waits this long


class Served:
    """A server, the requests that it is to send again, and `may_end`, which those wait for."""

    def __init__(self):
        self.may_end = threading.Event()
        self.handled = []
        self.opened = contextlib.ExitStack()
        self.recorder = Recorder(Bounds(max_requests=KEPT))
        self.server = InspectorServer(
            self.recorder, ports=range(1), handle=self._handle, describe=lambda: {"url": None}
        )
        self.server.start()
        self.address = self.server.server_address
        self.key = self.server.url.rpartition("=")[2]

    def _handle(self, request):
        self.handled.append(request)
        self.may_end.wait(SECONDS)

    def ask(self, method, path, body=None):
        """Call, and return the response, with its connection open until the end of the test."""
        connection = http.client.HTTPConnection(*self.address, timeout=SECONDS)
        self.opened.callback(connection.close)
        connection.request(method, f"/v1/tokens/local{path}", body, {"Authorization": f"Bearer {self.key}"})
        response = connection.getresponse()
        self.opened.callback(response.close)
        return response

    def raw(self, data):
        """Send bytes, and return the whole response."""
        with socket.create_connection(self.address, SECONDS) as connection:
            connection.sendall(data.replace(b"HOST", b"Host: 127.0.0.1:%d" % self.address[1]))
            return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.fixture
def served():
    served = Served()
    yield served
    served.opened.close()
    served.may_end.set()
    served.server.shutdown()
    served.server.server_close()


def error_of(response):
    return response.status, json.loads(response.read())["error"]["code"]


def test_the_oldest_requests_are_dropped_first(served):
    """The history is bounded in number and bytes; the list says how many requests were dropped."""
    assert min(BOUNDS.max_requests, BOUNDS.max_bytes) > 0
    for number in range(KEPT + 2):
        served.recorder.begin(Request("POST", id=str(number)))
    listed = json.loads(served.ask("GET", "/requests").read())
    assert ([each["id"] for each in listed["requests"]]) == [str(number) for number in range(KEPT + 1, 1, -1)]
    assert listed["dropped"] == 2


def test_replays_are_bounded(served):
    """No more than `MAX_REPLAYS` wait for the app, and when one has ended there is room for another."""
    served.recorder.begin(Request("POST", id="a"))
    for _ in range(MAX_REPLAYS):
        assert served.ask("POST", "/requests/a/replay").status == 202
    assert error_of(served.ask("POST", "/requests/a/replay")) == (429, "too_many_replays")
    served.may_end.set()
    wait_until(lambda: served.ask("POST", "/requests/a/replay").status == 202, "there is room")


def test_a_replay_is_signed_again_only_as_it_came(served):
    """A replay counts as verified, so `--resign` signs it, if headers and body are those that were verified."""
    served.recorder.begin(Request("POST", "/x", "", {"a": "1"}, b"{}", "a", verified="stripe"))
    shown = json.loads(served.ask("GET", "/requests/a").read())
    assert [(entry["what"], entry["detail"]) for entry in shown["timeline"]][1:] == [("verified", "stripe")]
    for changes in ({}, {"path": "/y"}, {"text": "{} "}, {"headers": {"a": "2"}}):
        assert served.ask("POST", "/requests/a/replay", json.dumps(changes)).status == 202
        wait_until(lambda: served.handled, "it is handled")
        is_same = served.handled.pop().verified == "stripe"
        assert is_same == ("text" not in changes and "headers" not in changes)


def test_streams_and_connections_are_bounded(served):
    """A stream too many is answered 429, a connection too many 503; those that were closed count no more."""
    for _ in range(MAX_STREAMS):
        assert served.ask("GET", "/requests/stream").status == 200
    assert error_of(served.ask("GET", "/requests/stream")) == (429, "too_many_streams")
    for _ in range(MAX_CONNECTIONS - MAX_STREAMS - 1):
        served.opened.enter_context(socket.create_connection(served.address, SECONDS))
    assert served.raw(b"").startswith(b"HTTP/1.1 503 ")
    served.opened.close()
    wait_until(lambda: served.ask("GET", "/requests/stream").status == 200, "there is room")


NO_REQUESTS = [
    (b"nonsense\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 421),
    (b"GET / HTTP/1.1\r\nHOST\r\nHOST\r\nConnection: close\r\n\r\n", 421),
    (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHOST\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHOST\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    (b"BREW / HTTP/1.1\r\nHOST\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHOST\r\nContent-Length: 5\r\n\r\nGET /", 404),
]


def test_what_is_no_request(served):
    """It is answered with its reason as JSON, and the connection is closed: no body is taken for a request."""
    for sent, status in NO_REQUESTS:
        answer = served.raw(sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b'{"error": ') == 1


def test_bodies_that_are_not_read(served):
    """One that is too large is answered before it is sent; one without a length, or that ends early, is refused."""
    served.recorder.begin(Request("POST", id="a"))
    start = b"POST /v1/tokens/local/requests/a/replay HTTP/1.1\r\nHOST\r\nAuthorization: Bearer %b\r\n" % (
        served.key.encode()
    )
    for header, status in (
        (b"Content-Length: %d" % (2 * MAX_REPLAY_BYTES), 413),
        (b"Content-Length: -1", 400),
        (b"Transfer-Encoding: chunked", 400),
    ):
        assert served.raw(start + header + b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
    assert served.handled == []
