"""The relay's own gunicorn worker: how it starts, accepts, serves and ends, as an operator meets it."""

import contextlib
import http.client
import os
import re
import shlex
import signal
import socket
import ssl
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import socketio
import websocket

from tests.support.attack import cpu_of
from tests.support.raw import Raw
from tests.support.servers import (
    DEADLINE_SECONDS,
    ROOT,
    PythonListener,
    Server,
    WebSocket,
    clean_environment,
    free_port,
    run_to_end,
    wait_until,
)

GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def server_with(arguments, *, config=True, app="wsgi:app"):
    """Return a kind of server: gunicorn with further arguments."""

    class Other(Server):
        @staticmethod
        def command(runner, port):
            worker = "eventlet" if config else "socket2me_flask.worker.EventletWorker"
            line = f"gunicorn -k {worker} {arguments.format(port=port)} {app}"
            environment = {"PORT": str(port)}
            if not config:
                line += f" --config python:tests --bind 127.0.0.1:{port}"
                environment = {}
            return shlex.split(line), environment

    return Other


def processes_of(server):
    """Return the pids of the workers that have not ended."""
    master = server.process.pid
    children = [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    return [pid for pid in children if is_alive(pid)]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def listening(server, **options):
    token = server.new()
    with PythonListener(server, token, **options) as client:
        client.expect("connect")
        yield token, client


def assert_relays(server):
    """Fail unless a call reaches a client."""
    with listening(server) as (token, client):
        assert server.go(token, json={"a": 1}).text == "OK"
        assert client.expect("request")["body"] == {"a": 1}


@pytest.mark.parametrize("config", [True, False])
def test_it_starts_without_a_warning_and_relays(config):
    """With and without `gunicorn.conf.py`; with every warning shown."""
    kind = server_with("", config=config)
    with kind(PYTHONWARNINGS="default::Warning") as server:
        assert_relays(server)
        assert server.stop() == 0
    assert not re.search(r"warning|deprecat|traceback", server.log, re.IGNORECASE), server.log


def test_it_serves_any_wsgi_application():
    """Not a relay only."""
    with server_with("--pythonpath benchmarks", app="bare_wsgi:app")() as server:
        with requests.Session() as session:
            for _ in range(3):
                assert session.post(server.url, data=b"x" * 100_000, timeout=5).text == "OK"
        assert server.stop() == 0


def test_without_a_configuration_file_a_peer_sets_no_variable():
    """SCRIPT_NAME and the scheme by header change nothing."""
    with server_with("", config=False)() as server, Raw(server.port) as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /healthz\r\nX-Forwarded-Proto: https\r\n\r\n")
        assert raw.answer() == (200, b"OK")


@pytest.mark.parametrize("store", ["memory://", "sqlite:///"])
def test_several_workers_need_a_store_that_they_share(store, tmp_path):
    """Refused at the start, in one line that names Redis."""
    url = store + (str(tmp_path / "relay.db") if store != "memory://" else "")
    ended = run_to_end("gunicorn -k eventlet -w 2 wsgi:app", STORE_URL=url)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("socket2me: ")]
    assert "2 workers need SOCKET2ME_STORE_URL=redis://" in line


@pytest.mark.parametrize(
    ("flag", "named"), [("--preload", "preload_app"), ("--http-protocols h1,h2", "http_protocols")]
)
def test_what_the_worker_cannot_do_is_refused_at_the_start(flag, named):
    """In one line that names it."""
    ended = run_to_end(f"gunicorn -k eventlet {flag} wsgi:app")
    assert ended.returncode == 1
    assert named in ended.stderr


def test_a_port_in_use_ends_the_start_with_one_line_that_names_a_free_one(server):
    """Not with five retries and a stack of messages."""
    ended = run_to_end("gunicorn -k eventlet wsgi:app", PORT=server.port)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("socket2me: ")]
    named = re.fullmatch(rf"socket2me: port {server.port} of 127\.0\.0\.1 is in use\. PORT=(\d+) is free\.", line)
    assert server.port < int(named[1]) < server.port + 100


@pytest.mark.parametrize(
    ("settings", "is_warned"),
    [
        ({}, False),
        ({"BIND": "0.0.0.0"}, True),
        ({"BIND": "0.0.0.0", "API_KEYS": "k" * 32, "REQUIRE_SECRET": "1"}, False),
    ],
)
def test_a_relay_that_others_reach_says_what_that_means(settings, is_warned):
    """In the log, unless keys and secrets are required."""
    with Server(**settings) as server:
        assert server.stop() == 0
    assert ("not only for this machine" in server.log) == is_warned


def test_a_unix_socket(tmp_path):
    """A proxy on the same machine needs no port."""
    path = tmp_path / "relay.sock"
    with (
        server_with(f"--bind unix:{path} --bind 127.0.0.1:{{port}}")() as server,
        Raw(str(path)) as raw,
    ):
        raw.send(GET_HEALTH)
        assert raw.answer() == (200, b"OK")
        raw.send(f"GET /v1/go/{'a' * 24} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert raw.answer()[0] == 404
        assert server.stop() == 0
    assert not path.exists()


def test_several_binds_and_ipv6():
    """Each address is served."""
    second = free_port()
    with server_with(f"--bind 127.0.0.1:{{port}} --bind [::1]:{second}")() as server:
        token = server.new()
        assert requests.get(f"http://[::1]:{second}/healthz", timeout=5).text == "OK"
        assert requests.get(f"http://[::1]:{second}/v1/refresh/{token}", timeout=5).text == "OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        shlex.split(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost "
            "-addext subjectAltName=IP:127.0.0.1"
        ),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


class TLSServer(Server):
    """A relay behind its own TLS."""

    certificate: Path

    def __init__(self, certificate):
        self.certificate = certificate
        super().__init__()
        self.url = self.url.replace("http:", "https:")

    def command(self, runner, port):
        line = f"gunicorn -k eventlet --certfile {self.certificate}/cert.pem --keyfile {self.certificate}/key.pem"
        return [*shlex.split(line), "wsgi:app"], {"PORT": str(port)}

    def answers(self):
        assert self.process.poll() is None, f"the server ended: {self.log}"
        try:
            return self.get("/healthz").ok
        except requests.RequestException:
            return False

    def get(self, path, **options):
        verify = str(self.certificate / "cert.pem")
        return requests.get(f"https://127.0.0.1:{self.port}{path}", timeout=5, verify=verify, **options)


@pytest.fixture(scope="module")
def tls_server(certificate):
    with TLSServer(certificate) as server:
        yield server


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
def test_clients_over_tls(tls_server, certificate, transports):
    """`--certfile`, with WebSocket too: small and large events, and a client that leaves is noticed."""
    token = tls_server.get("/v1/new").text
    url = f"{tls_server.url}/v1/go/{token}"
    sent = [b"x" * size for size in (1, 20_000, 1_500_000, 2)]
    bodies = []
    with requests.Session() as session:
        session.verify = str(certificate / "cert.pem")
        session.trust_env = False  # which would name other certificates
        client = socketio.Client(
            http_session=session,
            websocket_extra_options={"sslopt": {"ca_certs": str(certificate / "cert.pem")}},
            reconnection=False,
        )
        client.on("request", lambda request: bodies.append(request["body"]), namespace=f"/{token}")
        client.connect(
            tls_server.url, namespaces=[f"/{token}"], transports=transports, wait_timeout=DEADLINE_SECONDS
        )
        for number, body in enumerate(sent, 1):
            assert session.post(url, data=body, timeout=20).text == "OK"
            wait_until(lambda: len(bodies) == number, "it arrived")  # noqa: B023
        assert bodies == sent
        client.disconnect()
        wait_until(lambda: session.post(url, timeout=20).status_code == 503, "the client is gone")


def test_a_stream_over_tls(tls_server, certificate):
    """Large events arrive at a client that reads slowly, and the end of the stream is noticed."""
    verify = str(certificate / "cert.pem")
    path = tls_server.get("/smee/new", allow_redirects=False).headers["Location"].partition(str(tls_server.port))[2]
    url, body = f"{tls_server.url}/v1/go/{path[6:30]}", "x" * 1_500_000
    context = ssl.create_default_context(cafile=verify)
    connection = http.client.HTTPSConnection("127.0.0.1", tls_server.port, timeout=20, context=context)
    connection.request("GET", path, headers={"Accept": "text/event-stream"})
    stream = connection.getresponse()
    assert stream.readline() == b"event: ready\n"
    for _ in range(4):
        assert requests.post(url, data=body, timeout=20, verify=verify).text == "OK"
    events = 0
    while events < 4:
        events += body.encode() in stream.readline()
    stream.close()
    connection.close()
    wait_until(lambda: requests.post(url, timeout=20, verify=verify).status_code == 503, "the client is gone")


def test_what_is_no_tls_harms_no_other(tls_server):
    """Plain HTTP, half a handshake and nothing at all: closed, and nothing of it in the log."""
    for data in (GET_HEALTH, b"\x16\x03\x01\x02\x00\x01", b""):
        with socket.create_connection(("127.0.0.1", tls_server.port), timeout=DEADLINE_SECONDS) as raw:
            raw.sendall(data)
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):
                    pass
    assert tls_server.get("/healthz").text == "OK"
    assert "Traceback" not in tls_server.log


def test_a_websocket_over_tls_that_does_not_read_is_served_again(tls_server, certificate):
    """What waits for a slow reader arrives whole once it reads."""
    token = tls_server.get("/v1/new").text
    options = {"sslopt": {"ca_certs": str(certificate / "cert.pem")}, "timeout": DEADLINE_SECONDS}
    connection = websocket.create_connection(
        f"wss://127.0.0.1:{tls_server.port}/socket.io/?EIO=4&transport=websocket", **options
    )
    connection.recv()
    connection.send(f"40/{token},")
    connection.recv()
    body = os.urandom(1_000_000)
    for _ in range(5):
        with ssl.create_default_context(cafile=str(certificate / "cert.pem")).wrap_socket(
            socket.create_connection(("127.0.0.1", tls_server.port)), server_hostname="127.0.0.1"
        ) as caller:
            caller.sendall(
                f"POST /v1/go/{token} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            assert caller.recv(4096).startswith(b"HTTP/1.1 200 OK")
    for _ in range(5):
        assert connection.recv().startswith("451-")
        assert connection.recv() == body
    connection.close()


# The end


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_every_signal_to_stop_ends_it_with_status_0(sig):
    """Soon, and without a traceback, with clients and idle callers connected."""
    with Server() as server, listening(server, transports=["websocket"]), Raw(server.port) as idle:
        idle.send(GET_HEALTH)
        idle.answer()
        started = time.monotonic()
        os.kill(server.process.pid, sig)
        assert server.process.wait(timeout=20) == 0
        assert time.monotonic() - started < 10
    assert "Traceback" not in server.log


def test_a_stop_answers_what_is_in_flight_and_closes_what_is_kept_alive():
    """A held call is answered 503, a connection that was kept alive receives `Connection: close`."""
    with Server(HOLD_SECONDS=20) as server:
        token = server.new()
        with ThreadPoolExecutor(1) as pool, Raw(server.port) as kept:
            kept.send(GET_HEALTH)
            assert kept.answer() == (200, b"OK")
            assert not kept.is_closing
            held = pool.submit(server.go, token)
            wait_until(lambda: len(os.listdir(f"/proc/{server.worker_pid}/fd")) > 0, "it is held")
            time.sleep(0.2)  # nothing outside tells that a call is held
            os.kill(server.process.pid, signal.SIGTERM)
            assert held.result().status_code == 503
            kept.send(GET_HEALTH)
            assert kept.answer()[0] == 200
            assert kept.is_closing
        assert server.process.wait(timeout=20) == 0


def test_a_master_that_is_killed_takes_its_worker_with_it():
    """Within two seconds: no master would start another, and the port must come free."""
    with Server() as server, WebSocket(server, server.new()):
        (worker,) = processes_of(server)
        os.kill(server.process.pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: not is_alive(worker), "the worker has ended")
        assert time.monotonic() - killed < 4  # a second more than it takes, for a machine that is busy
        wait_until(lambda: "The master process is gone" in server.log, "the log says so")


def test_a_worker_that_stood_still_with_its_master_goes_on():
    """Its master takes it for one that hangs, and sends SIGABRT: it keeps its tokens, and serves."""
    with Server() as server:
        token, worker = server.new(), server.worker_pid
        os.kill(worker, signal.SIGABRT)
        wait_until(lambda: "most recent call first" in server.log, "it has received the signal")
        with WebSocket(server, token):
            assert server.go(token).text == "OK"
        assert server.worker_pid == worker


def test_a_reload_serves_with_a_new_worker():
    """SIGHUP: the old worker drains, clients reconnect to the new one; calls are answered throughout."""
    with Server() as server:
        (old,) = processes_of(server)
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: not is_alive(old), "the old worker has ended")
        (new,) = processes_of(server)
        assert new != old
        assert_relays(server)
        assert server.stop() == 0
    assert "Traceback" not in server.log


def test_a_reload_with_a_file_keeps_its_tokens(tmp_path):
    """The new worker waits until the old one has closed the file."""
    with Server(STORE_URL=f"sqlite:///{tmp_path}/relay.db") as server:
        token = server.new()
        (old,) = processes_of(server)
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: not is_alive(old), "the old worker has ended")
        wait_until(lambda: requests.get(f"{server.url}/v1/refresh/{token}", timeout=20).ok, "the token lives")
        assert_relays(server)
        assert server.stop() == 0


def test_usr1_reopens_the_log(tmp_path):
    """So that it can be rotated."""
    log = tmp_path / "access.log"
    with server_with(f"--access-logfile {log}")() as server:
        log.rename(tmp_path / "access.log.1")
        os.kill(server.process.pid, signal.SIGUSR1)
        wait_until(lambda: log.exists() and requests.get(f"{server.url}/healthz", timeout=5).ok, "it is reopened")
        wait_until(lambda: "/healthz" in log.read_text(), "requests are logged in it")


def test_the_access_log_has_forwarded_calls_without_their_tokens(tmp_path):
    """Whoever forwards them."""
    log = tmp_path / "access.log"
    with server_with(f"--access-logfile {log}")() as server, listening(server) as (token, client):
        server.go(token, "PUT", "/a/b?c", data="x", headers={"User-Agent": "me/1"})
        client.expect("request")
        server.go("z" * 24)
        wait_until(lambda: log.read_text().count("/v1/go/") == 2, "both are logged")
        assert re.search(r'127\.0\.0\.1 .* "PUT /v1/go/<token>/a/b\?c HTTP/1\.1" 200 2 "-" "me/1"', log.read_text())
        assert re.search(r'"POST /v1/go/<token> HTTP/1\.1" 404 \d+', log.read_text())


def test_max_requests_replaces_the_worker():
    """Forwarded calls count; the call that reaches the number is answered, and those that follow too."""
    with server_with("--max-requests 30")() as server:
        (old,) = processes_of(server)
        answers = []
        while is_alive(old):
            with contextlib.suppress(requests.ConnectionError):  # it closed what was kept alive
                answers.append(server.go("z" * 24).status_code)
            assert len(answers) < 10_000
        assert answers.count(404) >= 25
        assert set(answers) <= {404, 503}
        wait_until(lambda: requests.get(f"{server.url}/healthz", timeout=5).ok, "the new one serves")
        assert server.stop() == 0


# Accepting


def test_connections_beyond_worker_connections_wait_and_are_served():
    """And the log says that they wait. None is closed that was opened just now, to make room for another."""
    with server_with("--worker-connections 3")(KEEPALIVE_SECONDS=30) as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(Raw(server.port)) for _ in range(6)]
        wait_until(lambda: "worker_connections are open" in server.log, "the log says so")
        time.sleep(0.2)  # long enough to close some, if they were closed
        for raw in held:
            raw.send(GET_HEALTH)
        answered = []

        def serve_next():
            for raw in held:
                raw.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    answered.append(raw.answer())
                    raw.close()
                    held.remove(raw)
                    return

        def all_answered():
            serve_next()
            return len(answered) == 6

        wait_until(all_answered, "all are answered")
        assert set(answered) == {(200, b"OK")}


def test_out_of_files_it_goes_on_when_some_are_free():
    """The acceptor pauses, says so, and accepts again."""

    class Small(Server):
        @staticmethod
        def command(runner, port):
            line = (
                "ulimit -n 64; exec gunicorn -k socket2me_flask.worker.EventletWorker --config python:tests "
                f"--bind 127.0.0.1:{port} --keep-alive 30 wsgi:app"
            )
            return ["sh", "-c", line], {"MAX_CONNECTIONS": "10"}

    with Small() as server:
        with contextlib.ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(Raw(server.port))
            wait_until(lambda: "no file is left" in server.log, "the log says so")
        wait_until(lambda: requests.get(f"{server.url}/healthz", timeout=5).ok, "it serves again")
        assert_relays(server)
        assert "Traceback" not in server.log


def test_a_websocket_is_no_connection_of_the_worker():
    """Its socket is detached, not duplicated: one file for each client, and a stop waits for none."""
    with server_with("--worker-connections 5")() as server, contextlib.ExitStack() as stack:
        before = len(os.listdir(f"/proc/{server.worker_pid}/fd"))
        for _ in range(20):
            stack.enter_context(WebSocket(server, server.new()))
        assert len(os.listdir(f"/proc/{server.worker_pid}/fd")) <= before + 21
        assert requests.get(f"{server.url}/healthz", timeout=5).ok


def test_frames_before_the_handshake_are_refused(server):
    """A client waits for the response (RFC 6455, section 4.1): what it sends before is not lost in silence."""
    with Raw(server.port) as raw:
        raw.send(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            b"\x81\x80\x00\x00\x00\x00"
        )
        assert raw.read_to_end().startswith(b"HTTP/1.1 400 ")


def test_the_proxy_protocol_says_whose_connection_it_is():
    """For every request of the connection, and for the limits of an address."""
    with server_with("--proxy-protocol=v1")(RATE_LIMIT_NEW="1/minute") as server, Raw(server.port) as raw:
        raw.send(b"PROXY TCP4 9.9.9.9 127.0.0.1 5 80\r\nGET /v1/new HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answer()[0] == 200
        raw.send(b"GET /v1/new HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answer()[0] == 429
        with Raw(server.port) as other:
            other.send(b"PROXY TCP4 8.8.8.8 127.0.0.1 5 80\r\nGET /v1/new HTTP/1.1\r\nHost: x\r\n\r\n")
            status, token = other.answer()
            assert status == 200
            server.giveaways.add(token.decode())


# What peers send in unusual ways


def test_a_body_that_the_application_does_not_read_is_read_past(server):
    """The next request on the connection is answered, and nothing else is."""
    with Raw(server.port) as raw:
        for path in ("/healthz", "/nowhere"):
            raw.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n".encode() + b"x" * 200_000)
            assert raw.answer()[0] in (404, 405)
            raw.send(GET_HEALTH)
            assert raw.answer() == (200, b"OK")


def test_a_handshake_with_a_body_ends_the_connection(server):
    """Its body is not taken for frames, and what follows is not taken for its body."""
    handshake = (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    )
    for rest in (
        b"Content-Length: 200\r\n\r\n" + b"x" * 200,
        b"Content-Length: 10\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n" + GET_HEALTH,
    ):
        with Raw(server.port) as raw:
            raw.send(handshake + rest)
            answer = raw.read_to_end()
            assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
            assert answer.count(b"HTTP/1.1 ") == 1


def test_connections_that_are_reset_are_no_news():
    """Before a request, in the middle of its head and of its body, and while it is idle: not a line."""
    with Server() as server:
        before = server.log
        for sent in (
            b"",
            b"GET / HT",
            GET_HEALTH,
            b"POST /v1/new HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
        ):
            for _ in range(5):
                raw = Raw(server.port)
                raw.send(sent)
                if sent == GET_HEALTH:
                    raw.answer()
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raw.close()
        assert requests.get(f"{server.url}/healthz", timeout=5).ok
        assert server.log == before
        assert_relays(server)


def test_a_peer_that_leaves_before_its_tls_handshake_is_no_news(tls_server):
    """Whether or not its connection was accepted by then."""
    before = tls_server.log
    for _ in range(20):
        raw = Raw(tls_server.port)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
    assert tls_server.get("/healthz").text == "OK"
    assert tls_server.log == before


@pytest.mark.parametrize("sender", [b"Connection: close\r\n", b""])
def test_a_response_before_the_body_has_arrived_is_received(server, sender):
    """The rest of the body is read past until the sender has the response: no reset discards it."""
    version = b"1.1" if sender else b"1.0"
    with Raw(server.port) as raw:
        raw.send(b"POST /nowhere HTTP/" + version + b"\r\nHost: x\r\n" + sender + b"Content-Length: 900000\r\n\r\n")
        for _ in range(9):
            raw.send(b"x" * 100_000)
        assert raw.answer()[0] == 404


APP = """
from wsgi import app as relay
from gunicorn.errors import HaltServer


class Odd(BaseException):
    pass


@relay.get("/odd")
def odd():
    raise Odd


@relay.get("/exit")
def leave():
    raise SystemExit(7)


class Middleware:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        yield from self.app(environ, start_response)


app = {wrapped}
"""


@pytest.mark.parametrize("wrapped", ["relay", "Middleware(relay)"])
def test_what_a_developer_adds_harms_no_connection(tmp_path, wrapped):
    """Exceptions that are none of `Exception`, and middleware that is a generator around a handshake."""
    (tmp_path / "odd_app.py").write_text(APP.replace("{wrapped}", wrapped))
    with server_with(f"--pythonpath {tmp_path},.", app="odd_app:app")() as server:
        assert_relays(server)
        for path in ("/odd", "/exit"):
            for _ in range(2):
                with contextlib.suppress(requests.ConnectionError):
                    assert requests.get(server.url + path, timeout=5).status_code == 500
        (pid,) = processes_of(server)
        assert_relays(server)
        assert processes_of(server) == [pid]
        with WebSocket(server, server.new()):
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 8


SLOW_FORK = """
import time
from socket2me_flask.worker.gunicorn_conf import *

def post_fork(server, worker):
    time.sleep(0.5)
"""


@pytest.mark.parametrize("configuration", ["", SLOW_FORK], ids=["while it loads", "before it has handlers"])
def test_a_stop_right_after_the_start_is_heeded(configuration, tmp_path):
    """A signal that comes before the worker serves is not forgotten."""
    (tmp_path / "conf.py").write_text(configuration)
    own = f" -c {tmp_path / 'conf.py'}" if configuration else ""
    process = subprocess.Popen(
        shlex.split(f"gunicorn -k eventlet{own} wsgi:app"),
        cwd=ROOT,
        env={**clean_environment(), "PORT": str(free_port())},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            if "Booting worker" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=20) == 0
        assert "Worker exiting" in rest  # it was not killed when gunicorn's `graceful_timeout` was over
    finally:
        process.kill()
        process.stderr.close()


def test_sigttin_adds_no_second_relay():
    """With a store of one process; the log says why."""
    with Server() as server:
        (worker,) = processes_of(server)
        os.kill(server.process.pid, signal.SIGTTIN)
        wait_until(lambda: "several need SOCKET2ME_STORE_URL=redis://" in server.log, "the log says so")
        assert processes_of(server) == [worker]
        assert_relays(server)


@pytest.mark.parametrize("chunk_bytes", [700, 8000, 65_536])
def test_chunks_of_common_sizes_are_read_fast(server, chunk_bytes):
    """A body in chunks takes the relay little more than one with a length."""
    body = b"x" * 1_500_000
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(chunk), chunk)
        for chunk in (body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes))
    )
    with listening(server, auth={"body": "raw"}) as (token, client), Raw(server.port) as raw:
        url = f"POST /v1/go/{token} HTTP/1.1\r\nHost: x\r\n".encode()
        spent = []
        for sent in (
            url + b"Content-Length: %d\r\n\r\n" % len(body) + body,
            url + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        ):
            before = cpu_of(server.worker_pid)
            raw.send(sent)
            assert raw.answer() == (200, b"OK")
            assert client.expect("request")["body"] == body
            spent.append(cpu_of(server.worker_pid) - before)
    assert spent[1] < spent[0] * 5 + 0.05
