"""What can go wrong, which side is at fault, and what the caller receives.

Knows nothing of Flask or Socket.IO: `answers.py` turns a `RelayError` into an answer. The caller is at fault for
a status in the 400s, the relay or its client for one in the 500s.
"""


class ConfigError(Exception):
    """A setting has a value that the relay does not accept. The text names the variable."""


class ClientGone(Exception):
    """A client left while an event was on its way to it. The event was not delivered."""


class ProcessGone(ClientGone):
    """The same, since its whole process cannot be reached."""


class NoRoom(Exception):
    """The send queue of a client is full until it has acknowledged some events. The event was not delivered."""


class RelayError(Exception):
    """A call that cannot be answered with `200`.

    `status` is the HTTP status, `code` a stable word for programs, the text a sentence for people. One that
    `is_temporary` says when to call again (`Retry-After`), after `retry_after_seconds` if that is known.
    `setting` names the limit that is reached, if one is; it is logged. `headers` go with the answer.
    `outcome` is what the call counts as in the metrics: one of `answers.OUTCOMES`.
    """

    status = 500
    code = "internal_error"
    message = "The relay failed."
    is_temporary = False
    setting: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    outcome = "error"

    def __init__(self, message: str | None = None, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message or self.message)
        self.retry_after_seconds = retry_after_seconds


class BadRequest(RelayError):
    """The request is invalid. The text says why."""

    status = 400
    code = "bad_request"
    message = "The request makes no sense."


class UpgradeRequired(RelayError):
    """A WebSocket is asked for in a version that the relay does not speak (RFC 6455, section 4.4)."""

    status = 426
    code = "upgrade_required"
    message = "A WebSocket takes Sec-WebSocket-Version: 13."
    headers = (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"), ("Connection", "Upgrade"))


class UnknownHost(RelayError):
    """The `Host` of a request is none of `SOCKET2ME_ALLOWED_HOSTS` (RFC 9110, section 15.5.20)."""

    status = 421
    code = "unknown_host"
    message = "This relay does not answer for this host."
    setting = "SOCKET2ME_ALLOWED_HOSTS"


class IncompleteBody(RelayError):
    """The caller's body ended before its announced length, or is not framed as HTTP demands."""

    status = 400
    code = "incomplete_body"
    message = "The body ended early or is not framed correctly."


class MalformedRequest(RelayError):
    """A head that is not HTTP, or more of it than is accepted. The connection is closed after the response."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class BadAuth(RelayError):
    """The `auth` of a connect has an unknown option, or a value that is not allowed."""

    status = 400
    code = "bad_auth"
    message = "auth holds what this relay does not know."


class Unauthorized(RelayError):
    """The call needs a key or a secret, and has none or a wrong one. The text says which."""

    status = 401
    code = "unauthorized"
    message = "This needs Authorization: Bearer, and a right one."
    headers = (("WWW-Authenticate", "Bearer"),)


class BadSignature(RelayError):
    """The provider of the token has not signed the call. The log and a counter say why, the response does not."""

    status = 401
    code = "bad_signature"
    outcome = "bad_signature"
    message = "This call is not signed as this URL demands."
    headers = (("WWW-Authenticate", "Signature"),)


class Forbidden(RelayError):
    """This is allowed to no one here. The text says why."""

    status = 403
    code = "forbidden"
    message = "This is not allowed here."


class ForbiddenOrigin(Forbidden):
    """A web page asks that `SOCKET2ME_CORS_ALLOWED_ORIGINS` does not name."""

    code = "forbidden_origin"
    message = "Pages of this origin may not connect."


class UnknownToken(RelayError):
    """Never issued, expired or not a token at all: one answer for all, so that a caller cannot find out which."""

    status = 404
    code = "unknown_token"
    outcome = "unknown_token"
    message = "No such token. It was never issued, or it has expired."


class BadName(BadRequest):
    """A name is asked for that is none, or that no one may have. The text says which."""

    code = "bad_name"
    message = "This is no name."


class NameTaken(RelayError):
    """A name that is asked for is another's: it lives, or the grace after its end is not over."""

    status = 409
    code = "name_taken"
    message = "This name is taken. Its owner sends the secret as Authorization: Bearer; others choose another name."


class NameDiffers(RelayError):
    """A name lives, and is asked for by its owner with other options than it has. The text says which."""

    status = 409
    code = "name_differs"
    how = "DELETE /v1/tokens/<name> ends it; then it can be claimed with these options."
    message = f"This name lives with other options. {how}"


class TooManyNames(RelayError):
    """A key, or an address on a relay with open names, has as many names as it may have."""

    status = 403
    code = "too_many_names"
    message = "You have as many names as one may have. DELETE /v1/tokens/<name> releases one."
    setting = "MAX_NAMES_PER_OWNER"


class BodyTimeout(RelayError):
    """The body did not arrive within `BODY_TIMEOUT_SECONDS`."""

    status = 408
    code = "body_timeout"
    outcome = "timed_out"
    message = "The body did not arrive in time."
    setting = "BODY_TIMEOUT_SECONDS"


class BodyTooLarge(RelayError):
    """The body is over `SOCKET2ME_MAX_BODY_BYTES`."""

    status = 413
    code = "body_too_large"
    outcome = "too_large"
    message = "The body is larger than this relay accepts."
    setting = "SOCKET2ME_MAX_BODY_BYTES"


class BadReply(RelayError):
    """The client replied what is no answer. The text says why."""

    status = 502
    code = "bad_reply"
    message = "The client's reply is no answer."


class ReplyTooLarge(BadReply):
    """The client's reply is larger than `MAX_CLIENT_MESSAGE_BYTES`."""

    message = "The client's reply is larger than this relay carries."
    setting = "MAX_CLIENT_MESSAGE_BYTES"


class NotAcknowledged(RelayError):
    """The client received the call and did not acknowledge it within the timeout of its mode."""

    status = 504
    code = "not_acknowledged"
    outcome = "timed_out"
    message = "The client was sent this call and did not acknowledge it in time."


class Rejected(RelayError):
    """A negative acknowledgement: the client rejected the delivery, for a `reason`. `status` is 502, 503 or 504."""

    code = "rejected"
    outcome = "replied"
    is_temporary = True

    def __init__(self, reason: str, status: int = 503) -> None:
        super().__init__(f"The client rejected this call: {reason}" if reason else "The client rejected this call.")
        self.status = status


class NoHistory(RelayError):
    """The token has a secret, and no history of its calls is kept."""

    status = 404
    code = "no_history"
    message = "This token has no history: POST /v1/new with inspect gives one that has."


class BadFilter(RelayError):
    """A filter of the inspector does not parse. The text says where."""

    status = 400
    code = "bad_filter"
    message = "The filter does not parse."


class UnknownRequest(RelayError):
    """No request with this id is in the history."""

    status = 404
    code = "unknown_request"
    message = "No such request is in the history of this token."


class TooManyStreams(RelayError):
    """As many live streams of histories are open as `MAX_INSPECTOR_STREAMS` or the bound of one token allows."""

    status = 429
    code = "too_many_streams"
    message = "Too many live streams are open."
    setting = "MAX_INSPECTOR_STREAMS or MAX_INSPECTOR_STREAMS_PER_TOKEN"
    is_temporary = True


class UnknownFile(RelayError):
    """The page has no such file."""

    status = 404
    code = "not_found"
    message = "There is no such file."


class UnknownEvent(RelayError):
    """No event with this id is in the mailbox."""

    status = 404
    code = "unknown_event"
    message = "No such event is in the mailbox of this token."


class EventDropped(RelayError):
    """The event was dropped from its mailbox while its caller waited."""

    status = 410
    code = "event_dropped"
    message = (
        "This call was dropped from the mailbox by its owner. It is not sent again, and may have been handled."
    )


class EventTooLarge(RelayError):
    """The event is larger than all that may wait for a client: its body, as an event, grew beyond that."""

    status = 413
    code = "event_too_large"
    outcome = "too_large"
    message = "As an event for its client, this call is larger than this relay accepts."
    setting = "CLIENT_QUEUE_LIMIT_BYTES"


class MailboxFull(RelayError):
    """As many events or bytes are in the token's mailbox as may be."""

    status = 429
    code = "mailbox_full"
    outcome = "rate_limited"
    message = "The mailbox of this token is full."
    setting = "SOCKET2ME_MAILBOX_MAX_EVENTS or MAILBOX_MAX_BYTES"
    is_temporary = True


class TooManyRequests(RelayError):
    """A rate is exceeded. The text says which, `retry_after_seconds` when it is not any more."""

    status = 429
    code = "too_many_requests"
    outcome = "rate_limited"
    is_temporary = True

    def __init__(self, setting: str, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.setting = setting


class Unavailable(RelayError):
    """Not now, but perhaps in a moment."""

    status = 503
    is_temporary = True


class NobodyConnected(Unavailable):
    """The token lives, but no client came within `SOCKET2ME_HOLD_SECONDS`."""

    code = "nobody_connected"
    outcome = "no_client"
    message = "No client is connected for this token."


class NoListener(Unavailable):
    """Listeners are connected, but the filter of none of them holds for the call."""

    code = "no_listener"
    outcome = "no_client"
    message = "Clients are connected for this token, but their filters ask for other calls."


class TooManyListeners(Unavailable):
    """A token has as many listeners as `MAX_LISTENERS_PER_TOKEN` allows, or as many terms in their filters."""

    code = "too_many_listeners"
    message = "This token has as many listeners as it may."
    setting = "MAX_LISTENERS_PER_TOKEN"


class ClientBusy(Unavailable):
    """The client's window is full, and no call was acknowledged within `SOCKET2ME_HOLD_SECONDS`."""

    code = "client_busy"
    outcome = "timed_out"
    message = "The client for this token is busy with other calls. This one was not delivered."


class ClientLeft(Unavailable):
    """The client left before it acknowledged the event."""

    code = "client_left"
    outcome = "client_gone"
    message = "The client for this token left before it acknowledged this call."


class MailboxesFull(Unavailable):
    """All mailboxes hold what `MAILBOX_TOTAL_BYTES` allows, for one with as much as this one has."""

    code = "mailboxes_full"
    outcome = "rate_limited"
    message = "The relay keeps as many bytes in mailboxes as it may."
    setting = "MAILBOX_TOTAL_BYTES"


class TooManyHeld(Unavailable):
    """As many calls as `MAX_HELD_REQUESTS` or `MAX_HELD_BYTES` allow are waiting, of all or of one address."""

    code = "too_many_held"
    outcome = "no_client"
    message = "No client is connected for this token, and too many calls are waiting for theirs."
    setting = "MAX_HELD_REQUESTS or MAX_HELD_BYTES"


class TooManyHeldOfToken(TooManyHeld):
    """As many calls as `MAX_HELD_REQUESTS_PER_TOKEN` allows are waiting for this one client."""

    message = "No client is connected for this token, and too many of its calls are waiting."
    setting = "MAX_HELD_REQUESTS_PER_TOKEN"


class TooManyBytes(Unavailable):
    """As many bytes of bodies that are being read have arrived as `MAX_READING_BYTES` allows."""

    code = "too_many_bytes"
    outcome = "rate_limited"
    message = "The relay is reading as many bodies as it may."
    setting = "MAX_READING_BYTES"


class ClientTooSlow(Unavailable):
    """The client reads more slowly than calls come: its queue is full."""

    code = "client_too_slow"
    outcome = "client_gone"
    message = "The client for this token does not keep up."
    setting = "CLIENT_QUEUE_LIMIT_REQUESTS or CLIENT_QUEUE_LIMIT_BYTES"


class TooManyQueued(Unavailable):
    """As many bytes wait for all clients, or for those of one address, as `MAX_QUEUED_BYTES` allows."""

    code = "too_many_queued"
    outcome = "rate_limited"
    message = "The relay holds as many bytes for its clients as it may."
    setting = "MAX_QUEUED_BYTES"


class TooManyIncomplete(Unavailable):
    """Messages and acknowledgements are incomplete, and hold as many bytes as `MAX_INCOMPLETE_BYTES` allows."""

    code = "too_many_incomplete"
    message = "Clients leave too much of what they send incomplete, and one is disconnected."
    setting = "MAX_INCOMPLETE_BYTES"


class TooManyUnread(Unavailable):
    """As many bytes of responses wait for their peers to read as `MAX_UNREAD_BYTES` allows: one is cut off."""

    code = "too_many_unread"
    message = "Responses are not read as fast as they are sent, and one is cut off."
    setting = "MAX_UNREAD_BYTES"


class TooManyTokens(Unavailable):
    """As many tokens live as `SOCKET2ME_MAX_TOKENS` allows."""

    code = "too_many_tokens"
    message = "The relay holds as many tokens as it may."
    setting = "SOCKET2ME_MAX_TOKENS"


class TooManyConnections(Unavailable):
    """As many clients are connected as `SOCKET2ME_MAX_CONNECTIONS` allows."""

    code = "too_many_connections"
    message = "The relay holds as many connections as it may."
    setting = "SOCKET2ME_MAX_CONNECTIONS"


class TooManyConnectionsOfAddress(TooManyConnections):
    """As many clients are connected from one address as `SOCKET2ME_MAX_CONNECTIONS_PER_ADDRESS` allows."""

    message = "The relay holds as many connections from your address as it may."
    setting = "SOCKET2ME_MAX_CONNECTIONS_PER_ADDRESS"


class TooManyNamespaces(Unavailable):
    """One connection has joined as many namespaces as `MAX_NAMESPACES_PER_CONNECTION` allows."""

    code = "too_many_namespaces"
    message = "This connection has joined as many namespaces as it may."
    setting = "MAX_NAMESPACES_PER_CONNECTION"


class ClientDoesNotRead(Unavailable):
    """A client has read nothing of what waits for it for `SEND_TIMEOUT_SECONDS`, and loses its connection."""

    code = "client_does_not_read"
    message = "A client reads nothing of what waits for it, and is disconnected."
    setting = "SEND_TIMEOUT_SECONDS"


class TooManyFrames(Unavailable):
    """A client sends more WebSocket frames in a second than it may: it is read no further until the next."""

    code = "too_many_frames"
    message = "A client sends more frames than it may, and is read more slowly."
    setting = "FRAMES_PER_SECOND"


class ShuttingDown(Unavailable):
    """The process is about to end; another will take its place."""

    code = "shutting_down"
    outcome = "draining"
    message = "The relay is stopping. Another will be here in a moment."


class PeerSilent(Unavailable):
    """The process that has the client did not say in time whether it delivered the call."""

    code = "peer_silent"
    message = "The process of this relay that has the client did not answer in time."
    setting = "SOCKET2ME_STORE_TIMEOUT_SECONDS"


class NotVerifiable(Unavailable):
    """Whether the provider has signed the call cannot be found out now. `why` is for the log."""

    code = "not_verifiable"
    message = "The relay cannot verify this call now."
    why = "its configuration cannot be used by this process"


class SecretsUnreadable(NotVerifiable):
    """The secrets of the provider cannot be decrypted."""

    why = "none of the keys of SOCKET2ME_ENCRYPTION_KEY has encrypted its secrets"


class NotFetched(NotVerifiable):
    """What Amazon SNS has to be asked for was not received in time, or is asked for too often."""

    why = "Amazon SNS has not answered in time, or is asked too often"


class StoreUnavailable(Unavailable):
    """The store does not answer."""

    code = "store_unavailable"
    message = "The relay's store does not answer."
