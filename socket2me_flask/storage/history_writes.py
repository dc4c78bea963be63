"""What the histories on disk and in Redis share: their packed form, and writes that no call waits for."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from socket2me.inspector.history import Watches
from socket2me.inspector.record import Entry, RequestRecord, Response, Update

from ..concurrency.future import Job
from ..logs import LogInterval

log = logging.getLogger(__name__)

# How many bytes may wait to be written to a history. A request for which there is no room is not kept.
MAX_UNWRITTEN_BYTES = 32_000_000

# How many requests, and bytes of bodies, are read from a store at once.
REQUESTS_AT_ONCE = 50
BYTES_AT_ONCE = 2_000_000

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode

# What is kept of a request beside its body and what may change, by name: a version that adds a field reads those
# that have none.
_HEAD = ("id", "received_at", "method", "path", "query", "headers", "size", "remote_addr", "replay_of")


def pack_head(record: RequestRecord) -> bytes:
    """Return what does not change of a request, without its body."""
    head = {name: getattr(record, name) for name in _HEAD}
    return pack({**head, "headers": tuple(record.headers)})


def unpack_record(
    head: bytes,
    position: int,
    status: int | None,
    ms: float | None,
    outcome: str | None,
    body: bytes | None,
    response: bytes | None,
) -> RequestRecord:
    """Return a request without its timeline."""
    found: Mapping[str, Any] = unpack(head)
    known = {name: found[name] for name in _HEAD if name in found}
    known["headers"] = tuple((name, value) for name, value in known["headers"])
    state: dict[str, Any] = {"status": status, "ms": ms, "outcome": outcome, "response": unpack_response(response)}
    return RequestRecord(**known, **state, body=body or b"", position=position)


def unpack_entries(packed: bytes) -> list[Entry]:
    """Return entries of a timeline that were packed as a list."""
    return [Entry(*entry[:3]) for entry in unpack(packed)]


def unpack_response(packed: bytes | None) -> Response | None:
    """Return a response that was packed as a list."""
    if not packed:
        return None
    status, headers, body = unpack(packed)[:3]
    return Response(status, [(name, value) for name, value in headers], body)


class HistoryWrites:
    """Bounds and counts the writes of one process that no call waits for.

    lost: how many writes failed, or found no room.
    """

    def __init__(self) -> None:
        self.watches = Watches()
        self.lost = 0
        self._unwritten_bytes = 0
        self._loss_lines = LogInterval()

    def write(self, token: str, cost: int, submit: Callable[[Callable[[Job], None]], object]) -> None:
        """Have something written that counts for so many bytes. `submit` takes what to call when it is done."""
        if self._unwritten_bytes + cost > MAX_UNWRITTEN_BYTES:
            self._lose("MAX_UNWRITTEN_BYTES reached")
            return
        self._unwritten_bytes += cost
        submit(partial(self._on_written, token, cost))

    def _on_written(self, token: str, cost: int, job: Job) -> None:
        self._unwritten_bytes -= cost
        if job.error is not None:
            self._lose("the store cannot be written")
        else:
            self.watches.notify(token)

    def _lose(self, why: str) -> None:
        self.lost += 1
        if self._loss_lines.is_due():
            log.warning("calls are missing in histories, %d entries by now: %s", self.lost, why)


def change_values(update: Update) -> tuple[bytes, int | None, float | None, str | None, bytes | None]:
    """Return what is written of an update: packed entries, status, milliseconds, outcome, packed response."""
    response = pack(update.response) if update.response is not None else None
    return pack(update.entries), update.status, update.ms, update.outcome, response


def first_update(record: RequestRecord) -> Update:
    """Return what a record that is added has come to."""
    return Update(record.timeline, record.status, record.ms, record.outcome, record.response)
