"""What can go wrong, who is at fault, and what the caller hears.

Knows nothing of Flask or Socket.IO: `api/` turns a `RelayError` into an answer. The caller is at fault
for a status in the 400s, the relay or its client for one in the 500s.
"""


class ConfigError(Exception):
    """A setting has a value that the relay does not accept. The text names the variable."""


class RelayError(Exception):
    """An HTTP call that cannot be answered with `200`.

    `status` is the HTTP status, `code` a stable word for programs, the text a sentence for people.
    `retry_after_seconds`, where there is one, becomes the `Retry-After` header.
    """

    status = 500
    code = "internal_error"
    message = "The relay failed."

    def __init__(self, message: str | None = None, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message or self.message)
        self.retry_after_seconds = retry_after_seconds

    def as_dict(self) -> dict[str, dict[str, str]]:
        """Return the one shape in which every error is answered."""
        return {"error": {"code": self.code, "message": str(self)}}


class UnknownToken(RelayError):
    """Never issued, expired or not a token at all: one answer for all, so that nobody can tell which."""

    status = 404
    code = "unknown_token"
    message = "No such token. It was never issued, or it has expired."


class BadRequest(RelayError):
    """What a client of Engine.IO asks for makes no sense."""

    status = 400
    code = "bad_request"
    message = "The request makes no sense."


class ForbiddenOrigin(RelayError):
    """A web page asks that `CORS_ALLOWED_ORIGINS` does not name."""

    status = 403
    code = "forbidden_origin"
    message = "Pages of this origin may not connect."


class BadAuth(RelayError):
    """The `auth` of a connect holds what the relay does not know."""

    status = 400
    code = "bad_auth"
    message = "auth holds what this relay does not know."


class IncompleteBody(RelayError):
    """The caller's body ended before its announced length, or is not framed as HTTP demands."""

    status = 400
    code = "incomplete_body"
    message = "The body ended early or is not framed correctly."


class BodyTooLarge(RelayError):
    """The body is over `MAX_BODY_BYTES`."""

    status = 413
    code = "body_too_large"
    message = "The body is larger than this relay accepts."


class NobodyConnected(RelayError):
    """The token lives, but no client came within `HOLD_SECONDS`."""

    status = 503
    code = "nobody_connected"
    message = "No client is connected for this token."


class TooManyHeld(RelayError):
    """As many calls as `MAX_HELD_REQUESTS` or `MAX_HELD_BYTES` allow are waiting for their clients."""

    status = 503
    code = "too_many_held"
    message = "No client is connected for this token, and too many calls are waiting for theirs."


class TooManyConnections(RelayError):
    """As many clients as `MAX_CONNECTIONS` allows are connected."""

    status = 503
    code = "too_many_connections"
    message = "The relay holds as many connections as it may."


class ShuttingDown(RelayError):
    """The process is about to end; another will take its place."""

    status = 503
    code = "shutting_down"
    message = "The relay is stopping. Another will be here in a moment."


class StoreUnavailable(RelayError):
    """The store does not answer."""

    status = 503
    code = "store_unavailable"
    message = "The relay's store does not answer."


class ClientTooSlow(RelayError):
    """The client reads more slowly than calls come: its queue is full."""

    status = 503
    code = "client_too_slow"
    message = "The client for this token does not keep up."


class ClientGone(Exception):
    """A client left while an event was on its way to it. The event was not handed over."""
