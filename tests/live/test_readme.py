"""What the README shows is run as it is printed."""

import json
import re
import subprocess

import pytest

from tests.support.servers import BIN, ROOT, clean_environment, free_port, wait_until

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run_listener(command, server, cwd):
    """Start a listener for a new token, call it, and return what it printed."""
    token = server.new()
    with subprocess.Popen(
        [*command, f"{server.url}/{token}"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as listener:
        wait_until(lambda: server.go(token, data={"hello": "world"}).text == "OK", "the listener listens")
        line = listener.stdout.readline()
        listener.kill()
    return line


def test_the_python_client(server):
    """The Python snippet listens as it stands, and is the file in examples/."""
    (snippet,) = blocks("python")
    assert snippet == (ROOT / "examples" / "listen.py").read_text()
    assert "{'hello': 'world'}" in run_listener([BIN / "python", "listen.py"], server, ROOT / "examples")


def test_the_javascript_client(server, tmp_path):
    """The JavaScript snippet listens as it stands, and is the file in examples/."""
    (snippet,) = blocks("js")
    assert snippet == (ROOT / "examples" / "listen.mjs").read_text()
    (tmp_path / "listen.mjs").write_text(snippet)
    (tmp_path / "node_modules").symlink_to(ROOT / "tests" / "js" / "node_modules")
    assert "{ hello: 'world' }" in run_listener(["node", "listen.mjs"], server, tmp_path)


@pytest.mark.timeout(180)
def test_make_serve_and_its_three_lines(tmp_path):
    """`make serve` starts the relay, the three lines that it prints work as printed, and SIGTERM ends both."""
    port = free_port()
    # This environment stands in for the one that `make serve` would make, so that nothing is installed twice.
    venv = BIN.parent
    with subprocess.Popen(
        ["make", "serve", f"PORT={port}", f"VENV={venv}", "INSTALLS=", f"STORE={tmp_path}/relay.db"],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serve:
        try:
            printed = []
            for line in serve.stdout:
                printed.append(line)
                if "Booting worker" in line:
                    break
            output = "".join(printed)
            assert f"The relay is at http://127.0.0.1:{port}\n" in output
            lines = re.findall(r"^  (.+)$", output, re.MULTILINE)
            assert len(lines) == 3
            (shown,) = (block for block in blocks("sh") if block.startswith("TOKEN="))
            assert [
                line.replace(f":{port}", ":8000").replace(str(venv), ".venv") for line in lines
            ] == shown.splitlines()
            tried = subprocess.run(
                ["bash", "-c", "\n".join([*lines, "sleep 1; kill %1"])],
                cwd=ROOT,
                env=clean_environment() | {"PYTHONUNBUFFERED": ""},  # a line is printed whole, not word by word
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert "OK" in tried.stdout
            assert re.search(r"POST {'hello': 'world', 'token': '\w{24}'} {'hello': 'world'}", tried.stdout)
        finally:
            serve.terminate()
            printed += serve.stdout  # until the relay, too, has ended
    assert "Shutting down: Master" in printed[-1]


def test_the_call_for_a_token_with_a_secret(server):
    """The curl line works as printed, on another port."""
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if "POST" in line]
    command = ["bash", "-c", line.replace("http://127.0.0.1:8000", server.url)]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout)
    server.giveaways |= {made["token"], made["secret"]}
    assert made["secret"].startswith("s2m_")


def test_every_command_of_the_readme_is_one_that_a_test_runs():
    """A command that is added to the README without a test fails here."""
    run_by_tests = {
        "make serve",
        "make test",
        "pip install -r requirements.txt",
        "gunicorn -k eventlet wsgi:app",
        "pip install .",  # tests/live/client/test_install.py
        "socket2me listen http://localhost:3000/hooks --server http://127.0.0.1:8000",  # test_transcript.py
    }
    shown = {line for block in blocks("sh") for line in block.splitlines()}
    assert {
        line for line in shown if not re.match(r"TOKEN=|\.venv/bin/python examples|curl ", line)
    } == run_by_tests
