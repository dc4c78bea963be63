"""The live screen of `listen`, in a terminal."""

import base64
import json
import re
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from socket2me.client.http_api import RelayApi, Token
from tests.support.local_app import App, call
from tests.support.servers import DEADLINE_SECONDS, Server
from tests.support.terminal import SEQUENCES, Terminal

# Moves the cursor, clears, paints, copies, reverses text; and the markup of rich.
EVIL = "\x1b[2J\x1b[31m\x1b]52;c;AAAA\x07\u202egnp\u2066[red on white]x[/] \x9b31m \r\x08 end"


@pytest.fixture
def screen(relay: Server, app: App, tmp_path: Path) -> Iterator[Any]:
    """Start `listen` in a terminal, and wait until it is connected; return the terminal and the URL."""
    terminals = []

    def start(columns: int, rows: int, *options: str, **variables: str) -> tuple[Terminal, str]:
        arguments = ["listen", app.url, "--server", relay.url, *options]
        terminal = Terminal(tmp_path, columns, rows, *arguments, **variables)
        terminals.append(terminal)
        terminal.until_seen("onnected")
        (kept,) = json.loads((tmp_path / "socket2me" / "tokens.json").read_text())
        relay.giveaways |= {kept["token"], kept["secret"]}
        api, token = RelayApi(relay.url), Token(kept["token"], kept["secret"])
        terminal.until(lambda: api.inspect(token)["connected"], "the relay knows it")
        return terminal, f"{relay.url}/v1/go/{kept['token']}"

    yield start
    for terminal in terminals:
        terminal.close()


def test_the_screen(relay, app, screen):
    """In 40 columns: list, detail, replay, copy and quit; and nothing of a request is obeyed by the terminal."""
    terminal, url = screen(40, 16)
    assert call(relay, url, "/first?x=1", body=EVIL.encode(), headers=[("X-Evil", "[bold]\x9b31m\xe9")])[0] == 200
    sent = app.expect()
    terminal.until_seen("/first")
    app.answer = b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nno!"
    call(relay, url, f"/{'long/' * 20}", "PUT")
    app.expect()
    terminal.until_seen("PUT")
    assert "".join(terminal.lines[:2]) == url
    assert re.fullmatch(r"connected  → http://127\.0\.0\.1:\d+", terminal.lines[2])
    assert terminal.lines[4] == "▸PUT     /long/long/long/long/long/… 404"
    assert terminal.lines[5] == " POST    /first?x=1                  200"
    assert terminal.lines[-1] == "↑↓ ⏎ detail  r replay  c copy  q quit"

    terminal.press("\x1b[B\r")
    terminal.until_seen("x-evil: [bold]\\x9b31mé")
    terminal.press("G")
    terminal.until_seen("fine")
    terminal.press("kkkkk")
    terminal.until_seen("\\x1b[2J\\x1b[31m\\x1b]52;c;AAAA\\x07\\x20")
    terminal.press("c")
    terminal.until_seen("Copied as curl")
    (copied,) = re.findall(rb"\x1b\]52;c;([^\x07]*)\x07", terminal.output)
    script = base64.b64decode(copied).decode()
    assert script.isascii() and script.isprintable()
    subprocess.run(["sh", "-c", script], check=True, capture_output=True, timeout=DEADLINE_SECONDS)
    pasted = app.expect()
    assert (pasted.line, pasted.body) == (sent.line, sent.body)
    assert {name.lower(): value for name, value in pasted.headers} == sent.by_name

    terminal.press("r")
    again = app.expect()
    assert again == sent
    terminal.press("q")
    terminal.until(lambda: sum("/first" in line for line in terminal.lines) == 2, "the replay has a row")

    terminal.resize(120, 20)
    terminal.until(
        lambda: any(re.search(r"\d\d:\d\d:\d\d POST .* 200 +\d+ ms$", x) for x in terminal.lines), "wide"
    )
    terminal.press("q")
    assert terminal.wait() == 0
    assert b"Ended. The URL lives until" in terminal.output.rpartition(b"\x1b[?1049l")[2]
    assert terminal.modes_now() == terminal.modes
    left = SEQUENCES.sub(b"", terminal.output).decode()
    assert all(character.isprintable() or character in "\r\n" for character in left)


def test_the_terminal_is_left_as_it_was(relay, app, screen):
    """Also by a second Ctrl-C, which does not wait for the app."""
    may_end = threading.Event()
    app.answer = lambda received: may_end.wait(DEADLINE_SECONDS) and None
    terminal, url = screen(80, 24)
    caller = threading.Thread(target=call, args=[relay, url])
    caller.start()
    app.expect()
    terminal.press("\x03")
    terminal.until(lambda: terminal.process.poll() is not None or sent_again(terminal), "it has ended")
    may_end.set()
    caller.join()
    assert terminal.wait() == 128 + signal.SIGINT
    assert terminal.output.count(b"\x1b[?1049h") == 1
    assert b"\x1b[?1049l" in terminal.output
    assert terminal.modes_now() == terminal.modes


def sent_again(terminal: Terminal) -> bool:
    terminal.press("\x03")
    return False


@pytest.mark.parametrize(("options", "variables"), [(["--plain"], {}), ([], {"TERM": "dumb"})])
def test_plain_lines_in_a_terminal(relay, screen, options, variables):
    """With --plain, and in a terminal that has no screen."""
    terminal, url = screen(120, 24, *options, **variables)
    call(relay, url, "/x")
    terminal.until_seen("POST   /x  0 B  200")
    assert b"\x1b[?1049h" not in terminal.output


@pytest.mark.parametrize(("keys", "status"), [("\x03", 130), ("\x04", 1), ("a b\n", 2)])
def test_a_secret_that_is_typed(tmp_path, keys, status):
    """Ctrl-C ends the question with status 130, as at any other time; Ctrl-D and what is no secret end it too."""
    terminal = Terminal(tmp_path, 80, 10, "replay", "--to", "3000", "--url", "http://127.0.0.1:1/v1/go/abc")
    try:
        terminal.until_seen("Secret of the URL:")
        terminal.until(lambda: not terminal.modes_now()[3] & termios.ECHO, "what is typed is not shown")
        terminal.press(keys)
        assert terminal.wait() == status
    finally:
        terminal.close()
