"""The OpenAPI document and the application agree: routes, methods, statuses and errors, both ways."""

import io
import json
import re
from functools import partial

import limits
import pytest

from socket2me.inspector.history import Watch
from socket2me_flask import create_app, errors, get_services
from socket2me_flask.api import openapi
from socket2me_flask.http.answers import SECURITY_HEADERS
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.worker.responses import REFUSALS
from tests.support import http_api_page
from tests.support.fakes import FakeClient
from tests.support.servers import ROOT

METHODS = {"get", "head", "post", "put", "patch", "delete", "options"}

# What any request may be answered, whatever it asks for: `test_what_any_request_may_be_answered` shows it, and the
# tests of the worker for requests that are no HTTP.
ANY = {400, 414, 417, 421, 431, 500, 501, 503}

# Errors that a caller of the HTTP API never receives: those of clients, and those that only the log has.
NOT_OF_THIS_API = {
    errors.BadAuth,
    errors.ClientDoesNotRead,
    errors.MalformedRequest,  # it has no status of its own: `HEAD_ERRORS` has those
    errors.TooManyConnections,
    errors.TooManyFrames,
    errors.TooManyListeners,
    errors.TooManyIncomplete,
    errors.TooManyNamespaces,
    errors.TooManyUnread,
    errors.Unavailable,
    errors.UpgradeRequired,
}


def document(app):
    answer = app.test_client().get("/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    return answer.json


def operations(document):
    return {
        (path, method): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def resolved(document, part):
    """Return a part of the document, or what it refers to."""
    if "$ref" not in part:
        return part
    for name in part["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document


def paths_of(rule):
    """Return the paths of the document for a route of Flask. What follows the token of a call is one path more."""
    if rule.endswith("/go/<anypath:tail>"):
        start = rule.removesuffix("<anypath:tail>")
        return [f"{start}{{token}}", f"{start}{{token}}/{{path}}"]
    return [re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)]


@pytest.mark.parametrize(("serves_legacy", "metrics_key"), [(True, None), (False, "key")])
def test_every_route_and_method_is_described(serves_legacy, metrics_key):
    """Those of Flask are those of the document, with and without metrics and the URLs of the original."""
    app = create_app({"LEGACY_CLIENTS": serves_legacy, "METRICS_KEY": metrics_key})
    routed = {
        (path, method.lower())
        for rule in app.url_map.iter_rules()
        for path in paths_of(rule.rule)
        for method in rule.methods
    }
    assert set(operations(document(app))) == routed


def test_references_and_names(app):
    """Each reference leads somewhere, each name of an operation is its own, and each path names its parameters."""
    described = document(app)
    text = json.dumps(described)
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        assert resolved(described, {"$ref": reference})
    names = [operation["operationId"] for operation in operations(described).values()]
    assert len(set(names)) == len(names)
    for path, item in described["paths"].items():
        assert [parameter["name"] for parameter in item.get("parameters", ())] == re.findall(r"\{(\w+)\}", path)
    schemes = set(described["components"]["securitySchemes"])
    for operation in operations(described).values():
        assert {name for wanted in operation["security"] for name in wanted} <= schemes
    assert described["openapi"].startswith("3.1.")


def test_every_error_is_described():
    """Each error that a caller may receive is in a group, and nothing else is."""

    def all_of(kind):
        return {kind}.union(*map(all_of, kind.__subclasses__()))

    described = {error for group in openapi.ERRORS.values() for error in group}
    elsewhere = set().union(*map(all_of, NOT_OF_THIS_API - {errors.Unavailable})) | {errors.Unavailable}
    # A class with the code of another says the same in other words.
    codes = {(error.status, error.code) for error in described}
    missing = {error for error in all_of(errors.RelayError) - elsewhere if (error.status, error.code) not in codes}
    assert not missing
    assert not described & elsewhere


def test_the_errors_of_heads_are_described():
    """They are those of the worker."""
    refusals = {(status, code) for status, code, _ in REFUSALS.values()}
    assert {(status, code) for status, code, _ in openapi.HEAD_ERRORS} == refusals
    assert {status for status, _ in refusals} <= ANY


def test_what_any_request_may_be_answered(app):
    """Another host, a relay that stops and one that fails are described for every operation that has them."""
    described = document(app)
    http = create_app({"ALLOWED_HOSTS": ("relay.example",)}).test_client()
    for (path, method), operation in operations(described).items():
        url = path.format(token="x", path="y", event_id="1-1", request_id="1-1", name="index.html", key="z")
        expected = 421 if "421" in operation["responses"] else 200
        assert http.open(url, method=method).status_code == expected, (path, method)
        assert {"400", "500", "503"} <= set(operation["responses"])
    http = app.test_client()
    get_services(app).lifecycle.is_closed = True
    for path, method in operations(described):
        answer = http.open(path, method=method.upper())
        # Any answer but 200 ends the client of a stream.
        is_stream = (path, method) == ("/smee/events/{key}", "get")
        assert answer.status_code == (200 if path == "/healthz" or is_stream else 503)


class Scenarios:
    """Calls a relay in this process, and notes which status each operation was answered with."""

    def __init__(self):
        self.observed = {}

    def on(self, tmp_path=None, **settings):
        """Begin with another relay."""
        if tmp_path is not None:
            settings["STORE_URL"] = f"sqlite:///{tmp_path}/relay.db"
        self.app = create_app({"HOLD_SECONDS": 0, **settings})
        self.services = get_services(self.app)
        self.services.lifecycle.start()
        self.http = self.app.test_client()
        self.described = document(self.app)

    def call(self, method, path, /, secret=None, headers=(), **parts):
        options = {
            name: parts.pop(name) for name in ("json", "data", "input_stream", "query_string") if name in parts
        }
        sent = {**dict(headers), **({"Authorization": f"Bearer {secret}"} if secret else {})}
        answer = self.http.open(path.format(**parts), method=method, headers=sent, **options)
        self.note(method, path, answer)
        answer.close()
        return answer

    def note(self, method, path, answer):
        """Check an answer against the document, and note its status."""
        operation = self.described["paths"][path][method.lower()]
        status = str(answer.status_code)
        assert status in operation["responses"], (method, path, answer.text)
        response = resolved(self.described, operation["responses"][status])
        for name in response.get("headers", ()):
            if name not in ("Retry-After", "WWW-Authenticate"):
                assert name in answer.headers, (method, path, status, name)
        if answer.status_code in (429, 503):
            assert "Retry-After" in response["headers"]
            assert answer.headers["Retry-After"].isdigit()
        if answer.status_code == 401:
            assert answer.headers["WWW-Authenticate"] == response["headers"]["WWW-Authenticate"]["example"]
        if method != "HEAD" and answer.data:
            assert answer.mimetype in response["content"]
        if answer.status_code >= 400 and answer.is_json:
            assert f"`{answer.json['error']['code']}`" in response["description"]
        self.observed.setdefault((path, method.lower()), set()).add(answer.status_code)

    def new(self, **options):
        made = self.call("POST", "/v1/new", json=options).json
        return made["token"], made["secret"]


class Late(io.BytesIO):
    """A body that does not arrive."""

    def read(self, size=-1):
        raise TimeoutError


class Replying(FakeClient):
    """A client in mode `reply` that acknowledges each call with these arguments; with None, it does not."""

    mode = "reply"

    def __init__(self, arguments):
        super().__init__()
        self._arguments = arguments

    def send(self, call, on_ack=None, attempt=None):
        super().send(call, on_ack, attempt)
        if self._arguments is not None:
            on_ack(self._arguments)

    def forget(self, ack_id):
        pass


REQUESTS = "/v1/tokens/{token}/requests"
REQUEST = f"{REQUESTS}/{{request_id}}"
EVENTS = "/v1/tokens/{token}/events"
EVENT = f"{EVENTS}/{{event_id}}"


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    """What happened when each operation was called in many ways."""
    seen = Scenarios()
    seen.on(
        tmp_path_factory.mktemp("store"),
        **dict(REPLY_TIMEOUT_SECONDS=0.01, ACK_TIMEOUT_SECONDS=0.01, MAILBOX_MAX_EVENTS=2, OPEN_NAMES=True),
    )
    for _ in range(2):
        seen.call("POST", "/v1/new", json={"name": "acme-dev"})
    for path in ("/healthz", "/readyz", "/openapi.json", "/", "/inspector.json"):
        seen.call("GET", path)
    page_file = "/static/inspector/{name}"
    etag = seen.call("GET", page_file, name="index.html").headers["ETag"]
    seen.call("GET", page_file, name="index.html", headers={"If-None-Match": etag})
    seen.call("GET", page_file, name="nothing.js")
    plain = seen.call("GET", "/v1/new").text
    seen.call("GET", "/v1/refresh/{token}", token=plain)
    seen.call("GET", "/v1/new", headers={"Sec-Purpose": "prefetch"})
    seen.call("POST", "/v1/new", headers={"Sec-Purpose": "prefetch"})
    channels(seen)
    seen.call("POST", "/v1/new", data=b"{")
    seen.call("POST", "/v1/new", data=b" " * 5000)
    seen.call("POST", "/v1/new", input_stream=Late(b"later"))
    token, secret = seen.new()
    mailbox, owner = seen.new(mailbox=True)
    event_id = seen.call("POST", "/v1/go/{token}", token=mailbox).json["id"]
    known = {"token": mailbox, "event_id": event_id}
    operations_of_owner = [
        ("GET", "/v1/refresh/{token}", {"token": token}, secret),
        ("GET", "/v1/tokens/{token}", {"token": token}, secret),
        ("GET", EVENTS, known, owner),
        ("GET", EVENT, known, owner),
        ("POST", f"{EVENT}/redeliver", known, owner),
        ("DELETE", EVENT, known, owner),
        ("DELETE", "/v1/tokens/{token}", {"token": token}, secret),
    ]
    for method, path, parts, key in operations_of_owner:
        seen.call(method, path, "wrong", **parts)
        seen.call(method, path, key, **{**parts, "token": new_token()})
    seen.services.event_rate.hit, hit = (lambda token: 1), seen.services.event_rate.hit
    for method, path, parts, key in operations_of_owner:
        if path.startswith(EVENTS):
            seen.call(method, path, key, **parts)
    seen.services.event_rate.hit = hit
    for method, path, parts, key in operations_of_owner[:-1]:
        seen.call(method, path, key, **parts)
    history(seen)
    signed, owner_of_signed = seen.new(verify={"provider": "gitlab", "secrets": ["s"]})
    seen.call("GET", "/v1/tokens/{token}", owner_of_signed, token=signed)
    for path in ("/v1/go/{token}", "/v1/go/{token}/{path}"):
        calls(seen, path, token, mailbox)
        seen.call("POST", path, token=signed, path="a")
    seen.call("DELETE", "/v1/tokens/{token}", secret, token=token)
    seen.services.store.close()
    seen.on(API_KEYS=("key",), RATE_LIMIT_NEW=limits.parse("3/hour"))
    for method in ("GET", "POST", "GET", "POST"):
        seen.call(method, "/v1/new")
    seen.on(API_KEYS=("key",))
    seen.call("GET", "/smee/new")
    for path in ("/v1/new", "/smee/new"):
        seen.on(RATE_LIMIT_NEW=limits.parse("1/hour"))
        for _ in range(2):
            seen.call("GET", path)
    seen.on(LEGACY_CLIENTS=False, METRICS_KEY="key")
    for key in (None, "key"):
        seen.call("GET", "/metrics", key)
    return seen.observed


def channels(seen):
    """Make a channel, listen and post, in all the ways that have a status of their own."""
    seen.call("GET", "/smee/new", headers={"Sec-Purpose": "prefetch"})
    key = seen.call("GET", "/smee/new").headers["Location"].rpartition("/")[2]
    for known in (key, "none"):
        seen.call("GET", "/smee/{key}", key=known)
        seen.call("POST", "/smee/{key}", key=known)
    seen.call("HEAD", "/smee/events/{key}", key=key)
    seen.call("GET", "/smee/events/{key}", key="none")


def _closed_watch(watches, token):
    watch = Watch(watches, token)
    watch.close()
    return watch


def history(seen):
    """Ask for a history in all the ways that have a status of their own. A stream ends at once."""
    watches = seen.services.store.history.watches
    watches.watch = partial(_closed_watch, watches)
    token, secret = seen.new(inspect=True)
    off, off_secret = seen.new()
    seen.call("POST", "/v1/go/{token}", token=token)
    request_id = seen.call("GET", REQUESTS, secret, token=token).json["requests"][0]["id"]
    known = {"token": token, "request_id": request_id}
    operations_of_owner = [
        ("GET", REQUESTS),
        ("GET", f"{REQUESTS}.har"),
        ("GET", f"{REQUESTS}/stream"),
        ("GET", REQUEST),
        ("GET", f"{REQUEST}/body"),
        ("POST", f"{REQUEST}/replay"),
        ("DELETE", REQUEST),
        ("DELETE", REQUESTS),
    ]
    for method, path in operations_of_owner:
        seen.call(method, path, "wrong", **known)
        seen.call(method, path, secret, **{**known, "token": new_token()})
        seen.call(method, path, off_secret, **{**known, "token": off})
        if "{request_id}" in path:
            seen.call(method, path, secret, **{**known, "request_id": "nothing"})
    seen.call("GET", REQUESTS, secret, query_string={"before": "nothing"}, **known)
    seen.call("POST", "/v1/go/{token}", token=token)
    known["request_id"] = seen.call("GET", REQUESTS, secret, token=token).json["requests"][0]["id"]
    for path in (REQUESTS, f"{REQUESTS}.har", f"{REQUESTS}/stream"):
        seen.call("GET", path, secret, query_string={"filter": "nothing:x"}, **known)
    seen.services.event_rate.hit, hit = (lambda token: 1), seen.services.event_rate.hit
    for method, path in operations_of_owner:
        seen.call(method, path, secret, **known)
    seen.services.event_rate.hit = hit
    limit = seen.services.settings.max_body_bytes
    seen.call("POST", f"{REQUEST}/replay", secret, data=b"[", **known)
    seen.call("POST", f"{REQUEST}/replay", secret, data=b" " * (2 * limit), **known)
    seen.call("POST", f"{REQUEST}/replay", secret, input_stream=Late(b"later"), **known)
    for method, path in operations_of_owner:
        seen.call(method, path, secret, **known)


def calls(seen, path, token, mailbox):
    """Have a token called in all the ways that have a status of their own."""
    parts = {"token": token, "path": "a"}
    limit = seen.services.settings.max_body_bytes
    seen.call("POST", path, **{**parts, "token": new_token()})
    seen.call("POST", path, data=b"x" * (limit + 1), **parts)
    seen.call("POST", path, input_stream=Late(b"later"), **parts)
    for arguments in (None, [], ["reject", "no", 504], [1]):
        seen.services.relay.presence.attach(token, Replying(arguments))
        seen.call("POST", path, **parts)
    seen.services.relay.presence.end(token)
    for _ in range(3):
        seen.call("POST", path, **{**parts, "token": mailbox})
    for event in seen.services.store.mailboxes.summary(mailbox):
        seen.services.relay.mailboxes.delete(mailbox, event.call.id)


def test_statuses_are_described(scenarios):
    """Each status that was seen is in the document, with its code and headers: `Scenarios.note` checks it."""
    assert len(scenarios) > 10


def test_described_statuses_exist(scenarios):
    """Each status of the document was seen, but for what any request may be answered and the tests named here."""
    elsewhere = {
        ("/v1/go/{token}", 410),  # tests/live/test_delivery.py: an event is dropped while its caller waits
        ("/v1/go/{token}/{path}", 410),
        ("/smee/{key}", 400),  # tests/live/test_smee.py: a request for a stream that has a body
        ("/smee/events/{key}", 400),
        ("/smee/events/{key}", 200),  # a stream that does not end
        ("/smee/{key}", 200),  # of an open channel
    }
    for (path, method), operation in operations(document(create_app({"METRICS_KEY": "key"}))).items():
        if method in ("head", "options") or operation["tags"] == ["original"]:
            continue  # the same views, and Flask's own
        if "/go/" in path and method != "post":
            continue  # one view, whatever the method
        described = {int(status) for status in operation["responses"] if status != "default"}
        seen = scenarios.get((path, method), set())
        missing = {status for status in described - seen - ANY if (path, status) not in elsewhere}
        assert not missing, (path, method, missing)


def test_the_document_is_made_once(app):
    """Serving it costs no more than its bytes."""
    http = app.test_client()
    http.get("/openapi.json")
    made = openapi.encoded.cache_info().misses
    answer = http.get("/openapi.json")
    assert openapi.encoded.cache_info().misses == made
    assert set(SECURITY_HEADERS) <= set(answer.headers.items())


def test_the_page_is_current():
    """`docs/http-api.md` is what the document says: `make docs` writes it."""
    assert (ROOT / "docs" / "http-api.md").read_text() == http_api_page.render()
