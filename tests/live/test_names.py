"""Names over real connections: who gets one, keeps it across restarts, and what happens when it is let go."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.delivery import bearer, error_code
from tests.support.redis_server import Redis
from tests.support.servers import (
    NodeListener,
    Pair,
    PythonListener,
    Server,
    run_to_end,
)

SETTINGS = {"OPEN_NAMES": True, "HOLD_SECONDS": 1, "REAPER_INTERVAL_SECONDS": 0.1}


@pytest.fixture(scope="module")
def pair():
    """Two relays on one Redis."""
    with Redis() as redis, Pair(redis.url, **SETTINGS) as pair:
        pair.store_url = redis.url
        yield pair


def claim(server, name, made=None, **options):
    """Ask for a name, with the secret of what was `made` before if that is given."""
    headers = bearer(made) if made else {}
    return requests.post(f"{server.url}/v1/new", json={"name": name, **options}, headers=headers, timeout=10)


def release(name, store_url):
    return run_to_end(f"flask release-name {name}", STORE_URL=store_url)


@pytest.mark.parametrize("listener", [PythonListener, NodeListener])
def test_a_name_is_a_url_and_a_namespace(pair, listener):
    """Its client needs the secret; a caller needs the name, in any case, and nothing else."""
    name = f"Acme-{listener.__name__}"
    made = claim(pair, name).json()
    assert made["token"] == name.lower()
    for auth in (None, {"secret": "s2m_" + "a" * 43}):
        with listener(pair, made["token"], auth=auth) as stranger:
            assert "This token has a secret" in str(stranger.expect("connect_error"))
    with listener(pair, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        for given in (made["token"], name):
            assert pair.go(given, tail="/a").text == "OK"
            request = client.expect("request")
            assert (request["path"], request["params"]["token"]) == ("/a", made["token"])
    assert requests.get(f"{pair.url}/v1/tokens/{made['token']}", timeout=5).status_code == 401


def test_of_many_who_ask_at_once_one_gets_a_name(pair):
    """At both processes: the others are answered that it is taken, and none gets another name."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: claim((pair, pair.other)[number % 2], "contested"), range(16)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 15]
    assert {error_code(answer) for answer in answers if answer.status_code == 409} == {"name_taken"}


def test_an_end_at_one_process_disconnects_the_client_of_another(pair):
    """The owner lets the name go, or the operator; who claims it then shares nothing with the client before."""
    for let_go in (
        lambda made: requests.delete(f"{pair.other.url}/v1/tokens/shared", headers=bearer(made), timeout=5).ok,
        lambda made: release("shared", pair.store_url).stdout == "shared is released.\n",
    ):
        made = claim(pair, "shared").json()
        with PythonListener(pair, "shared", auth={"secret": made["secret"]}) as client:
            client.expect("connect")
            assert let_go(made)
            client.expect("disconnect")
            following = claim(pair.other, "shared").json()
            assert following["secret"] != made["secret"]
            assert pair.go("shared").status_code == 503
            client.expect_silence(0.05)
        assert claim(pair, "shared", made).status_code == 409
        assert claim(pair, "shared", following).status_code == 201
        requests.delete(f"{pair.url}/v1/tokens/shared", headers=bearer(following), timeout=5)


def test_a_name_outlives_a_crash_and_its_end(tmp_path):
    """In a file: its secret takes it again, and no other does, until the operator releases it."""
    store_url = f"sqlite:///{tmp_path}/relay.db"
    settings = {**SETTINGS, "STORE_URL": store_url}
    with Server(**settings) as server:
        live, short = claim(server, "live").json(), claim(server, "short", ttl_seconds=1).json()
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(timeout=40)
    with Server(**settings) as server:
        with PythonListener(server, "live", auth={"secret": live["secret"]}) as client:
            client.expect("connect")
            assert server.go("live").text == "OK"
            client.expect("request")
            assert release("live", store_url).stdout == "live is released.\n"
            client.expect("disconnect")
        assert claim(server, "live", live).json()["secret"] != live["secret"]  # free, so it is a new one
        assert server.go("short").status_code == 404
        assert claim(server, "short").status_code == 409
        again = claim(server, "short", short).json()
        assert (again["token"], again["secret"]) == ("short", short["secret"])
