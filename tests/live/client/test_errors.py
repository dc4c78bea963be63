"""What goes wrong is one line that says what to do, with a status of its own: no traceback reaches a user."""

import json
import re
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from click.testing import CliRunner

from socket2me import Client, NotHandled, RelayUnavailable
from socket2me.cli import main
from socket2me.client.http_api import RelayApi, Token
from socket2me.client.socketio_connection import Connection
from socket2me.exceptions import BadArgument
from socket2me.saved import token_file
from tests.support.library import listening, open_on, run, until_connected
from tests.support.local_app import App, call
from tests.support.servers import BIN, DEADLINE_SECONDS, Server, clean_environment, free_port, wait_until


@pytest.fixture
def other_app():
    """An app that is no relay: `body`, of `content_type`, is its answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(self.server.status)
            self.send_header("Content-Type", self.server.content_type)
            self.send_header("Content-Length", str(len(self.server.body)))
            self.end_headers()
            self.wfile.write(self.server.body)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fails(home, *arguments, status=1):
    """Run a command that fails; return its one line on stderr, without `Error: `."""
    result = run(home, *arguments, check=False)
    assert (result.returncode, result.stdout) == (status, ""), result
    usage, _, line = result.stderr.rpartition("Error: ")
    assert "Traceback" not in usage
    assert line.count("\n") == 1
    return line.strip()


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "text/html", b"<html>hello</html>"),
        (200, "application/json", b"{}"),
        (200, "application/json", b"[1]"),
        (404, "text/html", b"<html>not found</html>"),
        (405, "application/json", b'{"error": "no"}'),
        (500, "text/html", b"<html>broken</html>"),
    ],
)
def test_a_server_that_is_no_relay(other_app, tmp_path, status, content_type, body):
    """`listen` says so, and which address it is about; a relay that fails for now is waited for."""
    other_app.status, other_app.content_type, other_app.body = status, content_type, body
    if status == 500:
        notices = []
        client = Client(other_app.url, on_notice=notices.append)
        with listening(client, print):
            wait_until(lambda: notices, "it is waited for")
        assert notices[0].why == "It answers 500: Internal Server Error"
        return
    line = fails(tmp_path, "listen", "3000", "--server", other_app.url)
    assert other_app.url in line
    assert "socket2me relay" in line
    assert "<html>" not in line
    assert not (tmp_path / "socket2me").exists()


def test_a_kept_url_survives_a_wrong_server(relay, other_app, tmp_path):
    """An app on the relay's port that answers 404 does not make `listen` ask for another URL."""
    client = open_on(relay)
    kept = {"server": other_app.url, "target": "http://localhost:3000"}
    (tmp_path / "socket2me").mkdir()
    tokens = tmp_path / "socket2me" / "tokens.json"
    tokens.write_text(json.dumps([{**kept, "token": client.token, "secret": client.secret}]))
    before = tokens.read_text()
    other_app.status, other_app.content_type, other_app.body = 404, "text/html", b"<html>"
    result = run(tmp_path, "listen", "3000", "--server", other_app.url, check=False)
    assert result.returncode == 1
    assert "Is http" in result.stderr
    assert tokens.read_text() == before


def test_a_connection_that_ends_before_it_is_accepted(other_app):
    """As when a relay is killed: nothing waits for the answer to its CONNECT any more."""
    other_app.status, other_app.content_type = 200, "text/plain"
    other_app.body = b'0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'  # to each poll
    other_app.body += b"\x1e1"
    with pytest.raises(RelayUnavailable, match="the connection was closed"):
        Connection(other_app.url, "token", {}, print, print)


def test_https_to_a_relay_of_http(relay, tmp_path):
    """`listen` says which address would be right, and ends."""
    line = fails(tmp_path, "listen", "3000", "--server", relay.url.replace("http:", "https:"))
    assert line == f"127.0.0.1:{relay.port} does not speak TLS. Is it {relay.url}?"


def test_a_name_that_does_not_resolve(monkeypatch):
    """At the first start it ends; once it was connected, it waits until it can have the name again."""
    with Server() as relay:
        notices = []
        client = open_on(relay, on_notice=notices.append)

        def fail(*args, **options):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        with listening(client, print):
            until_connected(relay, client)
            monkeypatch.setattr(socket, "getaddrinfo", fail)
            relay.stop()
            wait_until(lambda: [n for n in notices if "does not resolve" in n.why], "it waits")
            wait_until(lambda: len([n for n in notices if n.what == "unavailable"]) == 2, "it tries again")
        with pytest.raises(RelayUnavailable, match=r"There is no host relay\.example"):
            Client("http://relay.example", on_notice=print).listen(print)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["send", "x"], "The URL is like http://localhost:3000/hooks, and not x."),
        (["listen", "99999", "--server", "http://x"], "99999 is no URL: Port out of range 0-65535."),
        (["listen", "x:y", "--server", "http://x"], "The target is like http://localhost:3000/hooks, and not x:y."),
        (["listen", "3000", "--server", "x"], "The relay's address is like https://relay.example, and not x."),
        (
            ["listen", "3000", "--server", "http://x:y"],
            "The relay's address is like https://relay.example, and not http://x:y.",
        ),
        (
            ["listen", "3000", "--server", "x:0"],
            "The relay's address is like https://relay.example, and not x:0.",
        ),
        (["listen", "0", "--server", "http://x"], "0 is no URL: no app listens on port 0."),
        (
            ["listen", "http://a b/", "--server", "http://x"],
            "The host of the target has characters that no host has: http://a b/.",
        ),
        *[
            (["listen", "3000", "--server", "http://x", "--header-add", header], f"'--header-add': {line}")
            for header, line in (
                ("X Y: 1", "'X Y' is not the name of a header."),
                ("X-Y: \xe9", "The value of X-Y has characters that are not printable ASCII."),
                ("Content-Length: 3", "Content-Length is a header of a connection, which `listen` sets itself."),
                ("nonsense", "'nonsense' is not like 'X-Name: value'"),
            )
        ],
        *[
            (
                ["listen", "3000", "--server", "http://x", "--api-key", key],
                "This is no key or secret: those are printable ASCII characters, without spaces.",
            )
            for key in ("schl\xfcssel", "\u65e5\u672c", "a\nb", "a b", "\udcff")
        ],
        *[
            (
                ["events", do, text],
                f"{text!r} is no id of a request. `socket2me events list` shows those that there are.",
            )
            for do, text in (("show", "a/b"), ("retry", ""), ("drop", "x\ny"))
        ],
    ],
)
def test_what_makes_no_sense(tmp_path, arguments, line):
    """The line says what, and the status is 2."""
    result = CliRunner().invoke(main, arguments, env={"XDG_STATE_HOME": str(tmp_path)})
    assert result.exit_code == 2
    usage, _, error = result.output.partition("Error: ")
    assert usage.startswith("Usage: main ")
    assert error.endswith(f"{line}\n")


def test_a_folder_for_requests_that_is_none(tmp_path):
    """`listen --save` says so before it asks the relay for anything."""
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/folder"):
        line = fails(tmp_path, "listen", "3000", "--server", "http://x", "--save", str(folder), status=2)
        assert f"nothing can be written to {folder}: " in line


def test_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    """`listen` says so, and what helps, before it asks the relay for a URL that nobody would know the next time."""
    (tmp_path / "file").write_text("no folder")
    line = fails(tmp_path / "file", "listen", "3000", "--server", "http://127.0.0.1:1")
    folder = tmp_path / "file" / "socket2me"
    assert line == f"{folder / 'tokens.json'} cannot be read; move it away to begin anew: Not a directory"
    line = fails("/proc/none", "listen", "3000", "--server", "http://127.0.0.1:1")
    assert line == (
        "URLs cannot be kept in /proc/none/socket2me: No such file or directory."
        " XDG_STATE_HOME may name another folder."
    )

    def no_home(*arguments, **options):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(token_file, "user_state_path", no_home)
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.output) == (
        1,
        "Error: URLs are kept in the home folder, and there is none. XDG_STATE_HOME may name another folder.\n",
    )


def test_a_secret_that_is_none():
    """In the file of tokens, which may have been edited, or in a program."""
    with pytest.raises(BadArgument):
        RelayApi("http://127.0.0.1:1").refresh(Token("t", "\u65e5"))


@pytest.mark.parametrize("secret", ["whsec_abc", "whsec_!!!!", "whsec_\udcff"])
def test_a_signing_secret_that_is_no_base64(tmp_path, secret):
    """Status 2, as for other options."""
    line = fails(tmp_path, "send", "3000", "--sample", "standard", "--signing-secret", secret, status=2)
    assert "--signing-secret: after whsec_ comes base64" in line


@pytest.mark.parametrize("status", [400, 404, 503])
def test_send_fails_where_the_url_does(tmp_path, app, status):
    """It prints the answer and ends with status 1."""
    app.answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status
    result = run(tmp_path, "send", app.url, check=False)
    assert (result.returncode, result.stdout) == (1, f"{status}\nno\n")


def test_status_of_a_relay_without_urls(tmp_path):
    """It says for which relay there is none."""
    result = run(tmp_path, "status", "--server", "http://127.0.0.1:1")
    assert result.stderr == "No URL is kept for http://127.0.0.1:1. `socket2me listen` asks for one.\n"


def test_status_of_a_relay_that_does_not_answer(relay, tmp_path):
    """`status` and `events list` end with status 1; that a URL is gone is an answer."""
    kept = {"target": "http://localhost:3000", "token": "t", "secret": "s2m_x"}
    (tmp_path / "socket2me").mkdir()
    away = f"http://127.0.0.1:{free_port()}"
    for server, status, text in ((away, 1, "Connection refused"), (relay.url, 0, "gone: it expired")):
        (tmp_path / "socket2me" / "tokens.json").write_text(json.dumps([{**kept, "server": server}]))
        for command in (["status"], ["events", "list"]):
            result = run(tmp_path, *command, check=False)
            assert (result.returncode, result.stderr, text in result.stdout) == (status, "", True)


def test_kept_tokens_that_are_damaged(tmp_path):
    """Whatever the file holds, the line names it."""
    (tmp_path / "socket2me").mkdir()
    for text in ("{", "[1]", '[{"server": 1, "target": "", "token": "", "secret": null}]', "7"):
        (tmp_path / "socket2me" / "tokens.json").write_text(text)
        assert "tokens.json cannot be read; move it away to begin anew" in fails(tmp_path, "status")


@pytest.mark.parametrize("target", ["{port}", "localhost:{port}", "127.0.0.1:{port}/hooks"])
def test_a_target_without_a_scheme(relay, app, listen, target):
    """A port, or a host and a port, are an app of http."""
    command = listen(target=target.format(port=app.port))
    assert call(relay, command.url, "/x")[0] == 200
    assert app.expect().line.endswith("/x HTTP/1.1")


def test_a_relay_without_a_scheme(relay, tmp_path):
    """A host and a port of this machine are http; of any other, https."""
    assert RelayApi(f"127.0.0.1:{relay.port}").server == relay.url
    assert RelayApi("[::1]:8000/").server == "http://[::1]:8000"
    assert RelayApi("relay.example:8443").server == "https://relay.example:8443"
    result = run(tmp_path, "status", "--server", f"127.0.0.1:{relay.port}")
    assert result.stderr == f"No URL is kept for {relay.url}. `socket2me listen` asks for one.\n"


def test_https_to_an_app_of_http(relay, tmp_path):
    """`send` says which URL would be right."""
    line = fails(tmp_path, "send", f"https://127.0.0.1:{relay.port}/x")
    assert line == f"https://127.0.0.1:{relay.port}: it does not speak TLS. Is it http://127.0.0.1:{relay.port}?"


def test_only_a_method(relay, listen):
    """`--only GET` forwards each GET, as the help says."""
    command = listen("--reply", "--only", "get")
    assert call(relay, command.url, "/any/path", "GET")[0] == 200
    assert call(relay, command.url, "", "GET")[0] == 200
    assert call(relay, command.url, "/any/path", "POST")[0] == 404


def test_output_that_is_closed(relay, tmp_path):
    """`listen | head -1` ends without a word, as after SIGTERM."""
    with App() as app:
        listener = subprocess.Popen(
            [BIN / "socket2me", "listen", app.url, "--server", relay.url, "--json"],
            env={**clean_environment(), "XDG_STATE_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        url = next(event["url"] for event in map(json.loads, listener.stdout) if event["event"] == "url")
        relay.giveaways.add(url.rpartition("/")[2])
        listener.stdout.close()
        requests.post(url, timeout=20)
        try:
            listener.wait(DEADLINE_SECONDS)
        finally:
            listener.kill()
        with listener.stderr:
            assert "Traceback" not in listener.stderr.read()


def token_once_kept(relay, home):
    """Return the token of a `listen` that prints nowhere, once it has kept it."""
    kept = home / "socket2me" / "tokens.json"
    wait_until(lambda: kept.exists() and kept.stat().st_size > 0, "a URL that is kept")
    (token,) = (each["token"] for each in json.loads(kept.read_text()))
    relay.giveaways.add(token)
    return token


def test_a_full_disk_under_the_output(relay, tmp_path):
    """The app has had a request whose line cannot be written: it is acknowledged, and does not come again."""
    with App() as app, open("/dev/full", "w") as full:
        listener = subprocess.Popen(
            [BIN / "socket2me", "listen", app.url, "--server", relay.url],
            env={**clean_environment(), "XDG_STATE_HOME": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            token = token_once_kept(relay, tmp_path)
            requests.post(f"{relay.url}/v1/go/{token}", timeout=20)
            app.expect()  # it is connected
            answers = [requests.post(f"{relay.url}/v1/go/{token}", timeout=20).status_code for _ in range(3)]
            listener.send_signal(signal.SIGINT)
            _, told = listener.communicate(timeout=DEADLINE_SECONDS)
        finally:
            listener.kill()
        assert (answers, app.received.qsize()) == ([200] * 3, 3)
        assert told.count("Lines of the output are lost: No space left on device. Requests go on.\n") == 1
        assert "Traceback" not in told


def test_streams_that_are_closed(relay, tmp_path):
    """`listen <&- >&- 2>&-`, as some services start it, forwards requests."""
    with App() as app:
        listener = subprocess.Popen(
            [
                "bash",
                "-c",
                'exec "$@" <&- >&- 2>&-',
                "-",
                BIN / "socket2me",
                "listen",
                app.url,
                "--server",
                relay.url,
            ],
            env={**clean_environment(), "XDG_STATE_HOME": str(tmp_path)},
        )
        try:
            token = token_once_kept(relay, tmp_path)
            requests.post(f"{relay.url}/v1/go/{token}", timeout=20)
            app.expect()
            listener.send_signal(signal.SIGINT)
            assert listener.wait(DEADLINE_SECONDS) == 0
        finally:
            listener.kill()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_onto_a_full_disk(arguments):
    """It ends with a line that says why, and status 1."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [BIN / "socket2me", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_a_handler_that_fails_tells_its_caller_no_more_than_that(server):
    """The text of `NotHandled` is for the caller, that of any other exception is not."""
    errors = iter([NotHandled("not today"), KeyError("secret")])

    def handle(request):
        raise next(errors)

    client = open_on(server)
    with listening(client, handle):
        until_connected(server, client)
        bodies = [call(server, client.url)[::2] for _ in range(2)]
    assert [status for status, _ in bodies] == [503, 503]
    assert b"The client rejected this call: not today" in bodies[0][1]
    assert b"secret" not in bodies[1][1]


def test_a_folder_that_cannot_be_written(relay, listen, tmp_path):
    """With --save the request is not lost if that fails later: it is rejected, and the line says why."""
    folder = tmp_path / "folder" / "below"
    command = listen("--save", str(folder), target=f"http://127.0.0.1:{free_port()}")
    folder.rmdir()
    folder.parent.rmdir()
    folder.parent.write_text("no folder")
    assert call(relay, command.url)[0] == 202
    assert command.expect("request")["remark"] == "It cannot be saved: Not a directory. The request comes again."


# The URL is the same tomorrow, and one stuck request can be let go


def inspect(relay, tmp_path):
    (kept,) = json.loads((tmp_path / "socket2me" / "tokens.json").read_text())
    headers = {"Authorization": f"Bearer {kept['secret']}"}
    return requests.get(f"{relay.url}/v1/tokens/{kept['token']}", headers=headers, timeout=5).json()


def test_a_url_lives_for_30_days_from_each_start_and_end(relay, listen, tmp_path):
    """`listen` asks for the longest life, and refreshes the token when it starts and when it ends."""
    command = listen()
    first = inspect(relay, tmp_path)["expires_at"]
    assert abs(command.terms["expires_at"] - command.terms["time"] - 30 * 86_400) < 600
    command.end(signal.SIGTERM)
    after_end = inspect(relay, tmp_path)["expires_at"]
    listen().end()
    after_another = inspect(relay, tmp_path)["expires_at"]
    assert first < after_end < after_another


def test_a_relay_that_allows_less(listen):
    """It is asked for its own longest life."""
    with Server(MAX_TTL_SECONDS=5000) as short:
        terms = listen(server=short).terms
    assert 4000 < terms["expires_at"] - terms["time"] <= 5001


def test_events_are_listed_shown_retried_and_dropped(relay, app, listen, tmp_path):
    """By id, whichever of the kept URLs it is of; what is unknown fails."""
    app.close()
    command = listen()
    ids = [
        json.loads(call(relay, command.url, f"/{n}?a=b", body=body)[2])["id"]
        for n, body in enumerate([b"\x1bone", b"\0\xff"])
    ]
    listed = run(tmp_path, "events", "list").stdout.splitlines()
    assert listed[0] == f"{command.url} -> {app.url}"
    for line, event_id in zip(listed[1:], ids, strict=True):
        assert re.fullmatch(rf"  {event_id}  (waiting|in flight)  tried \d+x  \d+ B  \d+ s ago", line)
    shown = run(tmp_path, "events", "show", ids[0]).stdout
    assert shown.startswith("POST /0?a=b\n")
    assert shown.rstrip().endswith("\n\\x1bone")
    assert "(2 B that are no text)" in run(tmp_path, "events", "show", ids[1]).stdout
    assert run(tmp_path, "events", "retry", ids[0]).stdout == f"{ids[0]} is sent again.\n"
    with App(app.port) as back:
        assert back.expect().line.startswith("POST /")
    assert run(tmp_path, "events", "drop", ids[1], check=False).returncode in (0, 1)  # it may have been handled
    assert fails(tmp_path, "events", "drop", ids[1]) == f"No request {ids[1]} is in the mailbox of a URL of yours."
