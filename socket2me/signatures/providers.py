"""The table of providers: how each signs, and what it asks before it sends anything."""

from dataclasses import dataclass

from . import handshakes
from .handshakes import Handshake
from .schemes import (
    DiscordScheme,
    GitLabScheme,
    GraphScheme,
    HmacScheme,
    Scheme,
    SecretScheme,
    SendGridScheme,
    StandardScheme,
    StripeScheme,
    TwilioScheme,
    XScheme,
)

# How far the time of a signature may be from now, in seconds, unless the token says otherwise: as Stripe, Slack and
# Standard Webhooks have it.
DEFAULT_TOLERANCE_SECONDS = 300


@dataclass(frozen=True)
class Provider:
    """A provider.

    scheme: how it authenticates requests. None for the one whose configuration says so, and for Amazon SNS.
    handshake: the answer to its question; one that it signs if `signs_handshake`.
    signs_url: whether the URL is part of what is signed.
    options: members that its configuration may have, beside those that all have.
    """

    scheme: Scheme | None
    handshake: Handshake | None = None
    signs_handshake: bool = False
    signs_url: bool = False
    options: tuple[str, ...] = ()


_HUB_SIGNATURE = HmacScheme("x-hub-signature", prefix="sha256=")
_GITEA = HmacScheme("x-gitea-signature")

PROVIDERS: dict[str, Provider] = {
    "bitbucket": Provider(_HUB_SIGNATURE),
    "cloudevents": Provider(SecretScheme("authorization", prefix="Bearer "), handshakes.cloudevents),
    "discord": Provider(DiscordScheme(), handshakes.discord, signs_handshake=True),
    "dropbox": Provider(HmacScheme("x-dropbox-signature"), handshakes.dropbox),
    "forgejo": Provider(_GITEA),
    "gitea": Provider(_GITEA),
    "github": Provider(HmacScheme("x-hub-signature-256", prefix="sha256=")),
    "gitlab": Provider(GitLabScheme()),
    "graph": Provider(GraphScheme(), handshakes.graph),
    "hmac": Provider(
        None, options=("header", "prefix", "encoding", "hash", "template", "timestamp_header", "id_header")
    ),
    "jira": Provider(_HUB_SIGNATURE),
    "meta": Provider(
        HmacScheme("x-hub-signature-256", prefix="sha256="), handshakes.meta, options=("verify_token",)
    ),
    "okta": Provider(SecretScheme("authorization"), handshakes.okta),
    "sendgrid": Provider(SendGridScheme()),
    "shopify": Provider(HmacScheme("x-shopify-hmac-sha256", encoding="base64")),
    "slack": Provider(
        HmacScheme(
            "x-slack-signature",
            prefix="v0=",
            template="v0:{timestamp}:{body}",
            timestamp_header="x-slack-request-timestamp",
        ),
        handshakes.slack,
        signs_handshake=True,
    ),
    "sns": Provider(None, options=("topic",)),
    "square": Provider(
        HmacScheme("x-square-hmacsha256-signature", encoding="base64", template="{url}{body}"), signs_url=True
    ),
    "standard": Provider(StandardScheme()),
    "stripe": Provider(StripeScheme()),
    "twilio": Provider(TwilioScheme(), signs_url=True),
    "x": Provider(XScheme("x-twitter-webhooks-signature", prefix="sha256=", encoding="base64"), handshakes.x),
    "zoom": Provider(
        HmacScheme(
            "x-zm-signature",
            prefix="v0=",
            template="v0:{timestamp}:{body}",
            timestamp_header="x-zm-request-timestamp",
        ),
        handshakes.zoom,
        signs_handshake=True,
    ),
}
