"""The commands of docs/README.md and docs/guides are run as printed, and their output is compared."""

import hashlib
import hmac
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.support.command import Command, until_attached
from tests.support.local_app import App
from tests.support.servers import ROOT, Server, clean_environment, free_port
from tests.support.signed_requests import ED25519_KEY, ED25519_PUBLIC

DOCS = ROOT / "docs"
GUIDES = {page.stem: page.read_text() for page in sorted((DOCS / "guides").glob("[a-z]*.md"))}
BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What other tests run: tests/live/test_readme.py, test_install.py.
RUN_ELSEWHERE = {"make serve", "pip install ."}


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A relay with mailboxes, and with the settings that the guides ask for."""
    port = free_port()
    settings = re.findall(r"^export SOCKET2ME_(\w+)=(\S+)$", "\n".join(GUIDES.values()), re.MULTILINE)
    assert {name for name, _ in settings} == {"PUBLIC_URL", "REPLY_TIMEOUT_SECONDS"}
    store = f"sqlite:///{tmp_path_factory.mktemp('relay')}/relay.db"
    with Server(port=port, STORE_URL=store, PUBLIC_URL=f"http://127.0.0.1:{port}") as server:
        yield server


class Reader:
    """A user who types what a page shows, with the addresses of this relay and this app.

    Commands share a folder and variables. `$URL` is what `listen` printed.
    """

    def __init__(self, page: str, relay: Server, app: App, home: Path) -> None:
        self._page, self._relay, self._app, self._home = page, relay, app, home
        self._variables: dict[str, str] = {}
        self.listening: Command | None = None

    def follow(self) -> None:
        """Run each command of each block; fail if one of a block with output prints something else."""
        for language, block in BLOCK.findall(self._page.replace("\\\n", "")):
            for address in ("https://relay.example", "http://127.0.0.1:8000"):
                block = block.replace(address, self._relay.url)
            block = block.replace("http://localhost:3000", self._app.url)
            if language == "console":
                parts = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
                assert "".join(f"$ {command}\n{output}" for command, output in parts) == block
                for command, output in parts:
                    assert self._run(command) == output, command
                continue
            for command in block.splitlines():
                if command in RUN_ELSEWHERE or command.startswith("export SOCKET2ME_"):
                    continue
                if command.startswith("socket2me listen"):
                    self._listen(command)
                else:
                    self._run(command)

    def _run(self, command: str) -> str:
        """Run a command in bash; return what it printed. Its variables are kept."""
        kept = self._home / "variables"
        script = f"set -a\n{command}\nstatus=$?; env -0 > {shlex.quote(str(kept))}; exit $status"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._home,
            env={**clean_environment(), **self._variables, "XDG_STATE_HOME": str(self._home)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert not done.stderr.startswith("bash"), done.stderr
        variables = dict(item.split("=", 1) for item in kept.read_text().split("\0") if item)
        self._variables = {name: value for name, value in variables.items() if os.environ.get(name) != value}
        return done.stdout if done.stdout.endswith("\n") or not done.stdout else f"{done.stdout}\n"

    def _listen(self, command: str) -> None:
        arguments = [*shlex.split(command)[1:], "--json"]
        arguments.insert(arguments.index("--inspect") + 1, "0")  # any port: other tests have the usual ones
        self.listening = Command(self._home, *arguments, cwd=self._home, **self._variables)
        self.listening.expect("terms")
        self._relay.giveaways.add(self.listening.url.rpartition("/")[2])
        until_attached(self._relay, self.listening, self._home)
        self._variables["URL"] = self.listening.url


@pytest.fixture
def read(relay: Server, app: App, tmp_path: Path) -> Iterator[Callable[[str], Reader]]:
    """Return what follows a page to its end; the `listen` that it started goes on until the test ends."""
    readers = []

    def follow(page: str) -> Reader:
        readers.append(Reader(page, relay, app, tmp_path))
        readers[-1].follow()
        return readers[-1]

    yield follow
    for reader in readers:
        if reader.listening is not None:
            reader.listening.end()


def test_the_quick_start(read, app):
    """Its webhook and its call arrive, under the path of the app."""
    read((DOCS / "README.md").read_text())
    assert [app.expect().line for _ in range(2)] == [
        "POST /hooks/github HTTP/1.1",
        "POST /hooks/any/path HTTP/1.1",
    ]


SIGNATURE_HEADERS = {
    "github": "x-hub-signature-256",
    "stripe": "stripe-signature",
    "slack": "x-slack-signature",
    "twilio": "x-twilio-signature",
    "discord": "x-signature-ed25519",
}


@pytest.mark.parametrize("provider", SIGNATURE_HEADERS)
def test_a_guide(provider, read, app):
    """What is signed arrives once, what is not is refused, and the replay is the same request."""
    read(GUIDES[provider])
    first, replayed = app.expect(), app.expect()
    assert first.line == replayed.line == f"POST /{provider} HTTP/1.1"
    assert first.body == replayed.body
    assert first.by_name[SIGNATURE_HEADERS[provider]]
    assert replayed.by_name[SIGNATURE_HEADERS[provider]]
    assert app.received.empty()


def test_each_guide_is_followed():
    """A guide that is added without a test fails here."""
    assert GUIDES.keys() == SIGNATURE_HEADERS.keys()


def test_the_call_of_the_introduction(relay):
    """`POST /v1/new` with `verify` gives a token that takes what GitHub signs, and nothing else."""
    ((_, command),) = BLOCK.findall((DOCS / "guides" / "README.md").read_text())
    printed = subprocess.check_output(
        ["bash", "-c", command.replace("https://relay.example", relay.url)], timeout=20, text=True
    )
    made = json.loads(printed)
    relay.giveaways |= {made["token"], made["secret"]}
    assert requests.post(made["url"], data=b"{}", timeout=20).status_code == 401


def test_what_providers_ask_first(relay):
    """The answers that the guides of Slack and Discord promise, with no client connected."""
    now = str(int(time.time()))

    def ask(verify: dict[str, object], body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        made = relay.new_with_secret(verify=verify)
        answer = requests.post(made["url"], data=body, headers=headers, timeout=20)
        return answer.status_code, answer.content

    def discord(body: bytes, signed: bytes) -> tuple[int, bytes]:
        signature = ED25519_KEY.sign(now.encode() + signed).hex()
        headers = {"X-Signature-Timestamp": now, "X-Signature-Ed25519": signature}
        return ask({"provider": "discord", "secrets": [ED25519_PUBLIC]}, body, headers)

    challenge = b'{"type":"url_verification","challenge":"3eZbrw1aB"}'
    signature = hmac.new(b"secret", f"v0:{now}:".encode() + challenge, hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={signature}"}
    assert ask({"provider": "slack", "secrets": ["secret"]}, challenge, headers) == (200, b"3eZbrw1aB")
    ping = b'{"type":1,"id":"1","token":"t"}'
    assert discord(ping, ping) == (200, b'{"type":1}')
    assert discord(b'{"type":0}', b'{"type":0}') == (204, b"")
    assert discord(ping, b"something else")[0] == 401
