"""The page that `socket2me listen --inspect` serves, in a real browser."""

import re

from tests.support.command import Command, until_attached
from tests.support.local_app import App, call

ANSWER = (
    b"HTTP/1.1 500 Error\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n" + b'{"reason": "cut"}'
)


def test_what_the_app_answered_and_a_replay_to_it(relay, tab, tmp_path):
    """The printed URL opens the page; it shows the app's answer, and sends an edited request to the app."""
    with App() as app:
        app.answer = ANSWER
        command = Command(tmp_path, "listen", app.url, "--server", relay.url, "--json", "--inspect", "0")
        command.expect("terms")
        until_attached(relay, command, tmp_path)
        key = command.inspector.rpartition("=")[2]
        relay.giveaways |= {key, command.url.rpartition("/")[2]}
        page = tab.page
        page.goto(command.inspector.partition("#")[0])
        page.get_by_role("heading", name="Enter the key of this run").wait_for()
        assert tab.violations() == []
        page.get_by_label("URL or key").fill(command.inspector)
        page.get_by_role("button", name="Open").click()
        page.get_by_text(f"Requests go on to {app.url}.").wait_for()
        call(relay, command.url, "/hook", headers=[("Content-Type", "application/json")], body=b'{"id": 1}')
        app.expect()
        page.locator(".row", has_text="/hook").click()
        page.locator(".detail-head .status-chip", has_text="500").wait_for()
        page.get_by_role("tab", name="Response").click()
        page.get_by_text('"cut"').wait_for()
        page.get_by_role("tab", name="Timeline").click()
        page.get_by_text("The app answered").wait_for()
        assert tab.violations() == []

        page.get_by_role("button", name="Edit and replay").click()
        page.get_by_label(re.compile("^Body")).fill('{"id": 2}')
        page.get_by_role("button", name="Send", exact=True).click()
        assert app.expect().body == b'{"id": 2}'
        page.get_by_role("button", name=re.compile("^replay of")).wait_for()
        assert not [request.url for request in tab.requests if key in request.url]

        tab.allowed += ["ERR_", "401"]
        command.end()
        page.locator(".connection.reconnecting").wait_for()
