"""socketIO-client-nexus, a client for Engine.IO 3 that shares no code with socket.io-client: text, no `b64=1`."""

import json
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import requests

from tests.support.servers import ROOT, Listener, WebSocket

TRANSPORTS = {"websocket": "websocket", "polling": "xhr-polling", "upgrade": "xhr-polling,websocket"}


@contextmanager
def nexus(server, token, transports):
    listener = Listener()
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.support.nexus", server.url, token, transports],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def read():
        for line in client.stdout:
            said = json.loads(line)
            listener.record(said["event"], *said["data"])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield listener
    finally:
        client.stdin.close()
        client.wait(timeout=10)
        reader.join()
        client.stdout.close()


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
