"""`socket2me.signatures`: what providers sign is verified, and nothing else; their questions are answered."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
import slack_sdk.signature
import standardwebhooks
import stripe
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from socket2me.signatures import (
    PROVIDERS,
    BadConfig,
    BadKey,
    BadSignature,
    Config,
    Received,
    Resigner,
    Verifier,
    public_keys,
    schemes,
    sns,
)
from socket2me.signatures.hmac_key import HmacKey
from tests.support.node import JS, needs_npm_packages
from tests.support.servers import ROOT
from tests.support.signed_requests import (
    ED25519_PUBLIC,
    SECRET,
    SIGNED,
    STRIPE_BODY,
    TWILIO_FORM,
    TWILIO_URL,
    Signed,
    row,
    sign_sns,
    sns_key,
    sns_message,
)

TOPIC = "arn:aws:sns:us-east-2:123456789012:MyTopic"


def verifier_of(verify: dict[str, Any]) -> Verifier:
    return Verifier(Config.parse(verify))


def reason(signed: Signed) -> str | None:
    return verifier_of(signed.verify).check(signed.received, signed.now)


@pytest.mark.parametrize("name", SIGNED)
def test_what_a_provider_signed_is_verified(name):
    """Each vector is verified, also with a second secret, as while one is replaced; and not by another."""
    signed = SIGNED[name]
    assert reason(signed) is None
    (secret,) = signed.verify["secrets"]
    other = OTHER_SECRETS.get(name, "another secret")
    for secrets in ([other, secret], [secret, other]):
        assert reason(replace(signed, verify={**signed.verify, "secrets": secrets})) is None
    assert reason(replace(signed, verify={**signed.verify, "secrets": [other]})) in ("mismatch", "missing")


_SENDGRID_OTHER = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqTxd43gyp8IOEto2LdIfjRQrIbsd4SXZkLW6jDutdhXSJCWHw8REntlo7aNDthvj+y7GjUuFDb/R1NG"
    "e1OPzpA=="
)
OTHER_SECRETS = {
    "discord": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "sendgrid": _SENDGRID_OTHER,
    "standard": "whsec_AAAA",
    "standard, Svix": "whsec_AAAA",
    "standard, v1a": "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "gitlab, signing token": "whsec_AAAA",
}


def test_all_providers_have_a_vector():
    """No provider of the table is without one; that of Amazon SNS has a certificate, and a test of its own."""
    assert {signed.verify["provider"] for signed in SIGNED.values()} | {"sns"} == set(PROVIDERS)


def flipped(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        for bit in range(8):
            yield data[:index] + bytes([data[index] ^ (1 << bit)]) + data[index + 1 :]


@pytest.mark.parametrize("name", SIGNED)
def test_one_flipped_bit_is_not_verified(name):
    """A bit changed in any header that counts, in the body or in the URL, and the request is not verified."""
    signed = SIGNED[name]
    verifier = verifier_of(signed.verify)
    is_text = {"content-type"}
    for header, value in signed.headers.items():
        for changed in flipped(value.encode("latin-1")):
            is_hex = "=" not in value[-1] and changed.lower() == value.encode().lower() and header in CASELESS
            if header not in is_text and not is_hex:
                headers = {**signed.headers, header: changed.decode("latin-1")}
                received = replace(signed.received, headers=headers)
                assert verifier.check(received, signed.now) is not None, (header, changed)
    for changed in flipped(signed.body[:100]) if signed.is_body_signed else ():
        if name != "twilio" or not is_same_form(changed, TWILIO_FORM[:100]):
            received = replace(signed.received, body=changed + signed.body[100:])
            assert verifier.check(received, signed.now) is not None, changed
    for changed in flipped(signed.url.encode()):
        url = changed.decode("latin-1")
        host_ends = signed.url.index("/", 8)
        if url[:host_ends].lower() + url[host_ends:] != signed.url:  # the host in capitals is the same
            query = url.partition("?")[2]
            assert verifier.check(replace(signed.received, url=url, query=query), signed.now) is not None, url


# Signatures in hexadecimal, of which letters may have either case.
CASELESS = {
    "x-dropbox-signature",
    "x-gitea-signature",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-signature-ed25519",
    "x-slack-signature",
    "x-zm-signature",
}


def is_same_form(one: bytes, other: bytes) -> bool:
    try:
        return sorted(parse_qsl(one.decode())) == sorted(parse_qsl(other.decode()))
    except ValueError:
        return False


def test_why_a_request_is_not_verified():
    """Headers that are missing, malformed or repeated, another signature, and an old one, are distinguished."""
    github, slack, stripe_, standard = SIGNED["github"], SIGNED["slack"], SIGNED["stripe"], SIGNED["standard"]
    cases = [
        (replace(github, headers={}), "missing"),
        (with_header(github, "x-hub-signature-256", ""), "missing"),
        (with_header(github, "x-hub-signature-256", "sha256="), "malformed"),
        (with_header(github, "x-hub-signature-256", "sha1=" + "0" * 40), "malformed"),
        (with_header(github, "x-hub-signature-256", "sha256=" + "g" * 64), "malformed"),
        (with_header(github, "x-hub-signature-256", "sha256=" + "\xff" * 64), "malformed"),
        (with_header(github, "x-hub-signature-256", "sha256=" + "0" * 64), "mismatch"),
        (
            with_header(github, "x-hub-signature-256", ",".join([github.headers["x-hub-signature-256"]] * 2)),
            "repeated",
        ),
        (replace(github, body=b""), "mismatch"),
        (with_header(SIGNED["gitea"], "x-gitea-signature", "sha256=" + "0" * 64), "malformed"),
        (replace(slack, now=slack.now + 300), None),
        (replace(slack, now=slack.now + 301), "stale"),
        (replace(slack, now=slack.now - 301), "stale"),
        (replace(slack, now=slack.now + 301, verify={**slack.verify, "tolerance_seconds": 301}), None),
        (replace(slack, headers={"x-slack-signature": slack.headers["x-slack-signature"]}), "missing"),
        (with_header(slack, "x-slack-request-timestamp", "1531420618,1531420618"), "repeated"),
        (replace(stripe_, headers={}), "missing"),
        (replace(stripe_, now=stripe_.now + 300), "stale"),
        (with_header(stripe_, "stripe-signature", "t=1700000000"), "malformed"),
        (with_header(stripe_, "stripe-signature", "t=1700000000,v0=" + "0" * 64), "malformed"),
        (with_header(stripe_, "stripe-signature", "v1=" + "0" * 64), "malformed"),
        (with_header(stripe_, "stripe-signature", "nonsense"), "malformed"),
        (with_header(stripe_, "stripe-signature", "t=x,v1=" + "0" * 64), "mismatch"),
        (with_header(stripe_, "stripe-signature", stripe_of("1700000000.5", STRIPE_BODY)), "malformed"),
        (with_header(stripe_, "stripe-signature", "t=1" + ",v1=0" * 17), "malformed"),
        (with_header(stripe_, "stripe-signature", ",".join([stripe_.headers["stripe-signature"]] * 2)), "repeated"),
        (with_header(stripe_, "stripe-signature", stripe_.headers["stripe-signature"] + ",v1=" + "0" * 64), None),
        (replace(standard, now=standard.now + 301), "stale"),
        (with_header(standard, "webhook-signature", "v1"), "malformed"),
        (with_header(standard, "webhook-signature", "v2,AAAA"), "mismatch"),
        (with_header(standard, "webhook-signature", " ".join(["v1,AAAA"] * 17)), "malformed"),
        (
            with_header(standard, "webhook-signature", ",".join([standard.headers["webhook-signature"]] * 2)),
            "repeated",
        ),
        (
            with_header(standard, "webhook-signature", "v1a,AAAA v1,AAAA " + standard.headers["webhook-signature"]),
            None,
        ),
        (with_header(standard, "webhook-id", "a,b"), "repeated"),
        (with_header(SIGNED["x"], "x-other", "", body=b"123"), "malformed"),
        (with_header(SIGNED["sendgrid"], "x-twilio-email-event-webhook-signature", "%"), "malformed"),
        (with_header(SIGNED["discord"], "x-signature-ed25519", "00 " * 43), "malformed"),
        (replace(SIGNED["graph"], body=b'{"value":[]}'), "malformed"),
        (replace(SIGNED["graph"], body=b'{"value":[{}]}'), "missing"),
        (replace(SIGNED["graph"], body=b'{"value":[{"clientState":"\\ud800"}]}'), "mismatch"),
        (replace(SIGNED["graph"], body=b"[" * 100_000), "malformed"),
        (replace(SIGNED["twilio, JSON"], url=TWILIO_URL), "missing"),
        (replace(SIGNED["twilio"], body=b"\xff"), "malformed"),
        (with_header(SIGNED["gitlab"], "x-gitlab-token", "\xff"), "mismatch"),
    ]
    for number, (signed, expected) in enumerate(cases):
        assert reason(signed) == expected, number


def stripe_of(timestamp: str, body: bytes) -> str:
    signature = hmac.new(b"whsec_test_secret", timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={signature}"


def with_header(signed: Signed, name: str, value: str, **changes: Any) -> Signed:
    return replace(signed, headers={**signed.headers, name: value}, **changes)


def test_a_body_that_is_no_text_is_verified():
    """The exact bytes are signed: a body that is not UTF-8 is verified, by each scheme that signs it."""
    body = b"\xff\x00{\r\n"
    for name, header, text in (
        ("github", "x-hub-signature-256", b""),
        ("slack", "x-slack-signature", b"v0:1531420618:"),
        ("stripe", "stripe-signature", b"1700000000."),
    ):
        signed = SIGNED[name]
        digest = hmac.new(signed.verify["secrets"][0].encode(), text + body, hashlib.sha256).hexdigest()
        value = signed.headers[header][: -len(digest)] + digest
        assert reason(with_header(signed, header, value, body=body)) is None, name


def test_as_much_is_compared_whatever_is_right(monkeypatch):
    """The number of comparisons is the same when the first secret matches, the second, and none."""
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(schemes, "compare_digest", lambda one, other: compared.append(one) or compare(one, other))
    for name, signed in SIGNED.items():
        if name in ("discord", "sendgrid", "standard, v1a") or signed.verify["provider"] == "gitlab":
            continue
        (secret,), counts = signed.verify["secrets"], set()
        other, third = ("whsec_AAAA", "whsec_BBBB") if secret.startswith("whsec_Mf") else ("other", "third")
        for secrets in ([secret, other], [other, secret], [other, third]):
            compared.clear()
            reason(replace(signed, verify={**signed.verify, "secrets": secrets}))
            counts.add(len(compared))
        assert len(counts) == 1 and counts != {0}, name


def test_an_hmac_is_that_of_the_standard_library():
    """For keys shorter than a block, as long, and longer, for each hash, however the message is cut."""
    for name in ("sha1", "sha256", "sha512"):
        for size in (0, 1, 63, 64, 65, 127, 128, 129, 300):
            key, message = bytes(range(256))[:size] * 1, b"a message"
            expected = hmac.digest(key, message, name)
            assert (
                HmacKey(key, name).digest(message) == HmacKey(key, name).digest(b"a ", b"", b"message") == expected
            )


def test_twilio_signs_urls_with_and_without_their_port_and_by_two_hashes():
    """The vectors of twilio-python with ports, with fields that repeat, and an HMAC-SHA-256 that a header names."""
    signed = SIGNED["twilio"]
    http = TWILIO_URL.replace("https", "http")
    for url, signature in (
        (TWILIO_URL.replace(".com", ".com:1234"), "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (http.replace(".com", ".com:1234"), "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (TWILIO_URL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        (http, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
    ):
        assert reason(with_header(signed, "x-twilio-signature", signature, url=url)) is None, url
    repeated = b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234"
    assert reason(with_header(signed, "x-twilio-signature", "IK+Dwps556ElfBT0I3Rgjkr1wJU=", body=repeated)) is None
    digest = hmac.new(b"12345", TWILIO_URL.encode() + b"ab", hashlib.sha256).digest()
    named = with_header(signed, "x-twilio-webhooks-signature-settings", "key=k,algorithm=HMAC_SHA256", body=b"a=b")
    assert reason(with_header(named, "x-twilio-signature", base64.b64encode(digest).decode())) is None


BAD_CONFIGS = [
    (None, "verify is an object with a provider"),
    ({"provider": "gihub", "secrets": ["s"]}, 'verify.provider "gihub" is none of bitbucket, cloudevents'),
    ({"provider": ["github"], "secrets": ["s"]}, 'verify.provider ["github"] is none of'),
    ({"provider": "github"}, "verify.secrets is a list of one secret, or of two"),
    ({"provider": "github", "secrets": "s"}, "verify.secrets is a list"),
    ({"provider": "github", "secrets": ["s"] * 3}, "verify.secrets is a list"),
    (
        {"provider": "github", "secrets": ["s", ""]},
        "verify.secrets, number 2, is not a text of 1 to 1024 characters.",
    ),
    ({"provider": "github", "secrets": ["s" * 1025]}, "verify.secrets, number 1, is not a text"),
    ({"provider": "github", "secrets": ["\ud800"]}, "verify.secrets, number 1, has half a surrogate pair."),
    ({"provider": "github", "secrets": ["s"], "secret": "t"}, 'tolerance_seconds, and not "secret".'),
    ({"provider": "github", "secrets": ["s"], "topic": "t"}, 'and not "topic".'),
    ({"provider": "github", "secrets": ["s"], "tolerance_seconds": 0}, "is a number from 1 to 86400."),
    ({"provider": "github", "secrets": ["s"], "tolerance_seconds": True}, "is a number from 1 to 86400."),
    ({"provider": "github", "secrets": ["s"], "tolerance_seconds": float("nan")}, "is a number from 1 to 86400."),
    (
        {"provider": "standard", "secrets": ["whsec_?"]},
        "number 1, cannot be used: after whsec_ or whpk_ comes base64.",
    ),
    ({"provider": "standard", "secrets": ["whsec_"]}, "cannot be used: it is empty."),
    ({"provider": "standard", "secrets": ["whpk_AAAA"]}, "an Ed25519 public key has 32 bytes."),
    ({"provider": "discord", "secrets": ["xyz"]}, "cannot be used: it is not hexadecimal."),
    ({"provider": "discord", "secrets": ["00"]}, "an Ed25519 public key has 32 bytes."),
    ({"provider": "sendgrid", "secrets": ["%"]}, "cannot be used: it is not base64."),
    ({"provider": "sendgrid", "secrets": ["AAAA"]}, "cannot be used: it is no public key in DER."),
    ({"provider": "gitlab", "secrets": ["a,b"]}, "printable ASCII without commas."),
    ({"provider": "meta", "secrets": ["s"], "verify_token": 1}, "verify.verify_token is a printable text"),
    ({"provider": "sns", "topic": TOPIC, "secrets": ["s"]}, "verify of sns has no secrets"),
    ({"provider": "sns"}, "verify of sns: topic is an ARN"),
    ({"provider": "sns", "topic": "arn:aws:sns:evil.example/:123456789012:T"}, "verify of sns: topic is an ARN"),
    ({"provider": "hmac", "secrets": ["s"]}, "verify of hmac needs the header"),
    ({"provider": "hmac", "secrets": ["s"], "header": "X Y"}, 'verify.header "X Y" is not the name of a header.'),
    ({"provider": "hmac", "secrets": ["s"], "header": "X_Y"}, "is not the name of a header."),
    ({"provider": "hmac", "secrets": ["s"], "header": "X", "hash": "md5"}, "is none of sha1, sha256, sha512."),
    ({"provider": "hmac", "secrets": ["s"], "header": "X", "encoding": "hexa"}, "is none of hex, base64."),
    (
        {"provider": "hmac", "secrets": ["s"], "header": "X", "prefix": "a,"},
        "verify.prefix is ASCII without a comma.",
    ),
    ({"provider": "hmac", "secrets": ["s"], "header": "X", "template": "{bod}"}, "verify.template has {body} once"),
    ({"provider": "hmac", "secrets": ["s"], "header": "X", "template": "{body}{body}"}, "has {body} once"),
    ({"provider": "hmac", "secrets": ["s"], "header": "X", "template": "{body}{"}, "has {body} once"),
    (
        {"provider": "hmac", "secrets": ["s"], "header": "X", "template": "{timestamp}{body}"},
        "verify.template has {timestamp} if, and only if, there is verify.timestamp_header.",
    ),
    (
        {"provider": "hmac", "secrets": ["s"], "header": "X", "id_header": "Y"},
        "verify.template has {id} if, and only if, there is verify.id_header.",
    ),
]


def test_a_configuration_that_cannot_be_used_says_why():
    """Each error names the member that is wrong, and none has a secret."""
    for given, text in BAD_CONFIGS:
        with pytest.raises(BadConfig) as raised:
            Config.parse(given)
        assert text in str(raised.value), given
        assert "s" * 9 not in str(raised.value)


def test_a_configuration_is_kept_as_text_and_hides_its_secrets():
    """`as_json` is read back as the same configuration, and `repr` has neither secrets nor options."""
    for signed in SIGNED.values():
        config = Config.parse(signed.verify)
        assert Config.parse(json.loads(config.as_json())) == config
        assert signed.verify["secrets"][0] not in repr(config)
    assert "a token that I chose" not in repr(Config.parse(SIGNED["meta"].verify))


def answer(
    provider: str, received: Received, *, is_verified: bool = False, **options: Any
) -> tuple[bytes, dict[str, str]] | None:
    verify = {"provider": provider, "secrets": [SECRET], **options}
    found = verifier_of(verify).answer(
        received, is_verified=is_verified, calls_per_minute=options.pop("rate", None)
    )
    return None if found is None else (found.body, dict(found.headers))


TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
JSON = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


def get(query: str, **headers: str) -> Received:
    return Received("GET", {name.replace("_", "-"): value for name, value in headers.items()}, b"", query)


def post(body: object, query: str = "") -> Received:
    return Received("POST", {}, body if isinstance(body, bytes) else json.dumps(body).encode(), query)


def test_handshakes_are_answered_as_each_provider_expects():
    """The question of each provider has the answer that its documentation shows, and no other request has it."""
    meta = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock"
    assert answer("meta", get(meta), verify_token="meatyhamhock") == (b"1158201444", TEXT)
    assert answer("meta", get(meta), verify_token="another") is None
    assert answer("meta", get(meta)) is None
    assert answer("meta", get(f"{meta}&hub.verify_token=x"), verify_token="meatyhamhock") is None
    token = "Validation%3A+Testing+client%3Cscript%3E"
    assert answer("graph", post(b"", f"validationToken={token}")) == (b"Validation: Testing client<script>", TEXT)
    assert answer("graph", get(f"validationToken={token}")) is None
    assert answer("dropbox", get("challenge=h%C3%A9")) == ("hé".encode(), TEXT)
    assert answer("dropbox", get("challenge=" + "a" * 4096)) == (b"a" * 4096, TEXT)
    for query in ("", "challenge=", "challenge=" + "a" * 4097, "challenge=%ff", "&".join(["a=1"] * 101)):
        assert answer("dropbox", get(query)) is None, query
    digest = base64.b64encode(hmac.new(SECRET.encode(), b"MmVhODhhYmM", hashlib.sha256).digest()).decode()
    assert answer("x", get("crc_token=MmVhODhhYmM&nonce=1")) == (
        json.dumps({"response_token": f"sha256={digest}"}, separators=(",", ":")).encode(),
        JSON,
    )
    assert answer("okta", get("", x_okta_verification_challenge="Me_rShK8"))[0] == b'{"verification":"Me_rShK8"}'
    assert answer("okta", get("")) is None
    question = Received("OPTIONS", {"webhook-request-origin": "eventgrid.azure.net"}, b"")
    allowed = {"Allow": "POST", "WebHook-Allowed-Origin": "eventgrid.azure.net", "WebHook-Allowed-Rate": "*"}
    assert answer("cloudevents", question) == (b"", allowed)
    limited = verifier_of({"provider": "cloudevents", "secrets": ["s"]})
    found = limited.answer(question, is_verified=False, calls_per_minute=60)
    assert found is not None and dict(found.headers)["WebHook-Allowed-Rate"] == "60"
    question.headers = {"webhook-request-origin": "<a b>"}
    assert answer("cloudevents", question) is None


def test_signed_handshakes_are_answered_only_when_they_are_verified():
    """Slack, Zoom and Discord sign their question: without the signature it has no answer.

    A webhook event of Discord has the type of a question, and is none.
    """
    slack = post({"type": "url_verification", "challenge": "3eZbrw1aB"})
    zoom = post({"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}})
    encrypted = hmac.new(SECRET.encode(), b"qgg8vlvZRS6UYooatFL8Aw", hashlib.sha256).hexdigest()
    assert answer("slack", slack, is_verified=True) == (b"3eZbrw1aB", TEXT)
    expected = {"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": encrypted}
    assert answer("zoom", zoom, is_verified=True) == (json.dumps(expected, separators=(",", ":")).encode(), JSON)
    discord = verifier_of({"provider": "discord", "secrets": [ED25519_PUBLIC]})
    found = discord.answer(post({"type": 1}), is_verified=True)
    assert found is not None and found.body == b'{"type":1}'
    found = discord.answer(post({"type": 0, "version": 1}), is_verified=True)
    assert found is not None and found.body is None
    event = {"type": 1, "version": 1, "event": {"type": "APPLICATION_AUTHORIZED"}}
    for body in (event, {"type": True}, {"type": False}, {"type": 2}, {"type": "1"}, {}, []):
        assert discord.answer(post(body), is_verified=True) is None
    assert answer("slack", slack) is None and answer("zoom", zoom) is None
    assert answer("slack", post({"type": "event_callback"}), is_verified=True) is None
    assert answer("slack", post({"type": "url_verification", "challenge": "a" * 4097}), is_verified=True) is None
    assert answer("github", slack, is_verified=True) is None


def test_zoom_is_answered_with_the_secret_that_it_signed_with():
    """While a secret is replaced, the answer is signed with the one that the question was signed with."""
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"abc"}}'
    signature = hmac.new(b"new", b"v0:1:" + body, hashlib.sha256).hexdigest()
    received = Received("POST", {"x-zm-signature": f"v0={signature}", "x-zm-request-timestamp": "1"}, body)
    verifier = verifier_of({"provider": "zoom", "secrets": ["old", "new"]})
    assert verifier.check(received, 1) is None
    found = verifier.answer(received, is_verified=True)
    assert found is not None
    assert json.loads(found.body)["encryptedToken"] == hmac.new(b"new", b"abc", hashlib.sha256).hexdigest()


def test_a_challenge_of_x_does_not_sign_an_event():
    """Anyone may have a challenge signed with the secret; a body for which that is the signature is refused."""
    event = '{"for_user_id":"1"}'
    for token in (event, "a" * 257, "a b", "a:b"):
        assert answer("x", Received("GET", {}, b"", f"crc_token={token}")) is None, token
    verifier = verifier_of({"provider": "x", "secrets": [SECRET]})
    found = verifier.answer(get("crc_token=12345"), is_verified=False)
    assert found is not None
    headers = {"x-twitter-webhooks-signature": json.loads(found.body)["response_token"]}
    assert verifier.check(Received("POST", headers, b"12345"), 0) == "malformed"


def test_libraries_of_providers_sign_what_is_verified():
    """What `stripe`, `slack_sdk` and `standardwebhooks` sign is verified, and one byte more is not."""
    now = int(datetime.now(UTC).timestamp())
    body = '{"id":"evt_1","object":"event","text":"é"}'
    slack = slack_sdk.signature.SignatureVerifier(SECRET).generate_signature(timestamp=str(now), body=body)
    key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    standard = standardwebhooks.Webhook(key).sign("msg_1", datetime.fromtimestamp(now, UTC), body)
    for provider, secret, headers in (
        (
            "stripe",
            SECRET,
            {"stripe-signature": stripe.WebhookSignature.generate_signature_header(body, SECRET, now)},
        ),
        ("slack", SECRET, {"x-slack-signature": slack, "x-slack-request-timestamp": str(now)}),
        (
            "standard",
            key,
            {"webhook-signature": standard, "webhook-id": "msg_1", "webhook-timestamp": str(now)},
        ),
    ):
        verifier = verifier_of({"provider": provider, "secrets": [secret]})
        assert verifier.check(Received("POST", headers, body.encode()), now) is None, provider
        assert verifier.check(Received("POST", headers, body.encode() + b" "), now) == "mismatch", provider


def resigned(signed: Signed, now: int) -> dict[str, str]:
    return Resigner(signed.verify["provider"], signed.verify["secrets"][0]).sign(signed.headers, signed.body, now)


def test_what_is_signed_again_is_verified_by_the_libraries_of_providers():
    """A request of years ago fails a provider's own verifier; signed again it passes, its body unchanged."""
    now = int(datetime.now(UTC).timestamp())
    old = SIGNED["stripe"]
    header = "stripe-signature"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(STRIPE_BODY, old.headers[header], "whsec_test_secret")
    new = resigned(old, now)
    assert stripe.Webhook.construct_event(STRIPE_BODY, new[header], "whsec_test_secret").id == "evt_test_webhook"
    assert new["x-socket2me-original-stripe-signature"] == old.headers[header]

    slack = SIGNED["slack"]
    verifier = slack_sdk.signature.SignatureVerifier(slack.verify["secrets"][0])
    assert not verifier.is_valid_request(slack.body, slack.headers)
    new = resigned(slack, now)
    assert verifier.is_valid_request(slack.body, new)
    assert new["x-socket2me-original-x-slack-request-timestamp"] == "1531420618"

    standard = SIGNED["standard"]
    webhook = standardwebhooks.Webhook(standard.verify["secrets"][0])
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        webhook.verify(standard.body, standard.headers)
    new = resigned(standard, now)
    assert webhook.verify(standard.body, new) == {"test": 2432232314}
    assert new["webhook-id"] == standard.headers["webhook-id"]
    assert "x-socket2me-original-webhook-id" not in new

    assert reason(replace(SIGNED["zoom"], now=now)) == "stale"
    assert reason(replace(SIGNED["zoom"], headers=resigned(SIGNED["zoom"], now), now=now)) is None


def test_the_time_of_a_signature_is_found():
    """`signed_at` is the time in the headers; None if there is none."""
    for name in ("stripe", "slack", "standard", "standard, Svix", "zoom"):
        signed = SIGNED[name]
        resigner = Resigner(signed.verify["provider"], signed.verify["secrets"][0])
        assert resigner.signed_at(signed.headers) == int(signed.now - (name in ("stripe", "zoom"))), name
        assert resigner.signed_at({}) is None


def test_only_some_providers_can_be_signed_again():
    """A provider without a time in its signature, and a public key, are refused."""
    for provider, secret in (("github", "s"), ("discord", ED25519_PUBLIC), ("standard", SIGNED_WITH_PUBLIC_KEY)):
        with pytest.raises(BadKey):
            Resigner(provider, secret)


SIGNED_WITH_PUBLIC_KEY = SIGNED["standard, v1a"].verify["secrets"][0]


@needs_npm_packages
def test_libraries_of_npm_sign_what_is_verified_and_verify_what_is_signed_again():
    """`@octokit/webhooks` and `svix` sign what is verified; `svix` verifies what was signed again."""
    now = int(datetime.now(UTC).timestamp())
    svix = SIGNED["standard, Svix"]
    given = {"secret": SECRET, "key": svix.verify["secrets"][0], "body": svix.body.decode(), "now": now}
    given["headers"] = resigned(svix, now)
    done = subprocess.run(
        ["node", "signatures.mjs"], cwd=JS, input=json.dumps(given), capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout)
    body = svix.body
    assert reason(Signed(SIGNED["github"].verify, {"x-hub-signature-256": made["github"]}, body)) is None
    headers = {"svix-id": "msg_2", "svix-timestamp": str(now), "svix-signature": made["svix"]}
    assert reason(Signed(svix.verify, headers, body, now=now)) is None
    assert made["is_verified"] is True


def test_messages_of_sns_are_verified_with_the_certificate_that_they_name():
    """Both versions, and both kinds of message, with a subject and without; one byte more, and it is none."""
    key, certificate = sns_key()
    for message in (
        sns_message(TOPIC),
        sns_message(TOPIC, Subject="Hé\n", SignatureVersion="1"),
        sns_message(TOPIC, "SubscriptionConfirmation"),
    ):
        body = sign_sns(message, key)
        parsed = sns.parse(post(body), TOPIC)
        sns.check(parsed, certificate)
        assert parsed.certificate_url == message["SigningCertURL"]
        assert parsed.subscribe_url == message.get("SubscribeURL")
        forged = json.loads(body) | {"Message": "Hello world! "}
        with pytest.raises(BadSignature, match="mismatch"):
            sns.check(sns.parse(post(forged), TOPIC), certificate)
    with pytest.raises(BadSignature, match="malformed"):
        sns.check(sns.parse(post(sign_sns(sns_message(TOPIC), key)), TOPIC), b"-----BEGIN CERTIFICATE-----\nAAAA\n")


HOST = "https://sns.us-east-2.amazonaws.com"
PATH = "/SimpleNotificationService-0.pem"


def test_no_url_but_those_of_sns_are_ever_fetched():
    """A certificate or a confirmation at another host, port, path, scheme or topic is refused before any fetch."""
    for member, urls in (
        (
            "SigningCertURL",
            [
                f"http://sns.us-east-2.amazonaws.com{PATH}",
                f"https://sns.eu-west-1.amazonaws.com{PATH}",
                f"https://sns.us-east-2.amazonaws.com.evil.example{PATH}",
                f"https://evil.example{PATH}",
                f"https://evil.example\\@sns.us-east-2.amazonaws.com{PATH}",
                f"https://u@sns.us-east-2.amazonaws.com{PATH}",
                f"https://sns.us-east-2.amazonaws.com:444{PATH}",
                f"{HOST}/evil.pem",
                f"{HOST}{PATH}?a=b",
                f"{HOST}/%2e%2e{PATH}",
                f"{HOST}{PATH}\r\nHost: evil.example",
                "",
            ],
        ),
        (
            "SubscribeURL",
            [
                f"https://evil.example/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=1",
                f"http://sns.us-east-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=1",
                f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}2&Token=1",
                f"{HOST}/?Action=DeleteTopic&TopicArn={TOPIC}&Token=1",
                f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&TopicArn={TOPIC}2&Token=1",
                f"{HOST}/x?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=1",
                f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=1&X=2",
            ],
        ),
    ):
        for url in urls:
            message = sns_message(TOPIC, "SubscriptionConfirmation", Signature="AAAA", **{member: url})
            with pytest.raises(BadSignature):
                sns.parse(post(message), TOPIC)
    for changes in (
        {"TopicArn": f"{TOPIC}2"},
        {"Type": "Other"},
        {"Type": ["Notification"]},
        {"SignatureVersion": "3"},
        {"Message": 1},
        {"Signature": "é"},
    ):
        with pytest.raises(BadSignature):
            sns.parse(post(sns_message(TOPIC, Signature="AAAA") | changes), TOPIC)
    for received in (get(""), post(b""), post(b"[]"), post(b"{" * 100_000)):
        with pytest.raises(BadSignature, match="malformed"):
            sns.parse(received, TOPIC)


def test_the_package_loads_nothing_but_the_standard_library():
    """`import socket2me.signatures` loads neither the relay, nor Socket.IO, `requests` or `cryptography`."""
    code = "import sys, socket2me.signatures; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert roots.isdisjoint({"socket2me_flask", "socketio", "requests", "cryptography", "click", "flask"})


def test_the_page_has_a_row_of_each_provider():
    """docs/signatures.md shows each vector as it is verified here, and every provider."""
    page = (ROOT / "docs/signatures.md").read_text()
    for name in SIGNED:
        assert f"\n{row(name)} " in page, row(name)
    for name in PROVIDERS:
        assert f"\n| {name} | " in page, name


def test_what_is_no_public_key_is_refused_in_one_line_that_does_not_show_it():
    """By its length, its encoding or its curve."""
    p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
    der = p384.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for read, given, why in (
        (public_keys.ed25519_key, b"geheim", "has 32 bytes"),
        (public_keys.p256_key, "geheim!", "not base64"),
        (public_keys.p256_key, base64.b64encode(b"geheim").decode(), "no public key in DER"),
        (public_keys.p256_key, base64.b64encode(der).decode(), "on the curve P-256"),
    ):
        with pytest.raises(public_keys.BadKey, match=why) as caught:
            read(given)
        assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "given"),
    [(public_keys.ed25519_key, bytes(32)), (public_keys.p256_key, "AAAA")],
    ids=["ed25519", "p256"],
)
def test_public_keys_need_a_package_that_is_named(monkeypatch, read, given):
    """Nothing else of the command needs it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(public_keys.BadKey, match=r"pip install 'socket2me\[crypto\]'"):
        read(given)
