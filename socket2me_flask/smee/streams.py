"""All streams of this process: how one begins, what they have in common, and their end."""

import contextlib
import logging
import math
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .. import logs
from ..engineio import Engine
from ..engineio.protocol import Packet
from ..errors import RelayError, StoreUnavailable
from ..limits import address_key
from ..relay.call import Call
from ..relay.mailbox import Mailboxes
from ..relay.presence import Presence
from ..relay.tokens import tag_of
from ..storage import MailboxStore, TokenRecord, TokenStore
from .frames import gosmee_message, smee_message
from .resume import Predecessor, find_position, new_listener, predecessor_of
from .stream import Stream
from .stream_connection import Chunks, Plain, StreamCodec, StreamConnection

log = logging.getLogger(__name__)

# The most seconds between two pings. Proxies close connections that stay silent, some after 30 s.
PING_SECONDS = 20

# An event of a mailbox counts as acknowledged when its connection has lived for so many pings after it was had.
ACK_PINGS = 2.5

# How often that is looked at while there are such events.
CHECKS_PER_PING = 8

# How long a client may take to close a stream that has ended.
CLOSE_SECONDS = 2

# A channel to which a client listens does not expire: its token is refreshed after this part of its life.
EXTEND_AFTER = 0.25

# Why streams end, for the metrics.
ENDS = ("connection_lost", "too_slow", "token_ended", "replaced", "draining")

_CHUNKS, _PLAIN = Chunks(), Plain()


class Streams:
    """Opens streams, and knows those that are open."""

    def __init__(self, engine: Engine, store: TokenStore, presence: Presence, mailboxes: Mailboxes | None) -> None:
        self.engine = engine
        self._ping_seconds = min(PING_SECONDS, engine.limits.ping_interval_seconds)
        self.ack_seconds = self._ping_seconds * ACK_PINGS
        self.pings = engine.timer(self._ping_seconds, Stream.ping)
        self.receipts = engine.timer(self._ping_seconds / CHECKS_PER_PING, Stream.check_receipts)
        self.closing = engine.timer(CLOSE_SECONDS, Stream.abort)
        # How long a peer may leave something unacknowledged that was sent: then it is gone.
        self._gone_after_ms = (engine.limits.ping_interval_seconds + engine.limits.ping_timeout_seconds) * 1000
        # So long after a connection had its last contact its end is found.
        self._settled_seconds = self._gone_after_ms / 1000 + 2 * self._ping_seconds
        self._store = store
        self._presence = presence
        self._mailboxes = mailboxes
        self._open: set[Stream] = set()
        self._resuming: set[tuple[str, str]] = set()  # tokens and listeners whose streams are about to be attached
        self._last: tuple[str, bool, Packet] | None = None  # the call that was encoded last
        self.opened = 0
        self.ended = dict.fromkeys(ENDS, 0)

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self,
        environ: dict[str, Any],
        record: TokenRecord,
        head: Sequence[tuple[str, str]],
        *,
        last_event_id: str | None,
        is_exact: bool,
    ) -> Exception | Iterator[bytes]:
        """Begin the stream of a request, for a token that lives.

        `head` are the headers of the response, and `last_event_id` is what the client had last, if it says so.
        Return what the request raises to end without an answer, or, where the server keeps its sockets, the body of
        the response. Raises `ShuttingDown`, `BadRequest`, `TooManyListeners`, `StoreUnavailable`, and what
        `Admission.admit` does.
        """
        engine = self.engine
        engine.admission.check()
        address = sys.intern(address_key(environ.get("REMOTE_ADDR", "")))
        engine.admission.admit(address)
        is_chunked = environ["SERVER_PROTOCOL"] != "HTTP/1.0"
        codec: StreamCodec = _CHUNKS if is_chunked else _PLAIN
        token = record.token
        mailboxes = self._mailboxes if record.mailbox else None
        extend_at = time.monotonic() + record.expires_at - time.time() - (1 - EXTEND_AFTER) * record.ttl_seconds
        stream = Stream(
            *(self, record, address, codec),
            limits=engine.outbox_limits,
            lock=engine.loop.lock(),
            is_exact=is_exact,
            extend_at=extend_at,
            has_mailbox=mailboxes is not None,
        )
        self._open.add(stream)
        self.opened += 1
        try:
            self._presence.attached.check_room(token, stream)
            if time.monotonic() >= extend_at:
                self._extend(stream)
            if mailboxes is not None:
                self._resume(stream, mailboxes.store, last_event_id)
            self._presence.attach(token, stream)
            body: Exception | Iterator[bytes] = (
                self._connect(stream, environ, codec, _head(head, is_chunked=is_chunked))
                if "socket2me.connection" in environ
                else stream.pieces(self._ping_seconds)
            )
            if not stream.is_open:
                self._detach(stream)  # it ended while it was attached, so it may have been detached before that
        except BaseException:
            stream.abort()
            raise
        finally:
            self._resuming.discard((token, stream.listener))
        fields = {"token_hash": tag_of(token), "stream": "gosmee" if is_exact else "smee", "address": address}
        logs.event(log, "a client connected", most_same=logs.MAX_CLIENT_RECORDS, **fields)
        return body

    def _connect(self, stream: Stream, environ: dict[str, Any], codec: StreamCodec, head: bytes) -> Exception:
        """Have a stream send over the socket of its request. Raises `BadRequest`.

        A client that receives the head of the response is attached: nothing that comes then is missed. Return what
        the request raises to end without an answer.
        """
        loop = self.engine.loop
        connection = StreamConnection(loop.detach_socket(environ), loop, loop.lock(), stream, codec)
        with contextlib.suppress(OSError):  # a Unix socket has no such option
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._gone_after_ms)
        stream.connect(connection, head)
        return loop.watch(connection)

    def _resume(self, stream: Stream, store: MailboxStore, last_event_id: str | None) -> None:
        """Find out where a stream goes on in the mailbox of its channel. Raises `StoreUnavailable`."""
        token = stream.token
        own, claimed = stream.listener, None
        while True:
            found = find_position(store, token, last_event_id, self._connected(token, without=claimed))
            if found.listener == claimed:  # it was free and where it is now after it was claimed
                break
            if claimed is not None:
                self._resuming.discard((token, claimed))
                self._store.leave(token, claimed)
                stream.listener, claimed = own, None
            if found.listener is not None and (token, found.listener) not in self._resuming:
                self._resuming.add((token, found.listener))
                stream.listener = found.listener
                if self._store.claim_listener(token, found.listener):
                    claimed = found.listener
                else:
                    self._resuming.discard((token, found.listener))
                    stream.listener = own
        if found.listener is not None and found.is_ahead:
            listener = new_listener(stream.sid, predecessor_of(found.listener))
            store.register(token, listener, found.after)
            stream.listener = listener  # until then it is the claimed one, which is released if this fails
            store.unregister(token, found.listener)
            self._resuming.discard((token, found.listener))
            self._store.leave(token, found.listener)
        elif found.listener is not None and found.after is not None:
            store.advance(token, found.listener, found.after)
        elif found.after is not None:
            stream.listener = new_listener(stream.sid, Predecessor(found.at_most, time.time()))
            store.register(token, stream.listener, found.after)
        stream.predecessor = predecessor_of(stream.listener)

    def _connected(self, token: str, without: str | None = None) -> set[str]:
        """Return the listeners of a token that are connected, or about to be, but for one that is claimed.

        Raises `StoreUnavailable`.
        """
        return {
            *(each.listener for each in self._presence.attached.of(token)),
            *self._store.listeners_elsewhere(token),
            *(listener for of, listener in self._resuming if of == token and listener != without),
        }

    def drain(self) -> None:
        """End all streams, so that their clients connect again, to the next process."""
        for number, stream in enumerate(list(self._open), 1):
            self.note_end(stream, "draining")
            stream.close()
            if number % 100 == 0:
                self.engine.sleep(0)

    # What a stream asks

    def packet_of(self, call: Call, *, is_exact: bool) -> Packet:
        last = self._last
        if last is not None and last[0] == call.id and last[1] == is_exact:
            return last[2]
        packet = Packet(gosmee_message(call) if is_exact else smee_message(call))
        self._last = (call.id, is_exact, packet)
        return packet

    def on_room(self, stream: Stream) -> None:
        if self._mailboxes is not None:
            self._mailboxes.notify(stream.token)

    def on_time(self, stream: Stream) -> None:
        if time.monotonic() >= stream.extend_at:
            stream.extend_at = math.inf  # until it is done
            self.engine.start_background_task(self._extend, stream)
        predecessor = stream.predecessor
        if predecessor is not None and time.time() - predecessor.before >= self._settled_seconds:
            stream.predecessor = None
            self.engine.start_background_task(self._supersede, stream, predecessor)

    def note_end(self, stream: Stream, end: str) -> None:
        self.ended[end] += 1
        fields = {"token_hash": tag_of(stream.token), "reason": end}
        logs.event(log, "a client disconnected", most_same=logs.MAX_CLIENT_RECORDS, **fields)

    def end_slow(self, stream: Stream, error: RelayError) -> None:
        self.engine.note(error)
        self.note_end(stream, "too_slow")
        stream.abort()

    def left(self, stream: Stream, address: str) -> None:
        self._open.discard(stream)
        self.pings.discard(stream)
        self.receipts.discard(stream)
        self.engine.admission.release(address)
        self.engine.start_background_task(self._detach, stream)

    # In the background

    def _detach(self, stream: Stream) -> None:
        self._presence.detach(stream.token, stream)
        if stream.has_mailbox and self._mailboxes is not None:
            self._mailboxes.store.seen(stream.token, stream.listener, stream.contact_at)

    def _extend(self, stream: Stream) -> None:
        """Let the token of a stream live for its whole time again."""
        try:
            record = self._store.refresh(stream.token)
        except StoreUnavailable:
            stream.extend_at = 0  # with the next ping
        else:
            if record is not None:
                stream.extend_at = time.monotonic() + EXTEND_AFTER * record.ttl_seconds

    def _supersede(self, stream: Stream, predecessor: Predecessor) -> None:
        """Forget the position of the connection that a client had before."""
        if self._mailboxes is None:
            return
        token, store = stream.token, self._mailboxes.store
        try:
            positions, connected = store.positions(token), self._connected(token)
            listener = predecessor.find(positions, connected, self._settled_seconds)
            if listener is not None:
                store.unregister(token, listener)
                stream.predecessor = predecessor_of(listener)  # which had one as well
        except StoreUnavailable:
            stream.predecessor = predecessor  # with the next ping


def _head(headers: Sequence[tuple[str, str]], *, is_chunked: bool) -> bytes:
    framing = [("Transfer-Encoding", "chunked")] if is_chunked else []
    lines = [f"{name}: {value}" for name, value in (*headers, *framing, ("Connection", "close"))]
    return "\r\n".join([f"HTTP/1.{is_chunked:d} 200 OK", *lines, "\r\n"]).encode("latin-1")
