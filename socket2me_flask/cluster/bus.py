"""Messages between processes over Redis Pub/Sub, and the lease that shows that a process is alive.

Each process has a channel. A message is published on the channel of one process, so its cost does not grow with the
number of processes. Redis returns how many received it: the sender sees at once if a process was killed. A process
that is cut off or hangs loses its lease after `lease_seconds`.

A process also sends heartbeats to itself. While the latest is younger than the lease, the process is in sync: what
it has cached of its own tokens is true. Otherwise it may have missed messages, and has to resync first.
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
from ..logs import LogInterval
from .messages import Message, from_wire, to_wire
from .redis_connection import RedisConnection

log = logging.getLogger(__name__)

# How many messages, and bytes, are published in one piece.
MOST_MESSAGES = 100
MOST_BYTES = 256_000

# A message up to this size is published. Redis bounds what it has not sent yet, and a process that is behind by
# more than that loses its subscription (`client-output-buffer-limit`, 32 MB). Larger ones are kept for so long in a
# key, which the receiver fetches.
LARGE_BYTES = 16_384
FETCH_SECONDS = 30

_HEARTBEAT = "beat"
_LARGE = "large"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class Listener:
    """What is called with the events of a bus. A subclass overrides the methods that it needs."""

    def on_messages(self, messages: list[list[Any]]) -> None:
        """Messages have arrived, in the order in which each process sent them. Called by one thread."""

    def on_lost(self, messages: Sequence[Message], is_gone: bool) -> None:
        """Messages did not arrive; `is_gone` says whether their process is known to be gone."""

    def on_resync(self) -> None:
        """Messages for this process may have been missed, or its lease had ended.

        In the first case the process is in sync again when this returns.
        """

    def on_in_sync(self) -> None:
        """The process is in sync again after messages may have been missed."""

    def on_heartbeat(self) -> None:
        """A heartbeat was sent."""


class _Batch:
    """Messages that are published to a process in one piece, and their encoded forms."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.encoded: list[msgspec.Raw] = []
        self._bytes = 0

    def add(self, message: Message, encoded: bytes) -> None:
        """Add a message."""
        self.messages.append(message)
        self.encoded.append(msgspec.Raw(encoded))
        self._bytes += len(encoded)

    @property
    def is_full(self) -> bool:
        """Whether the next message has to go in another."""
        return len(self.messages) >= MOST_MESSAGES or self._bytes >= MOST_BYTES


class Bus:
    """The channel of the process named `process`, its lease, and messages to other processes."""

    def __init__(self, connection: RedisConnection, process: str, *, lease_seconds: float) -> None:
        self._connection = connection
        self.process = process
        self.lease_seconds = lease_seconds
        self._listeners: list[Listener] = []
        self._outbox: dict[str, _Batch] = {}  # by process
        self._large = count(1)
        # No thread blocks while it holds it, so it need not be green, which costs ten times as much.
        self._lock: Any = native("threading").Lock()
        self._skipped_lines = LogInterval()
        self._valid_until = 0.0
        self._may_have_missed = True
        self._is_closed = threading.Event()

    def subscribe(self, listener: Listener) -> None:
        """Call a listener from now on."""
        self._listeners.append(listener)

    def start(self, wait_seconds: float) -> None:
        """Begin to receive. Returns when this process is in sync, at the latest after `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        threading.Thread(target=self._run, daemon=True).start()
        threading.Thread(target=self._send_heartbeats, daemon=True).start()
        while not self.is_in_sync and time.monotonic() < deadline:
            time.sleep(0.01)

    @property
    def is_in_sync(self) -> bool:
        """Whether what this process has cached of its own tokens is true."""
        return time.monotonic() < self._valid_until and not self._may_have_missed

    def check(self) -> None:
        """Raise `StoreUnavailable` unless this process is in sync, and so can be reached by others."""
        if not self.is_in_sync:
            raise StoreUnavailable

    def post(self, process: str, *message: Any) -> None:
        """Send a process a message of a kind of `messages.FIELDS`. If it does not arrive, `on_lost` is called."""
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
        """Receive nothing any more, and end the lease: to others this process is gone."""
        self._is_closed.set()
        self._valid_until = 0.0
        self._connection.submit(("DEL", _lease(self.process)))
        self.post(self.process, _HEARTBEAT, -math.inf)  # ends the thread that receives

    def _on_set(self, message: Message, job: Job) -> None:
        if job.error is not None:
            self._on_lost([message], False)  # its process will find nothing to fetch

    def _seal(self, process: str, batch: _Batch) -> Sequence[Any]:
        self._take_out(process, batch)
        return ("PUBLISH", _channel(process), _encode(batch.encoded))

    def _take_out(self, process: str, batch: _Batch) -> None:
        with self._lock:
            if self._outbox.get(process) is batch:
                del self._outbox[process]

    def _on_published(self, process: str, batch: _Batch, job: Job) -> None:
        if job.error is not None or job.result == 0:
            self._take_out(process, batch)  # it may never have got as far as to be written
            self._on_lost(batch.messages, job.error is None)

    def _on_lost(self, messages: Sequence[Message], is_gone: bool) -> None:
        self._notify(lambda listener: listener.on_lost(messages, is_gone))

    def _send_heartbeats(self) -> None:
        while not self._is_closed.is_set():
            self._prolong()
            self._notify(lambda listener: listener.on_heartbeat())
            self._is_closed.wait(self.lease_seconds / 3)

    def _prolong(self) -> None:
        lease_ms = int(self.lease_seconds * 1000)
        # A Redis that is full sets nothing any more, but lets what is there live on.
        self._connection.submit(("PEXPIRE", _lease(self.process), lease_ms), partial(self._on_prolonged, lease_ms))
        self.post(self.process, _HEARTBEAT, time.monotonic())

    def _on_prolonged(self, lease_ms: int, job: Job) -> None:
        if job.result == 0 and not self._is_closed.is_set():
            self._connection.submit(("SET", _lease(self.process), "", "PX", lease_ms), self._on_leased)

    def _on_leased(self, job: Job) -> None:
        """Resync after the lease had ended: to others the clients of this process were gone."""
        if job.error is None:
            threading.Thread(target=self._resync, daemon=True).start()

    def _run(self) -> None:
        tries = 0
        while not self._is_closed.is_set():
            connection = None
            try:
                # There are three heartbeats in a lease: if none arrives in one, the connection is dead.
                connection = self._connection.open(self.lease_seconds)
                connection.send_command("SUBSCRIBE", _channel(self.process))
                connection.read_response()
                tries = 0
                threading.Thread(target=self._catch_up, args=[connection], daemon=True).start()
                while not self._is_closed.is_set():
                    _, _, payload = connection.read_response(disable_decoding=True)
                    self._receive(payload)
            except (RedisError, OSError) as error:
                self._may_have_missed = True
                if tries == 0 and self._connection.is_up and not self._is_closed.is_set():
                    log.warning("this process's channel is gone; it is opened again: %s", error)
                self._connection.pause(tries)
                tries += 1
            finally:
                self._may_have_missed = True
                if connection is not None:
                    connection.disconnect()

    def _receive(self, payload: bytes) -> None:
        messages = self._read(payload)
        heartbeats = [sent_at for kind, *sent_at in messages if kind == _HEARTBEAT]
        if heartbeats:
            # Counted from when it was sent, not from when it arrived.
            self._valid_until = max(self._valid_until, *(sent_at + self.lease_seconds for (sent_at,) in heartbeats))
        if len(messages) > len(heartbeats):
            fetched = (self._fetch(message) for message in messages if message[0] != _HEARTBEAT)
            others = [message for message in fetched if message is not None]
            self._notify(lambda listener: listener.on_messages(others))

    def _fetch(self, message: list[Any]) -> list[Any] | None:
        """Return a message, which may have to be fetched. Return None if that cannot be done any more."""
        if message[0] != _LARGE:
            return message
        try:
            encoded = self._connection.call("GETDEL", message[1])
        except StoreUnavailable:
            return None
        found = [] if encoded is None else self._read(b"\x91" + encoded)  # a list of one
        return found[0] if found else None

    def _read(self, payload: bytes) -> list[list[Any]]:
        """Return the messages of a piece that this version can read, and skip the others."""
        try:
            found = [from_wire(message) for message in _decode(payload)]
        except msgspec.MsgspecError:
            found = [None]
        messages = [message for message in found if message is not None]
        if len(messages) < len(found) and self._skipped_lines.is_due():
            log.warning("messages that this version of the relay cannot read are skipped")
        return messages

    def _catch_up(self, connection: Any) -> None:
        """Resync while this connection receives, until the process is in sync."""
        while connection.is_connected and not self._is_closed.is_set():
            if self._connection.is_up and self._resync():
                self._prolong()
                if connection.is_connected:  # else the next connection has to
                    self._may_have_missed = False
                    self._notify(lambda listener: listener.on_in_sync())
                return
            self._connection.pause(1)

    def _resync(self) -> bool:
        return self._notify(lambda listener: listener.on_resync())

    def _notify(self, call: Callable[[Listener], None]) -> bool:
        """Call the listeners. Return whether nothing went wrong."""
        is_well = True
        for listener in self._listeners:
            try:
                call(listener)
            except StoreUnavailable:
                is_well = False
            except Exception:
                log.exception("a message to this process was not handled")
                is_well = False
        return is_well


def _channel(process: str) -> str:
    return f"s2m:process:{process}"


def _lease(process: str) -> str:
    return f"s2m:lease:{process}"
