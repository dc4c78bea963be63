"""Names in the HTTP API: who may claim one, which there may be, and what they cost."""

import limits
import pytest

from socket2me_flask import create_app, get_services
from socket2me_flask.api.names import RESERVED_NAMES
from socket2me_flask.relay.tokens import is_name
from tests.support.fakes import FakeClient


@pytest.fixture
def make(clock):
    """What makes a relay and returns how it is asked."""

    def make(**settings):
        app = create_app({"HOLD_SECONDS": 0, "RATE_LIMIT_NEW": None, **settings}, clock=clock)
        return app.test_client()

    return make


@pytest.fixture
def http(make):
    return make(OPEN_NAMES=True)


def ask(http, name, bearer=None, **options):
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    return http.post("/v1/new", json={"name": name, **options}, headers=headers)


def code_of(answer):
    return answer.status_code, answer.json["error"]["code"]


def test_the_token_is_the_name(http):
    """In lower case, and so are its URL and its namespace; a call to it in any case reaches its client."""
    answer = ask(http, "Acme-Dev", mode="ack")
    assert answer.status_code == 201
    assert answer.json["token"] == "acme-dev"
    assert answer.json["url"] == "http://localhost/v1/go/acme-dev"
    assert answer.json["namespace"] == "/acme-dev"
    assert answer.json["secret"].startswith("s2m_")
    client = FakeClient()
    get_services(http.application).relay.presence.attach("acme-dev", client)
    for path in ("/v1/go/acme-dev", "/v1/go/ACME-DEV/a", "/go/Acme-Dev", "/v1/go/%41cme%2Ddev"):
        assert http.post(path).status_code == 200, path
    assert {call.token for call in client.received} == {"acme-dev"}
    assert http.post("/v1/go/acme\u212a".replace("acme", "ac")).status_code == 404


def test_every_url_of_a_name_takes_it_in_any_case(http):
    """As that of a call does. A token that was made has one spelling."""
    secret = ask(http, "Acme-Dev", inspect=True).json["secret"]
    made = http.post("/v1/new", json={}).json
    headers = {"Authorization": f"Bearer {secret}"}
    assert http.get("/v1/refresh/ACME-DEV", headers=headers).data == b"OK"
    assert http.get("/v1/tokens/Acme-Dev", headers=headers).json["token"] == "acme-dev"
    assert http.get("/v1/tokens/ACME-DEV/requests", headers=headers).status_code == 200
    assert http.delete("/v1/tokens/aCME-dEV", headers=headers).status_code == 204
    headers = {"Authorization": f"Bearer {made['secret']}"}
    assert http.get(f"/v1/tokens/{made['token'].upper()}", headers=headers).status_code == 404


def test_nothing_but_calling_works_without_the_secret(http):
    """Not with another either: it is neither shown, refreshed nor deleted, and its history is not seen."""
    ask(http, "acme", inspect=True)
    paths = [("GET", "/v1/refresh/acme"), ("GET", "/v1/tokens/acme"), ("DELETE", "/v1/tokens/acme")]
    paths += [(method, f"/v1/tokens/acme/{what}") for method in ("GET", "DELETE") for what in ("requests",)]
    paths += [("GET", "/v1/tokens/acme/requests.har"), ("GET", "/v1/tokens/acme/requests/stream")]
    paths += [("GET", "/v1/tokens/acme/events")]
    for method, path in paths:
        for bearer in (None, f"s2m_{'a' * 43}"):
            headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            assert code_of(http.open(path, method=method, headers=headers)) == (401, "unauthorized"), path


@pytest.mark.parametrize(
    "name",
    [
        *(
            None,
            1,
            True,
            ["acme"],
            {"a": 1},
            "",
            "ab",
            "-abc",
            "abc-",
            "a--bc",
            "a_bc",
            "a.bc",
            "a bc",
            " abc",
            "abc\n",
        ),
        *("a/b", "../abc", "ab\u212a", "ab\u017f", "\uff41bc", "\u0430bc", "abc\u200b", "a" * 64, "a" * 3000),
        *("nwabmasbuvvxurtorn722f0l", "NWABMASBUVVXURTORN722F0L", "a" * 24),
    ],
)
def test_what_is_no_name_is_refused(http, name):
    """With what a name is. Nothing is made, and no other name is given."""
    answer = ask(http, name)
    assert code_of(answer) == (400, "bad_name")
    assert "name is 3 to 63" in answer.json["error"]["message"]
    assert get_services(http.application).store.totals().tokens == 0


def test_a_name_of_10_kb_is_not_read(http):
    """The body has a bound."""
    assert code_of(ask(http, "a" * 10_000)) == (413, "body_too_large")


@pytest.mark.parametrize(
    "name", ["new", "GO", "healthz", "hea1thz", "heal-thz", "smee", "socketio", "rnetrics", "adm1n"]
)
def test_reserved_names_are_refused(http, name):
    """And those that look like one, as far as letters and digits do; `rn` is not seen as an m."""
    answer = ask(http, name)
    assert answer.status_code == (201 if name == "rnetrics" else 400)


def test_the_parts_of_the_relays_own_urls_are_reserved(http):
    """Each word that a path begins with, after `/v1` or without."""
    rules = [rule.rule.removeprefix("/v1").strip("/") for rule in http.application.url_map.iter_rules()]
    names = set(filter(is_name, (rule.split("/")[0] for rule in rules)))
    assert names <= set(RESERVED_NAMES)
    assert len(names) > 5
    assert all(map(is_name, set(RESERVED_NAMES) - {"go"}))


def test_banned_names_are_refused(make):
    """Also in another case, and what looks like one."""
    http = make(OPEN_NAMES=True, BANNED_NAMES=("paypal", "acme-dev"))
    for name in ("paypal", "PayPal", "pay-pal", "paypa1", "acme-dev", "acmedev"):
        assert code_of(ask(http, name)) == (400, "bad_name")
    assert ask(http, "acme").status_code == 201


def test_a_name_takes_a_key(make):
    """Without one, 401; where there are no keys, 403, unless names are open."""
    http = make(API_KEYS=("one", "two"), OPEN_NAMES=True)
    for bearer in (None, "three", f"s2m_{'a' * 43}"):
        assert code_of(ask(http, "acme", bearer)) == (401, "unauthorized")
    assert ask(http, "acme", "two").status_code == 201
    assert code_of(ask(make(), "acme")) == (403, "forbidden")
    assert ask(make(OPEN_NAMES=True), "acme").status_code == 201


def test_the_secret_takes_a_name_again_and_needs_no_key(make, clock):
    """While it lives, and after its end: the same name and the same secret. A key alone does not."""
    http = make(API_KEYS=("one",))
    made = ask(http, "acme", "one", ttl_seconds=100).json
    assert code_of(ask(http, "acme", "one")) == (409, "name_taken")
    assert code_of(ask(http, "acme", f"s2m_{'a' * 43}")) == (409, "name_taken")
    clock.now += 60
    again = ask(http, "acme", made["secret"], ttl_seconds=5000)
    assert again.status_code == 201
    assert again.json == {**made, "expires_at": clock.now + 100}  # it is refreshed, and lives as long as it was to
    clock.now += 101
    again = ask(http, "acme", made["secret"], ttl_seconds=5000)
    assert again.json == {**made, "expires_at": clock.now + 5000}


def test_a_name_that_lives_keeps_its_options(make):
    """The response names the one that differs; options that are the same, or are not given, are fine."""
    http = make(OPEN_NAMES=True, ENCRYPTION_KEY=(bytes(32),))
    verify = {"provider": "gitlab", "secrets": ["one"]}
    secret = ask(http, "acme", mode="reply", verify=verify).json["secret"]
    for options in ({}, {"mode": "reply"}, {"inspect": False, "mailbox": False}, {"verify": verify}):
        assert ask(http, "acme", secret, **options).status_code == 201
    for options in ({"mode": "ack"}, {"inspect": True}, {"verify": verify | {"secrets": ["two"]}}):
        answer = ask(http, "acme", secret, **options)
        assert code_of(answer) == (409, "name_differs")
        assert f"another {next(iter(options))}" in answer.json["error"]["message"]
    secret = ask(http, "other").json["secret"]
    assert code_of(ask(http, "other", secret, verify=verify)) == (409, "name_differs")


def test_the_owner_lets_a_name_go(http, clock):
    """With its secret: while it lives, and after its end."""
    for seconds in (0, 200):
        secret = ask(http, "acme", ttl_seconds=100).json["secret"]
        clock.now += seconds
        other = {"Authorization": f"Bearer s2m_{'a' * 43}"}
        for headers in ({}, other):
            assert http.delete("/v1/tokens/acme", headers=headers).status_code == (404 if seconds else 401)
        assert code_of(ask(http, "acme")) == (409, "name_taken")
        assert http.delete("/v1/tokens/acme", headers={"Authorization": f"Bearer {secret}"}).status_code == 204
        assert http.delete("/v1/tokens/acme", headers={"Authorization": f"Bearer {secret}"}).status_code == 404


def test_a_key_has_a_quota(make, monkeypatch):
    """Each its own; without keys each address has one. The answer says what to do, and the log says so, too."""
    monkeypatch.setattr("socket2me_flask.storage.names.MAX_NAMES_PER_OWNER", 1)
    http = make(API_KEYS=("one", "two"))
    assert ask(http, "first", "one").status_code == 201
    assert code_of(ask(http, "second", "one")) == (403, "too_many_names")
    assert ask(http, "second", "two").status_code == 201
    http = make(OPEN_NAMES=True)
    statuses = [
        http.post("/v1/new", json={"name": f"name-{number}"}, environ_base={"REMOTE_ADDR": address}).status_code
        for number, address in enumerate(["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"])
    ]
    assert statuses == [201, 403, 201, 201, 403]


def test_claims_count_as_new_tokens(make):
    """Also those that guess a secret."""
    http = make(OPEN_NAMES=True, RATE_LIMIT_NEW=limits.parse("2/minute"))
    assert ask(http, "acme").status_code == 201
    assert ask(http, "acme", f"s2m_{'a' * 43}").status_code == 409
    assert ask(http, "acme", f"s2m_{'a' * 43}").status_code == 429


def test_the_client_of_an_earlier_owner_is_disconnected_first(http, clock):
    """Though no sweep has found yet that its name has expired: it sees nothing of what the next owner is sent."""
    ask(http, "acme", ttl_seconds=100)
    services = get_services(http.application)
    services.relay.presence.attach("acme", earlier := FakeClient())
    clock.now += 200 + services.settings.name_grace_seconds
    assert ask(http, "acme").status_code == 201
    assert "acme" not in services.relay.presence
    assert earlier.final_events == [None]
    assert http.post("/v1/go/acme").status_code == 503


def test_the_command_releases_a_name(tmp_path):
    """In the file that the relay serves; with memory it says that it cannot."""
    app = create_app({"STORE_URL": f"sqlite:///{tmp_path}/relay.db", "OPEN_NAMES": True})
    services = get_services(app)
    services.lifecycle.start()
    try:
        assert ask(app.test_client(), "acme").status_code == 201
        runner = app.test_cli_runner()
        assert runner.invoke(args=["release-name", "Acme"]).output == "acme is released.\n"
        services.reaper.sweep()
        assert ask(app.test_client(), "acme").status_code == 201
        unknown = runner.invoke(args=["release-name", "nothing"])
        assert (unknown.exit_code, unknown.output) == (1, "Error: No one holds the name nothing.\n")
    finally:
        services.lifecycle.stop()
    refused = create_app({"STORE_URL": "memory://"}).test_cli_runner().invoke(args=["release-name", "acme"])
    assert refused.exit_code == 1
    assert "memory://" in refused.output


def test_the_command_releases_a_name_in_redis(redis):
    """At once: the process with the client is notified."""
    app = create_app({"STORE_URL": redis.url, "OPEN_NAMES": True})
    services = get_services(app)
    services.lifecycle.start()
    try:
        made = ask(app.test_client(), "acme").json
        assert app.test_cli_runner().invoke(args=["release-name", "acme"]).output == "acme is released.\n"
        assert services.store.get("acme") is None
        assert ask(app.test_client(), "acme").json["secret"] != made["secret"]
    finally:
        services.lifecycle.stop()
