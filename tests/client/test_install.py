"""`pip install .` gives the command."""

import shutil
import subprocess
import venv

import pytest

from ..live import ROOT, clean_environment


@pytest.mark.timeout(180)
def test_a_fresh_environment(tmp_path):
    """Installed as `pipx install .` does it, `socket2me` runs from any folder."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "requirements.txt", "requirements-client.txt", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "socket2me_flask", source / "socket2me_flask")
    venv.create(tmp_path / "venv", with_pip=True)
    fresh = tmp_path / "venv" / "bin"
    subprocess.run([fresh / "pip", "install", "-q", "."], cwd=source, capture_output=True, check=True)
    shown = subprocess.run(
        [fresh / "socket2me", "--help"], cwd=tmp_path, env=clean_environment(), capture_output=True, check=True
    )
    assert b"Give the app at TARGET" in shown.stdout
