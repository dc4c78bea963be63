"""`socket2me wait`: what comes to a URL, for scripts, each time with nothing missed."""

import json
import signal
import subprocess
from base64 import b64decode
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import requests

from tests.support.delivery import bearer, events
from tests.support.servers import BIN, DEADLINE_SECONDS, Server, clean_environment, free_port


@contextmanager
def waiting(server, home, *options):
    """A `wait` in a process of its own."""
    with subprocess.Popen(
        [BIN / "socket2me", "wait", "--server", server.url, *options],
        env={**clean_environment(), "HOME": str(home), "XDG_STATE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        if process.poll() is None:
            process.kill()


def wait(server, home, *options):
    """Return the status of a `wait`, what it printed, and what it said."""
    with waiting(server, home, *options) as process:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return process.returncode, [json.loads(line) for line in out.splitlines()], err


@pytest.fixture(params=["relay", "server"], ids=["mailboxes", "memory"])
def any_relay(request):
    """A relay that keeps mailboxes, and one that does not."""
    return request.getfixturevalue(request.param)


def test_a_url_of_its_own(any_relay, tmp_path):
    """Its URL is the first line of stderr, printed when nothing is missed any more; it ends with the command."""
    with waiting(any_relay, tmp_path, "--filter", "POST /b* body.$.n:2", "--count", "2") as process:
        url = process.stderr.readline().strip()
        any_relay.giveaways.add(url.rpartition("/")[2])
        for tail, body in (
            ("/a", "1"),
            ("/b", '{"n": 1}'),
            ("/b", '{"n": 2}'),
            ("/bc?x=%20", '{"n":2, "é": "\U0001f600"}'),
        ):
            answer = requests.post(url + tail, data=body.encode(), headers={"X-Name": "ü".encode()}, timeout=10)
            assert answer.status_code == 200
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0, err
    first, second = map(json.loads, out.splitlines())
    assert first["body"] == '{"n": 2}'
    assert (second["method"], second["path"], second["query"]) == ("POST", "/bc", "x=%20")
    assert second["body"] == '{"n":2, "é": "\U0001f600"}'
    assert second["headers"]["x-name"].encode("latin-1") == "ü".encode()
    assert second["remote_addr"] == "127.0.0.1"
    assert "not kept: 2." in err
    assert requests.post(url, timeout=10).status_code == 404
    assert list(tmp_path.iterdir()) == []


def test_what_came_before_the_wait(relay, tmp_path):
    """Since the token was made, in order; the rest stays in the mailbox, and each is printed once."""
    made = relay.new_with_secret(mailbox=True)
    bodies = [b"1", b"\xff\x00", b"3", b"4"]
    for body in bodies:
        assert relay.go(made["token"], data=body).status_code == 202
    options = ("--token", made["token"], "--secret", made["secret"])
    status, printed, err = wait(relay, tmp_path, *options, "--count", "2")
    assert (status, err) == (0, "")
    assert printed[0]["body"] == "1"
    assert b64decode(printed[1]["body_base64"]) == b"\xff\x00"
    assert len(events(relay, made)["waiting"] + events(relay, made)["in_flight"]) == 2
    status, printed, _ = wait(relay, tmp_path, *options, "--count", "2")
    assert (status, [each["body"] for each in printed]) == (0, ["3", "4"])
    assert requests.get(f"{relay.url}/v1/tokens/{made['token']}", headers=bearer(made), timeout=5).ok


def test_what_other_workers_are_to_have_stays(relay, tmp_path):
    """On `one`, what the filter does not ask for is left in the mailbox, for a worker that does."""
    made = relay.new_with_secret(mailbox=True, listeners="one")
    for tail in ("/b", "/a"):
        assert relay.go(made["token"], tail=tail).status_code == 202
    options = ("--token", made["token"], "--secret", made["secret"])
    status, printed, err = wait(relay, tmp_path, *options, "--filter", "/a")
    assert (status, [each["path"] for each in printed], err) == (0, ["/a"], "")
    status, printed, _ = wait(relay, tmp_path, *options)
    assert (status, [each["path"] for each in printed]) == (0, ["/b"])


def test_what_does_not_come_in_time(relay, tmp_path):
    """Status 124, as of `timeout`; what came is printed."""
    made = relay.new_with_secret(mailbox=True)
    relay.go(made["token"], data="1")
    options = ("--token", made["token"], "--secret", made["secret"])
    status, printed, err = wait(relay, tmp_path, *options, "--count", "2", "--timeout", "2")
    assert (status, [each["body"] for each in printed], err) == (124, ["1"], "Not all came within 2 s.\n")
    status, printed, err = wait(relay, tmp_path, "--timeout", "0.1")
    assert (status, printed) == (124, [])


def test_a_relay_that_is_not_there_yet(tmp_path):
    """Status 124 and the reason, with a token too; one that starts is waited for. A wrong host ends it."""
    away = SimpleNamespace(url=f"http://127.0.0.1:{free_port()}")
    why = f"{away.url} does not answer: Connection refused"
    token = ("--token", "abc", "--secret", "s2m_abc")
    for options in ((), token, (*token, "--filter", "POST")):
        done = wait(away, tmp_path, "--timeout", "1", *options)
        assert done == (124, [], f"Never connected to the relay within 1 s: {why}.\n")
    with waiting(away, tmp_path) as process, Server(port=int(away.url.rpartition(":")[2])) as late:
        url = process.stderr.readline().strip()
        late.giveaways.add(url.rpartition("/")[2])
        requests.post(url, data="1", timeout=10)
        assert json.loads(process.communicate(timeout=DEADLINE_SECONDS)[0])["body"] == "1"
    status, _, err = wait(SimpleNamespace(url="http://relay.invalid"), tmp_path, *token)
    assert (status, err) == (1, "Error: There is no host relay.invalid: its name does not resolve\n")


def test_a_relay_that_went_away(tmp_path):
    """Status 124, and a line that says so."""
    with Server() as gone, waiting(gone, tmp_path, "--timeout", "5") as process:
        gone.giveaways.add(process.stderr.readline().strip().rpartition("/")[2])
        gone.stop()
        err = process.communicate(timeout=DEADLINE_SECONDS)[1]
    assert process.returncode == 124
    assert err.startswith("Not all came within 5 s. The relay is away: ")


def test_the_secret_of_a_name_is_found_where_it_is_kept(relay, tmp_path):
    """As `listen --name` keeps it: a name is enough then."""
    made = requests.post(f"{relay.url}/v1/new", json={"name": "for-wait", "mailbox": True}, timeout=5).json()
    folder = tmp_path / "socket2me"
    folder.mkdir()
    kept = {"server": relay.url, "target": "x", "token": "for-wait", "secret": made["secret"]}
    (folder / "tokens.json").write_text(json.dumps([kept]))
    relay.go("for-wait", data="1")
    status, printed, _ = wait(relay, tmp_path, "--token", "for-wait")
    assert (status, [each["body"] for each in printed]) == (0, ["1"])


def test_what_makes_no_sense(relay, tmp_path):
    """Status 2 and the place of the error for a filter; 1 for a token that is gone or has another secret."""
    made = relay.new_with_secret()
    for options, status, words in [
        (("--filter", "POST body.x:1"), 2, "(column 11)"),
        (("--filter", "status:200"), 2, "not known before"),
        (("--count", "0"), 2, "--count"),
        (("--token", "a/b"), 2, "'a/b' is no token"),
        (("--as", "a b"), 2, "'a b' is no id of a listener"),
        (("--token", "unknown-name"), 1, "Error: "),
        (("--token", made["token"], "--secret", "wrong"), 1, "secret"),
    ]:
        ended_with, printed, err = wait(relay, tmp_path, *options)
        assert (ended_with, printed) == (status, []), err
        assert words in err
        assert "Traceback" not in err


def test_ctrl_c(relay, tmp_path):
    """Status 130, and its URL ends."""
    with waiting(relay, tmp_path) as process:
        url = process.stderr.readline().strip()
        relay.giveaways.add(url.rpartition("/")[2])
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 130
    assert requests.post(url, timeout=10).status_code == 404
