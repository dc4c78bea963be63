"""`socket2me listen --inspect`: what the relay brings and what the local app answers, on this machine."""

import base64
import json
import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests

from tests.support.command import Command, until_attached
from tests.support.event_stream import EventStream
from tests.support.local_app import OK, App, call
from tests.support.servers import BIN, DEADLINE_SECONDS, clean_environment, wait_until

TEAPOT = (
    b"HTTP/1.1 418 Teapot\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: image/x\r\n"
    b"Content-Length: 3\r\n\r\n\x00\xff\n"
)


class Inspected:
    """`socket2me listen --inspect` between a relay and an app, and the API of its inspector."""

    def __init__(self, relay, home, *options):
        self.app = App()
        self.command = Command(
            home, "listen", self.app.url, "--server", relay.url, "--json", "--new", "--inspect", *options
        )
        self.command.expect("terms")
        self.base, self.key = re.fullmatch(
            r"(http://127\.0\.0\.1:\d+)/#token=local&secret=([\w-]{43})", self.command.inspector
        ).groups()
        self.port = int(self.base.rpartition(":")[2])
        relay.giveaways |= {self.key, self.command.url.rpartition("/")[2]}
        until_attached(relay, self.command, home)

    def call(self, method, path, *, key=None, **options):
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        return requests.request(method, self.base + path, headers=headers, timeout=10, **options)

    def get(self, path):
        answer = self.call("GET", f"/v1/tokens/local{path}")
        assert answer.ok, answer.text
        return answer.json()

    def newest(self, path):
        """The newest request of this path, once the app's answer is recorded."""

        def find():
            query = f"/requests?limit=1&filter={path} -status:waiting"
            return self.get(query)["requests"] or None

        wait_until(find, f"{path} is recorded")
        return self.get(f"/requests/{find()[0]['id']}")

    def stream(self):
        return EventStream(SimpleNamespace(port=self.port), {"token": "local", "secret": self.key})

    def replay(self, record, **changes):
        answer = self.call("POST", f"/v1/tokens/local/requests/{record['id']}/replay", json=changes or None)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def close(self):
        self.app.close()
        return self.command.end()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def shared(relay, tmp_path_factory, folder):
    home = tmp_path_factory.mktemp("home")
    inspected = Inspected(relay, home, "0", "--reply", "--parallel", "2", "--only", "/app*", "--save", str(folder))
    yield inspected
    assert inspected.close() == (0, "")


@pytest.fixture
def inspected(shared):
    shared.app.answer = OK
    while not shared.app.received.empty():
        shared.app.received.get()
    return shared


def whats(record):
    return [entry["what"] for entry in record["timeline"]]


def test_a_request_and_the_answer_of_the_app(relay, inspected):
    """The stream has an event for a request and for what the app answered; the request shows both whole."""
    inspected.app.answer = TEAPOT
    body = b'{"b": 12345678901234567890}\x00'
    with inspected.stream() as stream:
        headers = [("Content-Type", "application/json"), ("X-Latin", "\xe9")]
        assert call(relay, inspected.command.url, "/app/a%2f?x=1&x=2", "PUT", headers, body)[0] == 418
        kind, identifier, summary = stream.next()
        assert (kind, summary["id"], summary["path"], summary["status"]) == (
            "request",
            identifier,
            "/app/a%2f",
            None,
        )
        updates = [stream.next()[2] for _ in range(2)]
    assert [update["entry"]["what"] for update in updates] == ["sent", "replied"]
    assert (updates[1]["status"], updates[1]["outcome"]) == (418, "replied")
    record = inspected.newest("/app/a*")
    assert (record["method"], record["query"], record["remote_addr"]) == ("PUT", "x=1&x=2", "127.0.0.1")
    assert ["x-latin", "\xe9"] in record["headers"]
    assert base64.b64decode(record["body"]) == body
    answer = record["response"]
    assert (answer["status"], base64.b64decode(answer["body"])) == (418, b"\x00\xff\n")
    assert [value for name, value in answer["headers"] if name == "Set-Cookie"] == ["a=1", "b=2"]
    assert record["ms"] > 0
    assert [(entry["what"], entry["detail"]) for entry in record["timeline"]] == [
        ("received", "by the relay"),
        ("sent", f"{inspected.app.url}/app/a%2f?x=1&x=2"),
        ("replied", "418 I'm a Teapot"),
    ]
    raw = inspected.call("GET", f"/v1/tokens/local/requests/{record['id']}/body")
    assert (raw.content, raw.headers["X-Content-Type-Options"]) == (body, "nosniff")
    har = inspected.get("/requests.har?filter=/app/a*")
    assert har["log"]["entries"][0]["request"]["url"] == f"{inspected.command.url}/app/a%2f?x=1&x=2"


def test_a_replay_reaches_the_app(relay, inspected, folder):
    """As it was, byte for byte, or with what was changed and nothing else; it is printed and saved as any."""
    body = b"\x00\xff\r\n"
    call(relay, inspected.command.url, "/app/again?x=1", "POST", [("X-Mine", "1")], body)
    first = inspected.app.expect()
    record = inspected.newest("/app/again")

    again = inspected.replay(record)
    second = inspected.app.expect()
    assert (second.line, sorted(second.headers), second.body) == (first.line, sorted(first.headers), body)
    assert inspected.get(f"/requests/{again}")["replay_of"] == record["id"]
    wait_until(lambda: any(again in line for line in inspected.command.printed), "it is printed")

    inspected.app.answer = TEAPOT
    edited = inspected.replay(record, method="PATCH", path="/app/edited", query="", text="é")
    third = inspected.app.expect()
    assert (third.line, third.body) == ("PATCH /app/edited HTTP/1.1", "é".encode())
    assert third.by_name["x-mine"] == "1" and third.by_name["content-length"] == "2"
    found = inspected.newest("/app/edited")
    assert (found["id"], found["status"], found["timeline"][0]["detail"]) == (edited, 418, "as a replay")
    assert any(edited in path.name for path in folder.iterdir())


def test_an_app_that_does_not_answer(relay, inspected):
    """A request that was not answered says why, and what came of it when it was sent again; a replay too."""
    answers = iter([None, OK, None])
    inspected.app.answer = lambda received: next(answers)
    assert call(relay, inspected.command.url, "/app/late")[0] == 202
    wait_until(lambda: "replied" in whats(inspected.newest("/app/late")), "it came again")
    record = inspected.newest("/app/late")
    assert whats(record) == ["received", "sent", "refused", "redelivered", "sent", "replied"]
    assert record["timeline"][2]["detail"].endswith("The request comes again.")
    assert record["timeline"][3]["detail"] == "attempt 2"
    assert record["status"] == 200
    inspected.replay(record, path="/app/late-replay")
    record = inspected.newest("/app/late-replay")
    assert (record["status"], record["outcome"], record["response"]) == (502, "refused", None)
    assert record["timeline"][-1]["detail"].endswith("It was a replay.")


def test_what_only_leaves_out(relay, inspected):
    """A request that `--only` does not name is shown, with that reason, and was not sent to the app."""
    assert call(relay, inspected.command.url, "/other")[0] == 404
    record = inspected.newest("/other")
    assert (record["status"], whats(record)) == (404, ["received", "refused"])
    assert record["timeline"][-1]["detail"] == "not forwarded: --only does not name it"
    assert inspected.app.received.empty()


def test_many_requests_at_once(relay, inspected):
    """Each of them is recorded once, with its own answer."""

    def answer(received):
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(received.body), received.body)

    inspected.app.answer = answer
    numbers = range(40)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda n: call(relay, inspected.command.url, f"/app/many/{n}", body=b"%d" % n)[2], numbers)
        assert list(found) == [b"%d" % n for n in numbers]
    wait_until(
        lambda: len(inspected.get("/requests?filter=/app/many/* status:200")["requests"]) == 40, "all are there"
    )
    for summary in inspected.get("/requests?filter=/app/many/*")["requests"]:
        record = inspected.get(f"/requests/{summary['id']}")
        assert record["path"] == "/app/many/" + base64.b64decode(record["response"]["body"]).decode()


def test_requests_are_deleted(relay, inspected):
    """One, or all of them, from the history only."""
    call(relay, inspected.command.url, "/app/gone")
    record = inspected.newest("/app/gone")
    assert inspected.call("DELETE", f"/v1/tokens/local/requests/{record['id']}").status_code == 204
    missing = inspected.call("GET", f"/v1/tokens/local/requests/{record['id']}")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_request")
    assert inspected.call("DELETE", "/v1/tokens/local/requests").status_code == 204
    assert inspected.get("/requests")["requests"] == []


def test_who_may_ask(inspected):
    """Only with the key, under a name of this machine, and no page of another origin."""
    list_ = "/v1/tokens/local/requests"
    own = f"http://localhost:{inspected.port}"
    cases = [
        (list_, {}, 200),
        (list_, {"Host": f"localhost:{inspected.port}", "Origin": own}, 200),
        (list_, {"Authorization": ""}, 401),
        (list_, {"Authorization": inspected.key}, 401),
        (list_, {"Authorization": f"Bearer {inspected.key[:-1]}"}, 401),
        (list_, {"Authorization": "Bearer \xe9"}, 401),
        ("/v1/tokens/local", {"Authorization": ""}, 401),
        ("/v1/tokens/local/nothing", {"Authorization": ""}, 401),
        ("/v1/tokens/local/nothing", {}, 404),
        ("/v1/tokens/locals/requests", {}, 404),
        (f"/v1/tokens/{inspected.key}/requests", {}, 404),
        (list_, {"Host": "evil.example"}, 421),
        (list_, {"Host": f"evil.example:{inspected.port}"}, 421),
        (list_, {"Host": "127.0.0.1"}, 421),
        ("/", {"Host": f"evil.example:{inspected.port}"}, 421),
        (list_, {"Origin": "https://evil.example"}, 403),
        (list_, {"Origin": "null"}, 403),
        (list_, {"Origin": "http://127.0.0.1:1"}, 403),
        ("/", {"Origin": "https://evil.example"}, 403),
    ]
    for path, headers, status in cases:
        answer = inspected.call("GET", path, headers=headers)
        assert answer.status_code == status, (path, headers)
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
    assert inspected.call("OPTIONS", list_).status_code == 501
    assert (
        inspected.call("POST", f"{list_}/x/replay", headers={"Origin": "https://evil.example"}).status_code == 403
    )
    for host in ("127.0.0.2", "::1"):
        with pytest.raises(OSError), socket.create_connection((host, inspected.port), 1):
            pass


def test_the_page_and_what_it_asks_first(inspected):
    """The page comes as from a relay: nothing else runs in it, and a file is not sent twice."""
    page = inspected.call("GET", "/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    script = inspected.call("GET", "/static/inspector/views/body.js")
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    for answer in (page, script):
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert answer.headers["X-Frame-Options"] == "DENY"
        again = inspected.call("GET", answer.request.path_url, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    kind = inspected.call("GET", "/inspector.json").json()
    assert (kind["kind"], kind["replay"]) == ("client", ["client"])
    for path in (
        "/static/inspector/../record.py",
        "/static/inspector/%2e%2e/record.py",
        "/static/inspector/",
        "/x",
    ):
        assert inspected.call("GET", path).status_code == 404
    status = inspected.get("")
    assert (status["url"], status["target"], status["inspect"]) == (inspected.command.url, inspected.app.url, True)
    assert (status["connected"], status["mailbox"], status["mode"]) == (True, True, "reply")


def test_a_port_that_is_taken(tmp_path):
    """A port that was named and is taken, or is none, ends the command with status 2 and the reason."""
    environment = {**clean_environment(), "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for given, reason in ((port, f"cannot have port {port}: Address already in use"), ("x", "'x' is no port")):
            command = [BIN / "socket2me", "listen", "3000", "--server", "127.0.0.1:1", "--inspect", given]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS
            )
            assert (done.returncode, reason in done.stderr) == (2, True), done.stderr


def test_without_a_port_the_next_free_one_is_taken(relay, tmp_path):
    """It begins with 4040. The key is printed once and in no other line, and Ctrl-C ends a stream too."""
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 4040))
            taken.listen()
        except OSError:
            pass  # it is taken already
        inspected = Inspected(relay, tmp_path)
        assert 4041 <= inspected.port < 4050
        call(relay, inspected.command.url, "/x")
        inspected.newest("/x")
        assert inspected.call("GET", f"/v1/tokens/local?secret={inspected.key}", key="wrong").status_code == 401
        with inspected.stream() as stream:
            inspected.command.process.send_signal(signal.SIGINT)
            assert stream.next() is None
        assert inspected.close() == (0, "")
        named = [line for line in inspected.command.printed if inspected.key in line]
        assert [json.loads(line)["event"] for line in named] == ["inspector"]
