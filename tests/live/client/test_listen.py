"""`socket2me listen`: from a webhook to the local app, byte for byte, whatever happens on the way."""

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import threading
import time
from contextlib import ExitStack

import pytest
import requests

from socket2me.samples import SAMPLES
from tests.support.command import Command, until_attached
from tests.support.library import run
from tests.support.local_app import OK, App, call
from tests.support.servers import BIN, DEADLINE_SECONDS, Server, clean_environment, free_port, wait_until

BODIES = {
    "json": ("application/json", '{"b": 1,  "a": "é"}\n'.encode()),
    "form": ("application/x-www-form-urlencoded", b"a=1&a=%32&b=c+d"),
    "multipart": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n\x00\xff\r\n\r\n--x--\r\n',
    ),
    "binary of 2 MB": ("application/octet-stream", os.urandom(2_000_000)),
    "empty": ("text/plain", b""),
}


def test_a_url_that_exists(relay, app, tmp_path):
    """With `--url` and its secret, `listen` takes the requests to a URL that something else made, and keeps it."""
    made = relay.new_with_secret()
    environment = {**clean_environment(), "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(
        [BIN / "socket2me", "listen", app.url, "--url", made["url"], "--json"],
        env={**environment, "SOCKET2ME_SECRET": made["secret"]},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert json.loads(process.stdout.readline())["url"] == made["url"]
        assert relay.go(made["token"], tail="/x", data=b"1").status_code == 200
        assert app.expect().line == "POST /x HTTP/1.1"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 0
    kept = json.loads(next(tmp_path.rglob("tokens.json")).read_text())
    assert [(each["token"], each["secret"]) for each in kept] == [(made["token"], made["secret"])]
    for wrong in ("ftp://x/v1/go/abc", f"{relay.url}/v1/tokens/abc", f"{relay.url}/v1/go/"):
        command = [BIN / "socket2me", "listen", app.url, "--url", wrong]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode, wrong in done.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["listen", "3000"], ["replay", "--to", "3000"]])
def test_the_secret_of_a_url_without_a_terminal(arguments, tmp_path):
    """Nobody can type it: the line names the variable, and the status is 2."""
    done = subprocess.run(
        [BIN / "socket2me", *arguments, "--url", "http://127.0.0.1:1/v1/go/abc"],
        env={**clean_environment(), "XDG_STATE_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=DEADLINE_SECONDS,
    )
    assert (done.returncode, done.stderr.splitlines()[3:]) == (
        2,
        ["Error: The secret of the URL is not known, and there is no terminal: set SOCKET2ME_SECRET."],
    )


def test_the_secret_of_a_url_is_kept_once_it_was_right(relay, app, tmp_path):
    """A wrong one is not kept; the right one is not asked for again."""
    made = relay.new_with_secret()
    arguments = ("listen", app.url, "--url", made["url"], "--json")
    status, said = Command(tmp_path, *arguments, SOCKET2ME_SECRET="s2m_wrong").wait()
    assert (status, list(tmp_path.rglob("tokens.json"))) == (1, []), said
    for environment in ({"SOCKET2ME_SECRET": made["secret"]}, {}):
        command = Command(tmp_path, *arguments, **environment)
        command.expect("connected")
        assert command.end()[0] == 0


def test_bytes_arrive_as_they_were_sent(relay, app, listen):
    """Method, path, query, headers and body are the caller's, whatever their type; and nothing else is sent."""
    command = listen(target=f"{app.url}/hooks")
    for name, (content_type, body) in BODIES.items():
        headers = [("Content-Type", content_type), ("X-Name", name), ("Accept", "*/*")]
        tail = "/a%2fB/%7e//c;d?x=1&x=%20+&=&y"
        assert call(relay, command.url, tail, "PUT", headers, body)[0] == 200
        received = app.expect()
        assert received.line == f"PUT /hooks{tail} HTTP/1.1"
        assert received.body == body
        length = [("content-length", str(len(body)))] if body else []
        assert sorted(received.headers) == sorted(
            [
                ("host", f"127.0.0.1:{app.port}"),
                ("content-type", content_type),
                ("x-name", name),
                ("accept", "*/*"),
                *length,
            ]
        )
        line = command.expect("request")
        assert (line["method"], line["size"], line["status"]) == ("PUT", len(body), 200)


def test_chunks_repeated_headers_and_headers_for_one_connection(relay, app, listen):
    """A chunked body comes whole, with a length; a repeated header as one value; those hop-by-hop do not come."""
    command = listen()
    headers = [
        ("X-Many", "a"),
        ("X-Many", "b, c"),
        ("X-Latin", "\xe9"),
        ("X-Empty", ""),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
    ]
    call(relay, command.url, "", "POST", headers, b"one chunk, and another", chunked=True)
    received = app.expect()
    assert received.line == "POST / HTTP/1.1"
    assert received.body == b"one chunk, and another"
    assert received.by_name == {
        "host": f"127.0.0.1:{app.port}",
        "x-many": "a,b, c",
        "x-latin": "\xe9",
        "x-empty": "",
        "content-length": "22",
    }


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH"])
def test_the_answer_of_the_app_in_mode_reply(relay, app, listen, method):
    """With --reply the caller gets the status, body, and the headers that a relay passes, repeated ones too."""
    command = listen("--reply")
    app.answer = (
        b"HTTP/1.1 418 Teapot\r\nLink: <a>\r\nLink: <b>\r\nX-Own: \xe9\r\nContent-Type: image/x\r\n"
        b"Set-Cookie: a=1\r\nContent-Length: 4\r\n\r\n" + (b"" if method == "HEAD" else b"\x00\xff\r\n")
    )
    status, headers, body = call(relay, command.url, "/x", method)
    assert (status, body) == (418, b"" if method == "HEAD" else b"\x00\xff\r\n")
    assert [value for name, value in headers if name == "Link"] == ["<a>", "<b>"]
    assert "Set-Cookie" not in dict(headers)
    assert dict(headers)["X-Own"] == "\xe9"
    assert dict(headers)["Content-Type"] == "image/x"


def test_what_a_reply_cannot_carry(relay, app, listen):
    """An answer that is too large for the relay is 502 for the caller, and the client stays connected."""
    command = listen("--reply")
    app.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)
    assert call(relay, command.url)[0] == 502
    app.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 190000\r\n\r\n" + bytes(190_000)
    assert call(relay, command.url)[2] == bytes(190_000)


def test_no_request_and_no_redirect_leaves_the_target(relay, app, listen):
    """The origin is fixed: what looks like another host is a path, a redirect is an answer, `..` is refused."""
    with App() as other:
        command = listen("--reply", target=f"{app.url}/hooks")
        authority = f"127.0.0.1:{other.port}"
        for tail in (f"//{authority}/", f"/@{authority}/", f"/http://{authority}/", f"?http://{authority}/"):
            assert call(relay, command.url, tail)[0] == 200
            assert app.expect().line == f"POST /hooks{tail} HTTP/1.1"
        for tail in (
            "/..",
            "/../admin",
            "/a/../../admin",
            "/%2e%2E/admin",
            "/..%2fadmin",
            "/..;/admin",
            "/..%5cadmin",
        ):
            assert call(relay, command.url, tail)[0] == 404
        for status in (301, 302, 303, 307, 308):
            location = f"Location: {other.url}/\r\n".encode()
            app.answer = b"HTTP/1.1 %d Moved\r\nContent-Length: 0\r\n%b\r\n" % (status, location)
            assert call(relay, command.url, "/moved")[0] == status
            assert app.expect().line == "POST /hooks/moved HTTP/1.1"
        assert other.received.empty()
        assert app.received.empty()


def test_the_app_is_down(listen, tmp_path):
    """The request is rejected, which the command says, and comes again; in strict order, with --parallel 1."""
    store = f"sqlite:///{tmp_path}/relay.db"
    with Server(STORE_URL=store, ACK_TIMEOUT_SECONDS=0.1) as relay:
        target = f"http://127.0.0.1:{(port := free_port())}"
        command = listen("--parallel", "1", target=target, server=relay)
        assert [call(relay, command.url, f"/{number}")[0] for number in range(3)] == [202, 202, 202]
        line = command.expect("request")
        assert line["status"] is None
        assert "Connection refused. The request comes again." in line["remark"]
        with App(port) as late:
            assert [late.expect().line for _ in range(3)] == [f"POST /{number} HTTP/1.1" for number in range(3)]
            wait_until(lambda: command.expect("request")["status"] == 200, "it is handled")
        assert command.process.poll() is None


TOO_SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nfour"
NO_HTTP = b"nonsense\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        (None, "closed connection"),
        (TOO_SHORT, "4 bytes read"),
        (NO_HTTP, "nonsense"),
        ("slow", "no answer within 0.5 s"),
    ],
)
def test_an_app_that_breaks_off_or_is_slow(relay, app, listen, answer, remark):
    """An answer that ends early, is no HTTP or takes longer than --timeout is none: the request comes again."""
    may_end = threading.Event()
    answers = iter([answer, OK])

    def next_answer(received):
        answer = next(answers)
        return answer if answer != "slow" else may_end.wait(DEADLINE_SECONDS) and None

    app.answer = next_answer
    command = listen("--timeout", "0.5")
    assert call(relay, command.url, "/it")[0] == 202
    first, second = command.expect("request"), command.expect("request")
    may_end.set()
    assert (first["status"], first["attempt"], second["status"], second["attempt"]) == (None, 1, 200, 2)
    assert remark in first["remark"]
    assert [app.expect().line for _ in range(2)] == ["POST /it HTTP/1.1"] * 2


def test_a_caller_receives_an_error_for_a_dead_app_where_nothing_is_kept(server, app, listen):
    """Without a mailbox, in mode reply, the caller receives 502 or 504, and the client stays connected."""
    command = listen("--reply", "--timeout", "0.3", server=server)
    app.answer = None
    assert call(server, command.url)[0] == 502
    app.answer = lambda received: time.sleep(0.6)
    assert call(server, command.url)[0] == 504
    app.answer = OK
    assert call(server, command.url)[0] == 200


def test_the_server_is_stopped_and_started_again(app, listen, tmp_path):
    """The client waits for it, with the same token, and what it did not get is delivered."""
    settings = {"port": free_port(), "STORE_URL": f"sqlite:///{tmp_path}/relay.db"}
    with ExitStack() as stack:
        first = stack.enter_context(Server(**settings))
        command = listen(server=first)
        first.stop(signal.SIGKILL)
        assert command.expect("lost")["wait_seconds"] > 0
        assert "refused" in command.expect("unavailable")["why"]
        second = stack.enter_context(Server(**settings))
        second.giveaways |= first.giveaways
        command.expect("connected")
        assert call(second, command.url, "/again")[0] == 200
        assert app.expect().line == "POST /again HTTP/1.1"


def test_the_token_is_gone(relay, listen, tmp_path):
    """The command says so, asks for another, shows its URL, and listens to that."""
    command = listen()
    first = command.url
    (kept,) = json.loads((tmp_path / "socket2me" / "tokens.json").read_text())
    delete(relay, kept)
    command.expect("token_gone")
    command.expect("url")
    command.expect("connected")
    relay.giveaways.add(command.url.rpartition("/")[2])
    until_attached(relay, command, tmp_path)
    assert command.url != first
    assert call(relay, first)[0] == 404
    assert call(relay, command.url)[0] == 200


def delete(relay, kept):
    headers = {"Authorization": f"Bearer {kept['secret']}"}
    assert requests.delete(f"{relay.url}/v1/tokens/{kept['token']}", headers=headers, timeout=5).status_code == 204


def test_a_token_is_refreshed_well_before_it_expires(listen):
    """It outlives the time that it was given, open or with a secret."""
    with Server(TOKEN_EXPIRE_SECONDS=3, REAPER_INTERVAL_SECONDS=0.1) as short:
        command = listen(server=short)
        time.sleep(3.2)  # the life of a token: there is nothing to wait on
        assert call(short, command.url)[0] == 200


def test_a_machine_that_slept(app, listen, tmp_path):
    """A client that was stopped until the relay gave it up connects again, and gets what it missed."""
    store = f"sqlite:///{tmp_path}/relay.db"
    with Server(STORE_URL=store, PING_INTERVAL_SECONDS=1, PING_TIMEOUT_SECONDS=1, ACK_TIMEOUT_SECONDS=0.1) as relay:
        command = listen(server=relay)
        os.kill(command.process.pid, signal.SIGSTOP)
        try:
            assert call(relay, command.url, "/missed")[0] == 202
            time.sleep(2.5)  # until the heartbeat fails: there is nothing to wait on
        finally:
            os.kill(command.process.pid, signal.SIGCONT)
        assert app.expect().line == "POST /missed HTTP/1.1"
        command.expect("connected")


def test_a_replaced_client(relay, listen):
    """The second listener takes the stream; the first says so and ends with status 3."""
    first = listen()
    second = listen()
    assert second.url == first.url
    status, stderr = first.wait()
    assert status == 3
    assert "Another client took the stream. It has this token's secret." in stderr
    assert call(relay, second.url)[0] == 200


def test_the_url_is_kept_for_its_owner_only(app, listen, tmp_path):
    """It is the same the next time, another with --new, and `status` shows it. Ctrl-C and SIGTERM are status 0."""
    first = listen()
    assert first.end(signal.SIGINT) == (0, "")
    again = listen()
    assert again.url == first.url
    assert again.end(signal.SIGTERM) == (0, "")
    new = listen("--new")
    assert new.url != first.url
    kept = tmp_path / "socket2me" / "tokens.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    shown = run(tmp_path, "status").stdout
    counts = "connected, 0 requests taken, 0 dead letters, 0 in flight, 0 waiting, lives until "
    assert shown.startswith(f"{new.url} -> {app.url}\n  {counts}")
    assert shown.count("\n") == 2


@pytest.mark.parametrize("body", ["text", "json"])
def test_what_a_relay_says_cannot_move_the_terminal(tmp_path, body):
    """Control characters in its error text, of the relay or of what is in front of it, are shown as numbers."""
    evil = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202e!"
    text = json.dumps({"error": {"code": evil, "message": evil}}) if body == "json" else evil
    with App() as relay:
        data = text.encode()
        head = b"HTTP/1.1 400 Bad\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
        relay.answer = head % len(data) + data
        result = run(tmp_path, "listen", "http://127.0.0.1:9", "--server", relay.url, check=False)
    assert result.returncode == 1
    assert "owned" in result.stderr
    assert all(line.isprintable() for line in (result.stdout + result.stderr).splitlines())


def test_only_and_header_add(relay, app, listen):
    """--only forwards what it names and takes the rest; --header-add sets a header."""
    command = listen(
        "--reply", "--only", "POST /github/*", "--header-add", "X-Dev: me", "--header-add", "host: shop"
    )
    assert call(relay, command.url, "/github/push/1", headers=[("X-Dev", "you")])[0] == 200
    received = app.expect()
    assert received.by_name["X-Dev"] == "me"
    assert received.by_name["host"] == "shop"
    assert "x-dev" not in received.by_name
    assert call(relay, command.url, "/github/push", "PUT")[0] == 404
    assert call(relay, command.url, "/stripe")[0] == 404
    assert app.received.empty()


def test_save_replay_and_curl(relay, app, listen, tmp_path):
    """What --save wrote is sent again byte for byte, by `replay` and by curl; no other user may read it."""
    command = listen("--save", str(tmp_path / "saved"), target=f"{app.url}/hooks")
    bodies = [b"\x00\r\n\r\n\xff'", b"", os.urandom(1_500_000)]
    headers = [("Content-Type", "x/y"), ("X-Quote", 'it\'s "$HOME" \xe9'), ("X-Empty", "")]
    for number, body in enumerate(bodies):
        call(relay, command.url, "?q='%27[1-2]" if number else "", "PUT", headers, body)
        sent = app.expect()
        (file,) = set((tmp_path / "saved").glob("*.http"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        replayed = run(tmp_path, "replay", str(file), "--to", f"{app.url}/hooks")
        assert replayed.stdout == "200\nfine\n"
        assert app.expect() == sent
        subprocess.run(["sh", file.with_suffix(".sh")], check=True, capture_output=True, timeout=20)
        by_curl = app.expect()
        assert (by_curl.line, by_curl.body) == (sent.line, sent.body)
        assert {n.lower(): v for n, v in by_curl.headers} == sent.by_name
        for made in (tmp_path / "saved").iterdir():
            made.unlink()


@pytest.mark.parametrize("path", ["", "/hooks"])
def test_no_saved_command_leaves_the_target(relay, app, listen, tmp_path, path):
    """There is none for a request that `listen` refuses; the others, run, go to the target and no other host."""
    saved = tmp_path / "saved"
    with App() as other:
        command = listen("--reply", "--save", str(saved), target=f"{app.url}{path}")
        authority = f"127.0.0.1:{other.port}"
        for tail in (f"%2f@{authority}/x", f"%2F.{authority}/x"):  # to the relay that is another token
            assert call(relay, command.url, tail)[0] == 404
        refused = ["/../admin", "/%2e%2e/admin"] if path else []
        for tail in refused:
            assert call(relay, command.url, tail)[0] == 404
        assert len(list(saved.glob("*.http"))) == len(refused)
        assert not list(saved.glob("*.sh"))
        sent = [f"/@{authority}/", f"//{authority}/", f"/http://{authority}/", f"?@{authority}/"]
        for tail in sent:
            assert call(relay, command.url, tail)[0] == 200
        lines = {app.expect().line for _ in sent}
        for script in saved.glob("*.sh"):
            subprocess.run(["sh", script], check=True, capture_output=True, timeout=20)
        assert {app.expect().line for _ in sent} == lines
        assert other.received.empty() and app.received.empty()


def verify_github(received):
    expected = hmac.new(b"socket2me", received.body, hashlib.sha256).hexdigest()
    return received.by_name["x-hub-signature-256"] == f"sha256={expected}"


def verify_stripe(received):
    parts = dict(part.split("=", 1) for part in received.by_name["stripe-signature"].split(","))
    signed = f"{parts['t']}.".encode() + received.body
    return parts["v1"] == hmac.new(b"socket2me", signed, hashlib.sha256).hexdigest()


def verify_slack(received):
    signed = f"v0:{received.by_name['x-slack-request-timestamp']}:".encode() + received.body
    return (
        received.by_name["x-slack-signature"] == "v0=" + hmac.new(b"socket2me", signed, hashlib.sha256).hexdigest()
    )


def verify_standard(received):
    named = received.by_name
    signed = f"{named['webhook-id']}.{named['webhook-timestamp']}.".encode() + received.body
    digest = hmac.new(b"socket2me", signed, hashlib.sha256).digest()
    return named["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_signatures_verify_at_the_app(app, listen, tmp_path):
    """A sample of each provider, sent by `socket2me send`, verifies as its provider says."""
    command = listen()
    for sample in SAMPLES:
        assert run(tmp_path, "send", command.url, "--sample", sample).stdout == "200\nOK\n"
        assert globals()[f"verify_{sample}"](app.expect()), sample


def test_a_target_with_a_certificate_of_its_own(relay, listen, tmp_path):
    """It is refused, unless --insecure says that any will do."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key"]
        + ["-out", tmp_path / "cert", "-days", "1", "-subj", "/CN=localhost"],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with App(tls=context) as secure:
        command = listen(target=secure.url)
        assert call(relay, command.url)[0] == 202
        assert "its certificate is not one that this machine trusts" in command.expect("request")["remark"]
        command.end()
        listen("--insecure", target=secure.url)
        assert secure.expect().line == "POST / HTTP/1.1"


def test_what_people_read(relay, app, tmp_path):
    """Without --json there are plain lines where there is no terminal: the URL alone on one, then each request."""
    listener = subprocess.Popen(
        [BIN / "socket2me", "listen", app.url, "--server", relay.url],
        env={**clean_environment(), "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(DEADLINE_SECONDS * 2, listener.kill)  # a line that does not come fails
    killer.start()
    with listener:
        lines = [listener.stdout.readline() for _ in range(7)]
        url = lines[1].strip()
        relay.giveaways.add(url.rpartition("/")[2])
        assert lines[1] == f"  {url}\n"
        assert lines[3] == f"Requests to it go to {app.url}, up to 8 at once. Ctrl-C ends this.\n"
        assert re.fullmatch(r"\d\d:\d\d:\d\d  Connected\.\n", lines[4])
        assert re.fullmatch(
            r"The URL lives until \d{4}-\d\d-\d\d \d\d:\d\d\. Each start .* renews it\.\n", lines[5]
        )
        assert lines[6].startswith("Callers wait 5 s. Then they receive 202")
        call(relay, url, "/a?b=c", body=b"x" * 1200)
        line = listener.stdout.readline()
        assert re.fullmatch(r"\d\d:\d\d:\d\d  POST   /a\?b=c  1\.2 kB  200  \d+ ms\n", line)
        listener.terminate()
    killer.cancel()
