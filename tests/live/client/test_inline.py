"""What `listen` forwards in the thread that reads: calls that need no new connection to the app."""

import threading
import time
from collections import Counter
from contextlib import closing

import pytest

from socket2me.client.http_api import RelayApi, Token
from socket2me.listening.local_forwarder import Forwarder
from socket2me.local_app.target import MAX_ANSWER_BYTES, Target
from socket2me.output.report import JsonReport
from tests.support.library import listening, open_on, until_connected
from tests.support.local_app import OK, App, call
from tests.support.servers import wait_until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MAX_ANSWER_BYTES + b"x" * MAX_ANSWER_BYTES
TOO_LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_ANSWER_BYTES + 1) + b"x" * (
    MAX_ANSWER_BYTES + 1
)

# What the app answers to a call, and what its caller receives.
CASES = [
    (OK, b"", (200, b"fine")),
    (CHUNKED, b"", (200, b"fine")),
    (OK, b"b" * 100_000, (200, b"fine")),
    (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"", (200, b"fine")),
    (OK, b"", (200, b"fine")),
    (OK + b"surplus", b"", (200, b"fine")),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", (204, b"")),
    (LARGE, b"", (200, b"x" * MAX_ANSWER_BYTES)),
    (TOO_LARGE, b"", (502, None)),
    (None, b"", (502, None)),
    (b"no HTTP\r\n\r\n", b"", (502, None)),
    (OK, b"", (200, b"fine")),
]


class Recorded(JsonReport):
    """A report of the threads in which requests are reported."""

    def __init__(self):
        self.threads = []

    def request(self, *_, **__):
        self.threads.append(threading.current_thread().name)

    def slow(self, *_):
        pass


@pytest.fixture
def forwarding(server, app):
    """The library, which forwards to the app as `listen --reply` does: its URL, its report and its forwarder."""
    client = open_on(server, mode="reply", mailbox=False)
    report = Recorded()
    target = Target(app.url, timeout_seconds=1)
    forwarder = Forwarder(target, report, is_replying=lambda: True)
    forwarder.is_blocked = lambda: False  # pytest has the output
    with listening(client, forwarder):
        until_connected(server, client)
        assert call(server, client.url)[0] == 200  # which opens a connection
        yield client.url, report, forwarder
    target.close()


def test_all_but_the_first_are_forwarded_by_the_thread_that_reads(server, forwarding):
    """No other thread has a part in a call over a connection that is open."""
    url, report, _ = forwarding
    for _ in range(3):
        assert call(server, url)[0] == 200
    assert ["read_loop" in name for name in report.threads] == [False, True, True, True]


def test_output_that_is_not_read_blocks_no_thread_that_reads(server, forwarding):
    """Then the rest of a call has a thread of its own, and its caller receives the answer."""
    url, report, forwarder = forwarding
    answers = iter([False, True])  # at the beginning of the call, and when it was answered
    forwarder.is_blocked = lambda: next(answers)
    assert call(server, url)[0] == 200
    assert "read_loop" not in report.threads[-1]


def test_each_kind_of_answer_is_what_its_caller_receives(server, app, forwarding):
    """With its length, in chunks, large, cut, none at all: the same as for a call that has a thread."""
    url, _, _ = forwarding
    for answer, sent, (status, body) in CASES:
        app.answer = answer
        got, _, received = call(server, url, body=sent)
        assert (got, received if body is not None else None) == (status, body), answer
        app.answer = OK
        assert call(server, url)[0] == 200, answer


def test_an_app_that_closes_a_kept_connection(server, app, forwarding):
    """The next call has another connection, whichever side of an answer the old one ended on."""
    url, _, _ = forwarding
    for _ in range(3):
        app.drop_connections()
        assert call(server, url)[0] == 200


def test_slow_answers_delay_no_other_call(server, app, forwarding):
    """Those that do not come in time are 504, each at its own time, while others come and go."""
    url, report, _ = forwarding
    arrived, may_answer = threading.Semaphore(0), threading.Event()

    def answer(received):
        if received.line.split()[1] == "/slow":
            arrived.release()
            may_answer.wait(20)
        return OK

    app.answer = answer
    statuses = Counter()
    slow = [threading.Thread(target=lambda: statuses.update([call(server, url, "/slow")[0]])) for _ in range(3)]
    for thread in slow:
        thread.start()
        arrived.acquire(timeout=20)
    assert [call(server, url)[0] for _ in range(5)] == [200] * 5
    for thread in slow:
        thread.join()
    may_answer.set()
    assert statuses == {504: 3}
    assert call(server, url)[0] == 200


def test_no_more_at_once_than_may_be(server, app):
    """With `parallel` 2, two of ten calls are with the app at once, and all are answered."""
    lock, now, most = threading.Lock(), 0, 0

    def answer(received):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)  # the app's work
        with lock:
            now -= 1
        return OK

    app.answer = answer
    client = open_on(server, mode="reply", mailbox=False, parallel=2)
    target = Target(app.url, timeout_seconds=20)
    with closing(target), listening(client, Forwarder(target, Recorded(), is_replying=lambda: True)):
        until_connected(server, client)
        statuses = Counter()
        callers = [
            threading.Thread(target=lambda: statuses.update([call(server, client.url)[0]])) for _ in range(10)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert (statuses, most) == ({200: 10}, 2)


def test_an_answer_that_is_due_when_the_connection_ends_is_told(server):
    """The app is waited for, and its answer printed, though no caller receives it."""
    with App() as app:
        arrived, may_answer = threading.Event(), threading.Event()

        def answer(received):
            if received.line.split()[1] == "/slow":
                arrived.set()
                may_answer.wait(20)
            return OK

        app.answer = answer
        report = Recorded()
        client = open_on(server, mode="reply", mailbox=False)
        target = Target(app.url, timeout_seconds=20)
        forwarder = Forwarder(target, report, is_replying=lambda: True)
        forwarder.is_blocked = lambda: False
        with closing(target), listening(client, forwarder):
            until_connected(server, client)
            call(server, client.url)
            caller = threading.Thread(target=call, args=[server, client.url, "/slow"])
            caller.start()
            arrived.wait(20)
            RelayApi(server.url).delete(Token(client.token, client.secret))
            may_answer.set()
            caller.join()
            wait_until(lambda: len(report.threads) == 2, "the second is reported")
