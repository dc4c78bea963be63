"""How connections are read: in rotation, and all that has come, also where TLS has read ahead of the socket."""

import shutil
import socket
import ssl
import subprocess
import threading
import time

import eventlet
import pytest

from socket2me_flask.concurrency.loop import GreenLoop, ThreadLoop
from socket2me_flask.engineio.websocket_connection import READ_BYTES, Connection, ConnectionOptions
from socket2me_flask.limits import Pool
from tests.support.servers import DEADLINE_SECONDS, wait_until

FRAME = b"\x81\x81" + bytes(4) + b"x"
FRAMES = 2000  # less than a record of TLS, which has 16 KB, and more than one read


class Owner:
    """Counts messages."""

    def __init__(self):
        self.messages = 0
        self.is_closed = False
        self.is_drained = threading.Event()

    def on_progress(self):
        pass

    def on_drained(self):
        self.is_drained.set()

    def on_message(self, opcode, payload):
        self.messages += 1

    def on_limit(self, error):
        pass

    def on_closing(self, reason):
        pass

    def on_closed(self, reason):
        self.is_closed = True


class Tls:
    """A socket that speaks TLS, and says that it would block as others do."""

    def __init__(self, tls):
        self._tls = tls

    def recv(self, size):
        try:
            return self._tls.recv(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def __getattr__(self, name):
        return getattr(self._tls, name)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """TLS for a server and for its client."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificate)
    client.check_hostname = False
    return server, client


@pytest.fixture(params=["plain", "tls"])
def pair(request):
    """The server's end of a connection, which does not block, and the client's."""
    theirs, ours = socket.socketpair()
    if request.param == "tls":
        server, client = request.getfixturevalue("contexts")
        shaken = []
        shaking = threading.Thread(target=lambda: shaken.append(server.wrap_socket(theirs, server_side=True)))
        shaking.start()
        ours = client.wrap_socket(ours)
        shaking.join()
        theirs = Tls(shaken[0])
    theirs.setblocking(False)
    yield theirs, ours
    ours.close()
    theirs.close()


def test_green_threads_read_all_that_has_come(pair):
    """In several reads, although the socket of the later ones is not readable any more; a pause loses nothing."""
    theirs, ours = pair
    loop, owner = GreenLoop(), Owner()
    connection = Connection(theirs, ConnectionOptions(loop, 1000, Pool(1000)), loop.lock(), owner, "127.0.0.1")
    assert isinstance(loop.watch(connection), StopIteration)
    for rounds in range(1, 4):
        ours.sendall(FRAME * FRAMES)
        assert len(FRAME * FRAMES) > 2 * READ_BYTES
        deadline = time.monotonic() + DEADLINE_SECONDS
        while owner.messages < (rounds - 1) * FRAMES + 10:
            assert time.monotonic() < deadline
            eventlet.sleep(0)
        connection.pause_reading(True)
        eventlet.sleep(0)
        connection.pause_reading(False)
        while owner.messages < rounds * FRAMES:
            assert time.monotonic() < deadline
            eventlet.sleep(0.001)
    connection.abort()
    assert owner.is_closed


def test_threads_read_all_that_has_come(pair):
    """The same under `flask run`."""
    theirs, ours = pair
    loop, owner = ThreadLoop(), Owner()
    connection = Connection(theirs, ConnectionOptions(loop, 1000, Pool(1000)), loop.lock(), owner, "127.0.0.1")
    server = threading.Thread(target=loop.watch, args=(connection,), daemon=True)
    server.start()
    ours.sendall(FRAME * FRAMES)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while owner.messages < FRAMES:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    connection.abort()
    server.join(DEADLINE_SECONDS)


def test_threads_write_what_the_peer_does_not_read_yet(pair):
    """Under `flask run`: all of it arrives, in order, once the peer reads, and nothing is left to write."""
    theirs, ours = pair
    loop, owner = ThreadLoop(), Owner()
    connection = Connection(theirs, ConnectionOptions(loop, 1000, Pool(1000)), loop.lock(), owner, "127.0.0.1")
    written = b"".join(number.to_bytes(4, "big") for number in range(500_000))
    connection.write(written)
    connection.write(b"the end")
    assert connection.unsent_bytes > 0
    ours.settimeout(DEADLINE_SECONDS)
    read = b""
    while len(read) < len(written) + 7:
        read += ours.recv(1_000_000)
    assert read == written + b"the end"
    assert owner.is_drained.wait(DEADLINE_SECONDS)
    assert connection.unsent_bytes == 0
    connection.abort()


def test_threads_write_no_more_to_a_connection_that_was_closed(pair):
    """The thread that waited to write ends."""
    theirs, _ = pair
    loop, owner = ThreadLoop(), Owner()
    connection = Connection(theirs, ConnectionOptions(loop, 1000, Pool(1000)), loop.lock(), owner, "127.0.0.1")
    threads = threading.active_count()
    connection.write(bytes(2_000_000))
    assert threading.active_count() == threads + 1
    connection.abort()
    connection.write(b"more")
    assert (owner.is_closed, connection.unsent_bytes) == (True, 0)
    wait_until(lambda: threading.active_count() == threads, "the thread ends")


def test_threads_read_nothing_from_a_connection_that_is_paused(pair):
    """Until it goes on."""
    theirs, ours = pair
    loop, owner = ThreadLoop(), Owner()
    connection = Connection(theirs, ConnectionOptions(loop, 1000, Pool(1000)), loop.lock(), owner, "127.0.0.1")
    connection.pause_reading(True)
    server = threading.Thread(target=loop.watch, args=(connection,), daemon=True)
    server.start()
    ours.sendall(FRAME)
    passed = threading.Event()
    loop.call_later(0.05, passed.set)
    assert passed.wait(DEADLINE_SECONDS)
    assert owner.messages == 0
    connection.pause_reading(False)
    wait_until(lambda: owner.messages == 1, "it is read")
    connection.abort()
    server.join(DEADLINE_SECONDS)


def test_a_pong_waits_for_what_is_unsent(pair):
    """Of many pings of a peer that reads nothing, the last is answered, once all else is read."""
    theirs, ours = pair
    loop, owner = ThreadLoop(), Owner()
    connection = Connection(theirs, ConnectionOptions(loop, 1000, Pool(1000)), loop.lock(), owner, "127.0.0.1")
    connection.write(bytes(2_000_000))
    threading.Thread(target=loop.watch, args=(connection,), daemon=True).start()
    for number in range(50):
        ours.sendall(b"\x89\x81" + bytes(4) + bytes([number]))
    ours.sendall(FRAME)
    wait_until(lambda: owner.messages == 1, "all pings are read")
    ours.settimeout(DEADLINE_SECONDS)
    read = b""
    while len(read) < 2_000_003:
        read += ours.recv(1_000_000)
    assert read == bytes(2_000_000) + b"\x8a\x01" + bytes([49])
    connection.abort()
