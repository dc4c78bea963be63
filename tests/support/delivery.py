"""Clients that acknowledge, callers that wait, and what a relay says of a mailbox."""

import json
import threading
import time

import requests
import websocket

from tests.support.servers import WebSocket


class Acknowledging(WebSocket):
    """A client that acknowledges when a test says so, over a bare WebSocket."""

    def __init__(self, server, token, **auth):
        super().__init__(server)
        self.token = token
        self.send(f"40/{token},{json.dumps(auth)}")
        self.answer = self.receive()

    def event(self):
        """Return the id to acknowledge by, and the request object."""
        while (packet := self.receive()) == "2":
            self.send("3")
        head, _, rest = packet.partition("[")
        assert head.startswith(f"42/{self.token},"), packet
        ack_id = head.partition(",")[2]
        return int(ack_id) if ack_id else None, json.loads("[" + rest)[1]

    def leave(self):
        """Lose the connection."""
        self._socket.shutdown()

    def acknowledge(self, ack_id, *args):
        self.send(f"43/{self.token},{ack_id}{json.dumps(args)}")

    def acknowledge_and_leave(self, ack_id, *args):
        """Acknowledge an event and disconnect, in one piece."""
        packets = f"43/{self.token},{ack_id}{json.dumps(args)}", f"41/{self.token},"
        frames = (websocket.ABNF.create_frame(packet, websocket.ABNF.OPCODE_TEXT) for packet in packets)
        self.socket.sendall(b"".join([frame.format() for frame in frames]))
        self.leave()


class Caller(threading.Thread):
    """A call in a thread of its own, and what it was answered."""

    def __init__(self, server, token, **kwargs):
        super().__init__(daemon=True)
        self._call = lambda: server.go(token, **kwargs)
        self.received = None  # what it was answered, once it was
        self.started = time.monotonic()
        self.start()

    def run(self):
        self.received = self._call()
        self.seconds = time.monotonic() - self.started

    @property
    def answer(self):
        self.join(15)
        return self.received


def events(server, made):
    answer = requests.get(f"{server.url}/v1/tokens/{made['token']}/events", headers=bearer(made), timeout=5)
    assert answer.status_code == 200
    return {state: [event["id"] for event in listed] for state, listed in answer.json().items()}


def bearer(made):
    return {"Authorization": f"Bearer {made['secret']}"}


def error_code(answer):
    return answer.json()["error"]["code"]
