"""The relay is a plain WSGI application: a server that knows nothing of it serves calls, and clients that poll."""

import threading
from socketserver import ThreadingMixIn
from types import SimpleNamespace
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import requests

from socket2me_flask import create_app
from tests.support.servers import PythonListener


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """The standard library's server, with a thread for each request."""
    app = create_app({"HOLD_SECONDS": 0, "RATE_LIMIT_NEW": None})
    with make_server("127.0.0.1", 0, app, _ThreadingServer, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def test_a_call_reaches_a_client_that_polls(server):
    """By the blueprint, with path, query and body."""
    token = requests.get(f"{server.url}/v1/new", timeout=5).text
    with PythonListener(server, token, transports=["polling"]) as client:
        client.expect("connect")
        answer = requests.put(f"{server.url}/v1/go/{token}/a%20b?c=d", json={"e": 1}, timeout=5)
        assert (answer.status_code, answer.text) == (200, "OK")
        request = client.expect("request")
        assert (request["method"], request["query"], request["body"]) == ("PUT", "c=d", {"e": 1})
    assert requests.get(f"{server.url}/v1/go/{token}", timeout=5).status_code == 503


def test_a_websocket_is_refused_and_not_half_open(server):
    """Such a server gives no socket away: a client stays with long-polling."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = requests.get(f"{server.url}/socket.io/?EIO=4&transport=websocket", headers=headers, timeout=5)
    assert answer.status_code == 400
    assert "no WebSockets" in answer.json()["error"]["message"]
