"""What the HTTP contract of the inspector answers where it cannot do what is asked."""


class InspectorError(Exception):
    """A call that is answered with an error. `status` is that of HTTP, `code` a short name for programs."""

    status = 400
    code = "bad_request"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.__doc__)


class BadQuery(InspectorError):
    """A parameter or a member of the body makes no sense. The text says which."""


class BadFilter(InspectorError):
    """A filter that does not parse. `column` is the place of the error, counted from 1."""

    code = "bad_filter"

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message} (column {column})")
        self.column = column


class UnknownRequest(InspectorError):
    """No such request is in the history of this token."""

    status = 404
    code = "unknown_request"


class NoReplay(InspectorError):
    """Requests cannot be sent again from here."""

    status = 403
    code = "no_replay"


class TooManyStreams(InspectorError):
    """Too many live streams are open."""

    status = 429
    code = "too_many_streams"
