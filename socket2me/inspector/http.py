"""The HTTP contract of the inspector, without a framework or a server: questions in, replies out.

The relay and the client serve it, each with its own authentication. `ROUTES` is the table of the calls.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from . import har
from .errors import BadQuery, InspectorError, NoReplay, TooManyStreams
from .filters import Filter, parse
from .history import History
from .record import RequestRecord
from .replay import Draft, draft
from .stream import Stream

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

# After how many requests, and how many bytes of them, a filter lets others have their turn.
REQUESTS_AT_ONCE = 50
BYTES_AT_ONCE = 262_144

# A body is sent as base64 of so many bytes at a time: a multiple of 3, so that only the last has padding.
PIECE_BYTES = 49_152

# What a replay's JSON has beside the base64 of a body.
MAX_CHANGES_BYTES = 131_072


@dataclass
class Question:
    """A call to the inspector, with the right to see the history of `token`.

    Fields:
        request_id: of the URL, if there is one in it.
        query: the parameters.
        last_event_id: the header of that name.
        body: reads the body, of at most so many bytes.
        base_url: the URL that the requests came to, for HAR.
        remote_addr: who asks.
        lives: says whether the token still lives.
        is_gone: says whether the peer is known to have left.
    """

    token: str
    request_id: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    last_event_id: str | None = None
    body: Callable[[int], bytes] = lambda limit: b""
    base_url: str = ""
    remote_addr: str = ""
    lives: Callable[[], bool] = lambda: True
    is_gone: Callable[[], bool] = lambda: False


@dataclass
class Reply:
    """The response to a question. `close` is to be called when it was sent, or cannot be."""

    status: int
    headers: list[tuple[str, str]]
    body: Iterable[bytes]
    close: Callable[[], None] = lambda: None


class Inspector:
    """Answers questions about `history`.

    replay: sends a request again for a token and a caller's address, and returns its new id; None if that cannot be
        done from here.
    pause: lets others have their turn.
    max_body_bytes: of a replay.
    max_streams, max_streams_of_token: how many streams may be open.
    version: of the program, for HAR.

    Each method but `close_streams` answers one route of `ROUTES`, and raises `InspectorError` or an error of the
    store.
    """

    def __init__(
        self,
        history: History,
        *,
        replay: Callable[[str, Draft, str], str] | None,
        pause: Callable[[], None],
        max_body_bytes: int,
        max_streams: int,
        max_streams_of_token: int,
        version: str,
    ) -> None:
        self.history = history
        self._replay = replay
        self._pause = pause
        self._max_body_bytes = max_body_bytes
        self._max_streams = max_streams
        self._max_streams_of_token = max_streams_of_token
        self._version = version
        self._streams: dict[Stream, str] = {}  # and their tokens

    def list_requests(self, question: Question) -> Reply:
        """List summaries, newest first."""
        limit = _limit(question.query.get("limit"))
        before = question.query.get("before") or None
        found = list(islice(self._found(question, before=before), limit + 1))
        return _json(
            {
                "requests": [record.summary() for record in found[:limit]],
                "more": len(found) > limit,
                "dropped": self.history.dropped_of(question.token),
            }
        )

    def show_request(self, question: Question) -> Reply:
        """Show a request whole."""
        record = self.history.find(question.token, question.request_id)
        size, pieces = json_with_body(record.details(), record.body)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(size))]
        return Reply(200, headers, pieces)

    def show_body(self, question: Question) -> Reply:
        """Return the exact bytes of a body, such that no browser renders them."""
        record = self.history.find(question.token, question.request_id)
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(len(record.body))),
            ("Content-Disposition", f'attachment; filename="{record.id}.bin"'),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'; sandbox"),
        ]
        return Reply(200, headers, _cut(record.body))

    def replay(self, question: Question) -> Reply:
        """Send a request again, as it was or edited."""
        if self._replay is None:
            raise NoReplay
        record = self.history.find(question.token, question.request_id)
        changes = question.body(self._max_body_bytes * 4 // 3 + MAX_CHANGES_BYTES)
        sent = draft(record, changes, max_body_bytes=self._max_body_bytes)
        new_id = self._replay(question.token, sent, question.remote_addr)
        return _json({"id": new_id}, 202)

    def delete_request(self, question: Question) -> Reply:
        """Drop a request."""
        self.history.delete(question.token, question.request_id)
        return Reply(204, [], [])

    def delete_requests(self, question: Question) -> Reply:
        """Drop all requests of the token."""
        self.history.delete(question.token)
        return Reply(204, [], [])

    def export_har(self, question: Question) -> Reply:
        """Return the requests as HAR 1.2, oldest first, without what is secret unless it is asked for."""
        body = har.pieces(
            self._found(question, oldest_first=True, with_bodies=True),
            base_url=question.base_url,
            version=self._version,
            with_secrets=question.query.get("secrets") == "true",
        )
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Disposition", 'attachment; filename="requests.har"'),
        ]
        return Reply(200, headers, body)

    def stream(self, question: Question) -> Reply:
        """Send what comes from now on, or from an event on, as it comes."""
        after = question.last_event_id if question.last_event_id is not None else question.query.get("after")
        shown = _filter(question)
        self._make_room(question.token)
        stream = Stream(
            self.history,
            question.token,
            shown,
            after,
            lives=question.lives,
            is_gone=question.is_gone,
            pause=self._pause,
            on_close=self._forget_stream,
        )
        self._streams[stream] = question.token
        # nginx would keep the events until its buffer is full.
        headers = [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")]
        return Reply(200, headers, stream, stream.close)

    def close_streams(self) -> None:
        """End all streams: their readers connect again, to the next process."""
        for stream in list(self._streams):
            stream.close()

    def _forget_stream(self, stream: Stream) -> None:
        self._streams.pop(stream, None)

    def _make_room(self, token: str) -> None:
        """Raise `TooManyStreams` if as many are open as may be, but for those whose readers have left."""
        for bound, is_of_token in ((self._max_streams_of_token, True), (self._max_streams, False)):
            streams = [stream for stream, of in self._streams.items() if of == token or not is_of_token]
            if len(streams) < bound:
                continue
            for stream in streams:
                if stream.is_gone():
                    stream.close()
            if len(streams) - sum(stream not in self._streams for stream in streams) >= bound:
                raise TooManyStreams

    def _found(self, question: Question, **options: Any) -> Iterator[RequestRecord]:
        """Return the requests that the filter of a question asks for."""
        shown = _filter(question)
        options.setdefault("with_bodies", shown.reads_body)
        records = self.history.records(question.token, **options)
        return filter(shown.holds, self._in_turns(records) if shown.tests or options["with_bodies"] else records)

    def _in_turns(self, records: Iterator[RequestRecord]) -> Iterator[RequestRecord]:
        """Return the same, and let others have their turn now and then."""
        size = 0
        for number, record in enumerate(records, 1):
            yield record
            size += record.size
            if number % REQUESTS_AT_ONCE == 0 or size >= BYTES_AT_ONCE:
                size = 0
                self._pause()


# Method, path below the token's URL, and what answers it.
ROUTES: tuple[tuple[str, str, Callable[[Inspector, Question], Reply]], ...] = (
    ("GET", "/requests", Inspector.list_requests),
    ("DELETE", "/requests", Inspector.delete_requests),
    ("GET", "/requests.har", Inspector.export_har),
    ("GET", "/requests/stream", Inspector.stream),
    ("GET", "/requests/<request_id>", Inspector.show_request),
    ("DELETE", "/requests/<request_id>", Inspector.delete_request),
    ("GET", "/requests/<request_id>/body", Inspector.show_body),
    ("POST", "/requests/<request_id>/replay", Inspector.replay),
)


def find_route(method: str, path: str) -> Callable[[Inspector, Question], Reply] | None:
    """Return what answers a call, for a server without routes of its own. `path` is that below the token's URL.

    The id of the request, if the path has one, is its second segment.
    """
    for route_method, route, answer in ROUTES:
        if route_method == method and _matches(route, path):
            return answer
    return None


def _matches(route: str, path: str) -> bool:
    expected, found = route.split("/"), path.split("/")
    return len(expected) == len(found) and all(
        wanted == given or (wanted.startswith("<") and given != "")
        for wanted, given in zip(expected, found, strict=True)
    )


def error_body(error: InspectorError) -> bytes:
    """Return the JSON of an error, for a server without an error shape of its own."""
    members = {"code": error.code, "message": str(error)}
    if hasattr(error, "column"):
        members["column"] = error.column
    return json.dumps({"error": members}).encode()


def json_with_body(members: Mapping[str, Any], body: bytes) -> tuple[int, Iterator[bytes]]:
    """Return the size and the pieces of a JSON object whose last member is `body`, in base64.

    A reader that is slow has no second copy of the body made.
    """
    start, end = json.dumps(members).encode().removesuffix(b"}") + b', "body": "', b'"}\n'

    def pieces() -> Iterator[bytes]:
        yield start
        for piece in _cut(body):
            yield b64encode(piece)
        yield end

    return len(start) + 4 * -(-len(body) // 3) + len(end), pieces()


def _cut(body: bytes) -> Iterator[bytes]:
    return (body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES))


def _json(value: Any, status: int = 200) -> Reply:
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))], [body])


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_LIMIT):
        raise BadQuery(f"limit is a number from 1 to {MAX_LIMIT}.")
    return int(text)


def _filter(question: Question) -> Filter:
    return parse(question.query.get("filter", ""))
