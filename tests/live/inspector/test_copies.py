"""Copies of a request as curl, HTTPie, Python and pytest: what is copied is run, and what arrives is compared."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import BIN, ROOT

HOSTILE = "'; touch injected; ' \" `touch injected` $(touch injected) \\ \\' !! ${IFS} %s %(x)s {x} #"

# Name, method, path, query, headers, body. A header has one character for each byte.
REQUESTS = [
    (
        "quotes",
        "POST",
        "/a",
        "b=c%20d&e[]=1",
        [("content-type", "text/plain"), ("x-q", HOSTILE)],
        f"{HOSTILE}\n&& touch injected\n".encode(),
    ),
    (
        "lines",
        "PUT",
        "/a/../b",
        "",
        [("x-empty", ""), ("accept", "*/*")],
        b"@/etc/passwd\r\n\ttab\n\n'''\"\"\"\n!x\nend\\",
    ),
    (
        "binary",
        "POST",
        "/\xc3\xa9",
        "q='`$(touch%20injected)`'",
        [("x-latin", "caf\xe9"), ("x-utf8", "caf\xc3\xa9 \xe2\x80\xae")],
        bytes(range(256)) * 3,
    ),
    (
        "unicode",
        "PATCH",
        "",
        "",
        [("content-type", "application/json"), ("user-agent", "x")],
        '{"é": "\u202e\u2028😀\x1b[201~\x7f"}'.encode(),
    ),
    (
        "separators",
        "POST",
        "/~x",
        "",
        [("x-file", "@/etc/passwd"), ("x-json", "=1"), ("x-back", "a\\:b\\\\=c\\;d")],
        b"-x --help =",
    ),
    ("empty", "GET", "/", "", [("accept-encoding", "identity")], b""),
    ("nul", "DELETE", "/n", "", [], b"a\0b\n"),
    ("large", "POST", "/l", "", [("content-type", "text/plain")], b"0123456789'\"\\\n" * 20_000),
]

# What is no part of the request: the connection's, and what the receiving server is named.
OF_CONNECTION = {"host", "connection", "content-length"}


class Echo(ThreadingHTTPServer):
    """Keeps what arrives, by the first segment of the path, which names the run."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EchoHandler)
        self.arrived: dict[str, Any] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class EchoHandler(BaseHTTPRequestHandler):
    def _keep(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = self.requestline.split(" ")[1]
        _, run, *_ = target.split("?")[0].split("/")
        headers = [
            (name.lower(), value) for name, value in self.headers.items() if name.lower() not in OF_CONNECTION
        ]
        assert isinstance(self.server, Echo)
        self.server.arrived[run] = (self.command, target.removeprefix(f"/{run}"), sorted(headers), body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _keep

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with Echo() as echo:
        thread = threading.Thread(target=echo.serve_forever, args=(0.05,))
        thread.start()
        yield echo
        echo.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def copies(echo: Echo) -> dict[tuple[str, str], str]:
    """Each request in each format, made by the page's own module."""
    wanted = [(name, made) for name, *_ in REQUESTS for made in ("curl", "httpie", "python", "pytest")]
    requests = {name: rest for name, *rest in REQUESTS}
    lines = []
    for name, made in wanted:
        method, path, query, headers, body = requests[name]
        shown = {"method": method, "path": path, "query": query, "headers": headers, "status": None}
        request = {**shown, "body": base64.b64encode(body).decode()}
        lines.append(json.dumps({"format": made, "base": f"{echo.url}/{made}-{name}", "request": request}))
    done = subprocess.run(
        ["node", ROOT / "tests/js/inspector/copies.mjs"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(wanted, map(json.loads, done.stdout.splitlines()), strict=True))


def environment() -> dict[str, str]:
    # What a user has set for their programs would change what these send.
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "NO_PROXY": "*"}


def expected(name: str, left_out: tuple[str, ...] = ()) -> tuple[str, str, list[tuple[str, str]], bytes]:
    method, path, query, headers, body = next(rest for found, *rest in REQUESTS if found == name)
    target = path.replace("\xc3\xa9", "%C3%A9") + (f"?{query}" if query else "")
    return method, target, sorted(header for header in headers if header[0] not in left_out), body


def check(echo: Echo, made: str, name: str, left_out: tuple[str, ...] = (), *, exact_target: bool = True) -> None:
    assert f"{made}-{name}" in echo.arrived, f"nothing arrived of {made} {name}"
    method, target, headers, body = echo.arrived[f"{made}-{name}"]
    wanted = expected(name, left_out)
    assert (method, headers, body) == (wanted[0], wanted[2], wanted[3]), (made, name)
    if exact_target:
        assert target == wanted[1], (made, name)


def run_all(commands: list[str], folder: Path) -> None:
    def run(command: str) -> None:
        # As when it is pasted: from standard input, and not as an argument, whose length is bounded.
        done = subprocess.run(["bash"], input=command.encode(), capture_output=True, cwd=folder, env=environment())
        assert done.returncode == 0, (command[:500], done.stderr)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, commands))
    assert list(folder.iterdir()) == []


def test_curl(echo, copies, tmp_path):
    """Pasted into a shell, curl sends method, target, headers and body byte for byte, and nothing else runs."""
    run_all([copies[name, "curl"] for name, *_ in REQUESTS], tmp_path)
    for name, *_ in REQUESTS:
        check(echo, "curl", name)


def test_httpie(echo, copies, tmp_path):
    """The same with HTTPie, but for a header whose bytes are not UTF-8: the copy says that it is left out."""
    pytest.importorskip("httpie", reason="HTTPie is not installed")
    names = ("quotes", "binary", "separators")  # a start of HTTPie is slow
    run_all([copies[name, "httpie"] for name in names], tmp_path)
    for name in names:
        check(echo, "httpie", name, ("x-latin",) if name == "binary" else (), exact_target=False)
    assert copies["binary", "httpie"].startswith("# Left out, since its bytes are not UTF-8: x-latin\n")


def test_python(echo, copies):
    """Run as a program, the Python copy sends the same. `requests` writes the target in its own way."""
    for name, *_ in REQUESTS:
        exec(compile(copies[name, "python"], name, "exec"), {})  # noqa: S102 - to run it is the test
        check(echo, "python", name, exact_target=False)


def test_pytest(echo, copies, tmp_path):
    """The tests that are copied are found by pytest, and pass where the answer is 200."""
    names = [name for name, *_ in REQUESTS if name != "large"]
    for name in names:
        (tmp_path / f"test_{name}.py").write_text(copies[name, "pytest"], encoding="utf-8")
    plugins = [
        part for name in ("cacheprovider", "hypothesispytest", "schemathesis") for part in ("-p", f"no:{name}")
    ]
    command = [sys.executable, "-m", "pytest", "-q", *plugins]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path], capture_output=True, text=True, cwd=tmp_path, env=environment()
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(names)} passed" in done.stdout
    for name in names:
        check(echo, "pytest", name, exact_target=False)


def test_what_is_pasted_has_no_control_characters(copies):
    """A terminal acts on control characters that are pasted: commands have none but line feeds."""
    for (name, made), text in copies.items():
        found = {character for character in text if ord(character) < 32 or 127 <= ord(character) < 160} - {"\n"}
        assert not found, (name, made)
