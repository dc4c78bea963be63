"""Several relays on one Redis: what one does, another sees; and what happens when one of them, or Redis, fails."""

import contextlib
import os
import signal
import threading
import time

import pytest
import requests
import websocket

from tests.support.delivery import Acknowledging, Caller, bearer, error_code, events
from tests.support.redis_server import Redis
from tests.support.servers import NodeListener, Pair, PythonListener, Server, WebSocket, wait_until

LEASE_SECONDS = 2
TIMEOUT_SECONDS = 1


@pytest.fixture(scope="module")
def pair():
    """Two relays; clients are at the one, callers at the other."""
    with (
        Redis() as redis,
        Pair(redis.url, HOLD_SECONDS=5, ACK_TIMEOUT_SECONDS=1, REAPER_INTERVAL_SECONDS=0.2) as pair,
    ):
        pair.redis = redis
        yield pair


@pytest.fixture
def faulty():
    """The same, with a Redis that may be harmed."""
    settings = {"HOLD_SECONDS": 0.2, "LEASE_SECONDS": LEASE_SECONDS, "STORE_TIMEOUT_SECONDS": TIMEOUT_SECONDS}
    with Redis() as redis, Pair(redis.url, REAPER_INTERVAL_SECONDS=0.2, **settings) as pair:
        pair.redis = redis
        yield pair


def is_ready(server):
    return requests.get(f"{server.url}/readyz", timeout=10).ok


def test_a_large_body_crosses_whole(pair):
    """Byte for byte, however large."""
    token, body = pair.new(), os.urandom(1_500_000)
    with PythonListener(pair, token) as client:
        client.expect("connect")
        assert pair.go(token, data=body).text == "OK"
        request = client.expect("request")
        assert (request["body"], request["remote_addr"]) == (body, "127.0.0.1")
    assert not pair.redis.client.keys("s2m:message:*")


def test_a_call_is_verified_by_the_process_that_receives_it(pair):
    """The client of another process receives it with `verified`; what is not signed reaches no process."""
    made = pair.new_with_secret(verify={"provider": "gitlab", "secrets": ["s"]})
    with PythonListener(pair, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        for server in (pair, pair.other):
            assert server.go(made["token"], headers={"X-Gitlab-Token": "s"}).text == "OK"
            assert client.expect("request")["verified"] == {"provider": "gitlab"}
            assert server.go(made["token"], headers={"X-Gitlab-Token": "t"}).status_code == 401
        client.expect_silence(0)


def test_a_client_is_displaced_by_one_at_another_process(pair):
    """It is sent `replaced` and is disconnected; its late disconnect changes nothing for its successor."""
    token = pair.new()
    with PythonListener(pair, token) as old:
        old.expect("connect")
        with PythonListener(pair.other, token) as new:
            new.expect("connect")
            old.expect("replaced")
            old.expect("disconnect")
            for server in (pair, pair.other):
                assert server.go(token).text == "OK"
                assert new.expect("request")
        old.expect_silence(0)


def test_a_flood_of_displacements_leaves_one_client(pair):
    """Whichever came last in Redis: every call reaches it, whichever process is called."""
    token = pair.new()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WebSocket(server)) for server in (pair, pair.other) * 10]
        for client in clients:
            client.send(f"40/{token},")
        here = list(clients)

        def those_who_stay():
            for client in list(here):
                client.socket.settimeout(0.02)
                with contextlib.suppress(websocket.WebSocketTimeoutException):
                    while client.receive() not in (f"41/{token},", ""):
                        pass
                    here.remove(client)
            return here

        wait_until(lambda: len(those_who_stay()) == 1, "one is left")
        here[0].socket.settimeout(5)
        for server in (pair, pair.other):
            assert server.go(token).text == "OK"
            assert "request" in here[0].receive()


def test_a_token_that_expires_takes_its_client_wherever_it_is(pair):
    """Wherever it was issued; a call to it is answered 404 at every process."""
    made = pair.other.new_with_secret(ttl_seconds=1)
    with PythonListener(pair, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        client.expect("disconnect")
    assert [server.go(made["token"]).status_code for server in (pair, pair.other)] == [404, 404]


def test_a_refresh_at_another_process_keeps_the_client(pair):
    """The process that has it is notified in time."""
    made = pair.new_with_secret(ttl_seconds=1)
    with PythonListener(pair, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        for _ in range(5):
            time.sleep(0.4)
            url = f"{pair.other.url}/v1/refresh/{made['token']}"
            assert requests.get(url, headers=bearer(made), timeout=5).text == "OK"
        assert pair.go(made["token"]).text == "OK"
        client.expect("request")
        client.expect("disconnect")


def test_a_token_that_is_deleted_at_another_process_ends_at_once(pair):
    """Its client is sent away, a caller whose call is held receives 404."""
    made = pair.new_with_secret()
    caller = Caller(pair, made["token"])
    wait_until(lambda: pair.redis.client.exists(f"s2m:waiting:{made['token']}"), "the call is held")
    delete(pair, made)
    assert (caller.answer.status_code, caller.seconds < 4) == (404, True)
    made = pair.new_with_secret()
    with PythonListener(pair, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        assert pair.go(made["token"]).text == "OK"
        client.expect("request")
        delete(pair.other, made)
        client.expect("disconnect")
    assert [server.go(made["token"]).status_code for server in (pair, pair.other)] == [404, 404]


def delete(server, made):
    url = f"{server.url}/v1/tokens/{made['token']}"
    assert requests.delete(url, headers=bearer(made), timeout=5).status_code == 204


def test_calls_that_are_held_reach_a_client_at_another_process(pair):
    """All of them, in their order, as soon as it comes."""
    token = pair.new()
    callers = []
    for number in range(5):
        callers.append(Caller(pair, token, json=number))
        time.sleep(0.1)
    with PythonListener(pair, token) as client:
        client.expect("connect")
        assert [client.expect("request")["body"] for _ in range(5)] == list(range(5))
        assert [caller.answer.text for caller in callers] == ["OK"] * 5
        assert callers[-1].seconds < 4


def test_a_client_that_moves_is_found(pair):
    """From one process to the other and back: who remembers where it was learns better, and nothing is lost."""
    token, got = pair.new(), 0
    for server in (pair, pair.other, pair, pair.other):
        with WebSocket(server, token) as client:
            for caller in (pair, pair.other):
                assert caller.go(token).text == "OK"
                assert "request" in client.receive()
                got += 1
    assert got == 8


def test_what_happened_to_a_token_is_counted_by_all(pair):
    """`GET /v1/tokens/<token>` says the same at every process, after a moment."""
    made = pair.new_with_secret()
    with PythonListener(pair, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        for server in (pair, pair.other):
            assert server.go(made["token"]).text == "OK"

        def seen():
            url = f"/v1/tokens/{made['token']}"
            return [requests.get(s.url + url, headers=bearer(made), timeout=5).json() for s in (pair, pair.other)]

        wait_until(lambda: [each["forwarded"] for each in seen()] == [2, 2], "both have told")
        assert [each["connected"] for each in seen()] == [True, True]


def test_a_token_that_is_deleted_where_its_client_is_ends_at_once(pair):
    """Also for a process that has called it before."""
    made = pair.new_with_secret()
    with PythonListener(pair, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        assert pair.go(made["token"]).text == "OK"
        delete(pair, made)
        answer = pair.go(made["token"])
        assert (answer.status_code, error_code(answer)) == (404, "unknown_token")


def test_what_is_in_flight_is_seen_at_another_process(pair):
    """And can be dropped there: the next event follows at once."""
    made = pair.new_with_secret(mailbox=True)
    with Acknowledging(pair, made["token"], secret=made["secret"]) as client:
        callers = [Caller(pair, made["token"], json=number) for number in range(2)]
        _, request = client.event()
        wait_until(lambda: len(sum(events(pair.other, made).values(), [])) == 2, "both are kept")
        assert events(pair.other, made)["in_flight"] == [request["id"]]
        url = f"{pair.other.url}/v1/tokens/{made['token']}/events/{request['id']}"
        assert requests.delete(url, headers=bearer(made), timeout=5).status_code == 204
        assert client.receive() == f'42/{made["token"]},["dropped","{request["id"]}"]'
        ack_id, second = client.event()
        assert second["id"] != request["id"]
        assert second["remote_addr"] == "127.0.0.1"
        client.acknowledge(ack_id)
        assert sorted(caller.answer.status_code for caller in callers) == [200, 410]


def test_limits_are_counted_together():
    """So many calls for a token, new tokens for an address, tokens, and events in a mailbox: over all processes."""
    limits = {"RATE_LIMIT_REQUESTS": "6/hour", "RATE_LIMIT_NEW": "4/hour", "MAX_TOKENS": 3, "MAILBOX_MAX_EVENTS": 3}
    with Redis() as redis, Pair(redis.url, HOLD_SECONDS=0, **limits) as pair:
        token = pair.new()
        made = pair.other.new_with_secret(mailbox=True)
        pair.other.new()
        answer = requests.get(f"{pair.url}/v1/new", timeout=5)
        assert (answer.status_code, error_code(answer)) == (503, "too_many_tokens")
        answers = [requests.get(f"{server.url}/v1/new", timeout=5) for server in (pair.other, pair)]
        assert {answer.status_code for answer in answers} == {429}
        servers = (pair, pair.other) * 5
        kept = [super(Pair, pair).go(made["token"]), *[pair.other.go(made["token"]) for _ in range(3)]]
        assert [answer.status_code for answer in kept] == [202, 202, 202, 429]
        with WebSocket(pair, token):
            answers = [requests.post(f"{server.url}/v1/go/{token}", timeout=5) for server in servers]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 4
        assert int(answers[-1].headers["Retry-After"]) > 60
        absent = [requests.post(f"{server.url}/v1/go/{token}", timeout=5) for server in servers * 2]
        assert 6 <= [answer.status_code for answer in absent].count(503) <= 12  # counted anew when it left, once


def test_an_event_goes_to_the_process_that_has_the_client_and_to_no_other(pair):
    """Each process has a channel of its own; a third one receives nothing."""
    with Server(STORE_URL=pair.redis.url) as third:
        channel = pair.redis.client.pubsub()
        channel.psubscribe("s2m:process:*")
        token = pair.new()
        with PythonListener(pair, token) as client:
            client.expect("connect")
            for _ in range(20):
                assert pair.go(token).text == "OK"
                client.expect("request")
        names = {}
        while message := channel.get_message(timeout=0.2):
            if message["type"] == "pmessage" and b"beat" not in message["data"]:
                names[message["channel"].decode()] = names.get(message["channel"].decode(), 0) + 1
        channel.close()
        assert third.process.poll() is None
    assert len(names) == 2, names  # the calls, and what was said of them
    assert max(names.values()) <= 25


def test_a_redis_that_is_down_at_the_start_is_waited_for():
    """The relay starts, says so in a line, answers 503, and works when Redis is there."""
    with Redis() as redis:
        redis.kill()
        with Server(STORE_URL=redis.url, STORE_TIMEOUT_SECONDS=TIMEOUT_SECONDS) as server:
            assert "does not answer" in server.log
            assert not is_ready(server)
            for answer in (requests.get(f"{server.url}/v1/new", timeout=5), server.go("a" * 24)):
                assert (answer.status_code, error_code(answer)) == (503, "store_unavailable")
                assert "Retry-After" in answer.headers
            redis.start()
            wait_until(lambda: is_ready(server), "it is ready")
            with WebSocket(server, token := server.new()):
                assert server.go(token).text == "OK"
            assert "Traceback" not in server.log


def test_the_start_says_where_tokens_are_kept():
    """In one line, without a password."""
    with Redis() as redis:
        redis.client.config_set("requirepass", "verysecret")
        url = redis.url.replace("redis://", "redis://:verysecret@")
        with Server(REDIS_URL=url) as server:
            (line,) = [line for line in server.log.splitlines() if "tokens are kept in" in line]
            assert f"Redis at redis://127.0.0.1:{redis.port}/0" in line
            assert "verysecret" not in server.log
            assert server.new()


def test_a_redis_that_dies_and_is_started_again(faulty):
    """503 meanwhile, whichever process has the client; then all is as it was, and clients did not even notice."""
    token, mine = faulty.new(), faulty.new()
    with PythonListener(faulty, token) as client, PythonListener(faulty, mine) as neighbour:
        for each in (client, neighbour):
            each.expect("connect")
        assert faulty.go(token).text == "OK"
        client.expect("request")
        faulty.redis.kill()
        seen = set()
        ends = time.monotonic() + LEASE_SECONDS + 1
        while time.monotonic() < ends:
            for server in (faulty, faulty.other):
                answer = requests.post(f"{server.url}/v1/go/{token}", timeout=10)
                if answer.status_code == 200:
                    client.expect("request")
                else:
                    assert (answer.status_code, error_code(answer)) == (503, "store_unavailable")
                    assert "Retry-After" in answer.headers
                    seen.add(server)
            time.sleep(0.05)
        assert len(seen) == 2
        assert not is_ready(faulty)
        faulty.redis.start()
        wait_until(lambda: is_ready(faulty) and is_ready(faulty.other), "both are ready")
        assert faulty.go(token).text == "OK"
        client.expect("request")
        neighbour.expect_silence(0)
    for server in (faulty, faulty.other):
        assert "Traceback" not in server.log
        assert server.log.count("does not answer") == 1


def test_a_redis_that_stands_still(faulty):
    """No call waits longer than the timeout, and no caller receives a false answer."""
    token = faulty.new()
    with PythonListener(faulty, token) as client:
        client.expect("connect")
        faulty.redis.client.execute_command("CLIENT", "PAUSE", 3000, "ALL")
        started = time.monotonic()
        answer = faulty.go(token)
        assert (answer.status_code, error_code(answer)) == (503, "store_unavailable")
        assert time.monotonic() - started < TIMEOUT_SECONDS + 1
        wait_until(lambda: faulty.go(token).status_code == 200, "it works again")
        connections = faulty.redis.client.info("clients")["connected_clients"]
        assert connections < 20


def test_connections_that_are_cut_are_made_again(faulty):
    """Whatever was on its way; clients stay, and what happened meanwhile is made up for."""
    made, token = faulty.new_with_secret(), faulty.new()
    with (
        PythonListener(faulty, made["token"], auth={"secret": made["secret"]}) as client,
        PythonListener(faulty, token) as old,
    ):
        client.expect("connect")
        old.expect("connect")
        os.kill(faulty.worker_pid, signal.SIGSTOP)
        delete(faulty.other, made)
        with PythonListener(faulty.other, token) as new:
            new.expect("connect")
            faulty.redis.cut_connections()
            os.kill(faulty.worker_pid, signal.SIGCONT)
            client.expect("disconnect")
            old.expect("replaced")
            wait_until(lambda: is_ready(faulty) and is_ready(faulty.other), "both are ready")
            assert faulty.go(token).text == "OK"
            new.expect("request")


def test_the_clients_of_a_process_that_is_killed_are_gone_at_once(faulty):
    """Redis knows; its clients are served where they come again."""
    token = faulty.new()
    client = NodeListener(faulty, token, reconnection=False)
    client.expect("connect")
    assert faulty.go(token).text == "OK"
    os.killpg(faulty.process.pid, signal.SIGKILL)
    client.close()
    started = time.monotonic()
    answer = faulty.go(token)
    assert (answer.status_code, error_code(answer)) == (503, "nobody_connected")
    assert time.monotonic() - started < 0.5
    with PythonListener(faulty.other, token) as client:
        client.expect("connect")
        assert faulty.go(token).text == "OK"


def test_the_clients_of_a_process_that_stands_still_are_gone_when_its_lease_ends(faulty):
    """Until then a call to it is answered 503; a client that connects elsewhere wins, and the earlier one ends."""
    token = faulty.new()
    with PythonListener(faulty, token) as old:
        old.expect("connect")
        assert faulty.go(token).text == "OK"
        old.expect("request")
        os.kill(faulty.worker_pid, signal.SIGSTOP)
        try:
            answer = faulty.go(token)
            assert (answer.status_code, error_code(answer)) == (503, "peer_silent")
            wait_until(lambda: "STORE_TIMEOUT_SECONDS reached" in faulty.other.log, "the log says so")
            started = time.monotonic()
            wait_until(lambda: error_code(faulty.go(token)) == "nobody_connected", "its lease has ended")
            assert time.monotonic() - started < LEASE_SECONDS + TIMEOUT_SECONDS + 1
            with PythonListener(faulty.other, token) as new:
                new.expect("connect")
                assert faulty.go(token).text == "OK"
                new.expect("request")
                os.kill(faulty.worker_pid, signal.SIGCONT)
                old.expect("replaced", after=["request"])  # what it was sent while it stood still
                old.expect("disconnect")
                wait_until(lambda: is_ready(faulty), "it is ready")
                assert requests.post(f"{faulty.url}/v1/go/{token}", timeout=5).text == "OK"
                new.expect("request")
        finally:
            os.kill(faulty.worker_pid, signal.SIGCONT)


def test_a_client_that_comes_while_redis_is_away_comes_again(faulty):
    """It is not refused, which would be for good: it loses its connection, and tries again by itself."""
    token = faulty.new()
    faulty.redis.kill()
    wait_until(lambda: not is_ready(faulty), "Redis is gone")
    with NodeListener(faulty, token, reconnectionDelay=100, reconnectionDelayMax=300) as client:
        time.sleep(0.5)
        faulty.redis.start()
        client.expect("connect", after=["connect_error", "disconnect"])
        wait_until(lambda: faulty.go(token).status_code == 200, "it is served")


def test_a_client_of_python_that_comes_while_redis_is_full_comes_again(faulty):
    """Its connection is not closed together with the answer to its CONNECT: it would never try again."""
    token = faulty.new()
    faulty.redis.client.config_set("maxmemory", 1)
    with PythonListener(faulty, token) as client:
        client.expect("connect")
        lost = client.client.eio.ws
        client.expect("disconnect")
        faulty.redis.client.config_set("maxmemory", 0)
        client.expect("connect", after=["disconnect"])
        lost.shutdown()  # which the client leaves open
        wait_until(lambda: faulty.go(token).status_code == 200, "it is served")


def test_a_client_that_left_before_it_was_attached_replaces_no_client(faulty):
    """The relay waited for Redis meanwhile. The client may be the same one, which has connected again elsewhere."""
    token = faulty.new()
    with PythonListener(faulty.other, token) as client:
        client.expect("connect")
        with WebSocket(faulty) as ghost:
            faulty.redis.client.execute_command("CLIENT", "PAUSE", int(TIMEOUT_SECONDS * 700), "ALL")
            ghost.send(f"40/{token},")
        wait_until(lambda: faulty.redis.client.ping(), "Redis goes on")
        for server in (faulty, faulty.other):
            wait_until(lambda server=server: server.go(token).status_code == 200, "it is served")
            client.expect("request")


def test_a_full_redis_refuses_and_loses_nothing(faulty):
    """503; what was accepted stays, and then there is room again."""
    made = faulty.new_with_secret(mailbox=True)
    accepted = [faulty.go(made["token"]).json()["id"]]
    redis = faulty.redis.client
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 200_000)
    statuses = []
    for _ in range(20):
        answer = faulty.go(made["token"], data=os.urandom(50_000))
        statuses.append(answer.status_code)
        accepted += [answer.json()["id"]] if answer.status_code == 202 else []
    assert set(statuses) == {202, 503}
    time.sleep(LEASE_SECONDS + 0.5)
    assert len(redis.keys("s2m:lease:*")) == 2  # who is there stays there
    redis.config_set("maxmemory", 0)
    accepted.append(faulty.go(made["token"]).json()["id"])
    assert events(faulty, made)["waiting"] == accepted


def test_events_of_a_process_that_is_killed_go_on_at_another(faulty):
    """With their ids and their attempts: what it was sending is sent again, the rest follows."""
    made = faulty.new_with_secret(mailbox=True)
    kept = [faulty.go(made["token"]).json()["id"] for _ in range(3)]
    with Acknowledging(faulty, made["token"], secret=made["secret"]) as client:
        assert client.event()[1]["id"] == kept[0]
        time.sleep(0.2)
        os.killpg(faulty.process.pid, signal.SIGKILL)
        with Acknowledging(faulty.other, made["token"], secret=made["secret"]) as client:
            got = []
            for _ in range(3):
                ack_id, request = client.event()
                got.append((request["id"], request["attempt"]))
                client.acknowledge(ack_id)
    assert got == [(kept[0], 2), (kept[1], 1), (kept[2], 1)]


def test_a_stop_answers_who_waits_for_a_client_that_does_not_come(faulty):
    """Held before, held meanwhile, or for a mailbox: each receives an answer, and the process ends by itself."""
    token, made = faulty.new(), faulty.new_with_secret(mailbox=True)
    with Server(STORE_URL=faulty.redis.url, HOLD_SECONDS=6) as server:
        callers = [Caller(server, token)]
        wait_until(lambda: faulty.redis.client.exists(f"s2m:waiting:{token}"), "it is held")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.3)
        callers += [Caller(server, token), Caller(server, made["token"])]
        assert [caller.answer.status_code for caller in callers] == [503, 503, 202]
        stopping.join()
        assert "Worker exiting" in server.log


def test_events_are_known_while_their_process_is_dead(faulty):
    """It was killed: what it was sending waits, and a caller does not wait for it."""
    made = faulty.new_with_secret(mailbox=True)
    with Acknowledging(faulty, made["token"], secret=made["secret"]) as client:
        caller = Caller(faulty, made["token"])
        event_id = client.event()[1]["id"]
        os.killpg(faulty.process.pid, signal.SIGKILL)
        assert caller.answer.status_code == 202
        assert events(faulty.other, made)["waiting"] == [event_id]
        caller = Caller(faulty, made["token"])
        assert (caller.answer.status_code, caller.seconds < 1) == (202, True)


def test_an_event_whose_notification_was_lost_is_delivered(faulty):
    """Its process was cut off for a moment, and looks when it is back."""
    made = faulty.new_with_secret(mailbox=True)
    with Acknowledging(faulty, made["token"], secret=made["secret"]) as client:
        wait_until(lambda: faulty.redis.client.hexists(f"s2m:token:{made['token']}", "client"), "it is there")
        os.kill(faulty.worker_pid, signal.SIGSTOP)
        faulty.redis.client.client_kill_filter(_type="pubsub", skipme=True)
        kept = []
        wait_until(lambda: kept.append(faulty.go(made["token"])) or kept[-1].status_code == 202, "it is kept")
        os.kill(faulty.worker_pid, signal.SIGCONT)
        ack_id, request = client.event()
        assert request["id"] == kept[-1].json()["id"]
        client.acknowledge(ack_id)
        wait_until(lambda: not any(events(faulty, made).values()), "it is acknowledged")


def test_deliveries_go_on_as_soon_as_redis_is_back(faulty):
    """An acknowledgement came while it was away; the next event does not wait for a redelivery."""
    made = faulty.new_with_secret(mailbox=True)
    for _ in range(2):
        assert faulty.go(made["token"]).status_code == 202
    with Acknowledging(faulty, made["token"], secret=made["secret"]) as client:
        ack_id, first = client.event()
        faulty.redis.kill()
        client.acknowledge(ack_id)
        time.sleep(0.3)
        faulty.redis.start()
        ack_id, second = client.event()  # within 15 s; REDELIVER_SECONDS are 30
        assert first["id"] != second["id"]
        client.acknowledge(ack_id)
        wait_until(lambda: not any(events(faulty, made).values()), "all are acknowledged")


def test_a_client_that_left_while_redis_was_away_is_found_out(faulty):
    """A caller waits for it once at most."""
    made = faulty.new_with_secret(mailbox=True)
    with Acknowledging(faulty, made["token"], secret=made["secret"]):
        wait_until(lambda: faulty.redis.client.hexists(f"s2m:token:{made['token']}", "client"), "it is there")
        faulty.redis.kill()
        wait_until(lambda: not is_ready(faulty), "Redis is gone")
    time.sleep(0.2)
    faulty.redis.start()
    wait_until(lambda: is_ready(faulty) and is_ready(faulty.other), "both are ready")
    callers = [Caller(faulty, made["token"]), Caller(faulty, made["token"])]
    for caller in callers:
        assert (caller.answer.status_code, caller.seconds < 2) == (202, True)


def test_a_redis_that_became_a_replica_is_not_written_to(faulty):
    """It answers, and takes nothing: 503 until it is a primary again, said once."""
    faulty.redis.client.replicaof("127.0.0.1", 1)
    wait_until(lambda: not is_ready(faulty), "it is noticed")
    answer = requests.get(f"{faulty.url}/v1/new", timeout=5)
    assert (answer.status_code, error_code(answer)) == (503, "store_unavailable")
    time.sleep(2)
    assert faulty.log.count("does not answer") <= 2
    faulty.redis.client.replicaof("NO", "ONE")
    wait_until(lambda: is_ready(faulty), "it is ready")
    assert faulty.new()


def test_a_process_that_stops_leaves_nothing(faulty):
    """What is on its way is answered, its clients go to another, and Redis knows it no more."""
    made = faulty.new_with_secret(mode="ack")
    with Acknowledging(faulty, made["token"], secret=made["secret"]) as client:
        caller = Caller(faulty, made["token"])
        ack_id, _ = client.event()
        stopping = threading.Thread(target=Server.stop, args=[faulty])
        stopping.start()
        time.sleep(0.3)
        client.acknowledge(ack_id)
        assert caller.answer.text == "OK"
        stopping.join()
    assert len(faulty.redis.client.keys("s2m:lease:*")) == 1
    url = f"{faulty.other.url}/v1/tokens/{made['token']}"
    assert not requests.get(url, headers=bearer(made), timeout=5).json()["connected"]
