"""Many light clients in a process of their own, each of which comes back when its connection ends.

The process reads a line of JSON, `{"ports": [...], "tokens": [...], "seed": ...}`, and connects a client for each
token, spread over the ports. It says `ready` when all are connected. When its input ends it waits until all are
back, and writes what they saw as a line of JSON: a `Report`.

A client whose connection ends, or is refused, comes to the next port, as a balancer might send it: all that one
relay had come to the same one.
"""

import heapq
import json
import random
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.harness import ROOT, Client, upgrade

CONNECTS_PER_SECOND = 1000  # at the start
START_SECONDS = 60  # for all to be connected
BACK_OFF_SECONDS = (0.1, 1.0)
END_SECONDS = 20  # for all to be back


@dataclass
class Report:
    """What the clients saw. Times are of the clock that all processes of a machine share."""

    received: dict[str, list[int]] = field(default_factory=dict)  # the numbers of the requests, by token
    outages: list[tuple[int, float, float]] = field(default_factory=list)  # which relay, when lost, when back
    refusals: dict[str, int] = field(default_factory=Counter)  # why attempts to connect failed
    said: dict[str, int] = field(default_factory=Counter)  # what relays said, other than requests
    away: int = 0  # clients that were not connected in the end


class Crowd:
    """The process, as its parent sees it."""

    def __init__(self, ports: list[int], tokens: list[str], seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crowd"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._process.stdin.write(json.dumps({"ports": ports, "tokens": tokens, "seed": seed}) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the crowd did not connect")

    def finish(self) -> Report:
        """Wait until all clients are back, let them go, and return what they saw."""
        self._process.stdin.close()
        return Report(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class ReturningClient(Client):
    """Writes down the number of each request before it acknowledges it. Never blocks."""

    def __init__(self, token: str, relay: int, said: dict[str, int]) -> None:
        self.token = token
        self.relay = relay  # which one it is connected to, or tries
        self.refusals = 0  # of TCP connections
        self.is_connected = False
        self.lost: tuple[int, float] | None = None  # which relay, and when
        self.received: list[int] = []
        self.status = b""  # of the answer to its handshake, until it was accepted
        self._said = said

    def connect(self, port: int) -> None:
        """Begin to connect: `on_writable` is due next."""
        self.closed = False
        self.is_connected = False
        self.status = b""
        self._is_upgraded = False
        self._buffer = bytearray()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))  # sending says whether it failed

    def on_writable(self) -> None:
        self.socket.sendall(upgrade())

    def _read_frames(self) -> None:
        if not self._is_upgraded:
            head, is_whole, rest = self._buffer.partition(b"\r\n\r\n")
            if not is_whole:
                return
            self.status = bytes(head[9:12])
            if self.status != b"101":
                self.closed = True
                return
            self._is_upgraded = True
            self._buffer = rest
        super()._read_frames()

    def _on_frame(self, buffer: bytearray, start: int, length: int, opcode: int) -> None:
        text = bytes(buffer[start : start + length])
        token = self.token.encode()
        if opcode == 8:
            self.closed = True
        elif text == b"2":
            self.send(b"3")
        elif text.startswith(b"0{"):
            self.send(b"40/" + token + b',{"mode":"ack"}')
        elif text.startswith(b"40/"):
            self.is_connected = True
        elif text.startswith(b"42/"):
            at = text.index(b"[")
            name, *args = json.loads(text[at:])
            if name == "request":
                self.received.append(args[0]["body"]["n"])
                self.send(b"43/" + token + b"," + text[text.index(b",") + 1 : at] + b"[]")
            else:
                self._said[name] += 1
        else:
            self._said[text.replace(b"/" + token + b",", b" ").decode()] += 1
            self.closed = True


class Clients:
    """All of them, on one selector."""

    def __init__(self, ports: list[int], tokens: list[str], seed: int) -> None:
        self.report = Report()
        self._ports = ports
        self._random = random.Random(seed)
        self._clients = [
            ReturningClient(token, number % len(ports), self.report.said) for number, token in enumerate(tokens)
        ]
        self._away = len(tokens)
        self._due: list[tuple[float, int]] = []  # a heap: when to connect, and which client
        self._selector = selectors.DefaultSelector()

    def run(self) -> Report:
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        started = time.monotonic()
        self._due = [(started + number / CONNECTS_PER_SECOND, number) for number in range(len(self._clients))]
        deadline = started + START_SECONDS
        is_ready = is_ending = False
        while time.monotonic() < deadline and (self._away or not is_ending):
            until_due = self._due[0][0] - time.monotonic() if self._due else 1
            for key, events in self._selector.select(max(0, min(1, until_due))):
                if key.fileobj is sys.stdin:
                    self._selector.unregister(sys.stdin)
                    is_ending = True
                    deadline = time.monotonic() + END_SECONDS
                else:
                    self._serve(key.fileobj, events)
            while self._due and self._due[0][0] <= time.monotonic():
                _, number = heapq.heappop(self._due)
                self._connect(self._clients[number], number)
            if not self._away and not is_ready:
                is_ready = True
                deadline = float("inf")
                print("ready", flush=True)
        self.report.received = {client.token: client.received for client in self._clients}
        self.report.away = self._away
        return self.report

    def _connect(self, client: ReturningClient, number: int) -> None:
        client.connect(self._ports[client.relay])
        self._selector.register(client, selectors.EVENT_WRITE, number)

    def _serve(self, client: ReturningClient, events: int) -> None:
        was_connected = client.is_connected
        error = None
        try:
            if events & selectors.EVENT_WRITE:
                client.on_writable()
                number = self._selector.get_key(client).data
                self._selector.modify(client, selectors.EVENT_READ, number)
            else:
                client.on_readable()
        except OSError as caught:
            error = caught
            client.closed = True
        if client.is_connected and not was_connected:
            self._away -= 1
            if client.lost is not None:
                self.report.outages.append((*client.lost, time.monotonic()))
        if client.closed:
            self._come_back(client, error)

    def _come_back(self, client: ReturningClient, error: OSError | None) -> None:
        """Let it connect to the next relay after a pause; at once, if there is nobody behind the port."""
        number = self._selector.unregister(client).data
        client.close()
        pause_seconds = self._random.uniform(*BACK_OFF_SECONDS)
        if client.is_connected:
            self._away += 1
            client.is_connected = False
            client.lost = client.relay, time.monotonic()
        else:
            self.report.refusals[type(error).__name__ if error else client.status.decode() or "closed"] += 1
            if isinstance(error, ConnectionRefusedError):
                client.refusals += 1
                if client.refusals % len(self._ports):
                    pause_seconds = 0
        client.relay = (client.relay + 1) % len(self._ports)
        heapq.heappush(self._due, (time.monotonic() + pause_seconds, number))


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = Clients(**json.loads(sys.stdin.readline())).run()
    print(json.dumps(vars(report)), flush=True)


if __name__ == "__main__":
    main()
