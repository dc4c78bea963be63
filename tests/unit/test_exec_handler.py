"""`listen --exec`: what a command gets, what its end means, and what is left of it."""

import json
import os
import shlex
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from socket2me.exceptions import BadArgument, CommandFailed, Dropped, NotHandled, TargetSlow
from socket2me.listening import exec_handler
from socket2me.listening.exec_handler import INHERITED, MAX_STDERR_BYTES, MAX_VARIABLE_CHARACTERS, Command
from socket2me.local_app.target import MAX_ANSWER_BYTES
from socket2me.request import Request
from tests.support.servers import wait_until

REQUEST = Request(
    "POST",
    "/a%20b",
    "x=$(id)",
    {"content-type": "text/x", "x-evil": "`id`"},
    b"\x00\xff\n",
    "p-1",
    2.5,
    "127.0.0.2",
)

# Prints what it got as JSON.
SHOW = """
import json, os, sys
with open(os.environ["SOCKET2ME_BODY_FILE"], "rb") as body, open(os.environ["SOCKET2ME_EVENT_FILE"]) as event:
    shown = {"body": body.read().hex(), "event": json.load(event)}
shown["stdin"] = sys.stdin.buffer.read().hex()
shown["modes"] = os.stat(os.path.dirname(os.environ["SOCKET2ME_BODY_FILE"])).st_mode
print(json.dumps({**shown, "environment": dict(os.environ), "arguments": sys.argv[1:]}))
"""


def python(code: str, *arguments: str) -> str:
    return shlex.join([sys.executable, "-S", "-c", code, *arguments])


def sh(script: str) -> str:
    return shlex.join(["sh", "-c", script])


def run(text: str, request: Request = REQUEST, seconds: float = 15, variables=()):
    return Command(text, timeout_seconds=seconds, variables=variables).send(request)


def test_what_a_command_gets(monkeypatch):
    """The exact body in a file and on stdin, the event as JSON, a few variables; the files are private."""
    monkeypatch.setenv("SOCKET2ME_SECRET", "secret")
    monkeypatch.setenv("PASSED", "yes")
    answer = run(python(SHOW, "$HOME;", "a b"), variables=["PASSED"])
    assert (answer.status, answer.headers) == (200, [("Content-Type", "application/json")])
    shown = json.loads(answer.body)
    assert shown["body"] == shown["stdin"] == REQUEST.body.hex()
    assert shown["arguments"] == ["$HOME;", "a b"]
    assert stat.S_IMODE(shown["modes"]) == 0o700
    assert shown["event"] == {
        "id": "p-1",
        "method": "POST",
        "path": "/a%20b",
        "query": "x=$(id)",
        "headers": {"content-type": "text/x", "x-evil": "`id`"},
        "size": 3,
        "received_at": 2.5,
        "remote_addr": "127.0.0.2",
        "replay_of": "",
        "verified": None,
        "attempt": None,
    }
    environment = shown["environment"]
    files = [environment.pop(f"SOCKET2ME_{name}_FILE") for name in ("BODY", "EVENT")]
    assert not any(map(os.path.exists, files))
    mine = {name: value for name, value in environment.items() if name.startswith("SOCKET2ME_")}
    assert mine == {
        "SOCKET2ME_ID": "p-1",
        "SOCKET2ME_METHOD": "POST",
        "SOCKET2ME_PATH": "/a%20b",
        "SOCKET2ME_QUERY": "x=$(id)",
        "SOCKET2ME_CONTENT_TYPE": "text/x",
        "SOCKET2ME_REMOTE_ADDR": "127.0.0.2",
        "SOCKET2ME_ATTEMPT": "1",
        "SOCKET2ME_VERIFIED": "",
        "SOCKET2ME_REPLAY_OF": "",
    }
    assert environment["PASSED"] == "yes"
    assert environment.keys() - mine.keys() <= {*INHERITED, "PASSED"}


def test_what_no_variable_may_have():
    """NUL and half of a surrogate pair are replaced, a long value is cut; the file of the event has all of it."""
    request = Request("GET", "/\0\ud800", "q" * 20_000)
    shown = json.loads(run(python(SHOW), request).body)
    assert shown["environment"]["SOCKET2ME_PATH"] == "/\ufffd?"
    assert shown["environment"]["SOCKET2ME_QUERY"] == "q" * MAX_VARIABLE_CHARACTERS
    assert shown["event"]["query"] == request.query


@pytest.mark.parametrize(
    ("script", "content_type"),
    [
        ("printf '{\"a\":1}'", "application/json"),
        ("echo {", "text/plain; charset=utf-8"),
        ("printf '\\377'", "application/octet-stream"),
    ],
)
def test_the_type_of_an_answer(script, content_type):
    """It is found by what was printed; nothing printed is an answer without a body."""
    assert run(sh(script)).headers == [("Content-Type", content_type)]
    assert run("true").headers == []


@pytest.mark.parametrize(
    ("script", "why"), [("echo no >&2; exit 3", "status 3."), ("kill -KILL $$", "was ended by SIGKILL.")]
)
def test_a_command_that_fails(script, why):
    """Any status but 0, or a signal, rejects the request. What it wrote to stderr is for the user only."""
    with pytest.raises(CommandFailed) as raised:
        run(sh(script))
    assert str(raised.value).endswith(why)
    assert raised.value.detail == ("no" if "no" in script else "")


def test_output_without_end():
    """All of it is read, so that the command can end; what is kept of it is bounded."""
    answer = run(sh(f"head -c {MAX_ANSWER_BYTES + 100_000} /dev/zero"))
    assert (len(answer.body), answer.is_cut) == (MAX_ANSWER_BYTES, True)
    with pytest.raises(CommandFailed) as raised:
        run(sh(f"head -c {MAX_STDERR_BYTES * 100} /dev/zero >&2; echo >&2; echo end >&2; exit 1"))
    assert raised.value.detail.endswith("end")
    assert len(raised.value.detail) <= exec_handler.MAX_STDERR_CHARACTERS


def is_gone(file: Path) -> bool:
    """Say whether the process whose number is in a file has ended."""
    try:
        stat = Path(f"/proc/{file.read_text().strip()}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_a_timeout_ends_the_whole_group(tmp_path, monkeypatch):
    """Also processes that the command has started, and that ignore SIGTERM."""
    monkeypatch.setattr(exec_handler, "KILL_SECONDS", 0.1)
    child = tmp_path / "child"
    with pytest.raises(TargetSlow, match="took longer than 0.3 s"):
        run(sh(f"trap '' TERM; sleep 600 & echo $! > {child}; wait; sleep 600"), seconds=0.3)
    wait_until(lambda: is_gone(child), "the group is gone")


def test_a_deadline_comes_before_the_timeout():
    """No process is begun when the deadline of the request has passed."""
    with pytest.raises(TargetSlow, match="no time left"):
        run("true", Request("GET", deadline=time.monotonic() - 1))


def test_what_a_command_leaves_behind_is_ended(tmp_path):
    """The answer does not wait for a process in the background that has its output open."""
    child = tmp_path / "child"
    assert run(sh(f"sleep 600 & echo $! > {child}; echo done")).body == b"done\n"
    wait_until(lambda: is_gone(child), "it is gone")


def test_a_request_that_is_dropped(tmp_path):
    """Its command is ended."""
    request, begun = Request("GET"), tmp_path / "begun"
    dropper = threading.Thread(target=lambda: (wait_until(begun.exists, "it runs"), request.cancellation.set()))
    dropper.start()
    with pytest.raises(Dropped):
        run(sh(f"touch {begun}; sleep 600"), request)
    dropper.join()


def test_what_runs_when_listen_ends(tmp_path):
    """It is ended, also if it ignores SIGTERM: in a group of its own it has no Ctrl-C, and would go on."""
    child = tmp_path / "child"
    command = Command(sh(f"trap '' TERM; sleep 600 & echo $! > {child}; wait; sleep 600"), timeout_seconds=60)
    raised = []

    def run_it():
        try:
            command.send(REQUEST)
        except CommandFailed as error:
            raised.append(str(error))

    runner = threading.Thread(target=run_it)
    runner.start()
    wait_until(lambda: child.exists() and child.read_text(), "it runs")
    command.close(0.1)
    runner.join()
    assert raised == ["the command was ended by SIGKILL."]
    wait_until(lambda: is_gone(child), "its group is gone")


def test_what_is_started_when_listen_has_ended():
    """It is killed: `close` did not see it among what ran."""
    command = Command(sh("sleep 600"), timeout_seconds=60)
    command.close(0)
    with pytest.raises(CommandFailed, match="ended by SIGKILL"):
        command.send(REQUEST)


def test_a_full_disk(monkeypatch, tmp_path):
    """The request is rejected, and not lost: its command does not run without it."""
    monkeypatch.setattr(exec_handler.tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(NotHandled, match="cannot be run: No such file or directory"):
        run(sh(f"touch {tmp_path}/ran"))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_command(tmp_path, monkeypatch):
    """It is refused when `listen` starts."""
    monkeypatch.delenv("NOT_SET", raising=False)
    (tmp_path / "file").write_text("")
    for text, variables, why in (
        ("there-is-none", (), "there is no command there-is-none that can be run"),
        (str(tmp_path / "file"), (), "that can be run"),
        ("echo 'x", (), "cannot be split into words: No closing quotation"),
        (" ", (), "names no command"),
        ("true", ["NOT_SET"], "there is no variable NOT_SET"),
    ):
        with pytest.raises(BadArgument, match=why):
            Command(text, timeout_seconds=1, variables=variables)
