"""A secret apart from the URL: only its owner may listen, refresh, inspect and delete."""

import time

import pytest
import requests

from tests.support.servers import NodeListener, PythonListener, Server, wait_until


@pytest.fixture(scope="module")
def server():
    with Server(HOLD_SECONDS=0, MAX_TTL_SECONDS=1000) as server:
        yield server


@pytest.fixture
def made(server):
    return server.new_with_secret()


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def call(server, method, path, secret=None):
    headers = {} if secret is None else bearer(secret)
    return requests.request(method, f"{server.url}/v1/{path}", headers=headers, timeout=5)


def guesses(made):
    return [None, "", "guess", made["token"], made["secret"][:-1], made["secret"] + "x", "s2m_" + "a" * 43]


def test_what_is_made(server, made):
    """All that an app and its callers need."""
    token = made["token"]
    assert set(made) == {"token", "secret", "url", "namespace", "expires_at"}
    assert made["url"] == f"{server.url}/v1/go/{token}"
    assert made["namespace"] == f"/{token}"
    assert made["secret"].startswith("s2m_")
    assert abs(made["expires_at"] - time.time() - 1000) < 5  # the bound is below TOKEN_EXPIRE_SECONDS


@pytest.mark.parametrize("listener", [PythonListener, NodeListener])
def test_the_client_with_the_secret_gets_the_calls(server, made, listener):
    """By the URL that was given out with it."""
    with listener(server, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        assert requests.post(made["url"], data="hello", headers={"Content-Type": "text/plain"}, timeout=5).ok
        assert client.expect("request")["body"] == "hello"


def test_a_client_without_the_secret_is_refused_and_the_connected_one_undisturbed(server, made):
    """It sees no event, before or after; the calls still reach the one that has it."""
    with PythonListener(server, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        for guess in guesses(made):
            auth = None if guess is None else {"secret": guess}
            with PythonListener(server, made["token"], auth=auth) as intruder:
                assert intruder.expect("connect_error")["data"] == {"code": "unauthorized"}
                assert server.go(made["token"], data="x").ok
                intruder.expect_silence(0.05)
            assert client.expect("request")["method"] == "POST"
        client.expect_silence(0.05)


def test_the_newest_client_with_the_secret_wins(server, made):
    """As without one."""
    auth = {"secret": made["secret"]}
    with PythonListener(server, made["token"], auth=auth) as first:
        first.expect("connect")
        with PythonListener(server, made["token"], auth=auth) as second:
            second.expect("connect")
            first.expect("replaced")
            first.expect("disconnect")


@pytest.mark.parametrize(("method", "path"), [("GET", "refresh/"), ("GET", "tokens/"), ("DELETE", "tokens/")])
def test_refresh_inspect_and_delete_need_the_secret(server, made, method, path):
    """Any other is answered 401, the same for all, and changes nothing."""
    answers = {
        (a.status_code, a.text) for a in (call(server, method, path + made["token"], g) for g in guesses(made))
    }
    ((status, text),) = answers
    assert status == 401
    assert '"unauthorized"' in text
    assert call(server, "GET", f"tokens/{made['token']}", made["secret"]).json()["expires_at"] == made["expires_at"]
    assert call(server, method, path + made["token"], made["secret"]).status_code in (200, 204)


def test_a_refusal_says_how_to_ask(server, made):
    """RFC 9110, section 11.6.1."""
    assert call(server, "GET", f"tokens/{made['token']}").headers["WWW-Authenticate"] == "Bearer"


def test_refresh_adds_the_time_that_was_asked_for(server):
    """Not the server's default."""
    made = server.new_with_secret(ttl_seconds=50)
    time.sleep(0.05)
    assert call(server, "GET", f"refresh/{made['token']}", made["secret"]).text == "OK"
    expires_at = call(server, "GET", f"tokens/{made['token']}", made["secret"]).json()["expires_at"]
    assert 0 < expires_at - made["expires_at"] < 5


def test_inspect_tells_what_happened(server, made):
    """Until when, whether a client is connected, what was forwarded and what refused, and when the last was."""
    path = f"tokens/{made['token']}"
    at_first = call(server, "GET", path, made["secret"])
    assert at_first.headers["Cache-Control"] == "no-store"
    assert at_first.json() == {
        "token": made["token"],
        "expires_at": made["expires_at"],
        "mode": "notify",
        "mailbox": False,
        "inspect": False,
        "verify": None,
        "connected": False,
        "forwarded": 0,
        "refused": 0,
        "last_request_at": None,
        "listener_mode": "newest",
        "listeners": [],
    }
    assert server.go(made["token"]).status_code == 503
    with PythonListener(server, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        assert server.go(made["token"]).ok
        received_at = client.expect("request")["received_at"]
        seen = call(server, "GET", path, made["secret"]).json()
    assert (seen["connected"], seen["forwarded"], seen["refused"]) == (True, 1, 1)
    assert seen["last_request_at"] == received_at
    wait_until(lambda: not call(server, "GET", path, made["secret"]).json()["connected"], "it is seen to be gone")


def test_delete_ends_a_token_at_once(server, made):
    """Its client is disconnected, and its URL means nothing any more."""
    with PythonListener(server, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        answer = call(server, "DELETE", f"tokens/{made['token']}", made["secret"])
        assert (answer.status_code, answer.content) == (204, b"")
        client.expect("disconnect")
    assert server.go(made["token"]).status_code == 404
    assert call(server, "GET", f"tokens/{made['token']}", made["secret"]).status_code == 404


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_open_tokens_have_no_inspect_and_no_delete(server, method):
    """The same answer as for a token that was never issued, with any secret or none."""
    unknown = call(server, method, "tokens/" + "z" * 24)
    assert unknown.status_code == 404
    for secret in (None, "guess", ""):
        answer = call(server, method, f"tokens/{server.new()}", secret)
        assert (answer.status_code, answer.text) == (404, unknown.text)


def test_an_open_token_stays_as_the_specification_has_it(server):
    """No secret to connect or refresh; one that is given is not looked at."""
    token = server.new()
    with PythonListener(server, token, auth={"secret": "whatever"}) as client:
        client.expect("connect")
        assert call(server, "GET", f"refresh/{token}").text == "OK"


def test_how_long_a_token_lives_can_be_asked_for(server):
    """Up to what the operator allows."""
    made = server.new_with_secret(ttl_seconds=20)
    assert abs(made["expires_at"] - time.time() - 20) < 5


@pytest.mark.parametrize(
    "body",
    ["[]", "1", '"x"', "{", "\xff", '{"ttl_seconds":0}', '{"ttl_seconds":1001}', '{"ttl_seconds":true}']
    + [
        '{"ttl_seconds":"5"}',
        '{"ttl_seconds":NaN}',
        '{"ttl_seconds":1e999}',
        '{"ttl_seconds":' + "9" * 500 + "}",
        '{"ttl":5}',
        "[" * 4000,
    ],
)
def test_options_that_are_none_are_answered_400(server, body):
    """With a sentence that says what there is."""
    answer = requests.post(f"{server.url}/v1/new", data=body.encode("latin-1"), timeout=5)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"


def test_options_that_are_too_large_are_answered_413(server):
    """Nobody reads them."""
    assert requests.post(f"{server.url}/v1/new", data=b" " * 5000, timeout=5).status_code == 413


@pytest.fixture(scope="module")
def closed():
    with Server(API_KEYS="first-key, second-key", REQUIRE_SECRET="true") as server:
        yield server


@pytest.mark.parametrize("key", [None, "", "guess", "first-key, second-key", "first-ke", "Zweiter Schl\xfcssel"])
def test_without_a_key_there_is_no_token(closed, key):
    """401, and how to ask."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode("latin-1")}
    answer = requests.post(f"{closed.url}/v1/new", headers=headers, timeout=5)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_each_key_is_good_while_they_are_rotated(closed, key):
    """And the token that was made needs its own secret, not the key."""
    made = requests.post(f"{closed.url}/v1/new", headers=bearer(key), timeout=5).json()
    assert call(closed, "GET", f"refresh/{made['token']}", key).status_code == 401
    assert call(closed, "GET", f"refresh/{made['token']}", made["secret"]).status_code == 200


def test_the_open_kind_of_token_can_be_turned_off(closed):
    """403, with a key too, and where to go instead."""
    for headers in ({}, bearer("first-key")):
        answer = requests.get(f"{closed.url}/v1/new", headers=headers, timeout=5)
        assert answer.status_code == 403
        assert "POST /v1/new" in answer.text


def test_guessing_keys_has_a_rate():
    """A wrong key counts as a token."""
    with Server(API_KEYS="key", RATE_LIMIT_NEW="3/hour") as server:
        statuses = [
            requests.post(f"{server.url}/v1/new", headers=bearer("k"), timeout=5).status_code for _ in range(5)
        ]
        assert statuses == [401, 401, 401, 429, 429]


def test_keys_are_asked_for_open_tokens_too():
    """API_KEYS alone leaves GET /v1/new to those who have one."""
    with Server(API_KEYS="key") as server:
        assert requests.get(f"{server.url}/v1/new", timeout=5).status_code == 401
        assert requests.get(f"{server.url}/v1/new", headers=bearer("key"), timeout=5).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
    ],
    ids=str,
)
def test_a_page_of_another_site_or_one_loaded_in_advance_gets_no_token(server, method, headers):
    """403: a link or an image must not use up what an address may ask for."""
    assert requests.request(method, f"{server.url}/v1/new", headers=headers, timeout=5).status_code == 403


@pytest.mark.parametrize("site", ["none", "same-origin", "same-site"])
def test_a_page_of_the_same_site_gets_one(server, site):
    """As does a person who types the URL."""
    assert requests.get(f"{server.url}/v1/new", headers={"Sec-Fetch-Site": site}, timeout=5).ok
