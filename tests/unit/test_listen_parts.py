"""The parts of `listen` that decide what is sent where, in which order and how often; without a relay."""

import itertools
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

from socket2me.client import ordering
from socket2me.client.ordering import FailedKeys, InOrder, KeyedThreads, OrderKey
from socket2me.exceptions import AnswerRefused, BadArgument, Dropped, NotHandled, TargetDown
from socket2me.listening import receivers, retries
from socket2me.listening.receivers import Fanout
from socket2me.listening.retries import Retrying, Statuses
from socket2me.local_app.target import Answer, Target
from socket2me.request import Request
from socket2me.saved.request_files import curl_command
from tests.support.servers import DEADLINE_SECONDS, wait_until

OK = Answer(200, [], b"", False)


class Fake:
    """A receiver that answers, or raises, what it is made with, the last again and again."""

    def __init__(self, name: str, *outcomes):
        self.name = name
        self.outcomes = list(outcomes) or [OK]
        self.sent = []

    def where(self, request):
        return self.name

    def send(self, request):
        self.sent.append(request)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Reported:
    """Notes what is reported."""

    def __init__(self):
        self.requests = []

    def request(self, request, outcome):
        self.requests.append((outcome.target, outcome.status, outcome.remark))


# Retries


@pytest.mark.parametrize("text", ["", "5", "600", "5xx,", "abc", "-1", "5xxx", "\u0665xx"])
def test_statuses_that_are_none(text):
    """They are refused when `listen` starts."""
    with pytest.raises(BadArgument, match="is no status, such as 503 or 5xx"):
        Statuses.parse(text)


def retrying(receiver, is_closed=lambda: False):
    reported = []
    statuses = Statuses.parse("5xx, 429")
    return Retrying(receiver, 2, statuses, lambda *each: reported.append(each[1:]), is_closed), reported


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.0)


def test_an_attempt_that_fails_is_repeated(no_pauses):
    """Both an answer of `--retry-statuses` and none; another answer acknowledges the request."""
    receiver, reported = retrying(
        Fake("app", TargetDown("refused."), Answer(503, [], b"", False), Answer(404, [], b"", False))
    )
    assert receiver.send(Request("GET")).status == 404
    assert reported == [("refused.", 0), ("the app answered 503.", 0)]


def test_the_last_failure_is_that_of_the_request(no_pauses):
    """After so many repetitions; the answer is part of it."""
    app = Fake("app", Answer(429, [], b"slow", False))
    with pytest.raises(AnswerRefused, match="answered 429") as raised:
        retrying(app)[0].send(Request("GET"))
    assert (raised.value.answer.body, len(app.sent)) == (b"slow", 3)


def test_no_attempt_begins_after_the_deadline():
    """The pause would end later: the request is rejected at once, and not after a pause in vain."""
    app = Fake("app", Answer(503, [("Retry-After", "20")], b"", False))
    with pytest.raises(AnswerRefused, match="answered 503.$"):
        retrying(app)[0].send(Request("GET", deadline=time.monotonic() + 10))
    assert len(app.sent) == 1


def test_a_pause_that_an_app_asks_for_is_bounded():
    """A longer `Retry-After` ends the attempts, and is reported, also for a request without a deadline."""
    app = Fake("app", Answer(429, [("Retry-After", "86400")], b"", False))
    receiver, told = retrying(app, is_closed=lambda: bool(told))
    with pytest.raises(AnswerRefused, match="a pause of 86400 s, over 20 s"):
        receiver.send(Request("GET"))
    assert (len(app.sent), told) == (1, [])


def test_a_pause_ends_with_the_client_and_with_the_request(monkeypatch):
    """Ctrl-C does not wait for it, and an event that is dropped is not sent again."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(retries, "MAX_PAUSE_SECONDS", 600.0)
    closing = threading.Event()
    app = Fake("app", lambda: (closing.set(), TargetDown("refused."))[1])
    with pytest.raises(TargetDown):
        retrying(app, is_closed=closing.is_set)[0].send(Request("GET"))
    request = Request("GET")
    request.cancellation.set()
    with pytest.raises(Dropped):
        retrying(Fake("app", TargetDown("refused.")))[0].send(request)


# Several receivers


def test_the_first_receiver_answers():
    """All get the request; the failure of another is reported, and changes nothing for the caller."""
    first, second, third = Fake("a", Answer(201, [], b"", False)), Fake("b", TargetDown("refused.")), Fake("c")
    reported = Reported()
    fanout = Fanout([first, second, third], required=[], parallel=1, is_ordered=True, report=reported)
    assert fanout.send(Request("GET", "/x")).status == 201
    assert [len(each.sent) for each in (first, second, third)] == [1, 1, 1]
    assert sorted(reported.requests, key=str) == [
        ("b", None, "refused. That does not reject the request."),
        ("c", 200, ""),
    ]


def test_a_request_that_comes_again_is_not_sent_to_those_that_have_handled_it():
    """The command of `--exec` rejects it first: then it runs again, and the app does not get it twice."""
    app, command = Fake("app"), Fake("exec", NotHandled("the command ended with status 1."), OK)
    fanout = Fanout([app, command], required=[command], parallel=1, is_ordered=False, report=Reported())
    with pytest.raises(NotHandled, match="status 1"):
        fanout.send(Request("GET", id="1", attempt=1))
    assert fanout.send(Request("GET", id="1", attempt=2)) == OK
    assert (len(app.sent), len(command.sent)) == (1, 2)


def test_a_receiver_that_hangs_delays_neither_the_first_nor_the_next_requests(monkeypatch):
    """It has as many requests at once as are handled, and a bounded number wait for it; each other is reported."""
    monkeypatch.setattr(receivers, "MAX_WAITING", 2)
    may_end = threading.Event()
    slow = Fake("slow", lambda: may_end.wait(DEADLINE_SECONDS) and OK)
    reported = Reported()
    fanout = Fanout([Fake("a"), slow], required=[], parallel=1, is_ordered=False, report=reported)
    assert fanout.send(Request("GET")) == OK
    wait_until(lambda: slow.sent, "it has one")
    while len(reported.requests) < 3:
        assert fanout.send(Request("GET", deadline=time.monotonic())) == OK
    wait_until(lambda: fanout.close(0) == 3, "one is on its way, two wait, all others are reported")
    refused = list(reported.requests)
    assert set(refused) == {
        (
            "slow",
            None,
            "not sent: 2 requests wait for it already, and it does not answer. That does not reject the request.",
        )
    }
    assert len(slow.sent) == 1
    may_end.set()
    assert fanout.close(DEADLINE_SECONDS) == 0
    assert (len(slow.sent), reported.requests[len(refused) :]) == (3, [("slow", 200, "")] * 3)


def test_a_request_waits_for_a_slow_receiver_for_a_bounded_time(monkeypatch):
    """After that it is not sent there, and reported."""
    monkeypatch.setattr(receivers, "PLACE_SECONDS", 0.01)
    may_end = threading.Event()
    slow = Fake("slow", lambda: may_end.wait(DEADLINE_SECONDS) and OK)
    reported = Reported()
    fanout = Fanout([Fake("a"), slow], required=[], parallel=1, is_ordered=False, report=reported)
    fanout.send(Request("GET"))
    wait_until(lambda: slow.sent, "it has one")
    fanout.send(Request("GET"))
    wait_until(lambda: reported.requests, "the second is reported")
    (target, status, remark), *_ = reported.requests
    assert (target, status) == ("slow", None)
    assert remark.startswith("not sent: as many requests as may be are on their way")
    may_end.set()
    assert fanout.close(DEADLINE_SECONDS) == 0


def test_an_event_that_comes_again_is_not_sent_to_a_receiver_that_still_has_it():
    """The first fails at once and the second is slow: each attempt would be one more request on its way to that."""
    may_end = threading.Event()
    slow = Fake("slow", lambda: may_end.wait(DEADLINE_SECONDS) and OK)
    fanout = Fanout(
        [Fake("a", TargetDown("refused."), TargetDown("refused."), OK), slow],
        required=[],
        parallel=8,
        is_ordered=False,
        report=Reported(),
    )
    for attempt in (1, 2):
        with pytest.raises(TargetDown):
            fanout.send(Request("GET", id="1", attempt=attempt))
    may_end.set()
    assert fanout.close(DEADLINE_SECONDS) == 0
    assert fanout.send(Request("GET", id="1", attempt=3)) == OK
    assert fanout.close(DEADLINE_SECONDS) == 0
    assert len(slow.sent) == 1


# Order


@pytest.mark.parametrize(
    ("text", "headers", "body", "same"),
    [
        ("header:X-Account", {"x-account": "7"}, b"", {"x-account": "7"}),
        ("json:$.a.b[1]", {}, b'{"a": {"b": [0, "x"]}}', b'{"z": 1, "a": {"b": [9, "x", 3]}}'),
        ("json:$[0]", {}, b" [true]", b"[true, 1]"),
    ],
)
def test_the_key_of_a_request(text, headers, body, same):
    """Requests with the same value there have the same key."""
    key = OrderKey.parse(text)
    found = key.of(headers, body)
    assert found is not None
    assert found == (key.of(same, b"") if headers else key.of({}, same))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"text", b'{"a": {}}', b'{"a": null}', b'{"b": 1}', b"[" * 100_000, b'"a"', "text", None]
)
def test_requests_without_the_key_are_in_no_order(body):
    """Nor those whose body is no JSON, or has an object there."""
    assert OrderKey.parse("json:$.a").of({}, body) is None
    assert OrderKey.parse("header:a").of({}, body) is None


@pytest.mark.parametrize(
    "text", ["", "header:", "header:a b", "json:", "json:$", "json:a", "json:$.", "json:$..a", "x:y", "json:$.*"]
)
def test_a_key_that_is_none(text):
    """It is refused when `listen` starts."""
    with pytest.raises(BadArgument, match="is not like 'header:X-Account' or 'json:"):
        OrderKey.parse(text)


def delivery(key, number):
    connection = SimpleNamespace(started=threading.Event(), ended=threading.Event())
    connection.started.set()
    headers = {"k": key} if key is not None else {}

    class Delivered(SimpleNamespace):
        __hash__ = object.__hash__

    return Delivered(event={"headers": headers, "body": b"", "number": number}, connection=connection)


def test_a_key_is_in_order_and_others_go_on():
    """While the first request of a key is handled, the others of it wait, and those of another key do not."""
    may_end, handled = threading.Event(), []

    def handle(each):
        if each.event["number"] == 0:
            may_end.wait(DEADLINE_SECONDS)
        handled.append((each.event["headers"].get("k"), each.event["number"]))

    threads = KeyedThreads(handle, 3, OrderKey.parse("header:k"))
    for number, key in enumerate(["a", "a", "b", "a", None, "b", "b"]):
        threads.add(delivery(key, number))
    wait_until(lambda: len(handled) == 4, "the others are handled")
    assert [number for key, number in handled if key == "b"] == [2, 5, 6]
    may_end.set()
    wait_until(lambda: len(handled) == 7, "all are handled")
    assert [number for key, number in handled if key == "a"] == [0, 1, 3]
    threads.close()


def test_a_handler_that_fails_does_not_stop_its_key():
    """The next request of the key is handled."""
    handled = []

    def handle(each):
        handled.append(each.event["number"])
        raise ValueError

    threads = KeyedThreads(handle, 1, OrderKey.parse("header:k"))
    for number in range(3):
        threads.add(delivery("a", number))
    wait_until(lambda: handled == [0, 1, 2], "all are handled")
    threads.close()


def test_a_failed_request_is_waited_for():
    """Those of its key that come meanwhile are rejected, and are handled in the order in which they came first."""
    outcomes = {"1": iter([NotHandled("down"), None]), "2": iter([None]), "3": iter([None])}
    handled, waiting = [], []

    def handler(request):
        outcome = next(outcomes[request.id])
        if outcome is not None:
            raise outcome
        handled.append(request.id)

    in_order = InOrder(handler, OrderKey.parse("header:k"), lambda request, why: waiting.append(request.id))

    def come(number, attempt):
        try:
            in_order(Request("GET", headers={"k": "a"}, id=number, attempt=attempt, max_attempts=9))
        except NotHandled:
            return False
        return True

    assert [come(number, 1) for number in "123"] == [False, False, False]
    assert waiting == ["2", "3"]
    assert not come("3", 2)
    assert [come(number, 2) for number in "1"] == [True]
    assert [come("3", 3), come("2", 2), come("3", 4)] == [False, True, True]
    assert handled == ["1", "2", "3"]


def test_a_last_attempt_is_not_waited_for():
    """Nor a request without a mailbox, nor one that has not come again for a long time."""

    def fail(request):
        raise NotHandled("down")

    in_order = InOrder(fail, OrderKey.parse("header:k"), lambda request, why: pytest.fail(why))
    for number, attempt in itertools.product("12", (5, None)):
        with pytest.raises(NotHandled, match="down"):
            in_order(Request("GET", headers={"k": "a"}, id=number, attempt=attempt, max_attempts=5))


def test_the_bounds_of_keys_that_failed(monkeypatch, caplog):
    """The oldest key is forgotten, and a request that is one too many behind a failed one; both are logged."""
    monkeypatch.setattr(ordering, "MAX_FAILED_KEYS", 2)
    monkeypatch.setattr(ordering, "MAX_BEHIND", 2)
    keys = FailedKeys()
    for key in (1, 2, 3):
        keys.failed(key, "x")
    assert [keys.is_next(key, "y") for key in (1, 2, 3)] == [True, False, False]
    assert not keys.is_next(3, "z")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "MAX_FAILED_KEYS reached",
        "MAX_BEHIND reached",
    ]
    monkeypatch.setattr(ordering, "FORGOTTEN_SECONDS", -1.0)
    assert keys.is_next(2, "y")


# What is copied


@pytest.mark.parametrize(
    "evil", ["'; touch owned; '", "$(touch owned)`touch owned`", '"\\"$HOME!!\xe9\x9b31m', "@/etc/passwd", "%s\\n"]
)
def test_what_is_copied_is_one_command(tmp_path, evil):
    """Whatever is in a request is a word of the command as it was, and no shell obeys it; all of it is ASCII."""
    body = evil.encode()
    for request in (
        Request("POST", f"/{evil}", evil, {"x-evil": evil}, body),
        Request("POST", "", "", {}, body + b"\0\n"),
        Request("GET", "/x", evil),
    ):
        command = curl_command(request, Target("http://localhost:1/hooks", timeout_seconds=1))
        assert command.isascii() and command.isprintable()
        shown = 'curl() { for each in "$@"; do printf "%s\\0" "$each"; done; cat; }; '
        done = subprocess.run(
            ["sh", "-c", shown + command], stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path, check=True
        )
        *words, piped = done.stdout.split(b"\0", maxsplit=done.stdout.count(b"\0") - request.body.count(b"\0"))
        assert words[-1].startswith(b"http://localhost:1/hooks")
        given = words[words.index(b"--data-raw") + 1] if b"--data-raw" in words else piped
        assert given == request.body
        if "x-evil" in request.headers:
            assert b"x-evil: " + evil.encode("latin-1") in words
        assert list(tmp_path.iterdir()) == []
