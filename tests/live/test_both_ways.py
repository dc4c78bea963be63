"""A call is the same whether the worker forwards it by itself or the blueprint does: one contract, both ways."""

import hashlib
import hmac

import pytest
import requests

from tests.support.raw import Raw
from tests.support.servers import WITH_C_PARSER, HookedServer, PythonListener

SETTINGS = {"HOLD_SECONDS": 0, "REPLY_TIMEOUT_SECONDS": 0.3, "BODY_TIMEOUT_SECONDS": 1, "TRUSTED_PROXY_HOPS": 1}


@pytest.fixture(scope="module", params=["gunicorn", WITH_C_PARSER])
def both(request):
    """Two relays: one whose worker forwards calls, one where a hook of Flask wants to see them."""
    with (
        HookedServer(request.param, **SETTINGS) as direct,
        HookedServer(request.param, HOOKED="1", **SETTINGS) as hooked,
    ):
        yield direct, hooked


@pytest.fixture(scope="module")
def listening(both):
    """For each relay a token and its client."""
    pairs = []
    for server in both:
        token = server.new()
        client = PythonListener(server, token)
        client.expect("connect")
        pairs.append((server, token, client))
    yield pairs
    for _, _, client in pairs:
        client.close()


def head(line, *headers, version="1.1", host="Host: relay.example"):
    return "\r\n".join([f"{line} HTTP/{version}", *([host] if host else []), *headers, "", ""]).encode("latin-1")


MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    b'--x\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n\x00\xff\r\n--x--\r\n'
)

# `{}` is where the token belongs.
FORWARDED = {
    **{method: head(f"{method} /v1/go/{{}}/a?b=c") for method in ("GET", "DELETE", "OPTIONS", "HEAD", "PATCH")},
    "JSON": head("POST /v1/go/{}", "Content-Type: application/json", "Content-Length: 17") + b'{"a": [1, 2.50]}\n',
    "a form": head("PUT /v1/go/{}", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 7")
    + b"a=1&b=2",
    "a multipart form": head(
        "POST /v1/go/{}", "Content-Type: multipart/form-data; boundary=x", f"Content-Length: {len(MULTIPART)}"
    )
    + MULTIPART,
    "bytes": head("POST /v1/go/{}", "Content-Length: 4") + b"\x00\xff\r\n",
    "text": head("POST /v1/go/{}", "Content-Type: text/plain", "Content-Length: 2") + b"hi",
    "chunks": head("POST /v1/go/{}", "Transfer-Encoding: chunked")
    + b"3;a=b\r\nabc\r\n1\r\nd\r\n0\r\nX-T: 1\r\n\r\n",
    "no chunks": head("POST /v1/go/{}", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "an empty body": head("POST /v1/go/{}", "Content-Length: 0"),
    "an odd path": head("GET /v1/go/{}//a/../%2e%2F%0A\xc3\xbc".replace("\xc3\xbc", "%C3%BC")),
    "a slash": head("GET /v1/go/{}/"),
    "an odd query": head("GET /v1/go/{}?a=1&a=2&%00=%ff&token=x&=&&#f"),
    "an absolute target": head("GET http://relay.example/v1/go/{}/a?b"),
    "an encoded prefix": head("GET /%76%31/go/{}/a"),
    "repeated headers": head("GET /v1/go/{}", "X-A: 1", "X-B: 2", "x-a:3", "Cookie: a=1", "Cookie: b=2"),
    "an underscore": head("GET /v1/go/{}", "X_A: 1", "X-A: 2"),
    "high bytes": head("GET /v1/go/{}", "X-A: \xe4\xff"),
    "an empty header": head("GET /v1/go/{}", "X-A:"),
    "an upgrade": head("GET /v1/go/{}", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "forwarded headers": head(
        "GET /v1/go/{}", "X-Forwarded-Host: evil", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https"
    ),
    "Connection: close": head("GET /v1/go/{}", "Connection: close"),
    "HTTP/1.0": head("GET /v1/go/{}", version="1.0"),
    "HTTP/1.0 without a host": head("GET /v1/go/{}", "X-Forwarded-Host: h", version="1.0", host=None),
    "HTTP/1.0 kept alive": head("GET /v1/go/{}", "Connection: keep-alive", version="1.0"),
    "a URL of the originals": head("GET /go/{}/a?b=c"),
}

UNKNOWN = "z" * 24
REFUSED = {
    "an unknown token": head(f"GET /v1/go/{UNKNOWN}"),
    "an unknown token with a body": head(f"POST /v1/go/{UNKNOWN}", "Content-Length: 3") + b"abc",
    "an unknown token, in text": head(f"GET /v1/go/{UNKNOWN}", "Accept: text/plain"),
    "an unknown token, by HEAD": head(f"HEAD /v1/go/{UNKNOWN}"),
    "no token": head("GET /v1/go/"),
    "half a token": head("GET /v1/go/x/y"),
    "no path": head("GET /v1/go"),
    "another path": head("GET /v1/gone/{}"),
    "an encoded separator": head("GET /v1%2Fgo/{}"),
    "another method": head("TRACE /v1/go/{}"),
    "a method that is none": head("BREW /v1/go/{}"),
    "a body that is too large": head("POST /v1/go/{}", "Content-Length: 2048001") + b"x" * 2_048_001,
    "a body that is far too large": head("POST /v1/go/{}", "Content-Length: 20480010"),
    "a body that is late": head("POST /v1/go/{}", "Content-Length: 5") + b"half",
    "chunks that are malformed": head("POST /v1/go/{}", "Transfer-Encoding: chunked") + b"zz\r\n\r\n",
    "a length that is none": head("POST /v1/go/{}", "Content-Length: x"),
    "an unexpected exception": head("POST /v1/go/{}", "X-Explode: 1", "Content-Length: 2") + b"hi",
}


def answer_to(server, request):
    """Return the response: status line, headers without date and id, body; and whether the connection was kept."""
    with Raw(server.port) as raw:
        raw.send(request)
        response = raw.read_until(b"\r\n\r\n").decode("latin-1")
        status, *lines = response.rstrip("\r\n").split("\r\n")
        headers = sorted(line for line in lines if not line.startswith(("Date: ", "X-Request-Id: ")))
        assert len([line for line in lines if line.startswith("X-Request-Id: ")]) == 1
        length = next((int(line.split(": ")[1]) for line in lines if line.startswith("Content-Length")), 0)
        body = b"" if request.startswith(b"HEAD") else raw.read_exactly(length)
        if "Connection: close" in headers:
            return status, headers, body, raw.read_to_end()
        raw.send(head("GET /healthz"))
        return status, headers, body, raw.answer()


def sent(request, token):
    return request.replace(b"{}", token.encode())


def without_what_differs(event, token):
    """Return an event without its id and time, and without the token, which is each relay's own."""
    assert event.pop("request_id") == event.pop("id")
    assert event.pop("received_at")
    assert event["params"].pop("token") == token
    return {name: value.replace(token, "") if name == "url" else value for name, value in event.items()}


@pytest.mark.parametrize("name", FORWARDED)
def test_a_call_is_forwarded_alike(listening, name):
    """Status, headers, body, the connection, and what the client receives."""
    answers, events = [], []
    for server, token, client in listening:
        answers.append(answer_to(server, sent(FORWARDED[name], token)))
        events.append(without_what_differs(client.expect("request"), token))
    assert answers[0][0].endswith(" 200 OK")
    assert answers[0] == answers[1]
    assert events[0] == events[1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_is_refused_alike(listening, name):
    """Status, headers, body, the connection; and no client receives anything."""
    answers = [answer_to(server, sent(REFUSED[name], token)) for server, token, _ in listening]
    assert answers[0][0].split()[1] >= "400"
    assert answers[0] == answers[1]
    for _, _, client in listening:
        client.expect_silence(0)


def test_an_expectation_is_met_on_both_ways(listening):
    """`100 Continue` is sent before a body is waited for; the client receives the body."""
    for server, token, client in listening:
        with Raw(server.port) as raw:
            raw.send(head(f"POST /v1/go/{token}", "Expect: 100-continue", "Content-Length: 2"))
            assert raw.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            raw.send(b"hi")
            assert raw.answer() == (200, b"OK")
        assert client.expect("request")["body"] == b"hi"


def signed(body, *headers):
    """Return a call that GitHub would have signed, its body as it comes over the wire."""
    sent_body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if "Transfer-Encoding: chunked" in headers else body
    length = [] if sent_body is not body else [f"Content-Length: {len(body)}"]
    signature = f"X-Hub-Signature-256: sha256={hmac.new(b's', body, hashlib.sha256).hexdigest()}"
    return head("POST /v1/go/{}/a?b=c", signature, *length, *headers) + sent_body


VERIFIED = {
    "JSON": signed(b'{"a": 1}', "Content-Type: application/json"),
    "bytes": signed(b"\x00\xff\r\n"),
    "chunks": signed(b"\xff chunked", "Transfer-Encoding: chunked"),
    "an empty body": signed(b""),
}
NOT_VERIFIED = {
    "no signature": head("POST /v1/go/{}", "Content-Length: 2") + b"hi",
    "another body": signed(b"hi")[:-1] + b"!",
    "a repeated signature": signed(b"hi").replace(b"X-Hub", b"x-hub-signature-256: sha256=0\r\nX-Hub"),
    "an underscore": signed(b"hi").replace(b"X-Hub-Signature-256", b"X_Hub_Signature_256"),
    "another method": head("GET /v1/go/{}"),
}


def test_calls_are_verified_alike_on_both_ways(both):
    """What is signed arrives with `verified`, whatever its body; all else is one answer, and arrives nowhere."""
    outcomes = []
    for server in both:
        made = server.new_with_secret(verify={"provider": "github", "secrets": ["s"]})
        token, outcome = made["token"], []
        with PythonListener(server, token, auth={"secret": made["secret"]}) as client:
            client.expect("connect")
            for request in VERIFIED.values():
                status, *rest = answer_to(server, sent(request, token))
                assert status == "HTTP/1.1 200 OK"
                event = without_what_differs(client.expect("request"), token)
                assert event["verified"] == {"provider": "github"}
                outcome.append((rest, event))
            refused = [answer_to(server, sent(request, token)) for request in NOT_VERIFIED.values()]
            assert [answer == refused[0] for answer in refused] == [True] * len(refused)
            assert refused[0][0] == "HTTP/1.1 401 Unauthorized"
            client.expect_silence(0)
        outcomes.append([*outcome, refused[0]])
    assert outcomes[0] == outcomes[1]


def test_handshakes_are_answered_alike_on_both_ways(both):
    """With no client connected: a challenge is echoed, with headers under which it is no page."""
    answers = []
    for server in both:
        made = server.new_with_secret(verify={"provider": "dropbox", "secrets": ["s"]})
        answers.append(answer_to(server, head(f"GET /v1/go/{made['token']}?challenge=%3Cb%3E")))
    status, headers, body, _ = answers[0]
    assert (status, body) == ("HTTP/1.1 200 OK", b"<b>")
    assert {"Content-Type: text/plain; charset=utf-8", "X-Content-Type-Options: nosniff"} <= set(headers)
    assert answers[0] == answers[1]


def test_a_token_without_a_client_is_503_on_both_ways(both):
    """With `Retry-After`."""
    answers = [answer_to(server, head(f"GET /v1/go/{server.new()}")) for server in both]
    assert answers[0][0] == "HTTP/1.1 503 Service Unavailable"
    assert "Retry-After: 5" in answers[0][1]
    assert answers[0] == answers[1]


def test_only_one_of_the_two_passes_through_flask(both, listening):
    """The hook saw the calls where there is one, so the comparison compares two ways."""
    direct, hooked = both
    seen = int(requests.get(f"{hooked.url}/hooked", timeout=5).text)
    assert hooked.go(listening[1][1], json=1).text == "OK"
    listening[1][2].expect("request")
    assert int(requests.get(f"{hooked.url}/hooked", timeout=5).text) == seen + 2
    assert requests.get(f"{direct.url}/hooked", timeout=5).status_code == 404


def test_an_unexpected_exception_is_logged_and_says_nothing_to_the_caller(listening):
    """The same JSON on both ways; the traceback is in the log."""
    for server, token, _ in listening:
        answer = server.go(token, headers={"X-Explode": "1"})
        assert answer.status_code == 500
        assert answer.json() == {"error": {"code": "internal_error", "message": "The relay failed."}}
        assert "RuntimeError: the secret inside" in server.log


REPLIES = [
    [204],
    [304, None, {"ETag": '"x"'}],
    [205],
    [200, ""],
    [201, {"a": [1, "b"]}],
    [200, "text", {"Content-Type": "text/xml", "X-A": ["1", "2"]}],
    [500, b"\x00\xff"],
    ["only a body"],
    [],
    [99],
]


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("reply", REPLIES, ids=str)
def test_a_reply_is_answered_alike(both, reply, method):
    """Status, headers, framing, body, and whether the connection is kept."""
    answers = []
    for server in both:
        token = server.new()
        with PythonListener(server, token, auth={"mode": "reply"}, replies=[tuple(reply)]) as client:
            client.expect("connect")
            answers.append(answer_to(server, head(f"{method} /v1/go/{token}", "Content-Length: 0")))
            client.expect("request")
    assert answers[0] == answers[1]
