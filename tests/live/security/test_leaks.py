"""What must not leave the relay: tokens in logs and referrers, answers to pages that may not have them."""

from urllib.parse import quote

import pytest
import requests
import websocket

from tests.support.raw import Raw
from tests.support.servers import WITH_C_PARSER, Server, WebSocket, wait_until

PAGE = "https://app.example"


@pytest.fixture(scope="module", params=["gunicorn", WITH_C_PARSER, "flask"])
def server(request):
    with Server(request.param, HOLD_SECONDS=0, LOG_LEVEL="DEBUG") as server:
        yield server


def test_no_log_line_shows_a_token_or_a_secret():
    """With an access log and at the lowest level, for what goes well and what does not. `Server.stop` looks."""
    with Server(LOG_LEVEL="DEBUG", GUNICORN_CMD_ARGS="--access-logfile=- --log-level=debug") as server:
        made, token = server.new_with_secret(), server.new()
        with WebSocket(server, token) as client:
            server.go(token)
            client.send(f'40/{made["token"]},{{"secret":"{made["secret"]}x"}}')
            assert client.receive().startswith("42/")
            assert client.receive().startswith("44/")
            client.send(f"4{token}")
            client.expect_close()
        headers = {"Referer": f"{server.url}/v1/go/{token}", "Authorization": f"Bearer {made['secret']}"}
        for path in (f"refresh/{token}", f"tokens/{made['token']}", f"go/{token}/{made['secret']}?{token}", token):
            requests.get(f"{server.url}/v1/{path}", headers=headers, timeout=5)
        requests.get(f"{server.url}/socket.io/?%2F{token}&_{token}_", headers={"Origin": "http://["}, timeout=5)
        for request in (f"GET /v1/go/{token} HTTP/9.9\r\n\r\n", f"GET /v1/{token}\r\n\r\n", f"{token}\r\n\r\n"):
            with Raw(server.port) as raw:
                raw.send(request.encode())
                raw.read_to_end()
        with Raw(server.port) as raw:
            raw.send(f"GET /v1/go/{token} HTTP/1.1\r\nHost: x\r\nX{token}( : x\r\n\r\n".encode())
            raw.read_to_end()
        wait_until(lambda: "/v1/go/<token>" in server.log, "the requests are logged")


def test_the_development_server_shows_none_either():
    """It logs every request."""
    with Server("flask") as server:
        token = server.new()
        server.go(token, tail="/path")
        requests.get(f"{server.url}/v1/refresh/{token}", timeout=5)
        wait_until(lambda: "/v1/refresh/<token>" in server.log, "the request is logged")


KEY = "Key/With+Signs==and'quote"


def test_no_log_line_shows_an_api_key():
    """As a key of a good request, in heads that cannot be parsed, and in a URL by mistake. `Server.stop` looks."""
    options = "--access-logfile=- --log-level=debug"
    with Server(LOG_LEVEL="DEBUG", API_KEYS=f"{KEY},short", GUNICORN_CMD_ARGS=options) as server:
        server.giveaways |= {KEY, quote(KEY, safe=""), "short", "Key/With", "With%2BSigns"}
        headers = {"Authorization": f"Bearer {KEY}"}
        assert requests.get(f"{server.url}/v1/new", headers=headers, timeout=5).ok
        for line in (f"Authorization Bearer {KEY}", f"Authorization: Bearer {KEY}\0", f" {KEY}: x", "X short: a"):
            with Raw(server.port) as raw:
                raw.send(f"GET /v1/new HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
                raw.read_to_end()
        for path in (f"/{KEY}", f"/?key={quote(KEY, safe='')}", "/?key=short"):
            requests.get(server.url + path, headers={"User-Agent": KEY}, timeout=5)
        wait_until(lambda: "key=<key>" in server.log, "the requests are logged")


def test_no_log_line_shows_a_token_that_is_percent_encoded():
    """Its first letter, another, or all of them."""
    with Server(LOG_LEVEL="DEBUG", GUNICORN_CMD_ARGS="--access-logfile=-") as server:
        token = server.new()
        server.giveaways |= {token[1:], token[4:]}
        escapes = [f"%{ord(c):02x}" for c in token]
        spelled = [escapes[0] + token[1:], token[:3] + escapes[3] + token[4:], "".join(escapes)]
        server.giveaways.add(spelled[2])
        for number, text in enumerate(spelled):
            requests.get(f"{server.url}/v1/go/{text}?{number}", timeout=5)
        wait_until(lambda: "/v1/go/<token>?2" in server.log, "the requests are logged")


def test_no_error_text_shows_the_token():
    """Whatever went wrong, and whatever followed the token in the URL."""
    with Server(HOLD_SECONDS=0, MAX_BODY_BYTES=10, RATE_LIMIT_REQUESTS="2/hour") as server:
        for tail in ("", "/path", "?query"):
            assert_no_error_shows_the_token(server, tail)


def assert_no_error_shows_the_token(server, tail):
    made, token = server.new_with_secret(), server.new()
    answers = [
        server.go(token, tail=tail),
        server.go(token, tail=tail, data=b"x" * 100),
        server.go(token, method="TRACE", tail=tail),
        server.go(token, tail=tail),
        server.go(token, tail=tail),
        requests.get(f"{server.url}/v1/refresh/{made['token']}", timeout=5),
        requests.get(f"{server.url}/v1/tokens/{token}{tail}", timeout=5),
        requests.get(f"{server.url}/v1/{token}{tail}", timeout=5),
    ]
    assert [answer.status_code for answer in answers[:5]] == [503, 413, 405, 429, 429]
    for answer in answers:
        assert not answer.ok
        assert token not in answer.text
        assert made["token"] not in answer.text


ANSWERS = [
    ("GET", "/v1/new", 200),
    ("POST", "/v1/new", 201),
    ("OPTIONS", "/v1/new", 200),
    ("GET", "/v1/refresh/nothing", 404),
    ("GET", "/v1/go/nothing", 404),
    ("GET", "/v1/go/{token}", 503),
    ("GET", "/healthz", 200),
    ("GET", "/readyz", 200),
    ("GET", "/nowhere", 404),
    ("PUT", "/v1/new", 405),
    ("GET", "/socket.io/?EIO=4&transport=polling", 200),
    ("GET", "/socket.io/?EIO=4&transport=carrier-pigeon", 400),
    ("OPTIONS", "/socket.io/", 200),
    ("PUT", "/socket.io/", 400),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_every_answer_has_the_security_headers(server, method, path, status):
    """The engine's and the errors too."""
    answer = requests.request(method, server.url + path.replace("{token}", server.new()), timeout=5)
    assert answer.status_code == status
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_answer_to_a_forwarded_call_has_them(server):
    """It does not come from Flask."""
    token = server.new()
    with WebSocket(server, token):
        answer = server.go(token)
    assert answer.text == "OK"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


ENGINE = "/socket.io/?EIO=4&transport=polling"


def cors(server, path, origin, method="GET"):
    answer = requests.request(method, server.url + path, headers={"Origin": origin}, timeout=5)
    return answer.status_code, answer.headers.get("Access-Control-Allow-Origin")


def open_websocket(server, origin):
    url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    try:
        websocket.create_connection(url, origin=origin, timeout=5).shutdown()
    except websocket.WebSocketBadStatusException as error:
        return error.status_code
    return 101


def test_pages_of_other_origins_are_shut_out_unless_named(server):
    """By a refusal, on WebSocket too, which no browser's rule covers."""
    assert cors(server, ENGINE, PAGE) == (403, None)
    for origin in ("null", "http://[", "http://x]", "\xff"):
        assert cors(server, ENGINE, origin) == (403, None)
        assert cors(server, "/v1/new", origin) == (403, None)
    assert open_websocket(server, PAGE) == 403
    assert cors(server, "/v1/new", PAGE) == (403, None)
    assert cors(server, "/v1/new", PAGE, "OPTIONS") == (200, None)


def test_pages_of_the_relay_itself_may_connect(server):
    """Whoever serves them."""
    assert cors(server, ENGINE, server.url) == (200, server.url)
    assert open_websocket(server, server.url) == 101


def test_pages_that_are_named_may_connect_and_ask():
    """And no others."""
    with Server(CORS_ALLOWED_ORIGINS=f"{PAGE},https://other.example") as server:
        for origin in (PAGE, "https://other.example"):
            assert cors(server, ENGINE, origin) == (200, origin)
            assert cors(server, "/v1/new", origin) == (200, origin)
            assert open_websocket(server, origin) == 101
        for origin in ("http://app.example", "https://app.example.evil", "https://app.example:444", server.url):
            assert cors(server, ENGINE, origin) == (403, None)
            assert cors(server, "/v1/new", origin) == (403, None)
            assert open_websocket(server, origin) == 403


def test_a_named_page_of_another_site_may_ask_for_a_token_with_a_secret():
    """Its browser asks first (preflight), and says that the sites differ."""
    with Server(CORS_ALLOWED_ORIGINS=PAGE) as server:
        headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        asked = {
            **headers,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        preflight = requests.options(f"{server.url}/v1/new", headers=asked, timeout=5)
        assert preflight.ok
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()
        assert requests.post(f"{server.url}/v1/new", headers=headers, timeout=5).status_code == 201
        headers["Origin"] = "https://evil.example"
        assert requests.post(f"{server.url}/v1/new", headers=headers, timeout=5).status_code == 403


def test_every_origin_can_be_allowed():
    """For a relay whose tokens all have secrets."""
    with Server(CORS_ALLOWED_ORIGINS="*") as server:
        assert cors(server, ENGINE, PAGE) == (200, PAGE)
        assert open_websocket(server, PAGE) == 101
