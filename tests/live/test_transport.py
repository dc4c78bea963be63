"""The relay's transport under what real networks and real clients do to it."""

import json
import os
import signal
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import websocket

from tests.support.raw import Raw, RawWebSocket
from tests.support.servers import (
    DEADLINE_SECONDS,
    ROOT,
    NodeListener,
    PythonListener,
    Server,
    WebSocket,
    free_port,
    wait_until,
)


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def holding_server(request):
    """A relay that holds calls for as long as a client may take to start."""
    with Server(request.param, HOLD_SECONDS=DEADLINE_SECONDS) as server:
        yield server


@pytest.mark.parametrize("kind", [PythonListener, NodeListener])
def test_a_burst_reaches_a_client_that_polls(holding_server, kind):
    """Forty calls that waited for their client, and a hundred at once: each arrives, in order."""
    token = holding_server.new()
    with ThreadPoolExecutor(40) as pool:
        answers = []
        for number in range(40):
            answers.append(pool.submit(holding_server.go, token, json=number))
        with kind(holding_server, token, transports=["polling"]) as client:
            client.expect("connect")
            assert {answer.result().status_code for answer in answers} == {200}
            assert sorted(client.expect("request")["body"] for _ in range(40)) == list(range(40))
            answers = [pool.submit(holding_server.go, token, json=number) for number in range(100)]
            assert {answer.result().status_code for answer in answers} == {200}
            assert sorted(client.expect("request")["body"] for _ in range(100)) == list(range(100))


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]])
def test_a_client_that_is_killed_is_noticed(server, transports):
    """No disconnect is needed, whichever the transport: callers soon receive 503 and not OK."""
    token = server.new()
    client = NodeListener(server, token, transports=transports)
    client.expect("connect")
    assert server.go(token).text == "OK"
    client.kill()
    wait_until(lambda: server.go(token).status_code == 503, "the client is gone")


def test_a_client_that_does_not_read_is_told_and_disconnected():
    """Its queue has a bound; callers receive 503 from there on, and what was accepted before still arrives."""
    with Server(CLIENT_QUEUE_LIMIT_BYTES=3_000_000, HOLD_SECONDS=0) as server:
        token = server.new()
        small_buffer = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
        with WebSocket(server, token, sockopt=small_buffer) as client:
            accepted = 0
            while (answer := server.go(token, data=b"x" * 1_000_000)).status_code == 200:
                accepted += 1
                assert accepted < 100
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "client_too_slow"
            assert answer.headers["Retry-After"] == "5"
            assert server.go(token).json()["error"]["code"] == "nobody_connected"
            for _ in range(accepted):
                assert client.receive().startswith(f'451-/{token},["request"')
                assert client.receive() == b"x" * 1_000_000
            assert client.receive() == f'42/{token},["too_slow"]'
            client.expect_close()


def test_the_queue_of_a_client_that_does_not_poll_has_a_bound_in_requests():
    """The same by number."""
    with Server(CLIENT_QUEUE_LIMIT_REQUESTS=10, HOLD_SECONDS=0) as server, requests.Session() as session:
        token = server.new()
        url = f"{server.url}/socket.io/?EIO=4&transport=polling"
        sid = json.loads(session.get(url).text[1:])["sid"]
        session.post(f"{url}&sid={sid}", data=f"40/{token},")
        assert session.get(f"{url}&sid={sid}").text.startswith("40/")
        statuses = [server.go(token).status_code for _ in range(12)]
        assert statuses == [200] * 10 + [503] * 2
        received = session.get(f"{url}&sid={sid}").text.split("\x1e")
        assert len(received) == 11
        assert received[-1] == f'42/{token},["too_slow"]'
        with pytest.raises(
            websocket.WebSocketBadStatusException, match="400"
        ):  # no close frame, see `_try_upgrade`
            websocket.create_connection(f"ws{url.replace('polling', 'websocket')[4:]}&sid={sid}", timeout=5)
        assert session.get(f"{url}&sid={sid}").status_code == 400


def test_clients_stay_whose_relay_stood_still():
    """It has not read what they sent meanwhile, and gives them more time."""
    with Server(PING_INTERVAL_SECONDS=1, PING_TIMEOUT_SECONDS=1) as server:
        with WebSocket(server, token := server.new()) as client:
            assert client.receive() == "2"
            os.kill(server.worker_pid, signal.SIGSTOP)
            client.send("3")
            time.sleep(2.5)  # longer than it may be silent
            os.kill(server.worker_pid, signal.SIGCONT)
            assert server.go(token).text == "OK"
            while (received := client.receive()) == "2":
                pass
            assert received.startswith("42/")


def test_what_a_client_sent_that_hung_up_is_dropped():
    """It takes the session for lost; a CONNECT that it gave up would replace the one that it has sent since."""
    with Server() as server:
        late, token = server.new_with_secret(), server.new()
        url = f"{server.url}/socket.io/?EIO=4&transport=polling"
        sid = json.loads(requests.get(url, timeout=5).text[1:])["sid"]
        body = f'40/{late["token"]},{{"secret":"{late["secret"]}"}}'
        os.kill(server.worker_pid, signal.SIGSTOP)
        with Raw(server.port) as raw:
            path = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
            raw.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        os.kill(server.worker_pid, signal.SIGCONT)
        assert requests.post(f"{url}&sid={sid}", data=f"40/{token},", timeout=5).status_code == 200
        received = requests.get(f"{url}&sid={sid}", timeout=5).text
        assert (f"40/{token}," in received, late["token"] in received) == (True, False)


def test_two_megabytes_reach_a_raw_client(either_server):
    """The largest body that is accepted, byte for byte."""
    token = either_server.new()
    body = os.urandom(2_048_000)
    with NodeListener(either_server, token, auth={"body": "raw"}) as client:
        client.expect("connect")
        assert either_server.go(token, data=body).text == "OK"
        assert client.expect("request")["body"] == body


def test_events_of_clients_are_not_delivered(server):
    """Not even those that python-socketio would take for its own."""
    token = server.new()
    with WebSocket(server, token) as client:
        for event in ('["connect"]', '["disconnect","x"]', '["disconnect"]', '["request",{}]', "1[]"):
            client.send(f"42/{token},{event}")
        client.send(f'451-/{token},["x",{{"_placeholder":true,"num":0}}]')
        assert server.go(token, json=1).text == "OK"
        assert client.receive().startswith(f'42/{token},["request"')


def test_an_undecodable_packet_ends_its_session(server):
    """A session that only looks alive would swallow calls."""
    token = server.new()
    for packet in ("4", "4x", "40/x,{", "0", "9", "b", "\x00"):
        with WebSocket(server, token) as client:
            client.send(packet)
            client.expect_close()


def test_a_second_poll_at_a_time_ends_the_session(server):
    """As Node's server does it: which poll gets the packets would be undefined."""
    url = f"{server.url}/socket.io/?EIO=4&transport=polling"
    sid = json.loads(requests.get(url, timeout=5).text[1:])["sid"]
    with ThreadPoolExecutor(2) as pool:
        polls = [pool.submit(requests.get, f"{url}&sid={sid}", timeout=20) for _ in range(2)]
        assert sorted(poll.result().status_code for poll in polls) == [200, 400]
    assert requests.get(f"{url}&sid={sid}", timeout=5).status_code == 400


def test_what_is_no_engine_io_is_refused(server):
    """Each in the relay's one error shape."""
    base = f"{server.url}/socket.io/"
    for query in (
        "",
        "?EIO=4",
        "?EIO=2&transport=polling",
        "?EIO=4&transport=flash",
        "?EIO=4&transport=websocket",
    ):
        answer = requests.get(base + query, timeout=5)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    answer = requests.get(f"{base}?EIO=4&transport=polling&sid=nobody", timeout=5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    answer = requests.get(f"{base}?EIO=4&transport=polling", headers={"Origin": "https://evil.example"}, timeout=5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")
    same = requests.get(f"{base}?EIO=4&transport=polling", headers={"Origin": server.url}, timeout=5)
    assert same.status_code == 200
    assert same.headers["Access-Control-Allow-Origin"] == server.url


def test_clients_that_leave_in_any_way_are_no_news():
    """A line for each that connects and one when it has left, no traceback for what a peer does."""
    with Server() as server:
        before = server.log
        tokens = [server.new() for _ in range(30)]
        for number, token in enumerate(tokens):
            client = WebSocket(server, token)
            if number % 3 == 0:  # a reset instead of a close
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif number % 3 == 1:
                client.send("what?")
            client.socket.close()
        wait_until(
            lambda: all(server.go(token).status_code == 503 for token in tokens[:1]),
            "they are gone",
        )
        lines = server.log.removeprefix(before).splitlines()
        assert [
            line
            for line in lines
            if "[INFO] a client connected " not in line and " [INFO] a client disconnected " not in line
        ] == []
        assert len(lines) <= 2 * len(tokens)


def test_a_stop_answers_what_is_in_flight_and_sends_clients_to_the_next_process():
    """SIGTERM: held calls are answered, new ones get 503, clients reconnect to a new process, status 0."""
    port = free_port()
    with Server(port=port, HOLD_SECONDS=30, TOKEN_EXPIRE_SECONDS=60) as server, ThreadPoolExecutor(1) as pool:
        tokens = [server.new() for _ in range(50)]
        clients = [WebSocket(server, token) for token in tokens]
        held = pool.submit(server.go, server.new())
        kept_alive = requests.Session()
        assert kept_alive.get(f"{server.url}/healthz", timeout=5).ok
        with NodeListener(server, server.new()) as node, PythonListener(server, server.new()) as python:
            polling = NodeListener(server, server.new(), transports=["polling"])
            for listener in (node, python, polling):
                listener.expect("connect")
            stopped_at = time.monotonic()
            os.kill(server.process.pid, signal.SIGTERM)
            assert held.result().status_code == 503
            assert held.result().json()["error"]["code"] == "shutting_down"
            assert held.result().headers["Retry-After"] == "5"
            late = kept_alive.post(f"{server.url}/v1/go/{tokens[0]}", timeout=5)
            assert late.status_code == 503
            assert late.headers["Retry-After"] == "5"
            for client in clients:
                client.expect_close()
            assert server.process.wait(10) == 0
            assert time.monotonic() - stopped_at < 5
            for listener in (node, python, polling):
                listener.expect("disconnect")
            with Server(port=port):
                # They reconnect; the memory store has forgotten their tokens, and they are refused.
                for listener in (node, python, polling):
                    listener.expect("connect_error") if listener is not polling else None
            polling.close()
        for client in clients:
            client.__exit__()
        kept_alive.close()


def test_a_killed_relay_starts_again():
    """kill -9 leaves nothing that a new start would stumble over."""
    port = free_port()
    server = Server(port=port)
    token = server.new()
    client = WebSocket(server, token)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    client.expect_close()
    client.__exit__()
    with Server(port=port) as server:
        with PythonListener(server, token := server.new()) as client:
            client.expect("connect")
            assert server.go(token, json=1).text == "OK"
            assert client.expect("request")["body"] == 1


def test_a_cap_that_the_system_cannot_hold_stops_the_start():
    """More clients than files: one line, and not a server that stops accepting one day."""
    ended = subprocess.run(
        ["bash", "-c", "ulimit -n 200; PORT=1 SOCKET2ME_MAX_CONNECTIONS=1000 gunicorn -k eventlet wsgi:app"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{os.path.dirname(os.sys.executable)}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode != 0
    assert ended.stderr.startswith("socket2me: SOCKET2ME_MAX_CONNECTIONS=1000 is not accepted: of the 200 files ")


def test_a_second_post_at_a_time_ends_the_session(server):
    """As Node's server does it: packets of the two could come in any order."""
    url = f"{server.url}/socket.io/?EIO=4&transport=polling"
    sid = json.loads(requests.get(url, timeout=5).text[1:])["sid"]
    with Raw(server.port) as slow:
        slow.send(
            f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: 1\r\n\r\n".encode()
        )
        wait_until(
            lambda: requests.post(f"{url}&sid={sid}", data="3", timeout=5).status_code == 400, "both are there"
        )
        slow.send(b"3")
        slow.answer()
    assert requests.get(f"{url}&sid={sid}", timeout=5).status_code == 400


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12\r\n", 426),
        ("HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", 400),
    ],
)
def test_a_handshake_that_is_none_is_refused(any_server, head, status):
    """Each with the status that RFC 6455 has for it; a wrong version is answered with the right one."""
    with Raw(any_server.port) as raw:
        raw.send(
            f"GET /socket.io/?EIO=4&transport=websocket {head}Host: x\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        answer = raw.read_until(b"\r\n\r\n").decode().lower()
        assert int(answer[9:12]) == status
        assert ("sec-websocket-version: 13\r\n" in answer) == (status == 426)


def test_a_limit_that_an_upgrade_reaches_is_logged():
    """As one that a WebSocket reaches which carries its session: here, frames in a second."""
    with Server() as server:
        url = f"{server.url}/socket.io/?EIO=4&transport=polling"
        sid = json.loads(requests.get(url, timeout=5).text[1:])["sid"]
        with RawWebSocket(server.port, query=f"&sid={sid}") as upgrade:
            upgrade.send(b"\x89\x80\0\0\0\0" * 20_000)
            wait_until(lambda: "FRAMES_PER_SECOND" in server.log, "the log says so")


@pytest.mark.parametrize("seconds", [1, 2])
def test_a_heartbeat_is_on_time(seconds):
    """Within a tick of a fiftieth of its interval; a slow machine makes it late, never early."""
    with Server(PING_INTERVAL_SECONDS=seconds, PING_TIMEOUT_SECONDS=1) as server, WebSocket(server) as client:
        started = time.monotonic()
        late = []
        for number in range(1, 4):
            assert client.receive() == "2"
            late.append(time.monotonic() - started - number * seconds)
            client.send("3")
    assert -0.05 < min(late)
    assert min(late) < 0.1


def test_what_socket_io_client_adds_to_auth_is_passed_over(server):
    """After a server with connection state recovery; other unknown members are refused."""
    made = server.new_with_secret()
    auth = {"secret": made["secret"], "pid": "abc", "offset": "1"}
    with PythonListener(server, made["token"], auth=auth) as client:
        client.expect("connect")
        assert server.go(made["token"]).text == "OK"
    with PythonListener(server, made["token"], auth={**auth, "other": 1}) as client:
        assert "auth takes" in client.expect("connect_error")["message"]
