"""Messages of Amazon SNS: whether one is of a topic, what its certificate must have signed, and how to confirm.

SNS signs with a certificate that it publishes at its own host, and wants a subscription to be confirmed by a `GET`.
Nothing is fetched here: the functions say which URL may be, and a URL that they do not return never may.
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from .public_keys import BadKey, decode_base64
from .received import BadSignature, Received
from .schemes import parse_object

# How many bytes a certificate, or the answer to a confirmation, may have. Both have about 2,000.
MAX_FETCHED_BYTES = 65_536

_TOPIC = re.compile(r"arn:aws:sns:(?P<region>[a-z]{2}(?:-[a-z]+){1,3}-[0-9]{1,2}):[0-9]{12}:[A-Za-z0-9_.-]{1,256}")
_is_certificate_path = re.compile(r"/SimpleNotificationService-[0-9a-f]{1,64}\.pem").fullmatch

_CONFIRMED = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")

# The members of a message that are signed, by its type, in this order. A notification need not have a subject.
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMED,
    "UnsubscribeConfirmation": _CONFIRMED,
}
_HASHES = {"1": "SHA1", "2": "SHA256"}


@dataclass(frozen=True, slots=True)
class Message:
    """A message that claims to be of a topic.

    certificate_url: where SNS has the certificate that must have signed it.
    subscribe_url: what confirms the subscription, if it asks for that.
    """

    signed: bytes
    signature: bytes
    hash: str
    certificate_url: str
    subscribe_url: str | None


def region_of(topic: str) -> str:
    """Return the region of the ARN of a topic. Raises `BadKey` if it is none."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        raise BadKey("topic is an ARN, arn:aws:sns:<region>:<account>:<name>")
    return match["region"]


def parse(request: Received, topic: str) -> Message:
    """Return the message of a request. Raises `BadSignature` if it is none of this topic, or names another host."""
    body = parse_object(request.body) if request.method == "POST" else None
    if body is None:
        raise BadSignature("malformed")
    kind = body.get("Type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise BadSignature("malformed")
    if body.get("TopicArn") != topic:
        raise BadSignature("mismatch")
    pairs = [(name, body[name]) for name in names if name != "Subject" or body.get(name) is not None]
    texts = [body.get("Signature"), body.get("SigningCertURL"), *(value for _, value in pairs)]
    hash_name = _HASHES.get(str(body.get("SignatureVersion")))
    if hash_name is None or not all(isinstance(text, str) for text in texts):
        raise BadSignature("malformed")
    host = f"sns.{region_of(topic)}.amazonaws.com"
    return Message(
        "".join([f"{name}\n{value}\n" for name, value in pairs]).encode(errors="surrogatepass"),
        _decoded(body["Signature"]),
        hash_name,
        _certificate_url(body["SigningCertURL"], host),
        _subscribe_url(body["SubscribeURL"], host, topic) if kind == "SubscriptionConfirmation" else None,
    )


def check(message: Message, certificate: bytes) -> None:
    """Return if the owner of a certificate, in PEM, signed a message. Raises `BadSignature`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        key = load_pem_x509_certificate(certificate).public_key()
    except ValueError:
        raise BadSignature("malformed") from None
    if not isinstance(key, RSAPublicKey):
        raise BadSignature("malformed")
    try:
        # SHA-1 is what SNS signs version 1 with: the owner of a topic can choose version 2.
        key.verify(message.signature, message.signed, PKCS1v15(), SHA1() if message.hash == "SHA1" else SHA256())  # noqa: S303
    except InvalidSignature:
        raise BadSignature("mismatch") from None


def _decoded(text: str) -> bytes:
    if not text.isascii():
        raise BadSignature("malformed")
    return decode_base64(text)


def _certificate_url(url: str, host: str) -> str:
    parts = urlsplit(_plain(url))
    if (parts.scheme, parts.netloc) != ("https", host) or _is_certificate_path(parts.path) is None or parts.query:
        raise BadSignature("malformed")
    return f"https://{host}{parts.path}"


def _subscribe_url(url: str, host: str, topic: str) -> str:
    """Return what confirms a subscription to the topic, and nothing else."""
    parts = urlsplit(_plain(url))
    pairs = parse_qsl(parts.query, max_num_fields=10)
    query = dict(pairs)
    if (parts.scheme, parts.netloc, parts.path) != ("https", host, "/") or len(query) != len(pairs):
        raise BadSignature("malformed")
    if query.keys() != {"Action", "TopicArn", "Token"} or query["Action"] != "ConfirmSubscription":
        raise BadSignature("malformed")
    if query["TopicArn"] != topic:
        raise BadSignature("mismatch")
    return f"https://{host}/?{parts.query}"


def _plain(url: str) -> str:
    """Return a URL of printable ASCII without spaces, such as parsers agree on. Raises `BadSignature`."""
    if re.fullmatch(r"[!-~]{1,2000}", url) is None or "\\" in url:
        raise BadSignature("malformed")
    return url
