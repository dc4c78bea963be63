"""The files of the inspector's page: what they may hold, what they weigh, and their logic under Node.js."""

import gzip
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.node import JS, needs_node
from tests.support.servers import ROOT

STATIC = ROOT / "socket2me" / "inspector" / "static"
TESTS = JS / "inspector"
MAX_COMPRESSED_BYTES = 60_000

SCRIPTS = sorted(STATIC.rglob("*.js"))
OWN_SCRIPTS = [path for path in SCRIPTS if "vendor" not in path.parts]


@needs_node
@pytest.mark.parametrize("name", sorted(path.name for path in TESTS.glob("*.test.mjs")))
def test_logic(name):
    """JSON, comparison, signatures, filters and the stream's parser do what their tests under Node.js say."""
    done = subprocess.run(["node", "--test", name], cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_vendored_files_are_those_of_the_package():
    """The vendored file has the checksum that is recorded, and is the npm package's file byte for byte."""
    rows = re.findall(
        r"\| `([^`]+)` \| npm `(\S+)` (\S+), `([^`]+)`.*\| `([0-9a-f]{64})` \|",
        (STATIC / "vendor/README.md").read_text(),
    )
    assert {name for name, *_ in rows} == {path.name for path in (STATIC / "vendor").glob("*.js")}
    for name, package, version, original, checksum in rows:
        content = (STATIC / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum
        folder = JS / "node_modules" / package
        if not folder.exists():
            pytest.skip("the packages of tests/js are not installed")
        assert f'"version": "{version}"' in (folder / "package.json").read_text()
        assert (folder / original).read_bytes() == content


def test_no_inline_code_and_no_other_origin():
    """The page needs nothing that its policy forbids: no inline script or style, nothing of another site."""
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", page) == []
    for path in [STATIC / "index.html", STATIC / "app.css", *SCRIPTS]:
        text = re.sub(r"^\s*(//|/?\*).*$", "", path.read_text(), flags=re.MULTILINE)
        found = set(re.findall(r"https?://[^\s\"'`$)]+", text)) - {
            "http://localhost:3000",
            "http://www.w3.org/2000/svg",
        }
        assert found <= {"http://www.w3.org/1999/xlink"}, path.name


def test_no_markup_from_text():
    """No module makes markup or code of text: what a request holds stays text."""
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|\beval\(|new Function"
    )
    assert [path.name for path in OWN_SCRIPTS if forbidden.search(path.read_text())] == []


def _imported(path: Path, pattern: str) -> set[Path]:
    """Return the modules that a module needs: it, and what it and those import as `pattern` says."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        path = waiting.pop().resolve()
        if path not in seen:
            seen.add(path)
            waiting += [path.parent / name for name in re.findall(pattern, path.read_text())]
    return seen


def test_weight():
    """All that the page loads to show requests is under 60 KB compressed."""
    modules = _imported(STATIC / "app.js", r'from "(\.[^"]+)"')
    loaded = [STATIC / "index.html", STATIC / "app.css", STATIC / "icon.svg", *modules]
    assert sum(len(gzip.compress(path.read_bytes())) for path in loaded) < MAX_COMPRESSED_BYTES


def test_every_module_is_loaded():
    """Each module is imported, from `app.js` on, or when it is first used; none is dead, and none is missing."""
    assert _imported(STATIC / "app.js", r'(?:from |import\()"(\.[^"]+)"') == {path.resolve() for path in SCRIPTS}
