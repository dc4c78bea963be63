"""`listen` with a command, with several apps, with retries, and in the order of a key."""

import json
import queue
import re
import shlex
import sys
import threading
from pathlib import Path

import jsonschema_rs
import pytest
from click.testing import CliRunner

from socket2me.cli import main
from tests.support.command import SCHEMA
from tests.support.local_app import OK, App, call
from tests.support.servers import DEADLINE_SECONDS, ROOT, free_port

# Answers with its input in capitals; the first time that a file is not there it makes that, and fails.
CAPITALS = """
import os, sys
body = sys.stdin.read()
if body == "again" and not os.path.exists(sys.argv[1]):
    open(sys.argv[1], "w").close()
    sys.exit("secret of the user")
print(body.upper(), os.environ["SOCKET2ME_PATH"], end="")
"""


@pytest.fixture
def capitals(tmp_path: Path) -> str:
    return shlex.join([sys.executable, "-S", "-c", CAPITALS, str(tmp_path / "file")])


def test_a_command_without_an_app(relay, listen, capitals):
    """What it prints is the answer. Another status than 0 rejects the request, which comes again."""
    command = listen("--reply", "--exec", capitals, target=None)
    status, headers, body = call(relay, command.url, "/a", body=b"word")
    assert (status, body, dict(headers)["Content-Type"]) == (200, b"WORD /a", "text/plain; charset=utf-8")
    assert command.expect("request")["status"] == 200
    status, _, body = call(relay, command.url, body=b"again")
    assert (status, b"secret" in body) == (202, False)
    line = command.expect("request")
    assert line["status"] is None
    assert (
        line["remark"] == "the command ended with status 1. It wrote: secret of the user The request comes again."
    )
    line = command.expect("request")
    assert (line["attempt"], line["status"]) == (2, 200)


def test_a_command_beside_an_app(relay, app, listen, capitals):
    """The app answers the caller; the command's status rejects the request too. The app does not get it twice."""
    command = listen("--reply", "--exec", capitals)
    assert call(relay, command.url, body=b"word")[2] == b"fine"
    assert call(relay, command.url, body=b"again")[0] == 202
    lines = [command.expect("request") for _ in range(5)]
    assert sorted((each["attempt"], each["status"] or 0, (each["target"] or "")[:4]) for each in lines) == [
        (1, 0, ""),
        (1, 0, "exec"),
        (1, 200, ""),
        (1, 200, "exec"),
        (2, 200, "exec"),
    ]
    assert command.expect("request")["attempt"] == 2
    assert [app.expect().body for _ in range(2)] == [b"word", b"again"]
    assert app.received.empty()


def test_several_apps(relay, app, listen):
    """All get the request; the caller has the answer of the first, and the others are reported."""
    with App() as second:
        second.answer = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
        down = f"http://127.0.0.1:{free_port()}/x"
        command = listen("--reply", second.url, down, "--retries", "1")
        assert call(relay, command.url, "/a", body=b"1")[::2] == (200, b"fine")
        assert [each.expect().body for each in (app, second)] == [b"1", b"1"]
        lines = {each["target"]: each for each in (command.expect("request") for _ in range(3))}
    assert {target: each["status"] for target, each in lines.items()} == {None: 200, second.url: 404, down: None}
    assert [json.loads(line)["target"] for line in command.printed if '"event": "retry"' in line] == [down]
    assert lines[down]["remark"] == "Connection refused. That does not reject the request."


def test_an_app_that_hangs_beside_the_first(relay, app, listen):
    """Callers have the answers of the first at once, also when the other has all the requests that it may have."""
    may_answer = threading.Event()
    with App() as second:
        second.answer = lambda received: may_answer.wait(DEADLINE_SECONDS) and OK
        command = listen("--reply", second.url, "--parallel", "2")
        assert [call(relay, command.url, body=b"%d" % n)[::2] for n in range(5)] == [(200, b"fine")] * 5
        assert [command.expect("request")["target"] for _ in range(5)] == [None] * 5
        may_answer.set()
        assert [command.expect("request")["target"] for _ in range(5)] == [second.url] * 5
    assert sorted(second.expect().body for _ in range(5)) == [b"%d" % n for n in range(5)]


def test_retries(relay, app, listen):
    """A status of --retry-statuses is tried again here, and then rejected: the request comes again."""
    command = listen("--reply", "--retries", "1", "--retry-statuses", "5xx")
    bad = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    answers = iter([bad, OK, bad, bad, OK])
    app.answer = lambda received: next(answers)
    assert call(relay, command.url, "/1")[0] == 200
    line = command.expect("retry")
    assert (line["why"], line["target"]) == ("the app answered 503.", None)
    assert command.expect("request")["status"] == 200
    assert call(relay, command.url, "/2")[0] == 202
    line = command.expect("request")
    assert (line["status"], line["remark"]) == (503, "Rejected. The request comes again.")
    line = command.expect("request")
    assert (line["attempt"], line["status"]) == (2, 200)


def test_the_order_of_a_key(relay, app, listen):
    """Requests of one key are handled in order, also when the first fails and comes again; others go on."""
    command = listen("--parallel", "4", "--order-by", "json:$.k")
    may_fail = threading.Event()
    attempts = queue.Queue()

    def answer(received):
        attempts.put(received.body)
        if received.body == b'{"k":1,"n":1}' and not may_fail.is_set():
            may_fail.wait(DEADLINE_SECONDS)
            return None
        return OK

    app.answer = answer
    bodies = [b'{"k":1,"n":1}', b'{"k":1,"n":2}', b'{"k":2,"n":3}', b'{"k":1,"n":4}']
    callers = [threading.Thread(target=call, args=[relay, command.url], kwargs={"body": body}) for body in bodies]
    for caller, begun in zip(callers, [bodies[0], None, bodies[2], None], strict=True):
        caller.start()
        assert begun is None or attempts.get(timeout=DEADLINE_SECONDS) == begun
    may_fail.set()
    for caller in callers:
        caller.join()
    order = [attempts.get(timeout=DEADLINE_SECONDS) for _ in range(3)]
    assert order[0] == bodies[0]
    assert sorted(order[1:]) == [bodies[1], bodies[3]]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "Missing argument 'TARGET', the app, or '--exec', a command."),
        (["3000", "localhost:3000"], "http://localhost:3000 is named twice."),
        (["--exec", "there-is-none"], "there is no command there-is-none that can be run."),
        (["3000", "--exec-env", "PATH"], "--exec-env is for the command of --exec, which is missing."),
        (["3000", "--order-by", "json:x"], "'json:x' is not like 'header:X-Account' or 'json:$.data.id'."),
        (["3000", "--retry-statuses", "9xx"], "'9xx' is no status, such as 503 or 5xx."),
        (["3000", "--as", "a b"], "'a b' is no id of a listener: up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'."),
        (list(map(str, range(3000, 3011))), "There are 11 TARGETs, of which there may be 10."),
    ],
)
def test_what_makes_no_sense(tmp_path, options, why):
    """It is refused before the relay is asked for anything."""
    arguments = ["listen", *options, "--server", "http://127.0.0.1:9"]
    result = CliRunner().invoke(main, arguments, env={"XDG_STATE_HOME": str(tmp_path)})
    assert result.exit_code == 2
    assert result.output.endswith(f"{why}\n")


def test_the_table_of_events_is_that_of_the_schema():
    """docs/client.md has each event, with its members."""
    definitions = json.loads((ROOT / "docs" / "listen.schema.json").read_text())["$defs"]
    described = {
        name: sorted(each["properties"].keys() - {"event", "time"})
        for each in definitions.values()
        if "properties" in each
        for name in each["properties"]["event"]["enum"]
    }
    text = (ROOT / "docs" / "client.md").read_text().partition("## Lines of JSON")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    named = [[re.findall("`(.*?)`", cell) for cell in row] for row in rows]
    assert {event: sorted(members) for events, members in named for event in events} == described


def test_the_schema_refuses_what_is_not_in_it():
    """A schema that allows everything would hold for every line."""
    line = {"event": "slow", "time": 1.0, "id": "", "method": "GET", "path": "", "attempt": None, "seconds": 2}
    SCHEMA.validate(line)
    for wrong in ({**line, "event": "fast"}, {**line, "more": 1}, {**line, "attempt": "1"}, {"event": "slow"}):
        with pytest.raises(jsonschema_rs.ValidationError):
            SCHEMA.validate(json.loads(json.dumps(wrong)))
