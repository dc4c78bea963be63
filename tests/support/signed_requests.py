"""Requests as providers sign them: the vectors that they publish, if any. docs/signatures.md has a row of each.

A provider that publishes no vector has one that `hmac` or `cryptography` makes here, by the provider's description.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from socket2me.signatures import Received

SECRET = "It's a Secret to Everybody"


@dataclass(frozen=True)
class Signed:
    """A request, and the `verify` of the token that it is for.

    source: where the vector was published; `""` if it was made here.
    now: when it arrives, in seconds since the epoch.
    is_body_signed: whether the body is part of what is authenticated.
    """

    verify: dict[str, Any]
    headers: dict[str, str]
    body: bytes
    source: str = ""
    now: float = 0
    url: str = ""
    is_body_signed: bool = True

    @property
    def received(self) -> Received:
        return Received("POST", self.headers, self.body, self.url.partition("?")[2], self.url)


def _verify(provider: str, *secrets: str, **options: Any) -> dict[str, Any]:
    return {"provider": provider, "secrets": list(secrets), **options}


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


# RFC 8032, section 7.1, test 2.
ED25519_KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
)
ED25519_PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
STRIPE_BODY = b'{\n  "id": "evt_test_webhook",\n  "object": "event"\n}'
SENDGRID_BODY = (
    b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
    b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
    b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
    b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n'
)
TWILIO_FORM = b"Caller=%2B14158675309&CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212"
TWILIO_URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
GRAPH_BODY = (
    b'{"value":[{"subscriptionId":"1","clientState":"It\'s a Secret to Everybody","changeType":"created"}]}'
)
ZOOM_BODY = b'{"event":"meeting.started","payload":{"account_id":"abc"}}'

_github = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
_bitbucket = "a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
_plain = hmac.new(SECRET.encode(), b"Hello World!", hashlib.sha256).digest()

SIGNED: dict[str, Signed] = {
    "bitbucket": Signed(
        _verify("bitbucket", SECRET),
        {"x-hub-signature": f"sha256={_bitbucket}"},
        b"Hello World!",
        "support.atlassian.com",
    ),
    "cloudevents": Signed(
        _verify("cloudevents", "mF_9.B5f-4.1JqM"),
        {"authorization": "Bearer mF_9.B5f-4.1JqM"},
        b"{}",
        "RFC 6750, section 2.1",
        is_body_signed=False,
    ),
    "discord": Signed(
        _verify("discord", ED25519_PUBLIC),
        {
            "x-signature-ed25519": ED25519_KEY.sign(b'1700000000{"type":2}').hex(),
            "x-signature-timestamp": "1700000000",
        },
        b'{"type":2}',
        now=1_700_000_001,
    ),
    "dropbox": Signed(_verify("dropbox", SECRET), {"x-dropbox-signature": _plain.hex()}, b"Hello World!"),
    "forgejo": Signed(_verify("forgejo", SECRET), {"x-gitea-signature": _plain.hex()}, b"Hello World!"),
    "gitea": Signed(_verify("gitea", SECRET), {"x-gitea-signature": _plain.hex()}, b"Hello World!"),
    "github": Signed(
        _verify("github", SECRET),
        {"x-hub-signature-256": f"sha256={_github}"},
        b"Hello, World!",
        "docs.github.com",
    ),
    "gitlab": Signed(_verify("gitlab", SECRET), {"x-gitlab-token": SECRET}, b"{}", is_body_signed=False),
    "graph": Signed(_verify("graph", SECRET), {}, GRAPH_BODY, is_body_signed=False),
    "hmac": Signed(
        _verify(
            "hmac",
            SECRET,
            header="X-Signature",
            prefix="sha512=",
            encoding="base64",
            hash="sha512",
            template="{id}/{timestamp}/{body}",
            timestamp_header="X-Time",
            id_header="X-Id",
        ),
        {
            "x-signature": "sha512="
            + _base64(hmac.new(SECRET.encode(), b"7/1700000000/Hello World!", hashlib.sha512).digest()),
            "x-time": "1700000000",
            "x-id": "7",
        },
        b"Hello World!",
        now=1_700_000_001,
    ),
    "jira": Signed(
        _verify("jira", SECRET),
        {"x-hub-signature": f"sha256={_bitbucket}"},
        b"Hello World!",
        "developer.atlassian.com",
    ),
    "meta": Signed(
        _verify("meta", SECRET, verify_token="a token that I chose"),
        {"x-hub-signature-256": f"sha256={_plain.hex()}"},
        b"Hello World!",
    ),
    "okta": Signed(
        _verify("okta", "my-shared-secret"),
        {"authorization": "my-shared-secret"},
        b"{}",
        "developer.okta.com",
        is_body_signed=False,
    ),
    "sendgrid": Signed(
        _verify(
            "sendgrid",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpi"
            "glSI8eNEc6wEA3F+g==",
        ),
        {
            "x-twilio-email-event-webhook-signature": "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6Z"
            "UAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=",
            "x-twilio-email-event-webhook-timestamp": "1600112502",
        },
        SENDGRID_BODY,
        "sendgrid-python, test/unit/test_eventwebhook.py",
        now=1_600_112_502,
    ),
    "shopify": Signed(_verify("shopify", SECRET), {"x-shopify-hmac-sha256": _base64(_plain)}, b"Hello World!"),
    "slack": Signed(
        _verify("slack", "8f742231b10e8888abcd99yyyzzz85a5"),
        {
            "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            "x-slack-request-timestamp": "1531420618",
        },
        SLACK_BODY,
        "docs.slack.dev",
        now=1_531_420_618,
    ),
    "square": Signed(
        _verify("square", SECRET),
        {
            "x-square-hmacsha256-signature": _base64(
                hmac.new(SECRET.encode(), b"https://example.com/webhook{}", hashlib.sha256).digest()
            )
        },
        b"{}",
        url="https://example.com/webhook",
    ),
    "standard": Signed(
        _verify("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        "standardwebhooks.com",
        now=1_614_265_330,
    ),
    "standard, v1a": Signed(
        _verify("standard", f"whpk_{_base64(bytes.fromhex(ED25519_PUBLIC))}"),
        {
            "webhook-id": "msg_1",
            "webhook-timestamp": "1700000000",
            "webhook-signature": f"v1a,{_base64(ED25519_KEY.sign(b'msg_1.1700000000.{}'))}",
        },
        b"{}",
        now=1_700_000_000,
    ),
    "standard, Svix": Signed(
        _verify("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        {
            "svix-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "svix-timestamp": "1614265330",
            "svix-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        "docs.svix.com",
        now=1_614_265_330,
    ),
    "gitlab, signing token": Signed(
        _verify("gitlab", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        "standardwebhooks.com",
        now=1_614_265_330,
    ),
    "stripe": Signed(
        _verify("stripe", "whsec_test_secret"),
        {
            "stripe-signature": "t=1700000000,v1="
            + hmac.new(b"whsec_test_secret", b"1700000000." + STRIPE_BODY, hashlib.sha256).hexdigest()
        },
        STRIPE_BODY,
        now=1_700_000_001,
    ),
    "twilio": Signed(
        _verify("twilio", "12345"),
        {
            "x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
            "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
        },
        TWILIO_FORM,
        "twilio-python, tests/unit/test_request_validator.py",
        url=TWILIO_URL,
    ),
    "twilio, JSON": Signed(
        _verify("twilio", "12345"),
        {"x-twilio-signature": "a9nBmqA0ju/hNViExpshrM61xv4=", "content-type": "application/json"},
        b'{"property": "value", "boolean": true}',
        "twilio-python, tests/unit/test_request_validator.py",
        url=f"{TWILIO_URL}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620",
    ),
    "x": Signed(
        _verify("x", SECRET),
        {
            "x-twitter-webhooks-signature": "sha256="
            + _base64(hmac.new(SECRET.encode(), b'{"for_user_id":"1"}', hashlib.sha256).digest())
        },
        b'{"for_user_id":"1"}',
    ),
    "zoom": Signed(
        _verify("zoom", SECRET),
        {
            "x-zm-signature": "v0="
            + hmac.new(SECRET.encode(), b"v0:1700000000:" + ZOOM_BODY, hashlib.sha256).hexdigest(),
            "x-zm-request-timestamp": "1700000000",
        },
        ZOOM_BODY,
        now=1_700_000_001,
    ),
}


def sns_message(topic: str, kind: str = "Notification", **members: Any) -> dict[str, Any]:
    """Return an unsigned message of SNS."""
    host = f"https://sns.{topic.split(':')[3]}.amazonaws.com"
    message = {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": topic,
        "Message": "Hello world!",
        "Timestamp": "2012-05-02T00:54:06.655Z",
        "SignatureVersion": "2",
        "SigningCertURL": f"{host}/SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem",
    }
    if kind != "Notification":
        message["Token"] = "2336412f37"
        message["SubscribeURL"] = f"{host}/?Action=ConfirmSubscription&TopicArn={topic}&Token=2336412f37"
    return {**message, **members}


def sign_sns(message: dict[str, Any], key: Any) -> bytes:
    """Return a message as SNS sends it, signed with an RSA key."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256

    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    signed = "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None)
    chosen = SHA1() if message["SignatureVersion"] == "1" else SHA256()  # noqa: S303  # as SNS does
    return json.dumps({**message, "Signature": _base64(key.sign(signed.encode(), PKCS1v15(), chosen))}).encode()


def sns_key() -> tuple[Any, bytes]:
    """Return an RSA key and its certificate, in PEM."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    key = generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(key, SHA256())
    )
    return key, certificate.public_bytes(Encoding.PEM)


def row(name: str) -> str:
    """Return how the row of a vector in docs/signatures.md begins."""
    signed = SIGNED[name]
    shown = {header: value for header, value in signed.headers.items() if header != "content-type"}
    headers = "<br>".join(f"`{header}: {value}`" for header, value in shown.items()) or "none"
    return f"| {name} | `{json.dumps(signed.verify)}` | {headers} |"
