"""The HTTP API in this process: answers, shapes and headers."""

import json

import pytest

from socket2me_flask import create_app, get_services
from socket2me_flask.errors import ConfigError, StoreUnavailable
from socket2me_flask.relay.tokens import is_token, new_token
from tests.support.fakes import FakeClient


@pytest.fixture
def recorder(app, http):
    recorder = FakeClient()
    recorder.token = http.get("/v1/new").text
    get_services(app).relay.presence.attach(recorder.token, recorder)
    return recorder


def test_new_is_plain_text(http):
    """A token as it is, for no cache."""
    answer = http.get("/v1/new")
    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    assert answer.headers["Cache-Control"] == "no-store"
    assert is_token(answer.text)


@pytest.mark.parametrize("accept", ["application/json", "application/json, */*;q=0.1"])
def test_new_is_json_where_the_caller_prefers_it(http, accept):
    """A JSON string."""
    answer = http.get("/v1/new", headers={"Accept": accept})
    assert answer.mimetype == "application/json"
    assert is_token(answer.json)


@pytest.mark.parametrize("accept", ["*/*", "text/html, */*;q=0.8", "application/json;q=0.5, text/plain", ""])
def test_new_is_plain_text_otherwise(http, accept):
    """Text where the caller has no preference for JSON."""
    assert is_token(http.get("/v1/new", headers={"Accept": accept}).text)


def test_head_of_new_issues_nothing(http, app):
    """A HEAD would throw the token away."""
    added = []
    get_services(app).store.add = lambda *args: added.append(args)
    assert http.head("/v1/new").status_code == 200
    assert added == []


def test_refresh(http, clock):
    """A refreshed token lives its whole time again."""
    token = http.get("/v1/new").text
    clock.now += 80_000
    answer = http.get(f"/v1/refresh/{token}")
    assert (answer.status_code, answer.text, answer.mimetype) == (200, "OK", "text/plain")
    assert answer.headers["Cache-Control"] == "no-store"
    clock.now += 80_000
    assert http.get(f"/v1/refresh/{token}").status_code == 200
    clock.now += 86_400
    assert http.get(f"/v1/refresh/{token}").status_code == 404


@pytest.mark.parametrize("path", ["/v1/go/{}", "/v1/go/{}/a/b", "/v1/refresh/{}"])
def test_what_does_not_live_is_one_404(http, clock, path):
    """Never issued, expired, no token at all: the answers are the same."""
    expired = http.get("/v1/new").text
    clock.now += 86_400
    dead = (expired, new_token(), "x", "%00", "", "/x", "A" * 24, "a" * 500, "a%0Ab")
    (error,) = {http.get(path.format(token)).data for token in dead}
    assert json.loads(error)["error"] == {
        "code": "unknown_token",
        "message": "No such token. It was never issued, or it has expired.",
    }
    assert http.get(path.format(expired)).status_code == 404


def test_go_forwards_and_answers_ok(http, recorder):
    """The client gets the call, the caller OK."""
    answer = http.post(f"/v1/go/{recorder.token}/a%20b//c?x=%20y", data=b"\x00hello", content_type="image/png")
    assert (answer.status_code, answer.text, answer.mimetype) == (200, "OK", "text/plain")
    (call,) = recorder.received
    assert (call.method, call.path, call.query, call.body) == ("POST", "/a%20b//c", "x=%20y", b"\x00hello")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("tail", ["", "/", "/a", "//", "/a%0Ab"])
def test_go_takes_every_method_on_every_path(http, recorder, method, tail):
    """No method is answered by the framework, no path redirected."""
    answer = http.open(f"/v1/go/{recorder.token}{tail}", method=method)
    assert answer.status_code == 200
    assert answer.text == ("" if method == "HEAD" else "OK")
    assert [(call.method, call.path) for call in recorder.received] == [(method, tail)]


def test_go_that_asks_for_an_upgrade_is_forwarded_like_any_other(http, recorder):
    """No header changes what a call is; a failed one is answered in the same shape."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert http.get(f"/v1/go/{recorder.token}", headers=upgrade).status_code == 200
    assert recorder.received[0].headers["upgrade"] == "websocket"
    assert http.get(f"/v1/go/{new_token()}", headers=upgrade).json["error"]["code"] == "unknown_token"


def test_go_by_a_percent_encoded_token(http, recorder):
    """What the caller encodes although it need not is the same call."""
    path = f"/v1/go/%{ord(recorder.token[0]):02X}{recorder.token[1:]}/x%2Fy"
    answer = http.post(path, environ_overrides={"RAW_URI": path})
    assert answer.status_code == 200
    assert recorder.received[0].path == "/x%2Fy"


def test_go_with_nobody_connected(http):
    """503, with Retry-After."""
    answer = http.post(f"/v1/go/{http.get('/v1/new').text}")
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "nobody_connected"
    assert answer.headers["Retry-After"] == "5"


def test_a_body_over_the_limit(app, http, recorder):
    """413, and the client receives nothing; the limit itself is accepted."""
    limit = get_services(app).settings.max_body_bytes
    answer = http.post(f"/v1/go/{recorder.token}", data=b"x" * (limit + 1))
    assert (answer.status_code, answer.json["error"]["code"]) == (413, "body_too_large")
    assert recorder.received == []
    assert http.post(f"/v1/go/{recorder.token}", data=b"x" * limit).status_code == 200


def test_a_body_with_a_length_and_in_chunks(http, recorder):
    """400: the end of such a body is undefined."""
    both = {"CONTENT_LENGTH": "3", "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = http.post(f"/v1/go/{recorder.token}", data=b"hello", environ_overrides=both)
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "incomplete_body")
    assert recorder.received == []


def test_a_body_that_ends_early(http, recorder):
    """400, and the client receives nothing of half a body."""
    answer = http.post(f"/v1/go/{recorder.token}", data=b"x" * 10, environ_overrides={"CONTENT_LENGTH": "11"})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "incomplete_body")
    assert recorder.received == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("PUT", "/v1/new", 405, "method_not_allowed"),
        ("TRACE", "/v1/go/" + "a" * 24, 405, "method_not_allowed"),
    ],
)
def test_the_frameworks_own_errors_have_the_same_shape(http, method, path, status, code):
    """One shape for every error."""
    answer = http.open(path, method=method)
    assert answer.status_code == status
    assert answer.json["error"]["code"] == code
    assert set(answer.json["error"]) == {"code", "message"}
    assert ("Allow" in answer.headers) == (status == 405)


def test_an_error_is_one_plain_line_for_a_caller_that_wants_text(http):
    """Text for who asked for text."""
    answer = http.get("/v1/go/x", headers={"Accept": "text/plain"})
    assert answer.status_code == 404
    assert answer.mimetype == "text/plain"
    assert answer.text == "No such token. It was never issued, or it has expired.\n"


def test_a_surprise_is_a_500_in_the_same_shape(http, app, caplog):
    """An internal error is logged, and the response has no detail of it."""

    def fail(*_, **options):
        raise RuntimeError("the secret inside")

    app.testing = False
    get_services(app).store.add = fail
    answer = http.get("/v1/new")
    assert answer.status_code == 500
    assert answer.json["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "the secret inside" in caplog.text


def test_health(http, app):
    """healthz says that the process lives, readyz that the store answers."""
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200

    def fail():
        raise StoreUnavailable

    app.testing = False
    get_services(app).store.ping = fail
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 503
    assert http.get("/readyz").json["error"]["code"] == "store_unavailable"


def test_cors(clock):
    """Pages may ask for a token where they may connect, and nowhere else."""
    origin = "https://app.example"

    def allowed(setting, asked):
        http = create_app({"CORS_ALLOWED_ORIGINS": setting}, clock=clock).test_client()
        return http.get("/v1/new", headers={"Origin": asked}).headers.get("Access-Control-Allow-Origin")

    assert allowed(None, origin) is None
    assert allowed([origin], origin) == origin
    assert allowed([origin], "https://evil.example") is None
    assert allowed("*", origin) == origin


def test_an_unknown_override_is_refused():
    """A slip in a setting's name is not a setting that does nothing."""
    with pytest.raises(ConfigError, match="HOLD_SECOND"):
        create_app({"HOLD_SECOND": 1})
