"""What the pages of the documentation have in common on GitHub and on the site that `make docs` builds.

mkdocs loads this file as a hook: `mkdocs.yml` names it. So it imports nothing of the project.
"""

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"

# Where the files are that pages link to and that are no pages: the code, examples, CONTRIBUTING.md.
REPOSITORY = "https://github.com/socket2me/socket2me/blob/main/"

_code = re.compile(r"^( *)```.*?^\1```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_link = re.compile(r"\]\(([^()\s]+)\)")
_heading = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


def slug(text: str, separator: str = "-") -> str:
    """Return the anchor of a heading, as GitHub makes it. mkdocs calls this for the site."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)


def links(page: str) -> list[str]:
    """Return the targets of the links and images of a page that lead to no other host."""
    targets = _link.findall(_code.sub("", page))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: str) -> set[str]:
    """Return the anchors of the headings of a page. Of headings with the same text, the first one has it."""
    without_blocks = re.sub(r"^( *)```.*?^\1```$", "", page, flags=re.DOTALL | re.MULTILINE)
    return {slug(re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", text)) for text in _heading.findall(without_blocks)}


def on_config(config: Any) -> Any:
    """Make anchors of headings as GitHub does, and list the decisions in the nav. Called by mkdocs."""
    config.mdx_configs["toc"]["slugify"] = slug
    _list_decisions(config.nav)
    return config


def _list_decisions(nav: Any) -> None:
    """Add the pages of decisions after the page that introduces them."""
    if isinstance(nav, list):
        if "decisions/README.md" in nav:
            nav += sorted(f"decisions/{page.name}" for page in (DOCS / "decisions").glob("0*.md"))
        for item in nav:
            _list_decisions(item)
    elif isinstance(nav, dict):
        for part in nav.values():
            _list_decisions(part)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links that leave `docs/` lead to the repository. Called by mkdocs for each page.

    The search shows other pages before decisions.
    """
    if page.file.src_uri.startswith("decisions/"):
        page.meta["search"] = {"boost": 0.1}
    folder = (DOCS / page.file.src_uri).parent

    def leave(found: re.Match[str]) -> str:
        target, hash_sign, anchor = found[1].partition("#")
        path = Path(os.path.normpath(folder / target))
        if re.match(r"[a-z]+:|$", target) or path.is_relative_to(DOCS):
            return found[0]
        return f"]({REPOSITORY}{path.relative_to(ROOT).as_posix()}{hash_sign}{anchor})"

    return _link.sub(leave, markdown)
