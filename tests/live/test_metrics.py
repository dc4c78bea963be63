"""`/metrics`: what is counted of real calls and clients, on both ways that a call can take."""

import random
import re
import shutil
import string
import subprocess
from pathlib import Path

import pytest
import requests

from socket2me_flask.http.answers import OUTCOMES
from tests.support.raw import Raw
from tests.support.servers import ROOT, HookedServer, PythonListener, WebSocket, wait_until

KEY = "key-of-the-metrics"
SETTINGS = {
    "METRICS_KEY": KEY,
    "HOLD_SECONDS": 0,
    "ACK_TIMEOUT_SECONDS": 0.2,
    "MAX_BODY_BYTES": 100,
    "RATE_LIMIT_REQUESTS": "20/minute",
}


@pytest.fixture(scope="module", params=["", "1"], ids=["accelerated", "blueprint"])
def server(request, tmp_path_factory):
    """A relay with mailboxes. With a hook of Flask, its calls take the blueprint."""
    store = f"sqlite:///{tmp_path_factory.mktemp('metrics') / 'relay.db'}"
    with HookedServer(STORE_URL=store, HOOKED=request.param, **SETTINGS) as server:
        yield server


def scrape(server):
    answer = requests.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return answer.text


def samples(text):
    """Return the value of each series."""
    found = re.findall(r"^(\w+(?:\{[^\n]*\})?) (\S+)$", text, re.MULTILINE)
    return {series: float(value) for series, value in found}


def changes(before, after):
    """Return by how much the counters of the relay grew, of those that did."""
    return {
        series: after[series] - value
        for series, value in before.items()
        if series.startswith("socket2me_") and "_total" in series and after[series] != value
    }


def outcome(server, do):
    """Return the one outcome that counted the call that `do` makes."""
    before = samples(scrape(server))
    do()
    grown = changes(before, samples(scrape(server)))
    calls = {series: by for series, by in grown.items() if series.startswith("socket2me_calls_total")}
    ((series, by),) = calls.items()
    assert by == 1
    return re.fullmatch(r'socket2me_calls_total\{outcome="(\w+)"\}', series)[1]


def test_only_who_has_the_key_reads_the_metrics(server):
    """Another key, none, or another scheme is 401, and says nothing."""
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {KEY}"}):
        answer = requests.get(f"{server.url}/metrics", headers=headers, timeout=5)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "socket2me_" not in answer.text
    server.giveaways.add(KEY)


def test_each_call_is_counted_once_by_its_outcome(server):
    """Every outcome is reached by a real call, but for `draining`, and the histograms have as many calls."""
    token, unheard = server.new(), server.new()
    assert outcome(server, lambda: server.go("z" * 24)) == "unknown_token"
    assert outcome(server, lambda: server.go("no token")) == "unknown_token"
    assert outcome(server, lambda: server.go(unheard)) == "no_client"
    with PythonListener(server, token) as client:
        client.expect("connect")
        assert outcome(server, lambda: server.go(token, data="x")) == "forwarded"
        assert outcome(server, lambda: server.go(token, data="x" * 101)) == "too_large"
    limited = server.new()
    for _ in range(20):
        server.go(limited)
    assert outcome(server, lambda: server.go(limited)) == "rate_limited"
    replies = [None, ("reject", "no")]
    with PythonListener(server, token, auth={"mode": "ack"}, replies=replies) as client:
        client.expect("connect")
        assert outcome(server, lambda: server.go(token)) == "acknowledged"
        assert outcome(server, lambda: server.go(token)) == "replied"
    with PythonListener(server, token, auth={"mode": "reply"}, replies=[(201, "made"), (99,)]) as client:
        client.expect("connect")
        assert outcome(server, lambda: server.go(token)) == "replied"
        assert outcome(server, lambda: server.go(token)) == "error"
    with WebSocket(server) as silent:
        silent.send(f'40/{token},{{"mode":"ack"}}')
        assert silent.receive().startswith(f"40/{token}")
        assert outcome(server, lambda: server.go(token)) == "timed_out"
    kept = server.new_with_secret(mode="ack", mailbox=True)["token"]
    assert outcome(server, lambda: server.go(kept)) == "kept"
    found = samples(scrape(server))
    calls = sum(value for series, value in found.items() if series.startswith("socket2me_calls_total"))
    assert found["socket2me_call_seconds_count"] == found['socket2me_call_seconds_bucket{le="+Inf"}'] == calls
    assert 0 < found["socket2me_call_seconds_sum"]
    assert found["socket2me_ack_seconds_count"] == 4  # of a client that rejects, or replies nonsense, too
    assert found["socket2me_mailbox_events"] == 1
    assert found["socket2me_mailbox_bytes"] > 0
    assert found["socket2me_oldest_waiting_event_age_seconds"] > 0


def test_a_client_that_leaves_before_it_acknowledges(server):
    """The call counts as `client_gone`, and the disconnect by its reason."""
    token = server.new()

    def call_and_leave():
        with Raw(server.port) as caller, WebSocket(server) as client:
            client.send(f'40/{token},{{"mode":"ack"}}')
            assert client.receive().startswith(f"40/{token}")
            caller.send(f"GET /v1/go/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert "request" in client.receive()
            client.send(f"41/{token},")
            assert caller.answer()[0] == 503

    assert outcome(server, call_and_leave) == "client_gone"


def test_connects_and_disconnects_are_counted(server):
    """By version of Engine.IO and result, and by reason; a gauge has those that are there."""
    token = server.new()
    secret = server.new_with_secret()["token"]
    before = samples(scrape(server))

    def total(name, **labels):
        series = f"socket2me_{name}{{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"
        found = samples(scrape(server))
        return found[series] - before[series]

    with WebSocket(server, token) as first:
        for namespace, auth, code in (
            ("z" * 24, "", "unknown_token"),
            (secret, '{"secret":"s2m_wrong"}', "unauthorized"),
            (token, '{"mode":"none"}', "bad_auth"),
        ):
            with WebSocket(server) as refused:
                refused.send(f"40/{namespace},{auth}")
                assert refused.receive().startswith(f"44/{namespace},")
            assert total("connects_total", protocol="4", result=code) == 1
        assert total("connects_total", protocol="4", result="accepted") == 1
        assert samples(scrape(server))["socket2me_clients"] == 1
        with WebSocket(server, token) as second:
            assert first.receive() == f'42/{token},["replaced"]'
            wait_until(lambda: total("disconnects_total", reason="replaced") == 1, "the replaced client is counted")
            second.send("9")
            wait_until(lambda: total("disconnects_total", reason="protocol_error") == 1, "an error is counted")
        with WebSocket(server, token) as third:
            third.socket.close()
        wait_until(lambda: total("disconnects_total", reason="connection_lost") == 1, "a lost one is counted")
        with WebSocket(server, token) as fourth:
            fourth.send("1")
            wait_until(lambda: total("disconnects_total", reason="client") == 1, "one that leaves is counted")
    own = server.new_with_secret()
    with PythonListener(server, own["token"], auth={"secret": own["secret"]}) as client:
        client.expect("connect")
        requests.delete(
            f"{server.url}/v1/tokens/{own['token']}",
            headers={"Authorization": f"Bearer {own['secret']}"},
            timeout=5,
        )
        assert total("disconnects_total", reason="token_ended") == 1
    assert samples(scrape(server))["socket2me_clients"] == 0


def test_no_caller_adds_a_series(server, request):
    """Random tokens, paths, queries and methods add none, and each call is counted: 10,000 of the accelerator's."""
    count = 10_000 if request.node.callspec.id == "accelerated" else 1000
    rng = random.Random(7)
    before = samples(scrape(server))

    def word(length):
        return "".join(rng.choices(string.ascii_lowercase + string.digits, k=length))

    pieces = []
    for number in range(count):
        method = word(5).upper() if number % 10 == 0 else rng.choice(("GET", "DELETE", "PUT"))
        pieces.append(
            f"{method} /v1/go/{word(24)}/{word(6)}?{word(4)}={word(4)} HTTP/1.1\r\nHost: {word(4)}\r\n"
            f"X-Request-Id: {word(9)}\r\n\r\n"
        )
    with Raw(server.port) as raw:
        for at in range(0, len(pieces), 50):
            raw.send("".join(pieces[at : at + 50]).encode())
            for _ in range(50):
                assert raw.answer()[0] in (404, 405)
    after = samples(scrape(server))
    assert after.keys() == before.keys()
    unknown = 'socket2me_calls_total{outcome="unknown_token"}'
    assert 0.8 * count < after[unknown] - before[unknown] <= count


def test_a_limit_that_is_reached_is_counted_by_its_setting(server):
    """Each time, although the log says so once in ten seconds. Limits that were not reached have a series, too."""
    token = server.new()
    series = 'socket2me_limit_reached_total{setting="SOCKET2ME_MAX_BODY_BYTES"}'
    before = samples(scrape(server))
    with PythonListener(server, token) as client:
        client.expect("connect")
        for _ in range(3):
            assert server.go(token, data="x" * 101).status_code == 413
    after = samples(scrape(server))
    assert after[series] - before[series] == 3
    assert after['socket2me_limit_reached_total{setting="SOCKET2ME_MAX_TOKENS"}'] == 0


def test_tokens_are_counted(server):
    """Issued, expired, and those that live."""
    before = samples(scrape(server))
    server.new()
    server.new_with_secret(ttl_seconds=1)
    after = samples(scrape(server))
    assert after["socket2me_tokens_issued_total"] - before["socket2me_tokens_issued_total"] == 2
    assert after["socket2me_tokens"] - before["socket2me_tokens"] == 2


def test_the_page_of_the_metrics_lists_each(server):
    """docs/operations.md has the name and the type of every metric, the outcomes of calls, and no other."""
    exported = dict(re.findall(r"^# TYPE (socket2me_\w+) (\w+)$", scrape(server), re.MULTILINE))
    page = (ROOT / "docs" / "operations.md").read_text()
    listed = re.findall(r"^\| `(socket2me_\w+)(?:\{[^`]*\})?` \| (\w+) \|", page, re.MULTILINE)
    assert dict(listed) == exported
    outcomes = page.partition("| `outcome` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", outcomes, re.MULTILINE)) == set(OUTCOMES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus is not installed: make servers")
def test_promtool_has_nothing_to_say(server):
    """`promtool check metrics` is silent."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(server), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_scrape_costs_little_beside_many_clients(server):
    """Less than 20 ms of CPU, a few times of which 1,000 clients would be, if each of them cost 5 us."""
    tokens = [server.new() for _ in range(10)]
    clients = []
    try:
        for _ in range(30):
            client = WebSocket(server)
            for token in tokens:
                client.send(f"40/{token},")
            clients.append(client)
        for _ in range(3):
            scrape(server)
        before = cpu_seconds(server)
        for _ in range(20):
            scrape(server)
        assert (cpu_seconds(server) - before) / 20 < 0.020
    finally:
        for client in clients:
            client.socket.close()


def cpu_seconds(server):
    threads = Path(f"/proc/{server.worker_pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def test_a_process_that_drains_says_so(tmp_path):
    """It serves its metrics to the end: the gauge is 1, and a call that it refuses counts as `draining`."""
    store = f"sqlite:///{tmp_path / 'relay.db'}"
    with HookedServer(STORE_URL=store, **{**SETTINGS, "ACK_TIMEOUT_SECONDS": 2}) as server:
        token = server.new()
        with Raw(server.port) as scraper, Raw(server.port) as caller, Raw(server.port) as held:
            with WebSocket(server) as client:
                client.send(f'40/{token},{{"mode":"ack"}}')
                assert client.receive().startswith(f"40/{token}")
                held.send(f"GET /v1/go/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert "request" in client.receive()  # for whose acknowledgement the drain waits
                server.process.terminate()
                scrape_again = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()

                def drains():
                    with Raw(server.port) as raw:
                        raw.send(scrape_again)
                        return b"socket2me_draining 1.0" in raw.answer()[1]

                wait_until(drains, "the process drains")
                caller.send(f"GET /v1/go/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert caller.answer()[0] == 503
                scraper.send(scrape_again)
                assert b'socket2me_calls_total{outcome="draining"} 1.0' in scraper.answer()[1]


def test_without_a_key_there_are_no_metrics(http):
    """Not even a hint: the same answer as for any other path."""
    answer, other = http.get("/metrics"), http.get("/nothing")
    assert (answer.status_code, answer.text) == (404, other.text)
