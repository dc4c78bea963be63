"""The live stream of a token's history, as `text/event-stream`.

A stream holds no queue: it reads the history from the position that it has reached. So a slow reader costs one
piece, and one that falls behind what is kept is sent `reset`.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from .errors import UnknownRequest
from .filters import Filter
from .history import Change, History

# A comment is sent so often if nothing else is: proxies close connections that stay silent (nginx after 60 s), and
# a peer that has left is noticed.
COMMENT_SECONDS = 15

# How many changes are read from the history at once.
CHANGES_AT_ONCE = 200

# How long a browser waits before it connects again.
RETRY_MS = 1000


class Stream:
    """The events of one connection, piece by piece. `close` ends it, from any thread.

    lives: says whether the token still lives, which is asked with each comment.
    is_gone: says whether the peer is known to have left.
    pause: lets others have their turn.
    on_close: called once.
    """

    def __init__(
        self,
        history: History,
        token: str,
        shown: Filter,
        after: str | None,
        *,
        lives: Callable[[], bool],
        is_gone: Callable[[], bool],
        pause: Callable[[], None],
        on_close: Callable[["Stream"], None],
    ) -> None:
        """`after` is the id of an event, `""` for the beginning of the history, or None for what comes from now."""
        self._history = history
        self._token = token
        self._shown = shown
        self._lives = lives
        self.is_gone = is_gone
        self._pause = pause
        self._on_close = on_close
        self._is_closed = False
        self._watch = history.watches.watch(token)
        self._needs_reset = False
        try:
            self._position = self._position_of(after)
        except BaseException:
            self._watch.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        while not self._watch.is_closed:
            piece = self._next_piece()
            if piece:
                yield piece
            elif not self._watch.wait(COMMENT_SECONDS):
                if not self._lives():
                    return
                yield b": nothing new\n\n"

    def close(self) -> None:
        """End the stream."""
        if not self._is_closed:
            self._is_closed = True
            self._watch.close()
            self._on_close(self)

    def _position_of(self, after: str | None) -> int:
        now = self._history.position(self._token)
        if after is None:
            return now
        if not after:
            return 0
        request_id, mark, number = after.partition("@")
        try:
            position = self._history.position(self._token, request_id)
        except UnknownRequest:
            self._needs_reset = True
            return now
        if not mark:
            return position
        if not (number.isascii() and number.isdecimal() and position <= int(number[:18]) <= now):
            self._needs_reset = True
            return now
        return int(number)

    def _next_piece(self) -> bytes:
        """Return what comes next; `b""` if there is nothing by now."""
        history, token, shown = self._history, self._token, self._shown
        while not self._needs_reset:
            found = history.changes(token, self._position, CHANGES_AT_ONCE, with_bodies=shown.reads_body)
            if found is None:
                break
            changes, position = found
            piece = b"".join(map(self._event, changes))
            if piece or position == self._position:
                self._position = position
                return piece
            self._position = position
            self._pause()
        self._needs_reset = False
        self._position = history.position(token)
        return _format("reset", None, {"reason": "not_kept"})

    def _event(self, change: Change) -> bytes:
        position, record, entry = change
        if not self._shown.holds(record):
            return b""
        if entry is None:
            return _format("request", record.id, record.summary())
        update = _format(
            "update", f"{record.id}@{position}", {"id": record.id, "entry": entry.shown(), **record.state()}
        )
        if self._shown.may_change:  # the request may not have been shown before
            return _format("request", f"{record.id}@{position - 1}", record.summary()) + update
        return update


def _format(kind: str, event_id: str | None, data: dict[str, Any]) -> bytes:
    id_line = f"id: {event_id}\n" if event_id is not None else ""
    return f"event: {kind}\n{id_line}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
