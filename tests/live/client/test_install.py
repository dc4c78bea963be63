"""`pip install .` gives the command and the library; the extra `server`, the relay."""

import shutil
import subprocess
import venv

import pytest

from tests.support.servers import ROOT, clean_environment

SOURCES = ("socket2me", "socket2me_flask", "requirements")
FILES = ("pyproject.toml", "requirements.txt", "README.md")


@pytest.mark.timeout(180)
def test_a_fresh_environment(tmp_path):
    """Installed as `pipx install .` does it, `socket2me` runs from any folder, without Flask and eventlet."""
    source = tmp_path / "source"
    source.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(tmp_path / "venv", with_pip=True)
    fresh = tmp_path / "venv" / "bin"
    subprocess.run([fresh / "pip", "install", "-q", "."], cwd=source, capture_output=True, check=True)
    shown = subprocess.run(
        [fresh / "socket2me", "--help"], cwd=tmp_path, env=clean_environment(), capture_output=True, check=True
    )
    assert b"Give an app on this machine" in shown.stdout
    installed = subprocess.check_output([fresh / "pip", "list", "--format=freeze"], text=True).lower()
    assert not {"flask", "eventlet", "gunicorn"} & {line.partition("==")[0] for line in installed.splitlines()}
