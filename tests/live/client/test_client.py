"""The library, against a real relay: what its handler gets, and what becomes of what it returns or raises."""

import re
import subprocess
import sys
import threading
import time

import pytest

import socket2me as package
from socket2me import Client, NotHandled, RelayRefused, RelayUnavailable, Replaced, Reply
from socket2me.client.client import SLEPT_SECONDS
from socket2me.client.http_api import RelayApi, Token
from tests.support.library import listening, open_on, until_connected
from tests.support.local_app import call
from tests.support.servers import DEADLINE_SECONDS, ROOT, Server, clean_environment, free_port, wait_until


def test_importing_the_client_imports_nothing_of_the_server():
    """Neither Flask nor eventlet, and nothing of the relay, is loaded by the library or by the command."""
    script = (
        "import pkgutil, sys, socket2me\n"
        "for found in pkgutil.walk_packages(socket2me.__path__, 'socket2me.'):\n"
        "    if found.name != 'socket2me.__main__':\n"
        "        __import__(found.name)\n"
        "server = {n for n in sys.modules if n.startswith('socket2me_flask')}\n"
        "print(server | {'flask', 'eventlet', 'gunicorn', 'werkzeug', 'msgspec'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"


# What Windows has not. The libraries know that; they are loaded before, since here they believe to be elsewhere.
LIKE_WINDOWS = """
import asyncio, pkgutil, signal, socketio, requests, rich.live, click.shell_completion, subprocess, os, sys
missing = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
for name in missing:
    sys.modules[name] = None
for module, names in {os: "getuid killpg setsid waitid", signal: "SIGHUP SIGKILL SIGQUIT SIGWINCH SIGUSR1"}.items():
    for name in names.split():
        delattr(module, name)
import socket2me
for found in pkgutil.walk_packages(socket2me.__path__, "socket2me."):
    if found.name != "socket2me.__main__":
        __import__(found.name)
sys.platform = "win32"
from socket2me.cli import main
main(["status", "--server", "http://relay.example"], standalone_mode=False)
main(["serve"], standalone_mode=False)
"""


def test_the_command_needs_nothing_that_windows_has_not(tmp_path):
    """Every module loads without what only POSIX has, a command runs, and `serve` says where the relay runs."""
    (tmp_path / "socket2me.toml").write_text('api-key = "a"\n')
    result = subprocess.run(
        [sys.executable, "-c", LIKE_WINDOWS],
        cwd=tmp_path,
        env={**clean_environment(), "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = result.stderr.splitlines()
    assert lines[0] == "No URL is kept for http://relay.example. `socket2me listen` asks for one."
    assert lines[-1].endswith(
        "ClickException: The relay needs Linux or macOS. On Windows, run it in WSL or in a container."
    )


def test_the_list_of_commands_loads_none_of_them():
    """`socket2me --help` comes at once: it loads neither a command nor what takes long to load."""
    script = (
        "import sys\n"
        "from socket2me.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('loaded', *sys.modules)"
    )
    *_, loaded = subprocess.check_output([sys.executable, "-c", script], text=True).splitlines()
    ours = {name for name in loaded.split() if name.startswith("socket2me.")}
    assert ours == {
        f"socket2me.{name}"
        for name in ("cli", "cli.commands", "exceptions", "output", "output.terminal", "relay_version")
    }
    assert not {"requests", "rich", "socketio", "urllib3", "asyncio", "ssl"} & set(loaded.split())


def test_the_example_in_the_docs():
    """It is that of the docstring, which is run."""
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)
    assert shown.strip() == docstring_example().strip()


def docstring_example():
    lines = package.__doc__.splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines if line[:1] in (" ", ""))


def test_the_example_in_the_docstring(relay, capsys, monkeypatch):
    """It runs as it stands, but for the relay's address, and does what it says."""
    example = docstring_example().replace("https://relay.example", relay.url)
    made = []

    class Noted(Client):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(package, "Client", Noted)
    thread = threading.Thread(target=exec, args=[example, {}])  # noqa: S102
    thread.start()
    client = wait_until(lambda: made and made[0].url and made[0], "the example has a URL")
    relay.giveaways |= {client.token, client.secret}
    until_connected(relay, client)
    status, _, body = call(relay, client.url, "/x", body=b"\xff")
    client.close()
    thread.join(DEADLINE_SECONDS)
    assert status == 201
    assert re.fullmatch(rb'\{"taken":".+"\}', body)
    assert capsys.readouterr().out == f"{client.url}\nPOST /x b'\\xff'\n"


def test_requests_are_handled_in_order_one_at_a_time(server):
    """With `parallel` 1, many that come at once reach the handler in the order of the relay, whole, none lost."""
    taken = []
    running = threading.Semaphore(1)

    def handle(request):
        assert running.acquire(blocking=False)
        taken.append((int(request.id.rpartition("-")[2], 16), request.body))
        running.release()

    client = open_on(server, mode="notify", parallel=1)
    with listening(client, handle):
        call(server, client.url)
        callers = [
            threading.Thread(
                target=lambda n=n: [call(server, client.url, body=bytes([n]) * 50_000) for _ in range(25)]
            )
            for n in range(8)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        wait_until(lambda: len(taken) == 201, "all are handled")
    assert taken == sorted(taken)
    assert {body for _, body in taken} == {bytes([n]) * 50_000 for n in range(8)} | {b""}


def test_a_handler_that_raises_gets_the_request_again_before_any_other(relay):
    """With `parallel` 1 those that follow a rejected request wait: strict order, at least once."""
    attempts = []

    def handle(request):
        attempts.append((request.path, request.attempt))
        if len(attempts) < 3:
            raise NotHandled("not now")

    client = open_on(relay, parallel=1)
    with listening(client, handle):
        until_connected(relay, client)
        for path in ("/a", "/b", "/c"):
            call(relay, client.url, path)
        wait_until(lambda: attempts[-1][0] == "/c", "all are handled")
    assert [path for path, _ in attempts] == ["/a", "/a", "/a", "/b", "/c"]
    assert [attempt for _, attempt in attempts[:3]] == [1, 2, 3]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A relay that keeps mailboxes, and waits less long for acknowledgements than handlers take."""
    store = f"sqlite:///{tmp_path_factory.mktemp('hasty')}/relay.db"
    with Server(STORE_URL=store, REDELIVER_SECONDS=0.1, ACK_TIMEOUT_SECONDS=0.1) as server:
        yield server


def events_of(server, client):
    """Return how many events the mailbox of a client's token has, by their state."""
    return RelayApi(server.url).inspect(Token(client.token, client.secret))["events"]


def test_an_event_that_comes_again_is_not_handled_again(hasty):
    """A handler that takes longer than the relay waits gets each event once; in order, with `parallel` 1."""
    taken = []

    def handle(request):
        taken.append(request.path)
        time.sleep(0.3)

    client = open_on(hasty, parallel=1)
    with listening(client, handle):
        until_connected(hasty, client)
        for number in range(4):
            call(hasty, client.url, f"/{number}")
        wait_until(lambda: not any(events_of(hasty, client).values()), "all are acknowledged")
    assert taken == ["/0", "/1", "/2", "/3"]


def test_an_event_that_was_taken_from_a_listener_is_handled_when_it_comes_again(hasty):
    """The relay sends `dropped` to a listener on `one` that was late, and may send the event to it again."""
    attempts = []

    def handle(request):
        attempts.append(request.attempt)
        if request.attempt == 1:
            wait_until(lambda: request.cancellation.is_set, "the relay has sent `dropped`")
            raise NotHandled("it was dropped")

    client = open_on(hasty, listeners="one", parallel=1)
    with listening(client, handle):
        until_connected(hasty, client)
        assert call(hasty, client.url)[0] == 202
        wait_until(lambda: not any(events_of(hasty, client).values()), "it is acknowledged")
    assert attempts == [1, 2]


def test_a_mailbox_full_of_large_events(relay):
    """More than a window of the largest bodies arrives, whole; in order, with `parallel` 1."""
    bodies = [bytes([number]) * 2_000_000 for number in range(20)]
    taken = []
    client = open_on(relay, parallel=1)
    for body in bodies:
        assert call(relay, client.url, body=body)[0] == 202
    with listening(client, lambda request: taken.append(request.body)):
        wait_until(lambda: len(taken) >= len(bodies), "all are handled")
    assert taken == bodies


def test_a_token_without_a_secret(server):
    """It is listened to as any other, and replied to."""
    client = Client(server.url, token=server.new(), mode="reply")
    assert client.open() == f"{server.url}/v1/go/{client.token}"
    with listening(client, lambda request: Reply(203)):
        wait_until(lambda: call(server, client.url)[0] == 203, "it replies")


def test_a_slow_handler_does_not_hide_that_the_stream_was_taken(relay):
    """A replaced client leaves at once, and does not reconnect to take the stream again."""
    is_handling, may_return = threading.Event(), threading.Event()

    def handle(request):
        is_handling.set()
        may_return.wait(DEADLINE_SECONDS)

    first = open_on(relay)
    second = Client(relay.url, token=first.token, secret=first.secret)
    taken = []
    with pytest.raises(Replaced), listening(first, handle) as thread:
        threading.Thread(target=call, args=[relay, first.url]).start()
        assert is_handling.wait(DEADLINE_SECONDS)
        with listening(second, taken.append):
            wait_until(lambda: taken, "the second client gets the request")
            thread.join(DEADLINE_SECONDS)
        may_return.set()


def test_after_a_sleep_it_connects_again_at_once(relay, monkeypatch):
    """When the clock has jumped, the connection is not trusted."""
    monkeypatch.setattr("socket2me.client.client.TICK_SECONDS", 0.1)
    notices = []
    now = [1000.0]
    client = open_on(relay, on_notice=lambda notice: notices.append(notice.what), clock=lambda: now[0])
    with listening(client, print):
        wait_until(lambda: "connected" in notices, "it is connected")
        now[0] += SLEPT_SECONDS + 1
        wait_until(lambda: notices.count("connected") == 2, "it is connected again")
    assert notices == ["token_new", "connected", "slept", "connected"]


def test_what_the_relay_refuses_ends_it(relay):
    """A wrong secret, or a missing key, will not be right the next time."""
    client = open_on(relay)
    with pytest.raises(RelayRefused, match="secret"):
        Client(relay.url, token=client.token, secret="s2m_wrong").listen(print)
    with Server(API_KEYS="right") as closed:
        with pytest.raises(RelayRefused, match="key"):
            Client(closed.url).open()
        open_on(closed, api_key="right")


def test_a_relay_that_takes_a_smaller_window_only():
    """It gets none, and its own counts."""
    with Server(MAX_WINDOW=1) as narrow:
        client = open_on(narrow)
        with listening(client, print):
            until_connected(narrow, client)


def test_a_relay_that_is_not_there_is_waited_for():
    """`open` says so; `listen` goes on until it is closed."""
    notices = []
    client = Client(f"http://127.0.0.1:{free_port()}", on_notice=notices.append)
    with pytest.raises(RelayUnavailable, match="Connection refused"):
        client.open()
    with listening(client, print):
        wait_until(lambda: len(notices) == 2, "it tried twice")
    assert [notice.what for notice in notices] == ["unavailable"] * 2
    assert 0.5 <= notices[0].wait_seconds <= 1 <= notices[1].wait_seconds <= 2


def test_a_relay_without_mailboxes_gives_a_token_without_one(server):
    """The mode is kept, and the request says that it is in no mailbox."""
    attempts = []
    client = open_on(server, mode="reply")
    with listening(client, lambda request: attempts.append(request.attempt) or Reply(202, "ok")):
        assert wait_until(lambda: call(server, client.url)[0] == 202, "it replies")
    assert set(attempts) == {None}
