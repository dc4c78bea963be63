"""A client and a caller without a connection, for the relay in this process."""

import threading

from socket2me_flask.concurrency.timeout_queue import TimeoutQueue
from socket2me_flask.errors import ClientGone
from socket2me_flask.limits import NoRate
from socket2me_flask.relay.call import Call
from socket2me_flask.relay.hold_queue import HoldQueue
from socket2me_flask.relay.mailbox import Mailboxes
from socket2me_flask.relay.presence import Presence
from socket2me_flask.relay.relay import Relay
from socket2me_flask.relay.single_process import SingleProcess
from socket2me_flask.relay.token_counts import TokenCounts


class FakeClient:
    mode = "notify"
    answering = None
    window = 1
    bounds_calls = False
    is_silent = False
    has_room = True

    def has_room_for(self, call):
        return self.has_room

    secret_hash = None
    number = 0
    listeners = "newest"
    filter = None
    since = 0.0
    in_flight = 0

    def __init__(self):
        self.sid = self.listener = str(id(self))
        self.received = []
        self.calls = []  # their paths
        self.dropped = []  # the ids of events
        self.final_events = []
        self.gone = self.is_dropped = False

    def send(self, call, on_ack=None, attempt=None, encoded=None):
        if self.gone:
            raise ClientGone
        self.received.append(call)
        self.calls.append(call.path)

    def flush(self):
        if self.gone:
            raise ClientGone

    def has_lost(self, number):
        return True

    def disconnect(self, final_event=None):
        self.final_events.append(final_event)

    def send_dropped(self, event_id):
        self.dropped.append(event_id)

    def drop_connection(self):
        self.is_dropped = True


def relay_on(store, *, mailboxes=None, **options):
    """Return a relay that waits for nothing, but for what `options` say of the relay or of its hold queue."""
    bounds = {
        "max_requests": 10,
        "max_requests_per_token": 10,
        "max_bytes": 1000,
    }
    defaults = {
        "hold_seconds": 0,
        "ack_timeout_seconds": 0.05,
        "reply_timeout_seconds": 0.05,
        "mailbox_max_age_seconds": 10**12,
        "peers": SingleProcess(),
        "rate": NoRate(),
        "yield_to_others": lambda: None,
    }
    held = HoldQueue(**{name: options.pop(name, bound) for name, bound in bounds.items()})
    counts = TokenCounts()
    presence = Presence(store, held, mailboxes, counts)
    return Relay(store, presence, mailboxes=mailboxes, counts=counts, **defaults | options)


def mailboxes_on(store, *, redeliver_seconds=60, max_attempts=5):
    """Return mailboxes whose timers do not run."""
    return Mailboxes(
        store.mailboxes,
        redeliver_seconds=redeliver_seconds,
        max_attempts=max_attempts,
        spawn=lambda run: threading.Thread(target=run).start(),
        new_timer=TimeoutQueue,
        send_outcome=SingleProcess().send_outcome,
    )


def call_for(token, path="", body=b"", headers=None, address=""):
    return Call(token, "POST", path, "", headers or {}, body, received_at=0.0, remote_addr=address)


def forward(relay, call):
    relay.forward(call, relay.admit(call.token))


class Caller(threading.Thread):
    """A caller in a thread of its own, with what it received: `OK`, or the error that was raised."""

    def __init__(self, relay, call):
        super().__init__(daemon=True)
        self.relay, self.call, self.outcome = relay, call, None
        self.start()

    def run(self):
        try:
            forward(self.relay, self.call)
            self.outcome = "OK"
        except Exception as error:
            self.outcome = error


class AckClient(FakeClient):
    mode = "ack"

    def __init__(self):
        super().__init__()
        self.forgotten = []

    def send(self, call, on_ack=None, attempt=None, encoded=None):
        super().send(call)
        self.on_ack = on_ack
        return len(self.calls)

    def forget(self, ack_id):
        self.forgotten.append(ack_id)


def call_of(token, body=b"", received_at=1.0):
    return Call(
        token,
        "POST",
        "/a%20b",
        "q=1",
        {"x-a": "gr\xfc\xdfe"},
        body,
        received_at,
        is_legacy=True,
        remote_addr="192.0.2.1",
        verified={"provider": "github"},
    )
