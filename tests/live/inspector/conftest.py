"""One browser and one relay for all tests of the page, and tokens with requests."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.browser import CHROMIUM, Tab, launched
from tests.support.servers import Server

MISSING = next(
    (
        reason
        for is_missing, reason in (
            (CHROMIUM is None, "Chromium is not installed (`make servers` installs it on Debian)"),
            (importlib.util.find_spec("playwright") is None, "Playwright is not installed"),
        )
        if is_missing
    ),
    None,
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if MISSING is not None:
        pytest.skip(MISSING)
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def relay() -> Iterator[Server]:
    """A relay that answers at once while no client is connected."""
    with Server(HOLD_SECONDS=0, RATE_LIMIT_REQUESTS=0, HISTORY_MAX_BYTES=0) as relay:
        yield relay


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    with Tab(browser) as tab:
        yield tab


class Inspected:
    """A token with history, and its API."""

    def __init__(self, relay: Server) -> None:
        made = relay.new_with_secret(inspect=True)
        self.relay = relay
        self.token, self.secret = made["token"], made["secret"]
        self.headers = {"Authorization": f"Bearer {self.secret}"}
        self.root = f"{relay.url}/v1/tokens/{self.token}"

    def link(self, base: str | None = None, **more: str) -> str:
        """The page of the token, with the secret, as an owner gives it."""
        place = "&".join(
            f"{name}={value}" for name, value in {"token": self.token, "secret": self.secret, **more}.items()
        )
        return f"{base or self.relay.url}/#{place}"

    def send(self, tail: str = "", body: bytes = b"", method: str = "POST", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.relay.go(self.token, method, tail, data=body, headers=named)

    def kept(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/requests/{identifier}").json()
        return found

    def newest(self) -> dict[str, Any]:
        return self.kept(self.call("GET", "/requests?limit=1").json()["requests"][0]["id"])

    def call(self, method: str, path: str = "") -> requests.Response:
        answer = requests.request(method, self.root + path, headers=self.headers, timeout=10)
        assert answer.ok, answer.text
        return answer


@pytest.fixture
def inspected(relay: Server) -> Callable[[], Inspected]:
    return lambda: Inspected(relay)
