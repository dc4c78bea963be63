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
from typing import Any

import msgspec
from redis.exceptions import RedisError

from ..errors import StoreUnavailable
from .jobs import Job
from .link import Link
from .native import native

log = logging.getLogger(__name__)

# A message is a kind, and what that kind takes: texts, numbers, bytes, lists.
Message = Sequence[Any]

# How many messages go out in one piece.
MOST_MESSAGES = 100

_BEAT = "beat"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode


class Channel:
    """This process's channel, by the name `process`, and the way to those of others.

    on_messages: called with what has come, in its order, by one thread.
    on_lost: called when messages did not arrive: with them, and whether their process is known to be gone.
    on_gap: called when messages for this process may have been missed. Until it returns true nothing is trusted.
    on_beat: called with each beat.
    """

    def __init__(self, link: Link, process: str, *, lease_seconds: float) -> None:
        self._link = link
        self.process = process
        self.lease_seconds = lease_seconds
        self.on_messages: Callable[[list[list[Any]]], None] = lambda messages: None
        self.on_lost: Callable[[list[Message], bool], None] = lambda messages, is_gone: None
        self.on_gap: Callable[[], bool] = lambda: True
        self.on_beat: Callable[[], None] = lambda: None
        self._outbox: dict[str, list[Message]] = {}  # by process
        # Nobody waits while it is held, so it need not be green, which costs ten times as much.
        self._lock: Any = native("threading").Lock()
        self._valid_until = 0.0
        self._has_gap = True
        self._is_closed = threading.Event()

    def start(self, wait_seconds: float) -> None:
        """Begin to listen. Returns when this process can be reached, at the latest after `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()
        while not self.is_trusted and time.monotonic() < deadline:
            time.sleep(0.01)

    @property
    def is_trusted(self) -> bool:
        """Whether what this process remembers of its own tokens is true."""
        return time.monotonic() < self._valid_until and not self._has_gap

    def check(self) -> None:
        """Raise `StoreUnavailable` unless this process can trust what it remembers, and be reached by others."""
        if time.monotonic() >= self._valid_until or self._has_gap:
            raise StoreUnavailable

    def post(self, process: str, *message: Any) -> None:
        """Send a message to a process. `on_lost` tells if it was not heard."""
        with self._lock:
            messages = self._outbox.get(process)
            if messages is not None and len(messages) < MOST_MESSAGES:
                messages.append(message)
                return
            messages = self._outbox[process] = [message]
        # It is written when the connection is free: what else is to go there until then goes with it.
        self._link.submit(partial(self._seal, process, messages), partial(self._on_published, messages))

    def close(self) -> None:
        """Hear nothing any more, and end the lease: to others this process is gone."""
        self._is_closed.set()
        self._valid_until = 0.0
        self._link.submit(("DEL", _lease(self.process)))
        self.post(self.process, _BEAT, -math.inf)  # so that who listens looks up, and ends

    def _seal(self, process: str, messages: list[Message]) -> Sequence[Any]:
        with self._lock:
            if self._outbox.get(process) is messages:
                del self._outbox[process]
        return ("PUBLISH", _channel(process), _encode(messages))

    def _on_published(self, messages: list[Message], job: Job) -> None:
        if job.error is not None or job.result == 0:
            with self._lock:
                for process in [process for process, waiting in self._outbox.items() if waiting is messages]:
                    del self._outbox[process]  # it never got as far as to be written
            self.on_lost(messages, job.error is None)

    def _beat(self) -> None:
        while not self._is_closed.is_set():
            self._prolong()
            self._try(self.on_beat)
            self._is_closed.wait(self.lease_seconds / 3)

    def _prolong(self) -> None:
        self._link.submit(("SET", _lease(self.process), "", "PX", int(self.lease_seconds * 1000)))
        self.post(self.process, _BEAT, time.monotonic())

    def _listen(self) -> None:
        tries = 0
        while not self._is_closed.is_set():
            connection = None
            try:
                # A beat comes three times in a lease, so whoever hears nothing in one hears nothing at all.
                connection = self._link.open(self.lease_seconds)
                connection.send_command("SUBSCRIBE", _channel(self.process))
                connection.read_response()
                tries = 0
                threading.Thread(target=self._close_gap, args=[connection], daemon=True).start()
                while not self._is_closed.is_set():
                    _, _, payload = connection.read_response(disable_decoding=True)
                    self._hear(_decode(payload))
            except (RedisError, OSError, msgspec.MsgspecError) as error:
                self._has_gap = True
                if tries == 0 and self._link.is_up and not self._is_closed.is_set():
                    log.warning("this process's channel is gone; it is opened again: %s", error)
                self._link.pause(tries)
                tries += 1
            finally:
                self._has_gap = True
                if connection is not None:
                    connection.disconnect()

    def _hear(self, messages: list[list[Any]]) -> None:
        beats = [sent_at for kind, *sent_at in messages if kind == _BEAT]
        if beats:
            # Counted from when it was sent, not from when it came.
            self._valid_until = max(self._valid_until, *(sent_at + self.lease_seconds for (sent_at,) in beats))
        if len(messages) > len(beats):
            self._try(partial(self.on_messages, [message for message in messages if message[0] != _BEAT]))

    def _close_gap(self, connection: Any) -> None:
        """Trust again, once what may have been missed has been made up for on this connection."""
        while connection.is_connected and not self._is_closed.is_set():
            if self._link.is_up and self._try(self.on_gap):
                self._prolong()
                self._has_gap = not connection.is_connected
                return
            self._link.pause(1)

    def _try(self, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except StoreUnavailable:
            return None
        except Exception:
            log.exception("a message to this process was not handled")
            return None


def _channel(process: str) -> str:
    return f"s2m:process:{process}"


def _lease(process: str) -> str:
    return f"s2m:lease:{process}"
