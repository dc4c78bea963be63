"""What the README shows of `socket2me listen` is what happens."""

import re
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.local_app import App
from tests.support.servers import BIN, DEADLINE_SECONDS, ROOT, Server, clean_environment, free_port

BLOCKS = re.findall(r"```console\n(\$ socket2me .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

# An attempt after the first that fails.
AGAIN = r"\S+  POST .*comes again\. \(attempt \d+\)\n"


def normal(text: str) -> str:
    """Return a transcript without what differs each time, the number of attempts among it."""
    text = re.sub(r"(\(attempt )\d+", r"\g<1>2", re.sub(AGAIN, "", text))
    for pattern, same in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d\b", "2026-01-31 00:00"),
        (r"\d\d:\d\d:\d\d", "00:00:00"),
        (r"\d+ ms", "1 ms"),
        (r"in \d\.\d s", "in 1.0 s"),
        (r"/go/[a-z0-9]{24}", "/go/token"),
        (r'"id":"[^"]*"', '"id":"1"'),
    ):
        text = re.sub(pattern, same, text)
    return text


@pytest.fixture
def shown(tmp_path: Path) -> list[str]:
    """Return the two terminals of the README, made anew."""
    port = free_port()
    environment = {**clean_environment(), "XDG_STATE_HOME": str(tmp_path)}
    with Server(STORE_URL=f"sqlite:///{tmp_path}/relay.db") as relay:

        def as_shown(text: str) -> str:
            return text.replace(str(relay.port), "8000").replace(str(port), "3000")

        command = ["socket2me", "listen", f"http://localhost:{port}/hooks", "--server", relay.url]
        first = "$ " + " ".join(command) + "\n"
        second = ""
        with subprocess.Popen(
            [BIN / command[0], *command[1:]], env=environment, stdout=subprocess.PIPE, text=True
        ) as listen:

            def read_until(text: str) -> None:
                nonlocal first
                while text not in (line := listen.stdout.readline()):
                    assert line, first
                    first += line
                first += line

            def run(*arguments: str) -> None:
                nonlocal second
                second += f"$ socket2me {' '.join(arguments)}\n"
                second += subprocess.run(
                    [BIN / "socket2me", *arguments],
                    env=environment,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    timeout=20,
                ).stdout

            read_until("Callers wait")
            killer = threading.Timer(DEADLINE_SECONDS * 2, listen.kill)  # a line that does not come fails
            killer.start()
            url = re.search(r"http\S+/v1/go/\w+", first)[0]
            relay.giveaways.add(url.rpartition("/")[2])
            with App(port):
                run("send", f"{url}/github")
                read_until("/github")
            run("send", f"{url}/stripe", "--sample", "stripe")
            read_until("comes again")
            with App(port):
                read_until("attempt 2")
            run("status")
            listen.terminate()
            killer.cancel()
    return [as_shown(first), as_shown(second)]


def test_the_transcript(shown):
    """Line by line, but for the time, the token, and how long things took."""
    print("\n".join(shown))
    assert [normal(block) for block in BLOCKS] == [normal(block) for block in shown]
