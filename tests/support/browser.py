"""A real browser for the inspector's page: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.servers import ROOT

# A name of the relay for which Chromium has no secure context, as for an address in a local network.
PLAIN_HOST = "relay.test"

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {PLAIN_HOST} 127.0.0.1",
]
AXE = ROOT / "tests" / "js" / "node_modules" / "axe-core" / "axe.min.js"
WAIT_MS = 15_000  # for whatever should happen at once; only a failure waits this long

# Notes each fetch with the address bar as it was, and what it returned.
WATCH = """
window.fetches = [];
window.answers = [];
const { fetch } = window;
window.fetch = (...call) => {
    fetches.push([String(call[0]), location.href]);
    answers.push(fetch(...call));
    return answers.at(-1);
};
"""


@contextmanager
def launched() -> Iterator[Any]:
    """Start the browser with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a profile of its own. Ends with an error if the page had one, or broke its policy.

    `allowed` are texts of console messages that a test expects.
    """

    def __init__(self, browser: Any, width: int = 1280, height: int = 800, scheme: str = "light") -> None:
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        self._context.add_init_script(WATCH)
        self.page = self._context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.requests: list[Any] = []
        self.allowed: list[str] = []
        self._errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("console", lambda message: message.type == "error" and self._errors.append(message.text))
        self.page.on("pageerror", lambda error: self._errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self._errors.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def __enter__(self) -> "Tab":
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        errors = [error for error in self._errors if not any(text in error for text in self.allowed)]
        self._context.close()
        if failed is None:
            assert errors == [], errors

    def violations(self, *rules: str) -> list[str]:
        """Return what axe finds wrong with the page as it is; by some rules only, if they are given."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text())
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        found = self.page.evaluate("(options) => axe.run(options)", options)["violations"]
        return [f"{v['id']}: {[node['html'][:200] for node in v['nodes'][:3]]}" for v in found]
