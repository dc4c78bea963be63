"""The inspector's HTTP contract over real connections: memory, a file, and two processes on Redis."""

import hmac
import json
import time
from base64 import b64decode, b64encode
from contextlib import ExitStack

import pytest
import requests

from socket2me.inspector.stream import COMMENT_SECONDS
from tests.support.delivery import Acknowledging, Caller, bearer, error_code
from tests.support.event_stream import EventStream
from tests.support.redis_server import Redis
from tests.support.servers import Pair, PythonListener, Server, WebSocket, wait_until

ANY_BYTES = bytes(range(256)) * 4
STREAMS_PER_TOKEN = 3


@pytest.fixture(scope="module", params=["gunicorn", "flask", "redis"])
def server(request, tmp_path_factory):
    settings = {
        "HOLD_SECONDS": 0.5,
        "ACK_TIMEOUT_SECONDS": 0.5,
        "REDELIVER_SECONDS": 0.3,
        "MAX_ATTEMPTS": 2,
        "MAX_INSPECTOR_STREAMS_PER_TOKEN": STREAMS_PER_TOKEN,
    }
    if request.param == "redis":
        with Redis() as redis, Pair(redis.url, **settings) as server:
            yield server
    elif request.param == "flask":
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/relay.db"
        with Server("flask", STORE_URL=url, **settings) as server:
            yield server
    else:
        with Server(**settings) as server:
            yield server


def ask(server, made, tail="", method="GET", **kwargs):
    url = f"{server.url}/v1/tokens/{made['token']}/requests{tail}"
    return requests.request(method, url, headers=bearer(made), timeout=15, **kwargs)


def listed(server, made, **query):
    answer = ask(server, made, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["requests"]


def answered(server, made, count=1):
    """Return the newest requests, once so many are there and their callers were answered."""

    def found():
        requests = listed(server, made)
        return len(requests) >= count and all(each["status"] is not None for each in requests) and requests

    return wait_until(found, f"{count} requests are in the history")


def steps(server, made, request_id):
    return [entry["what"] for entry in ask(server, made, f"/{request_id}").json()["timeline"]]


def test_what_came_is_shown_as_it_came(server):
    """The list, the request whole, and the exact bytes of its body as nothing that a browser renders."""
    made = server.new_with_secret(inspect=True)
    own = requests.get(f"{server.url}/v1/tokens/{made['token']}", headers=bearer(made), timeout=5).json()
    assert own["inspect"] is True
    with PythonListener(server, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        headers = {"Content-Type": "image/png", "X-Sig": "gr\xfc\xdfe"}
        assert (
            server.go(made["token"], "PUT", "/a%20b?x=1&y=%20", data=ANY_BYTES, headers=headers).status_code == 200
        )
        event = client.expect("request")
        (summary,) = answered(server, made)
    assert summary.pop("ms") > 0
    assert summary == {
        "id": event["id"],
        "received_at": event["received_at"],
        "method": "PUT",
        "path": "/a%20b",
        "query": "x=1&y=%20",
        "content_type": "image/png",
        "size": len(ANY_BYTES),
        "remote_addr": "127.0.0.1",
        "status": 200,
        "outcome": "sent",
    }
    whole = ask(server, made, f"/{event['id']}").json()
    assert b64decode(whole["body"]) == ANY_BYTES
    assert dict(whole["headers"])["x-sig"] == "gr\xfc\xdfe"
    assert [entry["what"] for entry in whole["timeline"]] == ["received", "sent", "replied"]
    assert (whole["response"]["status"], b64decode(whole["response"]["body"])) == (200, b"OK")
    body = ask(server, made, f"/{event['id']}/body")
    assert body.content == ANY_BYTES
    assert body.headers["Content-Type"] == "application/octet-stream"
    assert body.headers["Content-Disposition"].startswith("attachment")
    assert body.headers["X-Content-Type-Options"] == "nosniff"
    assert body.headers["Cache-Control"] == "no-store"


def test_a_refused_call_is_in_the_history(server):
    """With what its caller was answered, and what it waited for."""
    made = server.new_with_secret(inspect=True)
    answer = server.go(made["token"], tail="/x", json=1)
    assert answer.status_code == 503
    (summary,) = answered(server, made)
    assert (summary["status"], summary["outcome"]) == (503, "refused")
    whole = ask(server, made, f"/{summary['id']}").json()
    assert [entry["what"] for entry in whole["timeline"]] == ["received", "queued", "refused"]
    assert whole["timeline"][-1]["detail"] == "503 nobody_connected"
    assert json.loads(b64decode(whole["response"]["body"])) == answer.json()
    assert dict(whole["response"]["headers"])["Retry-After"] == answer.headers["Retry-After"]


def test_a_call_that_waits_is_shown_as_such(server):
    """Before its client acknowledges it, status and outcome are null; then they are what the caller receives."""
    made = server.new_with_secret(inspect=True, mode="reply")
    with Acknowledging(server, made["token"], secret=made["secret"]) as client, EventStream(server, made) as stream:
        caller = Caller(server, made["token"], json="hello")
        ack_id, event = client.event()
        kind, event_id, summary = stream.next()
        assert (kind, event_id, summary["id"]) == ("request", event["id"], event["id"])
        assert summary["status"] is summary["outcome"] is summary["ms"] is None
        assert stream.next()[2]["entry"]["what"] == "sent"
        client.acknowledge(ack_id, 418, "teapot")
        assert caller.answer.status_code == 418
        assert stream.next()[2]["entry"]["what"] == "acknowledged"
        kind, event_id, update = stream.next()
    assert kind == "update" and event_id.startswith(f"{event['id']}@")
    assert update["entry"]["what"] == "replied" and update["status"] == 418 and update["outcome"] == "replied"
    assert b64decode(ask(server, made, f"/{event['id']}").json()["response"]["body"]) == b"teapot"


def test_a_stream_that_was_cut_goes_on_without_gap_or_duplicate(server):
    """After any event, by `Last-Event-ID` or `after`; from the beginning; and only what a filter asks for."""
    made = server.new_with_secret(inspect=True)
    with EventStream(server, made) as stream, WebSocket(server) as client:
        client.send(f'40/{made["token"]},{{"secret": "{made["secret"]}"}}')
        client.receive()
        for number in range(3):
            server.go(made["token"], tail=f"/{number}", data=b"x")
        seen = [stream.next() for _ in range(9)]
    assert [(kind, data.get("path") or data["entry"]["what"]) for kind, _, data in seen] == [
        event
        for number in range(3)
        for event in (("request", f"/{number}"), ("update", "sent"), ("update", "replied"))
    ]
    for number, (_, event_id, _) in enumerate(seen[:-1]):
        options = {"last_event_id": event_id} if number % 2 else {"after": event_id}
        with EventStream(server, made, **options) as stream:
            assert stream.next() == seen[number + 1], number
    with EventStream(server, made, after="", filter="/2") as stream:
        assert stream.next()[2]["path"] == "/2"
    for unknown in ("nothing", f"{seen[0][2]['id']}@999999999", f"{seen[0][2]['id']}@x"):
        with EventStream(server, made, last_event_id=unknown) as stream:
            assert stream.next()[0] == "reset"


def test_only_a_replay_that_is_not_edited_is_verified(server):
    """So that the client signs it again; no caller of the relay can have what it edits taken for the provider's."""
    made = server.new_with_secret(inspect=True, verify={"provider": "github", "secrets": ["a secret"]})
    sha256 = hmac.new(b"a secret", b"{}", "sha256").hexdigest()
    with PythonListener(server, made["token"], auth={"secret": made["secret"]}) as client:
        client.expect("connect")
        server.go(made["token"], data=b"{}", headers={"X-Hub-Signature-256": f"sha256={sha256}"})
        first = client.expect("request")
        answered(server, made)
        ask(server, made, f"/{first['id']}/replay", "POST")
        again = client.expect("request")
        ask(server, made, f"/{first['id']}/replay", "POST", json={"text": "[]"})
        edited = client.expect("request")
    assert first["verified"] == again["verified"] == {"provider": "github"}
    assert again["replay_of"] == edited["replay_of"] == first["id"]
    assert "verified" not in edited


def test_a_replay_goes_the_way_of_any_call(server):
    """As it was, and edited: the client receives it with `replay_of`, and so it is in the history."""
    made = server.new_with_secret(inspect=True)
    with PythonListener(server, made["token"], auth={"secret": made["secret"], "body": "raw"}) as client:
        client.expect("connect")
        server.go(made["token"], tail="/a?x=1", data=ANY_BYTES, headers={"X-Sig": "s"})
        first = client.expect("request")
        answered(server, made)
        answer = ask(server, made, f"/{first['id']}/replay", "POST")
        assert answer.status_code == 202
        again = client.expect("request")
        assert again["id"] == answer.json()["id"] != first["id"]
        assert again["replay_of"] == first["id"]
        assert (again["body"], again["path"], again["query"], again["headers"]) == (
            ANY_BYTES,
            first["path"],
            first["query"],
            first["headers"],
        )
        changes = {"method": "PATCH", "path": "/b", "query": "", "headers": {"X-New": "1"}}
        changes["body"] = b64encode(b"\x00\xff").decode()
        ask(server, made, f"/{first['id']}/replay", "POST", json=changes)
        edited = client.expect("request")
        assert (edited["method"], edited["path"], edited["query"], edited["body"]) == (
            "PATCH",
            "/b",
            "",
            b"\x00\xff",
        )
        assert edited["headers"] == {"x-new": "1", "content-length": "2"}
        newest, second, original = answered(server, made, 3)
    assert newest["replay_of"] == second["replay_of"] == original["id"] == first["id"]
    assert (newest["status"], newest["outcome"], newest["remote_addr"]) == (200, "sent", "127.0.0.1")
    refused = ask(server, made, f"/{first['id']}/replay", "POST", json={"method": "TRACE"})
    assert (refused.status_code, error_code(refused)) == (400, "bad_request")
    assert ask(server, made, "/nothing/replay", "POST").status_code == 404


def test_lists_are_filtered_paged_and_deleted(server):
    """Newest first, `more` if there is more; a filter that does not parse says where; what is deleted is gone."""
    made = server.new_with_secret(inspect=True)
    with WebSocket(server) as client:
        client.send(f'40/{made["token"]},{{"secret": "{made["secret"]}"}}')
        client.receive()
        for number in range(5):
            server.go(
                made["token"], tail=f"/{number}", json={"n": number, "type": "even" if number % 2 == 0 else "odd"}
            )
        found = answered(server, made, 5)
    assert [each["path"] for each in found] == ["/4", "/3", "/2", "/1", "/0"]
    page = ask(server, made, params={"limit": 2}).json()
    assert [each["path"] for each in page["requests"]] == ["/4", "/3"] and page["more"] is True
    page = ask(server, made, params={"limit": 2, "before": found[2]["id"]}).json()
    assert [each["path"] for each in page["requests"]] == ["/1", "/0"] and page["more"] is False
    even = ask(server, made, params={"filter": "body.$.type:even", "limit": 2}).json()
    assert [each["path"] for each in even["requests"]] == ["/4", "/2"] and even["more"] is True
    assert listed(server, made, filter="POST /3 status:2xx odd -even")[0]["path"] == "/3"
    for query, code in (
        ({"filter": "status:20"}, "bad_filter"),
        ({"limit": "0"}, "bad_request"),
        ({"limit": "x"}, "bad_request"),
    ):
        answer = ask(server, made, params=query)
        assert (answer.status_code, error_code(answer)) == (400, code)
    assert "column 8" in ask(server, made, params={"filter": "status:20"}).json()["error"]["message"]
    har = ask(server, made, ".har").json()["log"]
    assert [json.loads(entry["request"]["postData"]["text"])["n"] for entry in har["entries"]] == list(range(5))
    assert har["entries"][0]["request"]["url"] == f"{server.url}/v1/go/{made['token']}/0"
    assert ask(server, made, f"/{found[0]['id']}", "DELETE").status_code == 204
    assert ask(server, made, f"/{found[0]['id']}").status_code == 404
    assert ask(server, made, f"/{found[0]['id']}/body").status_code == 404
    assert ask(server, made, params={"before": found[0]["id"]}).status_code == 404
    assert ask(server, made, method="DELETE").status_code == 204
    assert listed(server, made) == []
    assert ask(server, made, f"/{found[1]['id']}", "DELETE").status_code == 404


def test_only_the_secret_opens_a_history(server):
    """Another one, or none, is `401`; a token without secret, and an unknown one, the same `404` as ever."""
    made, other = server.new_with_secret(inspect=True), server.new_with_secret(inspect=True)
    plain, off = server.new(), server.new_with_secret()
    server.go(made["token"])
    request_id = answered(server, made)[0]["id"]
    calls = [("GET", ""), ("DELETE", ""), ("GET", ".har"), ("GET", "/stream")]
    calls += [("GET", f"/{request_id}"), ("DELETE", f"/{request_id}"), ("GET", f"/{request_id}/body")]
    calls += [("POST", f"/{request_id}/replay")]
    for method, tail in calls:

        def outcome(token, headers, method=method, tail=tail):
            answer = requests.request(
                method, f"{server.url}/v1/tokens/{token}/requests{tail}", headers=headers, timeout=5
            )
            return answer.status_code, error_code(answer)

        assert outcome(made["token"], {}) == outcome(made["token"], bearer(other)) == (401, "unauthorized")
        assert outcome(plain, {}) == outcome(plain, bearer(made)) == (404, "unknown_token")
        assert outcome("a" * 24, bearer(made)) == outcome("x", {}) == (404, "unknown_token")
        assert outcome(off["token"], bearer(off)) == (404, "no_history")
        if request_id in tail:
            assert outcome(other["token"], bearer(other)) == (404, "unknown_request")
    assert [each["id"] for each in listed(server, made)] == [request_id]


def test_streams_are_bounded_and_end_with_their_token(server):
    """One beyond the bound is `429`; a reader that leaves frees its place; a deleted token ends all."""
    made = server.new_with_secret(inspect=True)
    with ExitStack() as stack:
        streams = [stack.enter_context(EventStream(server, made)) for _ in range(STREAMS_PER_TOKEN)]
        with EventStream(server, made) as refused:
            assert refused.status == 429
        streams.pop().close()
        streams.append(wait_until(lambda: opened(stack, server, made), "a place is free"))
        requests.delete(f"{server.url}/v1/tokens/{made['token']}", headers=bearer(made), timeout=5)
        assert [stream.next() for stream in streams] == [None] * len(streams)


def opened(stack, server, made):
    stream = stack.enter_context(EventStream(server, made))
    return stream if stream.status == 200 else None


def test_the_page_and_what_it_asks_first(server):
    """Programs get JSON or text at `/`; the page's files come with headers that let nothing else run."""
    about = requests.get(server.url, timeout=5)
    assert about.json()["name"] == "socket2me"
    text = requests.get(server.url, headers={"Accept": "text/plain"}, timeout=5)
    assert text.headers["Content-Type"].startswith("text/plain") and "/v1/new" in text.text
    kind = requests.get(f"{server.url}/inspector.json", timeout=5).json()
    assert (kind["kind"], kind["replay"]) == ("relay", ["relay"])
    for path in ("../record.py", "%2e%2e/record.py", "nothing.js", "", "/etc/passwd"):
        assert requests.get(f"{server.url}/static/inspector/{path}", timeout=5).status_code == 404


@pytest.mark.parametrize("has_client", [True, False])
def test_an_event_of_a_mailbox_has_its_whole_life_in_its_timeline(server, has_client):
    """Kept, sent, sent again, and given up or acknowledged long after its caller was answered `202`."""
    if not keeps_mailboxes(server):
        pytest.skip("memory has no mailboxes")
    made = server.new_with_secret(inspect=True, mailbox=True)
    if not has_client:
        answer = server.go(made["token"], json=1)
        assert answer.status_code == 202
        (summary,) = answered(server, made)
        assert (summary["id"], summary["outcome"]) == (answer.json()["id"], "kept")
        assert steps(server, made, summary["id"]) == ["received", "queued", "kept"]
    with Acknowledging(server, made["token"], secret=made["secret"]) as client:
        if has_client:
            assert server.go(made["token"], json=1).status_code == 202
        client.event()
        ack_id, event = client.event()
        assert event["attempt"] == 2
        if has_client:
            expected = {"received", "queued", "sent", "kept", "redelivered", "dead_lettered"}
        else:
            client.acknowledge(ack_id)
            expected = {"received", "queued", "sent", "kept", "redelivered", "acknowledged"}
        wait_until(lambda: set(steps(server, made, event["id"])) == expected, "the timeline is complete")
        (summary,) = listed(server, made)
        assert summary["status"] == 202
        assert summary["outcome"] == ("dead_lettered" if has_client else "acknowledged")


def keeps_mailboxes(server):
    return requests.post(f"{server.url}/v1/new", json={"mailbox": True}, timeout=5).status_code == 201


def test_without_inspect_nothing_is_kept(server):
    """A history is made for who asks for it, and for no other token."""
    made = server.new_with_secret()
    own = requests.get(f"{server.url}/v1/tokens/{made['token']}", headers=bearer(made), timeout=5).json()
    assert own["inspect"] is False
    answer = requests.post(f"{server.url}/v1/new", json={"inspect": 1}, timeout=5)
    assert answer.status_code == 400


def test_a_stream_shows_what_comes_to_any_process(server):
    """Streams at both relays of a cluster show each call at once, not with the next comment."""
    if not isinstance(server, Pair):
        pytest.skip("a single process")
    made = server.new_with_secret(inspect=True)
    with EventStream(server, made) as here, EventStream(server.other, made) as there, WebSocket(server) as client:
        client.send(f'40/{made["token"]},{{"secret": "{made["secret"]}"}}')
        client.receive()
        started = time.monotonic()
        for number in range(3):
            server.go(made["token"], tail=f"/{number}")
            for stream in (here, there):
                kind, _, data = stream.next()
                assert (kind, data["path"]) == ("request", f"/{number}")
                assert [stream.next()[2]["entry"]["what"] for _ in range(2)] == ["sent", "replied"]
        assert time.monotonic() - started < COMMENT_SECONDS
    assert len(listed(server.other, made)) == 3
