"""Apps as they were written for the originals, with the socket.io-client of their time, at /go."""

import json
import subprocess
import time
from contextlib import contextmanager

import pytest
import requests

from tests.support.legacy_clients import VERSIONS
from tests.support.servers import ROOT, Server

# How long the relay of these tests waits for a reply: long enough to tell from a call that does not wait.
WAIT_SECONDS = 3


@pytest.fixture(scope="module")
def relay():
    with Server(REPLY_TIMEOUT_SECONDS=WAIT_SECONDS) as server:
        yield server


@contextmanager
def app(relay, version, kind):
    """Run an app; return its URL, and what waits for what it says next."""
    command = ["node", "--no-deprecation", "originals.cjs", version, relay.url, kind]
    with subprocess.Popen(command, cwd=ROOT / "tests" / "js", stdout=subprocess.PIPE, text=True) as process:
        try:
            said, url = json.loads(process.stdout.readline())
            assert said == "connected"
            relay.giveaways.add(url.rpartition("/")[2])
            yield url, lambda: json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("version", VERSIONS)
def test_handlers_of_version_1_get_their_calls_by_route_and_file(relay, version):
    """They never acknowledge: the first caller waits, later ones are answered at once."""
    with app(relay, version, "1.1") as (url, said):
        calls = [
            (f"{url}/foo/bar?name=ann", {"json": {"a": 1}}, ["foo.bar", "ann", {"a": 1}]),
            (f"{url}/foo/baz", {"data": {"name": "bob"}}, ["foo.baz", "bob"]),
            (f"{url}/foo/bar?name=cem", {}, ["foo.bar", "cem", {}]),
            (f"{url}/foo", {}, ["no handler", "foo", None]),
            (url, {}, ["no handler", None, None]),
        ]
        for number, (target, options, expected) in enumerate(calls):
            started = time.monotonic()
            answer = requests.post(target, timeout=20, **options)
            waited = time.monotonic() - started >= WAIT_SECONDS
            assert (answer.status_code, answer.text, waited) == (200, "OK", number == 0)
            assert said()[: len(expected)] == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_a_listener_of_version_2_answers_its_callers(relay, version):
    """It reads `request.body.name` where there is no body, and nested names; what it answers, callers receive."""
    with app(relay, version, "2.0") as (url, _):
        for method, target, options, status, content_type, text in [
            ("GET", "/greet?name=ann", {}, 200, "text/html; charset=utf-8", "<p>Hello, ann</p>"),
            ("POST", "/greet", {"data": {"name": "bob"}}, 200, "text/html; charset=utf-8", "<p>Hello, bob</p>"),
            ("POST", "/greet", {"json": {"name": "cem"}}, 200, "text/html; charset=utf-8", "<p>Hello, cem</p>"),
            (
                "GET",
                "/greet/me?who[name]=dee&who[langs][]=en&who[langs][]=fr",
                {},
                200,
                "application/json",
                '{"hello":"dee","all":["en","fr"]}',
            ),
            ("POST", "/upload", {"data": b"\0\xff"}, 201, "text/html; charset=utf-8", "OK"),
            ("GET", "/nothing", {}, 200, "text/html; charset=utf-8", "OK"),
            ("GET", "/elsewhere", {}, 404, "text/html; charset=utf-8", "OK"),
            ("GET", "", {}, 404, "text/html; charset=utf-8", "OK"),
        ]:
            answer = requests.request(method, url + target, timeout=20, **options)
            received = (answer.status_code, answer.headers["Content-Type"], answer.text)
            assert received == (status, content_type, text), target
