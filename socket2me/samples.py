"""Samples of what providers send, signed as they sign: to try a set-up without them."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from urllib.parse import urlencode

from .request import Request


def github(secret: bytes) -> Request:
    """A push, with `X-Hub-Signature-256`."""
    body = _json(
        {
            "ref": "refs/heads/main",
            "repository": {"id": 1, "full_name": "octocat/hello-world", "private": False},
            "pusher": {"name": "octocat", "email": "octocat@example.com"},
            "commits": [{"id": "0" * 40, "message": "Say héllo", "added": ["hello.txt"]}],
        }
    )
    return _post(
        body,
        "application/json",
        {
            "user-agent": "GitHub-Hookshot/sample",
            "x-github-event": "push",
            "x-github-delivery": "00000000-0000-0000-0000-000000000000",
            "x-hub-signature-256": f"sha256={_hex_hmac(secret, body)}",
        },
    )


def stripe(secret: bytes) -> Request:
    """A payment, with `Stripe-Signature`."""
    now = int(time.time())
    payment = {"id": "pi_sample", "object": "payment_intent", "amount": 2000, "currency": "eur"}
    event = {"id": "evt_sample", "object": "event", "type": "payment_intent.succeeded", "created": now}
    body = _json({**event, "data": {"object": payment}})
    signature = _hex_hmac(secret, b"%d.%b" % (now, body))
    return _post(
        body,
        "application/json; charset=utf-8",
        {"user-agent": "Stripe/1.0 (sample)", "stripe-signature": f"t={now},v1={signature}"},
    )


def slack(secret: bytes) -> Request:
    """A slash command, which is a form, with `X-Slack-Signature`."""
    now = int(time.time())
    command = {"team_id": "T0001", "user_name": "sample", "command": "/weather", "text": "94070 & more"}
    body = urlencode(command).encode()
    return _post(
        body,
        "application/x-www-form-urlencoded",
        {
            "user-agent": "Slackbot 1.0 (sample)",
            "x-slack-request-timestamp": str(now),
            "x-slack-signature": f"v0={_hex_hmac(secret, b'v0:%d:%b' % (now, body))}",
        },
    )


def standard(secret: bytes) -> Request:
    """An event as https://www.standardwebhooks.com has it, with `Webhook-Signature`.

    After `whsec_` is base64. Raises `binascii.Error` if it is not.
    """
    if secret.startswith(b"whsec_"):
        secret = base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    now = int(time.time())
    body = _json({"type": "contact.created", "timestamp": "2026-01-01T00:00:00Z", "data": {"id": "sample"}})
    digest = hmac.digest(secret, b"msg_sample.%d.%b" % (now, body), hashlib.sha256)
    return _post(
        body,
        "application/json",
        {
            "webhook-id": "msg_sample",
            "webhook-timestamp": str(now),
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        },
    )


SAMPLES: dict[str, Callable[[bytes], Request]] = {
    "github": github,
    "stripe": stripe,
    "slack": slack,
    "standard": standard,
}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _hex_hmac(secret: bytes, data: bytes) -> str:
    return hmac.new(secret, data, hashlib.sha256).hexdigest()


def _post(body: bytes, content_type: str, headers: dict[str, str]) -> Request:
    return Request("POST", headers={"accept": "*/*", "content-type": content_type, **headers}, body=body)
