"""What the cases of the official suites need: a session over each transport, of either version of the protocols."""

import json

import requests
import websocket

from tests.support.servers import DEADLINE_SECONDS


class Polling:
    """Long-polling, request by request."""

    def __init__(self, server, version):
        self.version = version
        self.url = f"{server.url}/socket.io/?EIO={version}&transport=polling"
        if version == 3:
            self.url += "&b64=1"
        self.handshake = self.get()
        text = self.handshake.text if version == 4 else self.handshake.text.partition(":")[2]
        self.opened = json.JSONDecoder().raw_decode(text[1:])[0]
        self.sid = self.opened["sid"]
        self.url += f"&sid={self.sid}"

    def get(self):
        return requests.get(self.url, timeout=DEADLINE_SECONDS)

    def post(self, *packets, raw=None):
        return requests.post(
            self.url, data=self.payload(*packets) if raw is None else raw, timeout=DEADLINE_SECONDS
        )

    def payload(self, *packets):
        if self.version == 4:
            return "\x1e".join(packets)
        return "".join(f"{len(packet)}:{packet}" for packet in packets)


def open_websocket(server, version, query=""):
    """Return a WebSocket, before anything was received. Raises where the handshake is refused."""
    url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO={version}&transport=websocket{query}"
    return websocket.create_connection(url, timeout=DEADLINE_SECONDS)


def receive(client, *passed_over):
    """Return the next message of a WebSocket that is none of those."""
    while (packet := client.recv()) in passed_over:
        pass
    return packet


def assert_closed(client):
    """Fail unless the connection ends, with or without packets before."""
    try:
        while client.recv():
            pass
    except (websocket.WebSocketConnectionClosedException, ConnectionError):
        pass
    client.shutdown()
