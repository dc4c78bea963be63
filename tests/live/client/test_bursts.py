"""What callers receive and what happened agree, however many come at once and however slow the app is."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from tests.support.command import Command
from tests.support.library import run
from tests.support.local_app import OK, App, call
from tests.support.servers import Server, wait_until


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


def test_no_line_reports_what_did_not_happen(any_relay, app, listen):
    """Fifty at once to an app of 1 s: 200 was handled, 202 is handled later, 503 client_busy never came."""
    done = []
    app.answer = slow(1, done)
    command = listen("--parallel", "8", server=any_relay)
    answers = burst(any_relay, command.url, 50)
    done_by_then = set(done)
    statuses = Counter(status for status, _ in answers.values())
    handled = {path for path, (status, _) in answers.items() if status == 200}
    assert handled <= done_by_then
    assert len(handled) >= 8
    if command.terms["has_mailbox"]:
        assert set(statuses) <= {200, 202}
        expected = set(answers)
    else:
        assert set(statuses) <= {200, 503}
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
    assert status == 504
    assert re.search(rb"rejected.*no answer within [\d.]+ s", body)  # 4.5 s, less what was over when it came
    line = command.expect("slow")
    assert (line["path"], line["seconds"]) == ("/slow", 2)
    line = command.expect("request")
    assert line["status"] is None
    assert line["remark"].endswith("Its caller is answered 504.")


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
    statuses = []
    caller = threading.Thread(target=lambda: statuses.append(call(any_relay, command.url)[0]))
    caller.start()
    app.expect()
    threading.Timer(0.1, may_end.set).start()
    assert command.end()[0] == 0
    caller.join()
    assert statuses == [200]


@pytest.fixture
def patient_relay(tmp_path):
    """A relay that keeps mailboxes, and whose callers wait longer than a command may take on a busy machine."""
    with Server(STORE_URL=f"sqlite:///{tmp_path}/patient.db", ACK_TIMEOUT_SECONDS=20) as server:
        yield server


def test_a_request_that_is_dropped_is_let_go(patient_relay, app, listen, tmp_path):
    """`events drop` of one that the app has had for long: its connection is closed, the next goes to the app."""
    relay = patient_relay
    may_end = threading.Event()
    app.answer = lambda received: may_end.wait(20) and OK if "stuck" in received.line else OK
    command = listen("--parallel", "1", server=relay)
    statuses = []
    callers = [
        threading.Thread(target=lambda path=path: statuses.append(call(relay, command.url, path)[0]))
        for path in ("/stuck", "/next")
    ]
    callers[0].start()
    event_id = command.expect("slow")["id"]
    callers[1].start()
    assert run(tmp_path, "events", "drop", event_id).stdout == f"{event_id} is dropped.\n"
    dropped, answered = command.expect("request"), command.expect("request")
    may_end.set()
    for caller in callers:
        caller.join()
    assert (dropped["path"], dropped["status"]) == ("/stuck", None)
    assert dropped["remark"] == "Dropped: the app is not waited for."
    assert (answered["path"], answered["status"]) == ("/next", 200)
    assert sorted(statuses) == [200, 410]


def test_the_last_attempt_is_called_that(app, listen, tmp_path):
    """The line does not promise another, and says how to have one; the event is dead-lettered at once."""
    app.answer = None
    url = f"sqlite:///{tmp_path}/relay.db"
    with Server(STORE_URL=url, MAX_ATTEMPTS=2) as relay:
        command = listen(server=relay)
        assert call(relay, command.url)[0] == 202
        first, last = command.expect("request"), command.expect("request")
        retry = f"socket2me events retry {last['id']}"
        assert first["remark"].endswith("The request comes again.")
        assert last["remark"].endswith(f"It was the last attempt. `{retry}` has it sent again.")
        assert "dead letter  tried 2x" in run(tmp_path, "events", "list").stdout
        app.answer = OK
        run(tmp_path, *retry.split()[1:])
        again = command.expect("request")
        assert (again["id"], again["attempt"], again["status"]) == (last["id"], 1, 200)
        command.end()


@pytest.mark.parametrize(("sig", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_listen_at_once(relay, app, listen, sig, status):
    """While it waits for the app: with the status that shells have for it, and without a word."""
    may_end = threading.Event()
    app.answer = lambda received: may_end.wait(20) and OK
    command = listen()
    caller = threading.Thread(target=call, args=[relay, command.url])
    caller.start()
    app.expect()
    # Again and again: two of a kind are one where the first was not taken yet.
    wait_until(lambda: command.process.poll() is not None or command.process.send_signal(sig), "it ends")
    assert command.wait() == (status, "")
    may_end.set()
    caller.join()


INTERRUPTED = """
import os, signal, sys

_, MODULE, *sys.argv[1:] = sys.argv

class Finder:
    def find_spec(self, name, *rest):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from socket2me.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["socket2me.cli", "socket2me.cli.send"])
def test_ctrl_c_while_the_command_is_loaded(module):
    """The signal ends the process, without a traceback."""
    command = [sys.executable, "-c", INTERRUPTED, module, "send", "http://x"]
    result = subprocess.run(command, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


def test_ctrl_c_ends_other_commands(tmp_path):
    """`send` that waits for an answer: status 130, without a word."""
    with App() as app:
        may_end = threading.Event()
        app.answer = lambda received: may_end.wait(20) and OK
        command = Command(tmp_path, "send", app.url)
        app.expect()
        assert command.end() == (130, "")
        may_end.set()
