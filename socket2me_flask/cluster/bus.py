"""From process to process: each has a channel of its own in Redis, and a lease that says that it lives.

A message goes to one process, over its channel (Redis Pub/Sub), so what it costs does not grow with the number of
processes. Redis says how many heard it: a process that was killed hears nothing, and whoever wrote to it knows at
once. One that is cut off, or stands still, loses its lease after `lease_seconds`.

A process also hears its own beat on its channel. While the latest is younger than the lease, what the process
remembers of its own tokens is true; otherwise it may have missed something, and trusts nothing that it remembers.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import msgspec
from redis.exceptions import RedisError

from ..concurrency.future import Job
from ..concurrency.native import native
from ..errors import StoreUnavailable
from ..http.answers import LOG_SECONDS
from .messages import Message, from_wire, to_wire
from .redis_connection import RedisConnection

log = logging.getLogger(__name__)

# How many messages, and bytes, go out in one piece.
MOST_MESSAGES = 100
MOST_BYTES = 256_000

# A message up to this size is published. What Redis has not sent yet is bounded, and a process that is behind by
# more than that loses its channel (`client-output-buffer-limit`, 32 MB). Larger ones wait to be fetched, so long.
LARGE_BYTES = 16_384
FETCH_SECONDS = 30

_BEAT = "beat"
_LARGE = "large"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class _Batch:
    """Messages that go to a process in one piece, and what they are as bytes."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.encoded: list[msgspec.Raw] = []
        self._bytes = 0

    def add(self, message: Message, encoded: bytes) -> None:
        """Take one more message."""
        self.messages.append(message)
        self.encoded.append(msgspec.Raw(encoded))
        self._bytes += len(encoded)

    @property
    def is_full(self) -> bool:
        """Whether the next message has to go in another."""
        return len(self.messages) >= MOST_MESSAGES or self._bytes >= MOST_BYTES


class Bus:
    """This process's channel, by the name `process`, and the way to those of others.

    on_messages: called with what has come, in its order, by one thread.
    on_lost: called when messages did not arrive: with them, and whether their process is known to be gone.
    on_gap: called when messages for this process may have been missed, or its lease had ended. In the first case
        nothing is trusted until it returns true.
    on_trusted: called when, after that, this process is trusted again.
    on_beat: called with each beat.
    """

    def __init__(self, connection: RedisConnection, process: str, *, lease_seconds: float) -> None:
        self._connection = connection
        self.process = process
        self.lease_seconds = lease_seconds
        self.on_messages: Callable[[list[list[Any]]], None] = lambda messages: None
        self.on_lost: Callable[[list[Message], bool], None] = lambda messages, is_gone: None
        self.on_resync: Callable[[], bool] = lambda: True
        self.on_in_sync: Callable[[], None] = lambda: None
        self.on_heartbeat: Callable[[], None] = lambda: None
        self._outbox: dict[str, _Batch] = {}  # by process
        self._large = count(1)
        # Nobody waits while it is held, so it need not be green, which costs ten times as much.
        self._lock: Any = native("threading").Lock()
        self._passed_over_at = -math.inf
        self._valid_until = 0.0
        self._has_gap = True
        self._is_closed = threading.Event()

    def start(self, wait_seconds: float) -> None:
        """Begin to listen. Returns when this process can be reached, at the latest after `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()
        while not self.is_in_sync and time.monotonic() < deadline:
            time.sleep(0.01)

    @property
    def is_in_sync(self) -> bool:
        """Whether what this process remembers of its own tokens is true."""
        return time.monotonic() < self._valid_until and not self._has_gap

    def check(self) -> None:
        """Raise `StoreUnavailable` unless this process can trust what it remembers, and be reached by others."""
        if not self.is_in_sync:
            raise StoreUnavailable

    def post(self, process: str, *message: Any) -> None:
        """Send a process a message, of the kinds of `wire.FIELDS`. `on_lost` tells if it was not heard."""
        encoded = _encode(to_wire(process, message))
        is_large = len(encoded) > LARGE_BYTES
        if is_large:
            key = f"s2m:message:{self.process}-{next(self._large)}"
            self._connection.submit(
                ("SET", key, encoded, "PX", FETCH_SECONDS * 1000), partial(self._on_set, message)
            )
            encoded = _encode(to_wire(process, (_LARGE, key)))
        with self._lock:
            batch = self._outbox.get(process)
            # What is to be fetched must not be announced before it is there.
            is_new = batch is None or batch.is_full or is_large
            if batch is None or is_new:
                batch = self._outbox[process] = _Batch()
            batch.add(message, encoded)
        if is_new:
            # It is written when the connection is free: what else is to go there until then goes with it.
            self._connection.submit(
                partial(self._seal, process, batch), partial(self._on_published, process, batch)
            )

    def close(self) -> None:
        """Hear nothing any more, and end the lease: to others this process is gone."""
        self._is_closed.set()
        self._valid_until = 0.0
        self._connection.submit(("DEL", _lease(self.process)))
        self.post(self.process, _BEAT, -math.inf)  # so that who listens looks up, and ends

    def _on_set(self, message: Message, job: Job) -> None:
        if job.error is not None:
            self.on_lost([message], False)  # whoever is told to fetch it will find nothing

    def _seal(self, process: str, batch: _Batch) -> Sequence[Any]:
        self._take_out(process, batch)
        return ("PUBLISH", _bus(process), _encode(batch.encoded))

    def _take_out(self, process: str, batch: _Batch) -> None:
        with self._lock:
            if self._outbox.get(process) is batch:
                del self._outbox[process]

    def _on_published(self, process: str, batch: _Batch, job: Job) -> None:
        if job.error is not None or job.result == 0:
            self._take_out(process, batch)  # it may never have got as far as to be written
            self.on_lost(batch.messages, job.error is None)

    def _beat(self) -> None:
        while not self._is_closed.is_set():
            self._prolong()
            self._try(self.on_heartbeat)
            self._is_closed.wait(self.lease_seconds / 3)

    def _prolong(self) -> None:
        lease_ms = int(self.lease_seconds * 1000)
        # A Redis that is full sets nothing any more, but lets what is there live on.
        self._connection.submit(("PEXPIRE", _lease(self.process), lease_ms), partial(self._on_prolonged, lease_ms))
        self.post(self.process, _BEAT, time.monotonic())

    def _on_prolonged(self, lease_ms: int, job: Job) -> None:
        if job.result == 0 and not self._is_closed.is_set():
            self._connection.submit(("SET", _lease(self.process), "", "PX", lease_ms), self._on_leased)

    def _on_leased(self, job: Job) -> None:
        """Make up for what others did while the lease had ended: to them the clients of this process were gone."""
        if job.error is None:
            threading.Thread(target=self._try, args=[self.on_resync], daemon=True).start()

    def _listen(self) -> None:
        tries = 0
        while not self._is_closed.is_set():
            connection = None
            try:
                # A beat comes three times in a lease, so whoever hears nothing in one hears nothing at all.
                connection = self._connection.open(self.lease_seconds)
                connection.send_command("SUBSCRIBE", _bus(self.process))
                connection.read_response()
                tries = 0
                threading.Thread(target=self._close_gap, args=[connection], daemon=True).start()
                while not self._is_closed.is_set():
                    _, _, payload = connection.read_response(disable_decoding=True)
                    self._hear(payload)
            except (RedisError, OSError) as error:
                self._has_gap = True
                if tries == 0 and self._connection.is_up and not self._is_closed.is_set():
                    log.warning("this process's channel is gone; it is opened again: %s", error)
                self._connection.pause(tries)
                tries += 1
            finally:
                self._has_gap = True
                if connection is not None:
                    connection.disconnect()

    def _hear(self, payload: bytes) -> None:
        messages = self._read(payload)
        beats = [sent_at for kind, *sent_at in messages if kind == _BEAT]
        if beats:
            # Counted from when it was sent, not from when it came.
            self._valid_until = max(self._valid_until, *(sent_at + self.lease_seconds for (sent_at,) in beats))
        if len(messages) > len(beats):
            others = [self._fetch(message) for message in messages if message[0] != _BEAT]
            self._try(partial(self.on_messages, [message for message in others if message is not None]))

    def _fetch(self, message: list[Any]) -> list[Any] | None:
        """Return a message, which may have to be fetched. Return None if that cannot be done any more."""
        if message[0] != _LARGE:
            return message
        encoded = self._try(partial(self._connection.call, "GETDEL", message[1]))
        found = [] if encoded is None else self._read(b"\x91" + encoded)  # a list of one
        return found[0] if found else None

    def _read(self, payload: bytes) -> list[list[Any]]:
        """Return the messages of a piece, without those that this version cannot read."""
        try:
            found = [from_wire(message) for message in _decode(payload)]
        except msgspec.MsgspecError:
            found = [None]
        messages = [message for message in found if message is not None]
        now = time.monotonic()
        if len(messages) < len(found) and now - self._passed_over_at >= LOG_SECONDS:
            self._passed_over_at = now
            log.warning("messages that this version of the relay cannot read are passed over")
        return messages

    def _close_gap(self, connection: Any) -> None:
        """Trust again, once what may have been missed has been made up for on this connection."""
        while connection.is_connected and not self._is_closed.is_set():
            if self._connection.is_up and self._try(self.on_resync):
                self._prolong()
                if connection.is_connected:  # else another has the gap to close now
                    self._has_gap = False
                    self._try(self.on_in_sync)
                return
            self._connection.pause(1)

    def _try(self, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except StoreUnavailable:
            return None
        except Exception:
            log.exception("a message to this process was not handled")
            return None


def _bus(process: str) -> str:
    return f"s2m:process:{process}"


def _lease(process: str) -> str:
    return f"s2m:lease:{process}"
