"""Real processes that die at the wrong moment, disks that are full: what was accepted is delivered."""

import contextlib
import os
import random
import resource
import signal
import sqlite3
import subprocess
import threading
import time
from functools import partial

import pytest
import requests

from tests.support.delivery import Acknowledging, Caller, error_code, events
from tests.support.servers import (
    ROOT,
    PythonListener,
    Server,
    WebSocket,
    clean_environment,
    command_for,
    free_port,
    variables,
    wait_until,
)


@pytest.fixture
def start_on_file(tmp_path):
    """Return what starts a relay on one file."""
    return partial(start_on, f"sqlite:///{tmp_path}/relay.db")


@pytest.fixture(params=["sqlite", "redis"])
def start(request):
    """Return what starts a relay on a store that survives it."""
    if request.param == "redis":
        return partial(start_on, request.getfixturevalue("redis").url)
    return request.getfixturevalue("start_on_file")


def start_on(store_url, **settings):
    defaults = {"HOLD_SECONDS": 0, "ACK_TIMEOUT_SECONDS": 1, "REDELIVER_SECONDS": 1}
    return Server(STORE_URL=store_url, **defaults | settings)


def test_tokens_and_events_survive_a_killed_relay(start):
    """A client reconnects with the token that it has, callers' URLs still work, what was kept is delivered."""
    with start() as first:
        made, token = first.new_with_secret(mailbox=True), first.new()
        kept = [first.go(made["token"]).json()["id"] for _ in range(3)]
        first.stop(signal.SIGKILL)
    with start(port=first.port) as second:
        assert second.go(made["token"]).status_code == 202
        with Acknowledging(second, made["token"], secret=made["secret"]) as client:
            got = []
            for _ in range(4):
                ack_id, request = client.event()
                got.append(request["id"])
                client.acknowledge(ack_id)
            assert got[:3] == kept
        with PythonListener(second, token) as client:
            client.expect("connect")
            assert second.go(token).text == "OK"


def test_an_event_in_flight_when_the_relay_is_killed_comes_again(start):
    """With the same id, its attempt counted."""
    with start() as first:
        made = first.new_with_secret(mailbox=True)
        event_id = first.go(made["token"]).json()["id"]
        with Acknowledging(first, made["token"], secret=made["secret"]) as client:
            assert client.event()[1]["id"] == event_id
            time.sleep(0.2)
            first.stop(signal.SIGKILL)
    with start(port=first.port) as second:
        with Acknowledging(second, made["token"], secret=made["secret"]) as client:
            request = client.event()[1]
            assert (request["id"], request["attempt"]) == (event_id, 2)


def test_a_stop_under_load_loses_nothing(start):
    """SIGTERM: each caller is answered, the process ends with status 0, and what was accepted is there after it."""
    with start() as first:
        made = first.new_with_secret(mailbox=True)
        callers = [Caller(first, made["token"], data=str(number)) for number in range(20)]
        time.sleep(random.uniform(0, 0.05))
        assert first.stop() == 0
        accepted = []
        for caller in callers:
            caller.join(15)
            answer = caller.received  # None: it called when the relay did not listen any more
            if answer is not None:
                assert answer.status_code in (202, 503), answer.text
                accepted += [answer.json()["id"]] if answer.status_code == 202 else []
    with start(port=first.port) as second:
        assert set(accepted) <= set(events(second, made)["waiting"])


def test_a_full_disk_refuses_and_loses_nothing(start_on_file, tmp_path):
    """503 with Retry-After; what was accepted stays, the rest of the relay works; then there is room again."""
    with start_on_file() as server:
        made, token = server.new_with_secret(mailbox=True), server.new()
        accepted = [server.go(made["token"]).json()["id"]]
        worker = server.worker_pid
        used = max(os.path.getsize(tmp_path / name) for name in os.listdir(tmp_path))
        _, most = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (used + 30_000, most))
        refused = 0
        for _ in range(20):
            answer = server.go(made["token"], data=os.urandom(10_000))
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
            else:
                assert (answer.status_code, error_code(answer)) == (503, "store_unavailable")
                assert "Retry-After" in answer.headers
                refused += 1
        assert refused
        with WebSocket(server, token):
            assert server.go(token).text == "OK"
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (most, most))
        accepted.append(server.go(made["token"]).json()["id"])
        assert events(server, made)["waiting"] == accepted
        assert server.log.count("Traceback") == 0


def test_a_client_that_flaps_gets_everything_in_order(start):
    """It comes, takes an event or two, acknowledges or not, and goes without a word."""
    with start() as server:
        made = server.new_with_secret(mailbox=True)
        accepted = [server.go(made["token"]).json()["id"] for _ in range(10)]
        got = []
        while any(events(server, made).values()):
            with Acknowledging(server, made["token"], secret=made["secret"]) as client:
                ack_id, request = client.event()
                got.append(request["id"])
                if random.random() < 0.5:
                    client.acknowledge(ack_id)
                    time.sleep(random.uniform(0, 0.05))
        assert list(dict.fromkeys(got)) == accepted


def test_two_clients_that_displace_each_other_lose_nothing(start):
    """Each event reaches one of them at least; an acknowledgement of the replaced one changes nothing."""
    with start(REDELIVER_SECONDS=60) as server, contextlib.ExitStack() as stack:
        made = server.new_with_secret(mailbox=True)
        accepted = [server.go(made["token"]).json()["id"] for _ in range(6)]
        old = stack.enter_context(Acknowledging(server, made["token"], secret=made["secret"]))
        for event_id in accepted:
            ack_id, request = old.event()
            assert request["id"] == event_id
            new = stack.enter_context(Acknowledging(server, made["token"], secret=made["secret"]))
            old.acknowledge(ack_id)  # too late
            ack_id, request = new.event()
            assert request["id"] == event_id
            new.acknowledge(ack_id)
            old = new
        wait_until(lambda: not any(events(server, made).values()), "the mailbox is empty")


def test_a_slow_client_loses_nothing(start):
    """One that does not read is cut off at its bound; its events are still in the mailbox."""
    with start(CLIENT_QUEUE_LIMIT_BYTES=300_000, MAX_WINDOW=100) as server:
        made = server.new_with_secret(mailbox=True)
        with Acknowledging(server, made["token"], secret=made["secret"], window=100):
            accepted = []
            for _ in range(5):
                callers = [Caller(server, made["token"], data=b"x" * 200_000) for _ in range(10)]
                for caller in callers:
                    assert caller.answer.status_code == 202
                    accepted.append(caller.answer.json()["id"])
        listed = events(server, made)
        assert sorted(listed["waiting"] + listed["in_flight"]) == sorted(accepted)


def test_a_database_of_another_relay_stops_the_start_with_a_reason(tmp_path):
    """One line, no traceback."""
    database = sqlite3.connect(tmp_path / "relay.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    command, environment = command_for("gunicorn", free_port())
    environment |= clean_environment() | variables({"STORE_URL": f"sqlite:///{tmp_path}/relay.db"})
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 3
    assert "socket2me: SOCKET2ME_STORE_URL" in ended.stderr
    assert "was written by a newer version" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ids_are_new_in_each_process(start):
    """gunicorn makes another worker of the same master when one was killed."""
    with start() as server:
        made = server.new_with_secret(mailbox=True)
        ids = [server.go(made["token"]).json()["id"] for _ in range(3)]
        old = server.worker_pid
        os.kill(old, signal.SIGKILL)

        def is_back():
            try:
                return server.worker_pid != old and requests.get(f"{server.url}/healthz", timeout=1).ok
            except (requests.RequestException, IndexError):
                return False

        wait_until(is_back, "there is another worker")
        ids += [server.go(made["token"]).json()["id"] for _ in range(3)]
        assert len(set(ids)) == 6
        assert events(server, made)["waiting"] == ids


def test_a_full_disk_stops_nothing_for_good(start_on_file):
    """However much is logged, by whom, and how many wait."""
    with start_on_file(REAPER_INTERVAL_SECONDS=0.1, MAILBOX_MAX_AGE_SECONDS=1, MAX_ATTEMPTS=1) as server:
        made = server.new_with_secret(mailbox=True)
        server.go(made["token"])
        worker = server.worker_pid
        _, most = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (200_000, most))
        ends = time.monotonic() + 4
        statuses = set()

        def put():
            while time.monotonic() < ends:
                statuses.add(server.go(made["token"], data=os.urandom(10_000)).status_code)

        threads = [threading.Thread(target=put) for _ in range(4)]
        with Acknowledging(server, made["token"], secret=made["secret"]):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert 503 in statuses
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (most, most))
        assert server.go(made["token"]).status_code == 202
        assert requests.get(f"{server.url}/readyz", timeout=5).ok
        assert server.log.count("the database failed") < 5


def test_a_stop_answers_those_who_wait_for_a_client(start):
    """Their events are kept, so their callers receive 202, and do not send them again."""
    with start(ACK_TIMEOUT_SECONDS=30) as server:
        made = server.new_with_secret(mailbox=True)
        with Acknowledging(server, made["token"], secret=made["secret"]) as client:
            callers = [Caller(server, made["token"]) for _ in range(3)]
            client.event()
            wait_until(lambda: len(sum(events(server, made).values(), [])) == 3, "all are kept")
            assert server.stop() == 0
            assert [caller.answer.status_code for caller in callers] == [202] * 3
