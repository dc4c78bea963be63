"""What streams of channels cost: memory and CPU of each, what is left of them, and what a slow one does to others.

`python benchmarks/streams.py`. An idle stream may cost 10 KB.
"""

import socket
import statistics
import time
from http.client import HTTPConnection
from pathlib import Path

from harness import Row, Server, use_load_core

STREAMS = 5000
STREAMS_PER_CHANNEL = 100
CYCLES = 10_000
EVENTS = 300


def new_channel(relay: Server) -> str:
    """Return the path of a new channel."""
    connection = HTTPConnection("127.0.0.1", relay.port)
    connection.request("HEAD", "/smee/new")
    location = connection.getresponse().headers["Location"]
    connection.close()
    return location.partition(f":{relay.port}")[2]


def token_of(path: str) -> str:
    return path.removeprefix("/smee/").partition("-")[0]


class Stream:
    """One stream, over a bare socket."""

    def __init__(self, relay: Server, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", relay.port), timeout=30)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        self._received = b""
        self.read_until(b"event: ready\nretry: 1000\ndata: {}\n\n")

    def read_until(self, end: bytes) -> None:
        while end not in self._received:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(self._received[:500])
            self._received += data
        self._received = self._received.partition(end)[2]


def open_files(relay: Server) -> int:
    return len(list(Path(f"/proc/{relay.pid}/fd").iterdir()))


def seconds_an_event(relay: Server, path: str, reader: Stream) -> float:
    """Return the median time from a call to its event at a stream that reads."""
    caller = HTTPConnection("127.0.0.1", relay.port)
    seconds = []
    for number in range(EVENTS):
        started = time.perf_counter()
        caller.request("POST", f"/v1/go/{token_of(path)}", b"x" * 50_000, {"X-Number": str(number)})
        caller.getresponse().read()
        reader.read_until(f'"x-number":"{number}"'.encode())
        seconds.append(time.perf_counter() - started)
    caller.close()
    return statistics.median(seconds)


def run() -> list[Row]:
    with Server() as relay:
        channels = [new_channel(relay) for _ in range(STREAMS // STREAMS_PER_CHANNEL)]
        for stream in [Stream(relay, path) for path in channels for _ in range(2)]:
            stream.socket.close()  # what is loaded at the first stays
        relay.seconds_until_idle(10)
        start, files = relay.memory_bytes(), open_files(relay)
        streams = [Stream(relay, path) for path in channels for _ in range(STREAMS_PER_CHANNEL)]
        relay.seconds_until_idle(10)
        per_stream = (relay.memory_bytes() - start) / STREAMS / 1024
        before = relay.cpu_seconds()
        time.sleep(60)
        busy = (relay.cpu_seconds() - before) / 60 * 100
        for stream in streams:
            stream.socket.close()
        time.sleep(20)  # what gunicorn keeps of each connection's timeout goes within 15 s
        left = relay.memory_bytes() / start
        for number in range(CYCLES):
            Stream(relay, channels[number % len(channels)]).socket.close()
        time.sleep(20)
        left_of_cycles = relay.memory_bytes() / start
        files_left = open_files(relay) - files
        [path, *_] = channels
        reader = Stream(relay, path)
        alone = seconds_an_event(relay, path, reader)
        slow = Stream(relay, path)  # which reads nothing from now on
        beside = seconds_an_event(relay, path, reader)
        slow.socket.close()
    return [
        Row(f"resident memory per idle stream, of {STREAMS:,}", per_stream, "KB", 10),
        Row(f"CPU of {STREAMS:,} idle streams, of one core", busy, "%", 10),
        Row("memory 20 s after they left / before", left, "x", 1.2),
        Row(f"memory after {CYCLES:,} streams came and left / before", left_of_cycles, "x", 1.2),
        Row("files that are open after them, more than before", files_left, "", 0),
        Row("time of an event beside a stream that reads nothing / alone", beside / alone, "x", 1.5),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
