"""`socket2me check`: a call through a real relay and back, and which step failed if it did not arrive."""

import os
import re
import signal
import time
from contextlib import ExitStack
from queue import SimpleQueue

import pytest
import requests

from socket2me.canary import TAIL, CheckFailed, check, verify
from socket2me.client.http_api import TIMEOUT_SECONDS
from socket2me.client.socketio_connection import Delivery
from socket2me.exceptions import ClientError
from tests.support.library import run
from tests.support.servers import Server, WebSocket, free_port

KEY = "key-of-the-checks"
MAX_CONNECTIONS = 3

STEPS = ["token", "connect", "call", "verify", "delete"]


@pytest.fixture(scope="module")
def relay():
    """A relay that asks for a key, and has room for one token and few clients."""
    with Server(API_KEYS=KEY, MAX_TOKENS=1, MAX_CONNECTIONS_PER_ADDRESS=MAX_CONNECTIONS) as server:
        yield server


def fails(home, *arguments):
    """Run a check that fails, and return its one line on stderr."""
    result = run(home, "check", *arguments, check=False)
    assert result.returncode == 1, result
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def new_token(relay):
    return requests.get(f"{relay.url}/v1/new", headers={"Authorization": f"Bearer {KEY}"}, timeout=5)


def test_a_relay_that_works(relay, tmp_path):
    """The milliseconds of each step are printed, and the token is deleted: the relay has room for one only."""
    for _ in range(2):
        result = run(tmp_path, "check", "--server", relay.url, "--api-key", KEY)
        printed = [re.fullmatch(r"(\w+) +\d+\.\d ms", line)[1] for line in result.stdout.splitlines()]
        assert (printed, result.stderr) == (STEPS, "")
    assert list(tmp_path.iterdir()) == []


def test_a_relay_that_asks_for_another_key(relay, tmp_path):
    """The step and the reason are said."""
    assert fails(tmp_path, "--server", relay.url) == (
        "token: This relay asks for a key: Authorization: Bearer <key>."
    )


def test_a_relay_that_is_down(tmp_path):
    """The step and the reason are said."""
    url = f"http://127.0.0.1:{free_port()}"
    assert fails(tmp_path, "--server", url) == f"token: {url} does not answer: Connection refused"


def test_a_token_is_deleted_when_a_later_step_fails(relay):
    """The relay has no room for another client. Afterwards it has room for another token."""
    steps = []
    with ExitStack() as clients:
        for _ in range(MAX_CONNECTIONS):
            clients.enter_context(WebSocket(relay))
        with pytest.raises(
            CheckFailed, match="^connect: The relay holds as many connections from your address as it may"
        ):
            check(relay.url, api_key=KEY, timeout_seconds=15, report=lambda step, seconds: steps.append(step))
    assert steps == ["token", "delete"]
    result = new_token(relay)
    assert result.status_code == 200
    relay.giveaways.add(result.text)


@pytest.mark.parametrize(
    "change", [{"method": "PUT"}, {"path": "/other"}, {"query": "a= b"}, {"body": b"\x00" * 10}, {"body": "text"}]
)
def test_a_call_that_arrives_changed(change):
    """A change of method, path, query or body is found, and a body that is no bytes; the same call passes."""
    path, _, query = TAIL.partition("?")
    body = os.urandom(10)
    event = {"method": "POST", "path": path, "query": query, "headers": {}, "body": body}
    event |= {"id": "1", "received_at": 0}
    for arrived in (event, {**event, **change}):
        deliveries = SimpleQueue()
        deliveries.put(Delivery(None, arrived, None))
        if arrived is event:
            verify(deliveries, body)
        else:
            with pytest.raises(ClientError):
                verify(deliveries, body)
    with pytest.raises(ClientError, match="did not arrive"):
        verify(deliveries, body)


def test_a_relay_that_is_frozen(relay, tmp_path):
    """The check ends within its timeout although connections are accepted. Last here: its token is left over."""
    pid = relay.worker_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        line = fails(tmp_path, "--server", relay.url, "--api-key", KEY, "--timeout", "0.5")
        assert line == "token: no answer within 0.5 s"
        assert time.monotonic() - started < TIMEOUT_SECONDS  # that of a single request
    finally:
        os.kill(pid, signal.SIGCONT)
