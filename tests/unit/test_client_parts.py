"""The parts of the command that need no relay: targets, patterns, files, kept tokens, reports, old relays."""

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import click
import pytest
from click import Context, Group
from click.testing import CliRunner

from socket2me.cli import main, options
from socket2me.cli.status import listener_line
from socket2me.client.client import BackOff
from socket2me.client.http_api import RelayApi, Token
from socket2me.exceptions import BadArgument, ClientError, NotHandled, OutsideTarget, RelayRefused
from socket2me.listening.local_forwarder import Forwarder
from socket2me.listening.signing_options import LateSigner, fingerprint, parse_verify
from socket2me.local_app.target import Answer, Target
from socket2me.output.report import JsonReport, Outcome, TextReport
from socket2me.request import Request
from socket2me.saved.request_files import from_bytes, to_bytes
from socket2me.saved.token_file import SavedToken, SavedTokens
from tests.support.man_pages import pages
from tests.support.servers import ROOT
from tests.support.signed_requests import SIGNED

EVENT = {"method": "GET", "path": "/a", "query": "", "headers": {}, "id": "x-1", "received_at": 1.0}


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "http://", "http://u:p@x/", "http://x/?a", "http://x/#a", "http://x:y/", "99999", "x", "u:p@x:1"],
)
def test_a_target_is_a_url_of_an_app(url):
    """Whatever is ambiguous is refused before anything is sent."""
    with pytest.raises(ClientError):
        Target(url, timeout_seconds=1)


@pytest.mark.parametrize("path", ["@evil.example/", "evil.example", "http://evil.example/", "\\evil.example"])
def test_a_path_that_is_none_is_sent_nowhere(path):
    """A relay sends no such path; one that lies gets nothing by it."""
    with pytest.raises(OutsideTarget):
        Target("http://127.0.0.1:1", timeout_seconds=1).send(Request("GET", path))


def test_dots_are_a_path_where_the_target_has_none():
    """Then there is nothing to leave, and they arrive as they were sent."""
    assert Target("http://127.0.0.1:1/", timeout_seconds=1).checked(Request("GET", "/a/../b")) == "/a/../b"


class Sent:
    """A receiver that answers 200."""

    name = "app"

    def where(self, request):
        return self.name

    def send(self, request):
        return Answer(200, [], b"", is_cut=False)


@pytest.mark.parametrize(
    ("pattern", "method", "path", "matches"),
    [
        ("POST /github/*", "POST", "/github/a/b", True),
        ("POST /github/*", "PUT", "/github/a", False),
        ("POST /github/*", "POST", "/github", False),
        ("post /*", "POST", "", True),
        ("POST", "POST", "/any", True),
        ("/a", "GET", "/a", True),
        ("/a", "GET", "/A", False),
        ("header.x-name:a body.$.n:1", "GET", "/", True),
        ("header.x-name:b", "GET", "/", False),
    ],
)
def test_only(pattern, method, path, matches):
    """`--only` takes a method, a path in which * is anything, or any filter of the inspector."""

    @click.command
    @options.only("")
    def command(only):
        request = Request(method, path, headers={"x-name": "a"}, body=b'{"n": 1}')
        forwarder = Forwarder(Sent(), JsonReport(), is_replying=lambda: True, only=only)
        click.echo(forwarder(request).status)

    assert CliRunner().invoke(command, ["--only", pattern]).stdout.splitlines()[-1] == ("200" if matches else "404")


@pytest.mark.parametrize("option", ["--only", "--filter"])
def test_a_filter_that_does_not_parse(option):
    """It is refused when the command starts, with the place of the error; so is what is not known yet."""
    for text, words in (("POST body.x:1", "(column 11)"), ("status:200", "is not known before")):
        result = CliRunner().invoke(main, ["listen", "http://x", "--server", "http://y", option, text])
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())


@pytest.mark.parametrize(
    "event", [{}, {**EVENT, "body": "text"}, {**EVENT, "headers": 1}, {**EVENT, "received_at": ""}]
)
def test_an_event_that_is_no_request(event):
    """It is not acknowledged, whatever the relay meant."""
    with pytest.raises(NotHandled):
        Request.from_event(event)


def test_a_request_in_a_file():
    """What is written is read again, byte for byte; what is no request is refused."""
    request = Request("POST", "", "a=%20\xe9", {"x": "\xe9: b", "empty": ""}, b"\r\n\r\n\x00")
    assert from_bytes(to_bytes(request), "f") == request
    for data in (b"", b"POST / HTTP/1.1\r\n", b"POST\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n\r\n"):
        with pytest.raises(ClientError, match="f holds no request"):
            from_bytes(data, "f")


def test_kept_tokens(tmp_path):
    """One for each relay and app; a damaged file is not overwritten."""
    tokens = SavedTokens(tmp_path)
    first, other, second = (
        SavedToken("s", "t", "1", None),
        SavedToken("s", "u", "2", "x"),
        SavedToken("s", "t", "3", None),
    )
    for kept in (first, other, second):
        tokens.keep(kept)
    assert tokens.find("s", "t") == second
    assert tokens.find("s", "u") == other
    assert tokens.find("r", "t") is None
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.json"]
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(ClientError, match="cannot be read"):
        tokens.keep(first)


def test_what_strangers_send_moves_no_cursor(capsys):
    """Control characters are printed as what they are."""
    TextReport().request(Request("GET", "/\x1b[2J\n[red]"), Outcome(200, 0))
    assert "GET    /\\x1b[2J\\x0a[red]  0 B  200" in capsys.readouterr().out


def all_commands():
    """Yield each command, and each of a group, with the words that call it."""
    for name in main.commands:
        command = main.load(name)
        for part, each in command.commands.items() if isinstance(command, Group) else [(None, command)]:
            yield pytest.param([name, part] if part else [name], each, id=f"{name} {part or ''}".rstrip())


@pytest.mark.parametrize(("words", "command"), [*all_commands()])
def test_help_is_complete(words, command):
    """Each argument and option of each command has its words, and its help ends with an example that parses."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0
    assert result.output.endswith(f"\nExample:\n  {command.example}\n")
    given = shlex.split(command.example.removeprefix('eval "$(').removesuffix(')"'))
    assert given[: len(words) + 1] == ["socket2me", *words]
    context = Context(command, resilient_parsing=True)
    options, rest, _ = command.make_parser(context).parse_args(given[len(words) + 1 :])
    assert rest == [] and all(options.values())
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        shown = parameter.opts[0] if is_option else parameter.metavar or parameter.name.upper()
        assert shown in result.output


def test_the_manual_pages():
    """Those in docs/man are what the help of the commands says: `make docs` writes them. `man` shows all of it."""
    files = {path.name: path.read_text() for path in (ROOT / "docs" / "man").iterdir()}
    assert files == pages()
    if shutil.which("man") and shutil.which("groff"):
        page = ROOT / "docs" / "man" / "socket2me-listen.1"
        shown = subprocess.run(
            ["man", "--warnings", "-P", "cat", "-E", "UTF-8", "-l", page],
            env={**os.environ, "MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stderr == ""
        text = re.sub(r".\x08|\x1b\[[0-9;]*m", "", shown.stdout)
        for parameter in main.load("listen").params:
            assert parameter.param_type_name == "argument" or parameter.opts[0] in text
        assert "socket2me listen http://localhost:3000/hooks --server https://relay.example" in text


@pytest.fixture
def old_relay():
    """A relay that answers `POST /v1/new` as it is set to, and `GET /v1/new` with a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.asked.append(json.loads(body))
            self.answer(*self.server.answers.pop(0))

        def do_GET(self):
            self.answer(200, b"atoken")

        def answer(self, status, body=b""):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "https://elsewhere.example/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.answers = [], []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_relay_that_gives_tokens_without_a_secret_only(old_relay, status):
    """It is asked for one of those, and callers are answered at once."""
    old_relay.answers = [(status,)]
    assert RelayApi(old_relay.url).new(mode="ack", mailbox=True) == (Token("atoken"), "notify")


def test_a_relay_that_knows_no_modes(old_relay):
    """It is asked for less, step by step."""
    old_relay.answers = [*[(400,)] * 4, (201, b'{"token": "t", "secret": "s"}')]
    assert RelayApi(old_relay.url).new(mode="reply", mailbox=True) == (Token("t", "s"), "notify")
    assert old_relay.asked == [
        {"mode": "reply", "mailbox": True, "ttl_seconds": "max"},
        {"mode": "reply", "ttl_seconds": "max"},
        {"mode": "reply", "mailbox": True},
        {"mode": "reply"},
        {},
    ]


def test_a_relay_that_redirects(old_relay):
    """Its key goes nowhere else; the error says where it would have gone."""
    old_relay.answers = [(308,)]
    with pytest.raises(RelayRefused, match="sends to https://elsewhere.example/: give that server instead"):
        RelayApi(old_relay.url, "key").new(mode="ack", mailbox=False)


@pytest.mark.parametrize("server", ["relay.example", "https://relay.example/v1/new", "ws://relay.example"])
def test_the_address_of_a_relay(server):
    """What is none is refused."""
    with pytest.raises(ClientError):
        RelayApi(server)


def test_a_client_tries_again_within_5_seconds():
    """However often the relay was not there; and soon again once it was."""
    back_off = BackOff()
    waits = [back_off.seconds() for _ in range(20)]
    assert waits[0] <= 1 < 2 < max(waits) <= 5
    back_off.reset()
    assert back_off.seconds() <= 1


def test_what_verify_takes(tmp_path, monkeypatch):
    """A secret, a file, a variable, two secrets, JSON, and a file of JSON; without any, None."""
    (tmp_path / "secret").write_text("from a file\n")
    (tmp_path / "verify.json").write_text('{"provider": "sns", "topic": "t"}')
    monkeypatch.setenv("THE_SECRET", "from a variable")
    github = {"provider": "github", "secrets": ["a=b"]}
    assert parse_verify(["github=a=b"]) == github
    assert parse_verify([f"github=@{tmp_path}/secret"]) == {**github, "secrets": ["from a file"]}
    assert parse_verify(["github=env:THE_SECRET"]) == {**github, "secrets": ["from a variable"]}
    assert parse_verify(["github=new", "github=old"]) == {**github, "secrets": ["new", "old"]}
    assert parse_verify(['{"provider": "github", "secrets": ["a=b"]}']) == github
    assert parse_verify([f"@{tmp_path}/verify.json"]) == {"provider": "sns", "topic": "t"}
    assert parse_verify([]) is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--verify", "github"], "The provider is one of bitbucket"),
        (["--verify", "gihub=hunter2"], "The provider is one of bitbucket"),
        (["--verify", "github="], "The secret of github is empty."),
        (["--verify", "github=env:NO_SUCH"], "There is no variable NO_SUCH for the secret of github."),
        (["--verify", "github=@/no/such"], "/no/such cannot be read: No such file or directory."),
        (["--verify", "github=a", "--verify", "slack=b"], "--verify takes one provider"),
        (["--verify", "{nonsense"], "--verify is no JSON object"),
        (["--resign", "github=hunter2"], "requests of github cannot be signed again, only those of slack"),
        (["--resign", "standard=whsec_hunter2?"], "after whsec_ or whpk_ comes base64."),
    ],
)
def test_a_secret_that_is_none(options, text):
    """It is refused when the command starts, with status 2, and not shown."""
    result = CliRunner().invoke(main, ["listen", "http://x", "--server", "http://y", *options])
    assert result.exit_code == 2
    assert text in " ".join(result.output.replace("│", " ").split())
    assert "hunter2" not in result.output


def test_only_what_was_verified_and_is_late_is_signed_again():
    """A request is signed again if it is late or came before, and never if the relay has not verified it."""
    headers = {"stripe-signature": "t=1700000000,v1=x"}
    fresh = {"stripe-signature": f"t={int(time.time())},v1=x"}
    signer = LateSigner("stripe=s")
    late = signer.late(Request("POST", headers=headers, body=b"\xff", verified="stripe"))
    assert late.headers["x-socket2me-original-stripe-signature"] == headers["stripe-signature"]
    assert late.body == b"\xff"
    for request in (
        Request("POST", headers=headers),
        Request("POST", headers=headers, verified="github"),
        Request("POST", headers=fresh, verified="stripe"),
        Request("POST", headers=fresh, verified="stripe", attempt=1),
        Request("POST", verified="stripe"),
    ):
        assert signer.late(request) is request
    again = Request("POST", headers=fresh, verified="stripe", attempt=2)
    assert "x-socket2me-original-stripe-signature" in signer.late(again).headers


def test_a_saved_request_is_signed_again_with_its_own_secret_only():
    """Whatever the file says: the secret must have signed it."""
    signed = SIGNED["stripe"]
    request = Request("POST", headers=signed.headers, body=signed.body)
    assert LateSigner("stripe=whsec_test_secret").saved(request).headers != request.headers
    with pytest.raises(BadArgument, match="not signed with this secret"):
        LateSigner("stripe=another").saved(request)


def test_a_token_is_never_asked_for_without_what_verifies_its_calls():
    """Where a relay refuses `verify`, the client falls back to no token that has less."""
    asked = []

    class OldRelay(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = b'{"error": {"code": "bad_request", "message": "The body may have ttl_seconds."}}'
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), OldRelay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = RelayApi(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(RelayRefused, match="may have ttl_seconds"):
            api.new(mode="ack", mailbox=True, verify={"provider": "github", "secrets": ["s"]})
        server.shutdown()
    assert asked and all("verify" in options for options in asked)


def test_a_kept_token_says_what_its_calls_are_verified_with(tmp_path):
    """As a keyed hash: the same for the same, and not the secret; a token without is written as before."""
    verify = {"provider": "github", "secrets": ["the secret"]}
    assert fingerprint(verify, "s2m_1") == fingerprint(dict(reversed(verify.items())), "s2m_1")
    assert fingerprint(verify, "s2m_1") not in (fingerprint(verify, "s2m_2"), fingerprint(None, "s2m_1"), None)
    tokens = SavedTokens(tmp_path)
    tokens.keep(SavedToken("r", "a", "t", "s2m_1", fingerprint(verify, "s2m_1")))
    tokens.keep(SavedToken("r", "b", "t", "s2m_1"))
    assert tokens.find("r", "a").verify == fingerprint(verify, "s2m_1")
    assert "verify" not in next(
        kept for kept in json.loads((tmp_path / "tokens.json").read_text()) if kept["target"] == "b"
    )
    assert "the secret" not in (tmp_path / "tokens.json").read_text()


def test_a_listener_that_is_away():
    """`status` says since when, and how many events wait for it; it has no mode, and nothing in flight."""
    away = {"id": "ann", "since": 1e9, "mode": None, "in_flight": 0, "waiting": 3, "connected": False}
    line = listener_line(away)
    assert line.startswith("ann: not connected since 2001-09-09 ")
    assert line.endswith(", 3 waiting")
    assert "None" not in line
