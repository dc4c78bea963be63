"""The parts of the command that need no relay: targets, patterns, files, kept tokens, reports, old relays."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from socket2me.cli import main
from socket2me.client import BackOff
from socket2me.exceptions import ClientError, NotHandled, OutsideTarget, RelayRefused
from socket2me.http_api import RelayApi, Token
from socket2me.local_forwarder import Pattern
from socket2me.report import TextReport
from socket2me.request import Request
from socket2me.saved_requests import from_bytes, to_bytes
from socket2me.saved_tokens import SavedToken, SavedTokens
from socket2me.target import Target

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


@pytest.mark.parametrize(
    ("pattern", "method", "path", "matches"),
    [
        ("POST /github/*", "POST", "/github/a/b", True),
        ("POST /github/*", "PUT", "/github/a", False),
        ("POST /github/*", "POST", "/github", False),
        ("post *", "POST", "", True),
        ("/a", "GET", "/a", True),
        ("/a", "GET", "/A", False),
    ],
)
def test_patterns(pattern, method, path, matches):
    """A method, if there is one, and a path in which * is anything."""
    assert Pattern.parse(pattern).matches(Request(method, path)) is matches


def test_a_pattern_that_is_none():
    """It is refused when the command starts."""
    result = CliRunner().invoke(main, ["listen", "http://x", "--server", "http://y", "--only", "github"])
    assert result.exit_code == 2
    assert "'github' is not like 'POST /github/*'" in result.output


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
    TextReport().request(Request("GET", "/\x1b[2J\n[red]"), 200, 0, "")
    assert "GET    /\\x1b[2J\\x0a[red]  0 B  200" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["listen", "replay", "send", "status", "backup"])
def test_help_is_complete(command):
    """Each argument and option of each command has its words."""
    for parameter in main.commands[command].params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    for parameter in main.commands[command].params:
        is_option = parameter.param_type_name == "option"
        shown = parameter.opts[0] if is_option else parameter.metavar or parameter.name.upper()
        assert shown in result.output


@pytest.fixture
def old_relay():
    """A relay that answers `POST /v1/new` as it is told to, and `GET /v1/new` with a token."""

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
        thread = threading.Thread(target=server.serve_forever)
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
