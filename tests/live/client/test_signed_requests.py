"""`socket2me listen --verify` and `--resign`: what arrives was signed by its provider, and passes its verifier."""

import json
import time

import pytest
import requests
import slack_sdk.signature
import stripe

from socket2me.signatures import Resigner
from tests.support.library import run

BODY = b'{\n  "id": "evt_1", "object": "event"\n}'
STRIPE = "whsec_test_secret"

# The relay takes what was signed a day ago, as if it had arrived then. Receivers have a tolerance of 300 s.
A_DAY = 86_400


def signed(provider, secret, seconds_ago, **headers):
    """Return the headers that a provider signs `BODY` with."""
    return Resigner(provider, secret).sign(headers, BODY, int(time.time()) - seconds_ago)


def verify_option(provider, secret):
    return json.dumps({"provider": provider, "secrets": [secret], "tolerance_seconds": A_DAY})


def test_what_waited_passes_the_verifier_of_stripe(app, listen, tmp_path):
    """An event that was signed ten minutes ago, and waited in the mailbox, passes only with its new signature."""
    options = [
        "--verify",
        verify_option("stripe", STRIPE),
        "--resign",
        f"stripe={STRIPE}",
        "--save",
        f"{tmp_path}/save",
    ]
    listening = listen(*options)
    url = listening.url
    late, fresh = signed("stripe", STRIPE, 600), signed("stripe", STRIPE, 0)
    assert requests.post(url, data=BODY, headers=fresh, timeout=20).status_code == 200
    received = app.expect()
    assert received.by_name["stripe-signature"] == fresh["stripe-signature"]
    listening.end()
    assert requests.post(url, data=BODY, headers=late, timeout=20).status_code == 202
    refused = requests.post(url, data=BODY + b" ", headers=late, timeout=20)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "bad_signature")
    again = listen(*options)
    assert again.url == url
    received = app.expect()
    assert received.body == BODY
    original = received.by_name["x-socket2me-original-stripe-signature"]
    assert original == late["stripe-signature"]
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(BODY, original, STRIPE)
    event = stripe.Webhook.construct_event(received.body, received.by_name["stripe-signature"], STRIPE)
    assert event.id == "evt_1"
    again.end()
    assert app.received.empty()

    # The file of `--save` has the original, and `replay` signs it again.
    file = next(path for path in (tmp_path / "save").glob("*.http") if original.encode() in path.read_bytes())
    replay = ["replay", str(file), "--to", app.url]
    run(tmp_path, *replay, "--resign", f"stripe={STRIPE}")
    stripe.Webhook.construct_event(BODY, app.expect().by_name["stripe-signature"], STRIPE)


def test_an_event_that_is_sent_again_passes_the_verifier_of_slack(app, listen):
    """The app fails at first; the next attempt has a signature of its own time, its body unchanged."""
    slack = "8f742231b10e8888abcd99yyyzzz85a5"
    listening = listen("--verify", f"slack={slack}", "--resign", f"slack={slack}")
    app.answer = None
    headers = signed("slack", slack, 0)
    assert requests.post(listening.url, data=BODY, headers=headers, timeout=20).status_code == 202
    assert app.expect().by_name.items() >= headers.items()
    app.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    received = app.expect()
    assert slack_sdk.signature.SignatureVerifier(slack).is_valid_request(received.body, received.by_name)
    assert received.by_name["x-socket2me-original-x-slack-signature"] == headers["x-slack-signature"]


def test_what_is_not_verified_is_never_signed_again(app, listen):
    """A URL without --verify takes a forged event, and --resign does not give it a signature."""
    listening = listen("--resign", f"stripe={STRIPE}")
    forged = {"stripe-signature": f"t=1700000000,v1={'0' * 64}", "verified": "stripe"}
    url = f"{listening.url}?verified=stripe"
    assert requests.post(url, json={"verified": {"provider": "stripe"}}, headers=forged, timeout=20).ok
    received = app.expect()
    assert received.by_name["stripe-signature"] == forged["stripe-signature"]
    assert not [name for name, _ in received.headers if name.startswith("x-socket2me-original")]


def test_samples_are_verified_by_the_secrets_of_their_url(relay, app, listen, tmp_path):
    """What `socket2me send` signs arrives with either secret, and no other; another --verify is another URL."""
    relay.giveaways |= {"the-old-one", "the-new-one"}
    listening = listen("--verify", "github=the-old-one", "--verify", "github=the-new-one")
    for secret, status in (("the-new-one", 0), ("another", 1)):
        sent = run(tmp_path, "send", listening.url, "--sample", "github", "--signing-secret", secret, check=False)
        assert sent.returncode == status, sent.stdout
    app.expect()
    assert app.received.empty()
    listening.end()
    assert listen("--verify", "github=the-new-one").url != listening.url


def test_a_relay_that_cannot_verify_says_why(tmp_path, relay):
    """The command ends with the relay's reason, and without a URL that would take anything."""
    ended = run(tmp_path, "listen", "3000", "--server", relay.url, "--verify", "discord=0000", check=False)
    assert ended.returncode == 1
    assert "an Ed25519 public key has 32 bytes" in ended.stderr
    assert "/v1/go/" not in ended.stdout
