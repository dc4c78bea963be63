"""Verifies the signatures of calls before anything of them is parsed, and answers what providers ask.

What a provider signs is known to `socket2me.signatures`. This module knows tokens: which configuration one has, how
it is stored, and what the caller is answered. All calls that are not verified are answered alike.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable
from threading import Lock

from limits import RateLimitItem

from socket2me.signatures import BadConfig, HandshakeAnswer, Reason, Received, Verifier, sns
from socket2me.signatures import BadSignature as NotSigned

from ..errors import BadRequest, BadSignature, NotFetched, NotVerifiable
from ..http.answers import SECURITY_HEADERS, Answer
from ..storage import TokenRecord
from ..storage.vault import Vault
from .call import Call

log = logging.getLogger(__name__)

# How many tokens' keys are kept ready, of some 2 KB each. To make those of another takes 20 us.
MAX_VERIFIERS = 4096

# How many certificates of Amazon SNS are kept. A region has one at a time.
MAX_CERTIFICATES = 64


class Verification:
    """Verifies calls for tokens with `verify`.

    Parameters:
        vault: encrypts what is stored.
        public_url: how the URL of a call begins as its caller has it; None if that is not known.
        rate: how often a token may be called; None for no limit.
        fetch: returns the document at a URL of Amazon SNS, or None if there is none; raises `NotFetched`. None:
            nothing is fetched, and no token may have the provider `sns`.
    """

    def __init__(
        self,
        vault: Vault,
        *,
        public_url: str | None,
        rate: RateLimitItem | None,
        fetch: Callable[[str], bytes | None] | None,
    ) -> None:
        self._vault = vault
        self._public_url = public_url
        self._calls_per_minute = max(1, rate.amount * 60 // rate.get_expiry()) if rate is not None else None
        self.fetch = fetch
        self.verifiers: dict[tuple[str, str], Verifier] = {}  # by token and what is stored for it
        self.certificates: dict[str, bytes] = {}  # by URL, those that have signed a message
        self._lock = Lock()  # `flask run` serves with threads
        self.failures: Counter[tuple[str, Reason]] = (
            Counter()
        )  # calls that were not verified, by provider and reason

    def new(self, token: str, given: object) -> str:
        """Return what is stored for a token, from the `verify` of the request for it. Raises `BadRequest`."""
        try:
            verifier = Verifier.parse(given)
        except BadConfig as error:
            raise BadRequest(str(error)) from None
        if verifier.signs_url and self._public_url is None:
            raise BadRequest(
                f"{verifier.provider} signs the URL: this relay does not know its own, SOCKET2ME_PUBLIC_URL."
            )
        if verifier.topic is not None and self.fetch is None:
            raise BadRequest("This relay fetches nothing from Amazon SNS: SOCKET2ME_SNS is not set.")
        return self._vault.seal(token, verifier.config.as_json())

    def provider_of(self, record: TokenRecord) -> str | None:
        """Return the provider that signs the calls of a token; None if none does. Raises `NotVerifiable`."""
        return None if record.verify is None else self._verifier(record.token, record.verify).provider

    def is_same(self, record: TokenRecord, given: object) -> bool:
        """Say whether a token is verified by what the `verify` of a request says. Raises `NotVerifiable`."""
        verify = self.new(record.token, given)
        stored = record.verify
        return stored is not None and self._vault.open(record.token, stored) == self._vault.open(
            record.token, verify
        )

    def check(self, call: Call, path: str, query: str, stored: str) -> Answer | None:
        """Verify a call: note it in the call, or return the answer to the question that it is.

        `path` and `query` are as they were sent, one character a byte. Raises `BadSignature`, or `NotVerifiable` if
        that cannot be found out now.
        """
        try:
            verifier = self.verifiers.get((call.token, stored)) or self._verifier(call.token, stored)
            received = Received(call.method, call.headers, call.body, query)
            if verifier.asks and (answer := self._answer(verifier, received, is_verified=False)) is not None:
                return answer
            if verifier.signs_url:
                received.url = self._url(call, path, query)
            if verifier.topic is not None:
                is_confirmed, reason = self._check_sns(received, verifier.topic)
            else:
                is_confirmed, reason = False, verifier.check(received, call.received_at)
        except NotVerifiable as error:
            log.error("a call cannot be verified: %s", error.why)
            raise
        if reason is not None:
            self.failures[verifier.provider, reason] += 1
            log.warning("a call is not verified: provider %s, reason %s", verifier.provider, reason)
            raise BadSignature
        call.verified = verifier.verified
        if is_confirmed:
            return _to_answer(_CONFIRMED)
        return self._answer(verifier, received, is_verified=True) if verifier.asks else None

    def _answer(self, verifier: Verifier, received: Received, *, is_verified: bool) -> Answer | None:
        answer = verifier.answer(received, is_verified=is_verified, calls_per_minute=self._calls_per_minute)
        return None if answer is None else _to_answer(answer)

    def _check_sns(self, received: Received, topic: str) -> tuple[bool, Reason | None]:
        """Return whether a message is a subscription that is confirmed now, and why it is not verified, if so."""
        try:
            return self._verify_sns(received, topic), None
        except NotSigned as error:
            return False, error.reason

    def _verify_sns(self, received: Received, topic: str) -> bool:
        if self.fetch is None:
            raise NotFetched
        message = sns.parse(received, topic)
        url = message.certificate_url
        certificate = self.certificates.get(url) or self.fetch(url)
        if certificate is None:
            raise NotSigned("mismatch")
        sns.check(message, certificate)
        with self._lock:
            if url not in self.certificates and len(self.certificates) >= MAX_CERTIFICATES:
                self.certificates.clear()
            self.certificates[url] = certificate
        if message.subscribe_url is None:
            return False
        if self.fetch(message.subscribe_url) is None:
            raise NotFetched
        return True

    def _verifier(self, token: str, stored: str) -> Verifier:
        verifier = self.verifiers.get((token, stored))
        if verifier is None:
            verifier = _verifier(self._vault.open(token, stored))
            with self._lock:
                if len(self.verifiers) >= MAX_VERIFIERS:
                    self.verifiers.clear()
                self.verifiers[token, stored] = verifier
        return verifier

    def _url(self, call: Call, path: str, query: str) -> str:
        """Return the URL of a call as its caller has it, one character a byte."""
        url = f"{self._public_url}{'' if call.is_legacy else '/v1'}/go/{call.token}{path}"
        return f"{url}?{query}" if query else url


def _verifier(text: str) -> Verifier:
    """Return the verifier of what `Config.as_json` made. Raises `NotVerifiable` if this process cannot use it."""
    try:
        return Verifier.parse(json.loads(text))
    except BadConfig:
        raise NotVerifiable from None


def _to_answer(answer: HandshakeAnswer) -> Answer:
    names = {name for name, _ in answer.headers}
    headers = [("Cache-Control", "no-store"), *(item for item in SECURITY_HEADERS if item[0] not in names)]
    headers += answer.headers
    if answer.body is None:
        return Answer("204 No Content", headers, b"", "handshake")
    headers.append(("Content-Length", str(len(answer.body))))
    return Answer("200 OK", headers, answer.body, "handshake")


_CONFIRMED = HandshakeAnswer(b"OK", (("Content-Type", "text/plain"),))
