"""What callers are told and what happened agree, however many come at once and however slow the app is."""

import threading
import time
from collections import Counter

import pytest

from tests.support.local_app import OK, call


def burst(server, url, count):
    """Call at once, each under a path of its own; return the status and the body of each, by path."""
    answers = {}

    def one(path):
        status, _, body = call(server, url, path)
        answers[path] = status, body

    callers = [threading.Thread(target=one, args=[f"/{number}"]) for number in range(count)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return answers


def slow(seconds, done):
    """Return an app's answer that takes a while; `done` gets the path once it is given."""

    def answer(received):
        time.sleep(seconds)  # the app's work
        done.append(received.line.split()[1])
        return OK

    return answer


@pytest.fixture(params=["mailbox", "memory"])
def any_relay(request):
    """A relay that keeps mailboxes, and one that keeps nothing."""
    return request.getfixturevalue("relay" if request.param == "mailbox" else "server")


@pytest.mark.parametrize("options", [[], ["--reply"]])
def test_a_burst_is_no_failure(any_relay, app, listen, options):
    """Five at once to an app of 2 s: five 200s, and the app has answered each once."""
    done = []
    app.answer = slow(2, done)
    command = listen(*options, server=any_relay)
    answers = burst(any_relay, command.url, 5)
    assert [status for status, _ in answers.values()] == [200] * 5
    assert sorted(done) == sorted(answers)


def test_nobody_is_told_what_did_not_happen(any_relay, app, listen):
    """Fifty at once to an app of 1 s: 200 was handled, 202 is handled later, 503 client_busy never came."""
    done = []
    app.answer = slow(1, done)
    command = listen("--parallel", "8", server=any_relay)
    answers = burst(any_relay, command.url, 50)
    done_by_then = set(done)
    told = Counter(status for status, _ in answers.values())
    handled = {path for path, (status, _) in answers.items() if status == 200}
    assert handled <= done_by_then
    assert len(handled) >= 8
    if command.terms["has_mailbox"]:
        assert set(told) <= {200, 202}
        expected = set(answers)
    else:
        assert set(told) <= {200, 503}
        assert all(b"client_busy" in body for status, body in answers.values() if status == 503)
        expected = handled
    seen = [command.expect("request") for _ in expected]
    assert {each["path"] for each in seen} == expected
    assert Counter(done) == Counter(expected)


def test_one_after_another_where_it_is_asked_for(relay, app, listen):
    """With --parallel 1 the app gets the next request when it has answered the one before."""
    running, most = [], []

    def answer(received):
        running.append(received.line)
        most.append(len(running))
        time.sleep(0.1)
        running.remove(received.line)
        return OK

    app.answer = answer
    command = listen("--parallel", "1")
    assert {status for status, _ in burst(relay, command.url, 10).values()} == {200}
    assert max(most) == 1


def test_the_answer_of_listen_comes_first(server, app, listen):
    """An app that takes longer than the relay waits: the caller receives 504 of `listen`, which says the same."""
    may_end = threading.Event()
    app.answer = lambda received: may_end.wait(20) and OK
    command = listen(server=server)
    terms = command.terms
    assert terms["handler_seconds"] < terms["caller_seconds"] < terms["timeout_seconds"]
    status, _, body = call(server, command.url, "/slow")
    may_end.set()
    assert (status, b"rejected" in body, b"no answer within 4.5 s" in body) == (504, True, True)
    told = command.expect("slow")
    assert (told["path"], told["seconds"]) == ("/slow", 2)
    told = command.expect("request")
    assert told["status"] is None
    assert told["remark"].endswith("Its caller is answered 504.")


def test_one_stuck_request_holds_up_no_other(relay, app, listen):
    """It has a line after 2 s; those that come meanwhile are handled."""
    may_end = threading.Event()
    app.answer = lambda received: OK if b"stuck" not in received.line.encode() else may_end.wait(20) and OK
    command = listen()
    stuck = threading.Thread(target=call, args=[relay, command.url, "/stuck"])
    stuck.start()
    assert command.expect("slow")["path"] == "/stuck"
    assert {status for status, _ in burst(relay, command.url, 10).values()} == {200}
    may_end.set()
    stuck.join()


def test_what_is_being_handled_is_answered_when_listen_ends(any_relay, app, listen):
    """After SIGTERM the caller whose request is with the app receives its answer."""
    may_end = threading.Event()
    app.answer = lambda received: may_end.wait(20) and OK
    command = listen(server=any_relay)
    told = []
    caller = threading.Thread(target=lambda: told.append(call(any_relay, command.url)[0]))
    caller.start()
    app.expect()
    threading.Timer(0.3, may_end.set).start()
    assert command.end()[0] == 0
    caller.join()
    assert told == [200]
