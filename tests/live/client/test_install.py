"""What is built of the package: the command and the library, and with the extra `server`, the relay."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement

from tests.support.command import Command
from tests.support.servers import ROOT, clean_environment, free_port

SOURCES = ("socket2me", "socket2me_flask", "requirements", "docs/man")
FILES = ("pyproject.toml", "requirements.txt", "README.md", "LICENSE")
BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2])
"""
NOT_BUILT = shutil.ignore_patterns("__pycache__", "*.so")


def build(kind: str, source: Path, into: Path) -> Path:
    """Build the wheel or the sdist of a source, and return its file."""
    subprocess.run([sys.executable, "-c", BUILD, kind, into], cwd=source, capture_output=True, check=True)
    (built,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def required(of: Distribution, extra: str = "") -> Iterator[Distribution]:
    """Yield what a distribution requires, and what that requires, as it is installed here."""
    for line in of.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found = distribution(requirement.name)
            assert found.version in requirement.specifier
            yield found
            for name in requirement.extras or {""}:
                yield from required(found, name)


def lend(distributions: Iterator[Distribution], site_packages: Path) -> None:
    """Have another environment find these distributions of this one, and no others."""
    for each in distributions:
        for name in {file.parts[0] for file in each.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = site_packages / name
            if not link.exists():
                link.symlink_to(str(each.locate_file(name)))


@pytest.fixture
def source(tmp_path):
    """What the package is built of, in a folder that it may write to."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=NOT_BUILT)
    return folder


@pytest.mark.timeout(120)
def test_a_wheel_in_an_empty_folder(tmp_path, source, app):
    """The sdist has all that the wheel is built of, the wheel every file of the packages. Its requirements are
    enough: for the command, and with the extra `server` for `socket2me serve` in an empty folder."""
    sdist = build("sdist", source, tmp_path)
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    wheel = build("wheel", unpacked, tmp_path)
    wanted = {
        str(path.relative_to(ROOT))
        for name in ("socket2me", "socket2me_flask")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }
    assert {"socket2me/py.typed", "socket2me_flask/py.typed", "socket2me_flask/cluster/redis.lua"} < wanted
    with zipfile.ZipFile(wheel) as packed:
        assert wanted == {name for name in packed.namelist() if not re.match(r"[^/]*[.](dist-info|data)/", name)}

    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    programs = environment / "bin"
    (site_packages,) = environment.glob("lib/python*/site-packages")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            programs / "python",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            wheel,
        ],
        check=True,
    )
    (metadata,) = site_packages.glob("socket2me-*.dist-info")
    installed = Distribution.at(metadata)
    lend(required(installed), site_packages)
    folder = tmp_path / "empty"
    folder.mkdir()
    alone = {"cwd": folder, "env": clean_environment(), "capture_output": True, "text": True, "check": False}

    assert (environment / "share/man/man1/socket2me-listen.1").is_file()
    assert not (site_packages / "flask").exists()
    without = subprocess.run([programs / "socket2me", "serve"], **alone)
    assert (without.returncode, without.stdout) == (1, "")
    assert without.stderr == "Error: The relay needs more libraries: pip install 'socket2me[server]'\n"

    lend(required(installed, "server"), site_packages)
    unusable = subprocess.run(
        [programs / "socket2me", "serve", "--port", str(free_port()), "--store", "sqlite:////dev/null/x"], **alone
    )
    assert (unusable.returncode, unusable.stdout) == (3, "")
    assert "socket2me: SOCKET2ME_STORE_URL: '/dev/null/x' cannot be used" in unusable.stderr

    port = free_port()
    options = ["--port", str(port), "--store", "sqlite:///relay.db", "--api-key", "key1"]
    (folder / "socket2me.toml").write_text('[serve]\nrequire-secret = true\nstore = "memory://"\n')
    with subprocess.Popen(
        [programs / "socket2me", "serve", *options],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as relay:
        try:
            printed = "".join(relay.stdout.readline() for _ in range(6))
            url = f"http://127.0.0.1:{port}"
            assert f"The relay is at {url}\n" in printed
            next_command = re.search("^  socket2me (listen 3000 .*)$", printed, re.MULTILINE)[1]
            assert next_command == f"listen 3000 --server {url} --api-key KEY"
            assert requests.get(f"{url}/v1/new", timeout=10).status_code == 403
            line = next_command.replace("3000", app.url).replace("KEY", "key1").split()
            listen = Command(folder, *line, "--json", folder=programs)
            try:
                listen.expect("connected")
                called = ["curl", "-s", "-d", "hello", f"{listen.url}/x"]
                assert subprocess.check_output(called, text=True) == "OK"
                assert app.expect().body == b"hello"
            finally:
                assert listen.end() == (0, "")
        finally:
            os.kill(relay.pid, signal.SIGTERM)
        relay.communicate(timeout=20)
    assert relay.returncode == 0
    assert (folder / "relay.db").stat().st_size > 0
