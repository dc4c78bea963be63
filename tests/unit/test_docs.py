"""The pages of the documentation: their links, and the site that `make docs` builds."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from socket2me_flask.config import SETTINGS, variable_of
from tests.support.docs_site import DOCS, ROOT, anchors, links, slug
from tests.support.servers import BIN

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
CONFIGURATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def broken_links(page: Path) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of it."""
    broken = []
    for link in links(page.read_text()):
        target, _, anchor = unquote(link).partition("#")
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(link)
    return broken


def test_each_link_leads_to_a_file_and_a_heading():
    """Of README, CONTRIBUTING and the like too, which are no pages of the site."""
    assert {page: broken for page in PAGES if (broken := broken_links(page))} == {}


def test_broken_links_are_found(tmp_path):
    """A missing file, a missing heading and a heading in a block of code are; a link in code is no link."""
    (tmp_path / "other.md").write_text("# Ein `Über`-Titel, [linked](x.md)\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[1](other.md) [2](other.md#ein-über-titel-linked) [3](#here)\n"
        "[4](https://relay.example/#no) `[5](no)`\n"
        "![6](no.png)\n[7](other.md#no)\n[8](#comment)\n```\n# Comment\n[9](no)\n```\n"
    )
    assert broken_links(page) == ["no.png", "other.md#no", "#comment"]


def test_a_page_has_each_heading_once():
    """GitHub and the site number headings with the same text in different ways, so no link could lead to both."""
    for page in PAGES:
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        found = [slug(heading) for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE)]
        assert page.name == "CHANGELOG.md" or len(found) == len(set(found)), page


def test_what_follows_an_item_is_indented_by_four():
    """By less, the site ends the list there, and numbers what comes next from 1. GitHub takes both."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert re.findall(r"\n\n( {1,3}\S.*)", text) == [], page


# What CONTRIBUTING.md has a reader add, and a variable of `--exec`, whose names the code puts together.
EXAMPLES = {"socket2me_flask/storage/mystore.py", "SOCKET2ME_DRAIN_SECONDS", "SOCKET2ME_ID"}


def test_what_pages_name_exists():
    """Each file of the repository, each test, and each variable that begins with `SOCKET2ME_`."""
    folders = ("benchmarks", "deploy", "docs", "examples", "socket2me", "socket2me_flask", "tests")
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    sources = [path for name in ("socket2me", "socket2me_flask") for path in (ROOT / name).rglob("*.py")]
    variables = {variable_of(name) for name in SETTINGS}
    variables |= set(re.findall(r"\bSOCKET2ME_\w+", "".join(path.read_text() for path in sources)))
    missing = []
    for page in PAGES:
        text = page.read_text()
        files = re.findall(rf"`((?:{'|'.join(folders)})/[\w./-]+)`", text)
        named = {name for name in files if not (ROOT / name).exists()}
        named |= set(re.findall(r"\btest_\w+\.py\b", text)) - tests
        named |= set(re.findall(r"`(SOCKET2ME_[A-Z0-9_]+[A-Z0-9])\b", text)) - variables
        missing += [(page.name, name) for name in named - EXAMPLES]
    assert missing == []


def test_what_sources_name_exists():
    """Each file that a comment or a docstring of the packages, the requirements or the examples names by a path."""
    known = [str(path) for name in ("socket2me", "socket2me_flask", "tests") for path in (ROOT / name).rglob("*.*")]
    sources = [path for name in ("socket2me", "socket2me_flask") for path in (ROOT / name).rglob("*.py")]
    sources += [*ROOT.glob("requirements*.txt"), *ROOT.glob("requirements/*.txt"), *ROOT.glob("examples/*.conf")]
    missing = []
    for source in sources:
        named = set(re.findall(r"(?<![\w/.])(?:\w+/)+\w+\.(?:py|lua)\b", source.read_text()))
        missing += [(source.name, name) for name in named if not any(path.endswith(f"/{name}") for path in known)]
    assert missing == []


def test_each_module_of_the_command_is_in_the_design():
    """The table of docs/design.md names each module of `socket2me/` by its name, and its packages by theirs.

    Of packages that the relay uses as well, and of `cli/`, it need not name the modules.
    """
    table = (DOCS / "design.md").read_text().partition("\nThe packages of `socket2me/`")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)/?`", table))
    packages = {path.parent.name for path in (ROOT / "socket2me").glob("*/__init__.py")}
    described = packages - {"cli", "inspector", "signatures"}
    modules = [(ROOT / "socket2me" / package).glob("[a-z]*.py") for package in ("", *described)]
    assert packages | {path.stem for paths in modules for path in paths} <= named


def listed(nav: object) -> list[str]:
    """Return the pages that the nav of mkdocs.yml names."""
    if isinstance(nav, str):
        return [nav]
    return [page for item in (nav.values() if isinstance(nav, dict) else nav) for page in listed(item)]


def test_each_page_is_in_the_nav():
    """A page that is added to docs/ and not to mkdocs.yml is named here; the hook adds those of decisions."""
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert sorted(listed(CONFIGURATION["nav"])) == sorted(
        page for page in pages if not re.match(r"decisions/\d", page)
    )


def test_each_decision_is_in_its_table():
    """`docs/decisions/README.md` has a row of each page."""
    table = (DOCS / "decisions" / "README.md").read_text()
    assert re.findall(r"\]\((\d.*?)\)", table) == [
        page.name for page in sorted((DOCS / "decisions").glob("[0-9]*"))
    ]


@pytest.mark.skipif(
    find_spec("mkdocs") is None, reason="the extra `docs` is not installed: `make docs` installs it"
)
@pytest.mark.timeout(180)
def test_the_site(tmp_path):
    """mkdocs builds it without a warning, its pages load nothing from other hosts, and a broken link fails."""
    for name in ("mkdocs.yml", "docs", "tests/support/docs_site.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    command = [BIN / "mkdocs", "build"]  # with --quiet, warnings would not count
    subprocess.run(command, cwd=tmp_path, check=True, timeout=90)
    site = tmp_path / "build" / "site"
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*?\bsrc="?([^"\s>]+)', text)
        loaded += re.findall(r'<link\b(?![^>]*rel="?canonical)[^>]*?\bhref="?([^"\s>]+)', text)
        assert loaded and not [url for url in loaded if re.match(r"(https?:)?//", url)], page
    assert (
        'href="https://github.com/socket2me/socket2me/blob/main/examples/nginx.conf"'
        in (site / "scaling.html").read_text()
    )
    with (tmp_path / "docs" / "api.md").open("a") as page:
        page.write("[lost](design.md#no-such-heading)\n")
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert failed.returncode == 1
    assert "no-such-heading" in failed.stderr
