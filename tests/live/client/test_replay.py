"""`socket2me replay` of a folder and of a relay's history, to an app."""

import resource

import pytest
from click.testing import CliRunner

from socket2me.cli import main
from tests.support.library import run
from tests.support.local_app import call
from tests.support.servers import free_port


def replay(home, *arguments):
    """Run it; return its status, what it prints, and its errors."""
    done = run(home, "replay", *map(str, arguments), check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_folder(relay, app, listen, tmp_path):
    """What `--save` wrote is sent in the order in which it came, as far as it is chosen; with a line for each."""
    command = listen("--save", str(tmp_path / "saved"))
    sent = []
    for tail, body in (("/stripe?a=%20", b"\x00\xff"), ("/github", b"2"), ("/stripe", b"3")):
        call(relay, command.url, tail, body=body)
        sent.append(app.expect())
    chosen = replay(tmp_path, tmp_path / "saved", "--to", app.url, "--since", "1h", "--only", "POST /stripe")
    assert chosen[::2] == (0, "2 sent, 0 failed.\n")
    assert [app.expect() for _ in range(2)] == [sent[0], sent[2]]
    assert app.received.empty()
    assert "  POST   /stripe?a=%20  2 B  200  " in chosen[1].splitlines()[0]
    none = CliRunner().invoke(main, ["replay", str(tmp_path / "saved"), "--to", app.url, "--until", "1h"])
    assert (none.exit_code, none.output) == (1, "Error: There is no such request to send.\n")
    down = replay(tmp_path, tmp_path / "saved", "--to", f"http://127.0.0.1:{free_port()}", "--speed", "max")
    assert (*down[::2], down[1].count("Connection refused")) == (1, "3 sent, 3 failed.\n", 3)


def test_the_history_of_a_url(relay, app, tmp_path):
    """Requests that the relay has kept are sent byte for byte, with a secret that is given."""
    made = relay.new_with_secret(inspect=True, mailbox=True)
    headers = [("X-A", "\xe9"), ("Content-Type", "x/y")]
    for tail, body in (("/a?b=%20", b"\x00\xff"), ("/other", b""), ("/a", b"x")):
        call(relay, made["url"], tail, headers=headers if body != b"x" else [], body=body)
    chosen = replay(
        tmp_path, "--url", made["url"], "--secret", made["secret"], "--to", app.url, "--only", "/a header.x-a:*"
    )
    assert chosen[::2] == (0, "1 sent, 0 failed.\n")
    received = app.expect()
    assert (received.line, received.body) == ("POST /a?b=%20 HTTP/1.1", b"\x00\xff")
    assert (received.by_name["x-a"], received.by_name["content-type"]) == ("\xe9", "x/y")
    assert app.received.empty()
    plain = relay.new_with_secret()
    for url, secret, why in (
        (made["url"], plain["secret"], "secret"),
        (plain["url"], plain["secret"], "history"),
    ):
        status, _, error = replay(tmp_path, "--url", url, "--secret", secret, "--to", app.url)
        assert (status, error.count("\n")) == (1, 1)
        assert why in error


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "Requests are either those of FILE or DIR, or with --url those of a relay's history."),
        ([".", "--url", "http://x/v1/go/y"], "Requests are either those of FILE or DIR"),
        ([".", "--since", "yesterday"], "'yesterday' is no time, such as 90s"),
        ([".", "--speed", "0"], "'0' is no speed, such as 1"),
        ([".", "--only", "body.x:1"], "A path in the body begins with body.$"),
        (["/there/is/none"], "'/there/is/none' does not exist"),
        ([".", "--to", "ftp://x"], "The URL is like http://localhost:3000/hooks, and not ftp://x."),
    ],
)
def test_what_makes_no_sense(tmp_path, options, why):
    """It is refused with status 2 before anything is sent."""
    arguments = ["replay", "--to", "3000", *options]
    done = CliRunner().invoke(main, arguments, env={"XDG_STATE_HOME": str(tmp_path)})
    assert done.exit_code == 2
    assert why in done.output.replace("\n", " ")


def test_a_full_disk(relay, app, listen, tmp_path):
    """A request that cannot be saved is rejected, not lost; no part of a file is left for `replay`."""
    command = listen("--save", str(tmp_path / "saved"))
    _, most = resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (1000, most))
    assert call(relay, command.url, body=b"x" * 5000)[0] == 202
    line = command.expect("request")
    assert line["remark"].startswith("It cannot be saved: File too large.")
    assert list((tmp_path / "saved").iterdir()) == []
    assert app.received.empty()
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (most, most))
    assert app.expect().body == b"x" * 5000
    assert len(list((tmp_path / "saved").glob("*.http"))) == 1
