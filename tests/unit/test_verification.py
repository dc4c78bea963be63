"""Tokens whose calls are verified: the API, what callers are answered, what is stored, and what is fetched."""

import base64
import hashlib
import hmac
import json
import logging
import ssl
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from socket2me_flask import create_app, get_services
from socket2me_flask.errors import ConfigError, NotFetched, SecretsUnreadable
from socket2me_flask.http import fetch
from socket2me_flask.http.fetch import Fetcher
from socket2me_flask.relay import verification
from socket2me_flask.storage.vault import Vault
from socket2me_flask.telemetry import prometheus
from tests.support.fakes import FakeClient
from tests.support.signed_requests import ED25519_KEY, SECRET, SIGNED, sign_sns, sns_key, sns_message

TOPIC = "arn:aws:sns:us-east-2:123456789012:MyTopic"
GITHUB = SIGNED["github"]
BAD_SIGNATURE = {"error": {"code": "bad_signature", "message": "This call is not signed as this URL demands."}}


@pytest.fixture
def app(clock, tmp_path):
    settings = {
        "HOLD_SECONDS": 0,
        "PUBLIC_URL": "https://relay.example",
        "SNS": True,
        "REPLY_TIMEOUT_SECONDS": 0.05,
    }
    app = create_app({**settings, "STORE_URL": f"sqlite:///{tmp_path}/relay.db"}, clock=clock)
    app.testing = True
    get_services(app).lifecycle.start()  # which the first request would do: nothing may start the store twice
    yield app
    get_services(app).lifecycle.stop()


def new(http, verify, **options):
    made = http.post("/v1/new", json={"verify": verify, **options})
    assert made.status_code == 201, made.text
    return made.json


def attached(app, token):
    client = FakeClient()
    get_services(app).relay.presence.attach(token, client)
    return client


def inspect(http, made):
    return http.get(f"/v1/tokens/{made['token']}", headers={"Authorization": f"Bearer {made['secret']}"}).json


def test_a_verified_call_arrives_and_says_who_signed_it(app, http):
    """The event has `verified`; the token shows its provider, and never its secrets."""
    made = new(http, GITHUB.verify)
    client = attached(app, made["token"])
    url = f"/v1/go/{made['token']}"
    forged = {"verified": '{"provider":"stripe"}', "socket2me-verified": "stripe", **GITHUB.headers}
    answer = http.post(f"{url}?verified=stripe", headers=forged, data=GITHUB.body)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert client.received[0].verified == {"provider": "github"}
    seen = inspect(http, made)
    assert seen["verify"] == {"provider": "github"}
    assert seen["forwarded"] == 1
    assert SECRET not in json.dumps([made, seen])


def test_the_history_says_who_signed_a_call_and_has_no_other(app, http):
    """The timeline has `verified` with the provider; a call that is not verified is in no history."""
    made = new(http, GITHUB.verify, inspect=True)
    attached(app, made["token"])
    url, owner = f"/v1/tokens/{made['token']}/requests", {"Authorization": f"Bearer {made['secret']}"}
    assert http.post(f"/v1/go/{made['token']}", headers=GITHUB.headers, data=GITHUB.body).status_code == 200
    assert http.post(f"/v1/go/{made['token']}", data=GITHUB.body).status_code == 401
    (request,) = http.get(url, headers=owner).json["requests"]
    timeline = http.get(f"{url}/{request['id']}", headers=owner).json["timeline"]
    assert [(entry["what"], entry["detail"]) for entry in timeline[:2]] == [
        ("received", ""),
        ("verified", "github"),
    ]


def test_an_event_without_verify_cannot_claim_to_be_verified(app, http):
    """No body, header or parameter makes `verified` of a token that verifies nothing."""
    token = http.get("/v1/new").text
    client = attached(app, token)
    http.post(
        f"/v1/go/{token}?verified=github",
        headers={"Verified": "github", **GITHUB.headers},
        json={"verified": {"provider": "github"}},
    )
    assert client.received[0].verified is None


def test_all_that_is_not_verified_is_answered_alike(app, http, caplog):
    """401, one body and one set of headers; nothing arrives or is kept; the log and a counter say why."""
    made = new(http, GITHUB.verify, mailbox=True)
    signature = GITHUB.headers["x-hub-signature-256"]
    calls = [
        ({}, GITHUB.body, "missing"),
        ({"X-Hub-Signature-256": "nonsense"}, GITHUB.body, "malformed"),
        ({"X-Hub-Signature-256": f"{signature}, {signature}"}, GITHUB.body, "repeated"),
        ({"X-Hub-Signature-256": signature}, GITHUB.body + b"x", "mismatch"),
    ]
    answers = set()
    with caplog.at_level(logging.WARNING):
        for headers, body, reason in calls:
            answer = http.post(f"/v1/go/{made['token']}", headers=headers, data=body)
            answer.headers.pop("X-Request-Id")  # which differs for every response
            answers.add((answer.status_code, answer.text, str(answer.headers)))
            assert caplog.messages[-1] == f"a call is not verified: provider github, reason {reason}"
    ((status, body, headers),) = answers
    assert (status, json.loads(body)) == (401, BAD_SIGNATURE)
    assert "WWW-Authenticate: Signature" in headers
    assert inspect(http, made)["refused"] == 4
    services = get_services(app)
    assert services.store.mailboxes.summary(made["token"]) == []
    assert services.verification.failures == {("github", reason): 1 for _, _, reason in calls}
    assert services.forwarder.calls["bad_signature"] == 4
    metrics = prometheus.render(services).decode()
    assert 'socket2me_signature_failures_total{provider="github",reason="repeated"} 1.0\n' in metrics
    assert SECRET not in caplog.text and made["token"] not in caplog.text


def test_the_time_of_a_signature_is_compared_with_the_arrival(app, http):
    """A call that was signed now is kept in a mailbox, with `verified`; one that was signed long ago is not."""
    made = new(http, SIGNED["slack"].verify, mailbox=True)
    now, body = str(int(time.time())), b"a=b"
    old = str(int(time.time()) - 400)
    secret = SIGNED["slack"].verify["secrets"][0].encode()
    for timestamp, status in ((old, 401), (now, 202)):
        signature = hmac.new(secret, b"v0:%b:%b" % (timestamp.encode(), body), hashlib.sha256).hexdigest()
        headers = {"X-Slack-Signature": f"v0={signature}", "X-Slack-Request-Timestamp": timestamp}
        assert http.post(f"/v1/go/{made['token']}", headers=headers, data=body).status_code == status
    (event,) = get_services(app).store.mailboxes.waiting(made["token"], 10)
    assert event.call.verified == {"provider": "slack"}


def test_what_cannot_be_verified_is_refused_when_the_token_is_made(http):
    """400, which names what is wrong: an unknown provider, an unusable key, and a secret that is not shown."""
    for verify, text in (
        ({"provider": "gihub", "secrets": ["s"]}, 'verify.provider "gihub" is none of bitbucket'),
        ({"provider": "discord", "secrets": ["hunter2"]}, "verify.secrets, number 1, cannot be used"),
        (1, "verify is an object"),
    ):
        answer = http.post("/v1/new", json={"verify": verify})
        assert answer.status_code == 400
        assert text in answer.json["error"]["message"]
        assert "hunter2" not in answer.text


def test_what_the_operator_has_to_allow(clock):
    """Without a public URL there are no signatures of URLs, without SNS=true no topics: 400 names the setting."""
    http = create_app(clock=clock).test_client()
    for verify, setting in (
        (SIGNED["twilio"].verify, "SOCKET2ME_PUBLIC_URL"),
        (SIGNED["square"].verify, "SOCKET2ME_PUBLIC_URL"),
        ({"provider": "sns", "topic": TOPIC}, "SOCKET2ME_SNS"),
    ):
        answer = http.post("/v1/new", json={"verify": verify})
        assert answer.status_code == 400
        assert setting in answer.json["error"]["message"]


def test_signed_urls_are_those_of_the_public_url(app, http):
    """The `Host` header says nothing; path and query count as they were sent; the old URL is another."""
    made = new(http, SIGNED["square"].verify)
    assert made["url"] == f"https://relay.example/v1/go/{made['token']}"
    client = attached(app, made["token"])

    def call(path, signed_url):
        digest = hmac.new(SECRET.encode(), signed_url.encode() + b"{}", hashlib.sha256).digest()
        headers = {"X-Square-Hmacsha256-Signature": base64.b64encode(digest).decode(), "Host": "evil.example"}
        return http.post(path, headers=headers, data=b"{}", environ_overrides={"RAW_URI": path}).status_code

    tail = f"{made['token']}/a%20b?x=%2F&y"
    assert call(f"/v1/go/{tail}", f"https://relay.example/v1/go/{tail}") == 200
    assert call(f"/go/{tail}", f"https://relay.example/go/{tail}") == 200
    assert call(f"/v1/go/{tail}", f"https://evil.example/v1/go/{tail}") == 401
    assert call(f"/v1/go/{tail}", f"http://relay.example/v1/go/{tail}") == 401
    assert call(f"/v1/go/{tail}", f"https://relay.example/v1/go/{made['token']}") == 401
    assert [received.query for received in client.received] == ["x=%2F&y"] * 2


def test_handshakes_are_answered_with_no_client_connected(http):
    """Each for the token's own provider; for others the same request is not verified."""
    plain = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    cases = [
        (
            "meta",
            "GET",
            "?hub.mode=subscribe&hub.challenge=1158&hub.verify_token=a+token+that+I+chose",
            {},
            b"1158",
        ),
        ("graph", "POST", "?validationToken=a%20b%3Cscript%3E", {}, b"a b<script>"),
        ("dropbox", "GET", "?challenge=abc", {}, b"abc"),
        ("okta", "GET", "", {"X-Okta-Verification-Challenge": "abc"}, b'{"verification":"abc"}'),
        ("x", "GET", "?crc_token=abc", {}, None),
        ("cloudevents", "OPTIONS", "", {"WebHook-Request-Origin": "eventgrid.azure.net"}, b""),
    ]
    github = new(http, GITHUB.verify)["token"]
    for provider, method, query, headers, body in cases:
        token = new(http, SIGNED[provider].verify)["token"]
        answer = http.open(f"/v1/go/{token}{query}", method=method, headers=headers)
        assert answer.status_code == 200, provider
        assert body is None or answer.data == body, provider
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]
        if provider in ("meta", "graph", "dropbox"):
            assert plain.items() <= dict(answer.headers).items()
        if provider == "cloudevents":
            assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
            assert answer.headers["WebHook-Allowed-Rate"] == "60000"
            assert answer.headers["Allow"] == "POST"
        assert http.open(f"/v1/go/{github}{query}", method=method, headers=headers).status_code == 401


def test_signed_handshakes_are_answered_after_their_signature(app, http):
    """Slack's challenge with a right signature is echoed, with a wrong one it is 401; no client receives either."""
    made = new(http, SIGNED["slack"].verify)
    client = attached(app, made["token"])
    secret = SIGNED["slack"].verify["secrets"][0].encode()
    body, now = b'{"type":"url_verification","challenge":"3eZbrw1aB"}', str(int(time.time()))
    signature = hmac.new(secret, b"v0:%b:%b" % (now.encode(), body), hashlib.sha256).hexdigest()
    headers = {"X-Slack-Signature": f"v0={signature}", "X-Slack-Request-Timestamp": now}
    answer = http.post(f"/v1/go/{made['token']}", headers=headers, data=body)
    assert (answer.status_code, answer.text, answer.mimetype) == (200, "3eZbrw1aB", "text/plain")
    headers["X-Slack-Signature"] = f"v0={'0' * 64}"
    assert http.post(f"/v1/go/{made['token']}", headers=headers, data=body).status_code == 401
    assert client.received == []


def test_the_ping_of_webhook_events_is_answered_without_a_body(app, http):
    """Discord's `{"type": 0}` is answered `204`; an event, which has the type of another `PING`, is delivered."""
    made = new(http, SIGNED["discord"].verify)
    client = attached(app, made["token"])
    answers = []
    for body in (b'{"type":0}', b'{"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}'):
        now = str(int(time.time()))
        signature = ED25519_KEY.sign(now.encode() + body).hex()
        headers = {"X-Signature-Ed25519": signature, "X-Signature-Timestamp": now}
        answers.append(http.post(f"/v1/go/{made['token']}", headers=headers, data=body))
    assert (answers[0].status_code, answers[0].data) == (204, b"")
    assert "Content-Length" not in answers[0].headers
    assert (answers[1].status_code, answers[1].text) == (200, "OK")
    assert [call.body for call in client.received] == [body]


def test_stored_secrets_are_encrypted_for_their_token():
    """Any of the keys decrypts; without them, or for another token, nothing does; without a key it stays a text."""
    old, new_key = b"1" * 32, b"2" * 32
    sealed = Vault([old]).seal("t1", "the secret")
    assert "the secret" not in sealed
    assert Vault([old]).seal("t1", "the secret") != sealed
    assert Vault([new_key, old]).open("t1", sealed) == "the secret"
    for vault, token in ((Vault([new_key]), "t1"), (Vault(), "t1"), (Vault([old]), "t2")):
        with pytest.raises(SecretsUnreadable):
            vault.open(token, sealed)
    assert Vault().seal("t1", "{}") == Vault([old]).open("t1", "{}") == "{}"


def test_encryption_needs_its_package(monkeypatch):
    """The relay does not start, and one line says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigError, match="socket2me\\[crypto\\]"):
        Vault([b"1" * 32])


def test_a_token_survives_with_encrypted_secrets_and_needs_the_key(clock, tmp_path, caplog):
    """The file has no secret in it. A relay with the key verifies on, one without answers 503, which is logged."""
    settings = {"STORE_URL": f"sqlite:///{tmp_path}/relay.db", "ENCRYPTION_KEY": (b"1" * 32,), "HOLD_SECONDS": 0}
    token, statuses = None, []
    for keys in ((b"1" * 32,), (b"2" * 32, b"1" * 32), ()):
        app = create_app({**settings, "ENCRYPTION_KEY": keys}, clock=clock)
        services = get_services(app)
        services.lifecycle.start()
        http = app.test_client()
        token = token or new(http, GITHUB.verify)["token"]
        attached(app, token)
        answer = http.post(f"/v1/go/{token}", headers=GITHUB.headers, data=GITHUB.body)
        statuses.append((answer.status_code, answer.headers.get("Retry-After")))
        services.lifecycle.stop()
    assert statuses == [(200, None), (200, None), (503, "5")]
    assert caplog.messages[-1].startswith("a call cannot be verified: none of the keys of SOCKET2ME_ENCRYPTION_KEY")
    for file in tmp_path.iterdir():
        assert SECRET.encode() not in file.read_bytes()


def test_keys_of_few_tokens_are_kept_ready(app, http, monkeypatch):
    """Above the bound they are made again, and all calls are still verified."""
    monkeypatch.setattr(verification, "MAX_VERIFIERS", 2)
    for made in [new(http, GITHUB.verify) for _ in range(5)]:
        attached(app, made["token"])
        assert http.post(f"/v1/go/{made['token']}", headers=GITHUB.headers, data=GITHUB.body).status_code == 200
        assert len(get_services(app).verification.verifiers) <= 2


@pytest.fixture
def amazon(app):
    """What is fetched in place of Amazon's documents: a table by URL, and the URLs that were asked for."""
    documents, asked = {}, []

    def fetch_document(url):
        asked.append(url)
        document = documents[url]
        if isinstance(document, Exception):
            raise document
        return document

    get_services(app).verification.fetch = fetch_document
    return documents, asked


def test_a_topic_is_confirmed_and_its_messages_arrive(app, http, amazon):
    """The certificate is fetched once; a subscription is confirmed when it is verified; a notification arrives."""
    documents, asked = amazon
    key, certificate = sns_key()
    made = new(http, {"provider": "sns", "topic": TOPIC})
    client = attached(app, made["token"])
    confirmation = sns_message(TOPIC, "SubscriptionConfirmation")
    documents |= {
        confirmation["SigningCertURL"]: certificate,
        confirmation["SubscribeURL"]: b"<ConfirmSubscription/>",
    }
    url = f"/v1/go/{made['token']}"
    body = sign_sns(confirmation, key)
    assert http.post(url, data=body.replace(b"Hello", b"Hallo")).json == BAD_SIGNATURE
    assert asked == [confirmation["SigningCertURL"]]
    assert http.post(url, data=body).text == "OK"
    assert client.received == []
    assert http.post(url, data=sign_sns(sns_message(TOPIC), key)).text == "OK"
    assert client.received[0].verified == {"provider": "sns"}
    assert asked == [*[confirmation["SigningCertURL"]] * 2, confirmation["SubscribeURL"]]


def test_what_amazon_does_not_answer(http, amazon, caplog):
    """503, so that SNS sends it again; a certificate that does not exist is 401; nothing is kept of either."""
    documents, asked = amazon
    key, certificate = sns_key()
    made = new(http, {"provider": "sns", "topic": TOPIC})
    message = sns_message(TOPIC, "SubscriptionConfirmation")
    body = sign_sns(message, key)
    for fetched, confirmed, status in (
        (NotFetched(), b"", 503),
        (None, b"", 401),
        (certificate, NotFetched(), 503),
        (certificate, None, 503),
        (certificate, b"", 200),
    ):
        documents |= {message["SigningCertURL"]: fetched, message["SubscribeURL"]: confirmed}
        assert http.post(f"/v1/go/{made['token']}", data=body).status_code == status
    assert "a call cannot be verified: Amazon SNS has not answered in time" in caplog.text
    elsewhere = {**message, "SubscribeURL": "https://evil.example/"}
    count = len(asked)
    assert http.post(f"/v1/go/{made['token']}", data=sign_sns(elsewhere, key)).status_code == 401
    assert len(asked) == count


class Documents(BaseHTTPRequestHandler):
    """Answers by the path: a document, one that is too large, a redirect, one that never ends, and 404."""

    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        status = {"/moved": 302, "/missing": 404}.get(self.path, 200)
        self.send_response(status)
        self.send_header("Location", "/document")
        if self.path == "/large":
            self.send_header("Content-Length", "2000")
        self.end_headers()
        if self.path == "/slow":
            while not self.server.is_over.wait(0.05):
                self.wfile.write(b"x")
        self.wfile.write(b"x" * 2000 if self.path == "/large" else b"document")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """An https server of 127.0.0.1, and a class of `Fetcher` that reaches it, whatever the host."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key, certificate = sns_key()
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with HTTPServer(("127.0.0.1", 0), Documents) as server:
        server.is_over = threading.Event()
        server.handle_error = lambda *args: None  # the client closes as soon as it has enough
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        class Here(Fetcher):
            def connect(self, host, timeout_seconds):
                connection = super().connect(host, timeout_seconds)
                trusted = ssl.create_default_context(cadata=certificate.decode())
                trusted.check_hostname = False
                here = fetch.http.client.HTTPSConnection(
                    "127.0.0.1", server.server_port, timeout=connection.timeout, context=trusted
                )
                return here

        yield Here, server
        server.is_over.set()
        server.shutdown()


def test_a_document_is_fetched_whole_and_no_redirect_is_followed(documents):
    """200 is a document, another status is none; one that is too large or not over https is refused."""
    here, _ = documents
    fetcher = here(max_bytes=1000)
    Documents.asked.clear()
    assert fetcher.fetch("https://sns.example/document?a=b") == b"document"
    assert fetcher.fetch("https://sns.example/moved") is None
    assert fetcher.fetch("https://sns.example/missing") is None
    assert Documents.asked == ["/document?a=b", "/moved", "/missing"]
    with pytest.raises(NotFetched):
        fetcher.fetch("https://sns.example/large")
    with pytest.raises(ValueError, match="only https"):
        fetcher.fetch("http://127.0.0.1/")


def test_a_fetch_is_bounded_in_time(documents, monkeypatch):
    """A document that never ends is given up after `FETCH_SECONDS`, however steadily its bytes come."""
    here, _ = documents
    monkeypatch.setattr(fetch, "FETCH_SECONDS", 0.3)
    with pytest.raises(NotFetched):
        here(max_bytes=10**6).fetch("https://sns.example/slow")


def test_fetches_are_few(documents, monkeypatch):
    """At most `MAX_FETCHES` at once and `MAX_FETCHES_PER_MINUTE`; the next is not made."""
    here, _ = documents
    now = 0.0
    fetcher = here(max_bytes=1000, clock=lambda: now)
    monkeypatch.setattr(fetch, "MAX_FETCHES", 0)
    with pytest.raises(NotFetched):
        fetcher.fetch("https://sns.example/document")
    monkeypatch.undo()
    connects = []

    def connect(*args):
        connects.append(args)
        raise ConnectionRefusedError

    monkeypatch.setattr(fetcher, "connect", connect)
    for _ in range(fetch.MAX_FETCHES_PER_MINUTE + 5):
        with pytest.raises(NotFetched):
            fetcher.fetch("https://sns.example/document")
    assert len(connects) == fetch.MAX_FETCHES_PER_MINUTE
    now = 61.0
    with pytest.raises(NotFetched):
        fetcher.fetch("https://sns.example/document")
    assert len(connects) == fetch.MAX_FETCHES_PER_MINUTE + 1


def test_the_certificate_of_a_host_is_verified():
    """The connection that a relay makes trusts the machine's authorities only, and checks the name."""
    context = Fetcher(max_bytes=1).context
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname is True


def test_no_more_certificates_are_kept_than_may_be(app, http, amazon, monkeypatch):
    """Above the bound they are fetched again."""
    monkeypatch.setattr(verification, "MAX_CERTIFICATES", 2)
    documents, _ = amazon
    key, certificate = sns_key()
    made = new(http, {"provider": "sns", "topic": TOPIC})
    attached(app, made["token"])
    for number in range(5):
        url = f"https://sns.us-east-2.amazonaws.com/SimpleNotificationService-{number}.pem"
        documents[url] = certificate
        body = sign_sns(sns_message(TOPIC, SigningCertURL=url), key)
        assert http.post(f"/v1/go/{made['token']}", data=body).status_code == 200
        assert len(get_services(app).verification.certificates) <= 2


def test_each_vector_is_verified_by_the_relay(app, http, monkeypatch):
    """What each provider has signed arrives; the same with one byte more does not, where the body is signed."""
    for name, signed in SIGNED.items():
        if signed.url:
            continue  # which is another than this token's
        made = new(http, signed.verify)
        client = attached(app, made["token"])
        monkeypatch.setattr("socket2me_flask.relay.forwarder.time.time", lambda now=signed.now: now)
        url = f"/v1/go/{made['token']}"
        assert http.post(url, headers=signed.headers, data=signed.body).status_code == 200, name
        if signed.is_body_signed:
            more = replace(signed, body=signed.body + b" ")
            assert http.post(url, headers=more.headers, data=more.body).status_code == 401, name
        assert [call.verified for call in client.received] == [{"provider": signed.verify["provider"]}], name
