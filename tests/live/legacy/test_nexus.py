"""socketIO-client-nexus, a client for Engine.IO 3 that shares no code with socket.io-client: text, no `b64=1`."""

import json
import sys
from contextlib import closing, contextmanager

import pytest
import requests

from tests.support.servers import Lines, Listener, WebSocket

TRANSPORTS = {"websocket": "websocket", "polling": "xhr-polling", "upgrade": "xhr-polling,websocket"}


@contextmanager
def nexus(server, token, transports):
    listener = Listener()

    def on_line(line):
        said = json.loads(line)
        listener.record(said["event"], *said["data"])

    command = [sys.executable, "-m", "tests.support.nexus", server.url, token, transports]
    with closing(Lines(command, on_line)):
        yield listener


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_calls_arrive(either_server, transport):
    """Text of any Unicode, in order; its acknowledgement answers the caller; it is sent `replaced`."""
    token = either_server.new()
    with nexus(either_server, token, TRANSPORTS[transport]) as client:
        assert client.expect("connect") == ("xhr-polling" if transport == "polling" else "websocket")
        for number in range(3):
            sent = {"number": number, "text": "ü€\u2028", "large": "ü" * 10_000}
            assert either_server.go(token, json=sent).text == "OK"
            assert client.expect("request")["body"] == sent
        assert requests.post(f"{either_server.url}/go/{token}?a=b", json=1, timeout=5).text == "done"
        assert client.expect("request")["query"] == {"a": "b"}
        with WebSocket(either_server, token):
            client.expect("replaced")
            client.expect("disconnect")
