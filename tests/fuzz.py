# ruff: noqa: E501  # inputs are one a line
"""A search for inputs that cost much: `python -m tests.fuzz --seconds 180 --seed 1`, or `make attack`.

Feeds what a peer can feed: heads, chunks, targets, headers, bodies, payloads and frames of Engine.IO, packets and
acknowledgements of Socket.IO. An input is a few runs, each of some bytes and how often they are repeated. So it has a
short form that can be kept as a test (`test_worst.py`), and what costs more than in proportion is found soon. Inputs
are mutated, those that cost most of all more often.

Parsers are called in this process, where an input takes as long as it costs: its stretch is the CPU time during which
no other green thread runs. Other inputs go to a relay over connections: the CPU time of its process until it has
answered is an upper bound of the stretch. The report has the ten worst by stretch, and by CPU time a KB.

Ends with status 1 if a stretch takes longer than `MOST_SECONDS`, if a parser raises what it does not say that it
raises, or if the relay answers 500, logs a traceback or does not answer at all.
"""

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import requests
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser
from werkzeug.middleware.proxy_fix import ProxyFix

from socket2me_flask.api import tokens
from socket2me_flask.engineio import protocol, protocol3
from socket2me_flask.engineio.protocol import BadPacket
from socket2me_flask.engineio.websocket import FrameReader, ProtocolError
from socket2me_flask.engineio.websocket_connection import LARGE_READ_BYTES, READ_BYTES
from socket2me_flask.errors import RelayError
from socket2me_flask.http import hosts, origins
from socket2me_flask.http.answers import prefers
from socket2me_flask.limits import address_key
from socket2me_flask.logs import redact
from socket2me_flask.relay import replies
from socket2me_flask.relay.call import Call
from socket2me_flask.relay.forwarder import caller_address, parse_target
from socket2me_flask.sockets.request_event import event_packets, media_type, request_event
from socket2me_flask.worker.head_checks import check_head
from tests.support.attack import connect, cpu_of
from tests.support.raw import RawWebSocket
from tests.support.servers import Server

# A longer stretch than the first is reported as too long; than the second, it fails the search on a busy machine too.
LONG_SECONDS = 0.03
MOST_SECONDS = 0.1

# What has fewer bytes says little about the cost of a byte.
SMALLEST_BYTES = 1024

SHOWN = 10
KEPT = 8  # inputs of a target that are mutated further

# An input: bytes, and how often they are repeated.
Runs = tuple[tuple[bytes, int], ...]

WORDS = [
    *(b"%c" % character for character in b"[]{}\",:;=&%+-/\\?#@ \t\r\n\0\x01\x1e\x7f\xff0123456789abeEnN"),
    *(b"\r\n", b"\r\n\r\n", b"--x", b"\r\n--x", b"%41", b"%ff", b"a=", b"a=b&", b"a[b]=", b"[]", b"{}", b'"":0,', b"\\u0000"),
    *(b"1e15,", b"null,", b'\\"', "é".encode(), "\U0001f600".encode(), b"1:3", b"b4AAAA", b"\0\1\xff4", b";q=0.1", b"a/b;q=1,"),
    *(b"1\r\nx\r\n", b"X-A: b\r\n", b"127.0.0.1, ", b"::1", b"[::1]:1, ", b"..", b"xn--a.", b"//", b"a.", b"_placeholder"),
    *(b"\x89\x80\0\0\0\0", b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0", b"\x81\x81\0\0\0\0" + b"3", b"2x", b"40/,", b"41/,", b"a" * 24),
]  # fmt: skip


def data_of(runs: Runs) -> bytes:
    """Return the bytes of an input."""
    return b"".join([piece * count for piece, count in runs])


@dataclass
class Target:
    """What takes inputs of at most so many bytes. `run` returns the stretch of one, in seconds."""

    name: str
    run: Callable[[bytes], float]
    seeds: list[Runs]
    most_bytes: int
    tried: int = 0
    kept: list["Result"] = field(default_factory=list)


@dataclass
class Result:
    """An input and its stretch."""

    target: str
    runs: Runs
    size: int
    seconds: float

    @property
    def seconds_a_kb(self) -> float:
        return self.seconds / max(self.size, SMALLEST_BYTES) * 1024

    def __str__(self) -> str:
        shown = " ".join(f"{piece[:40]!r}*{count}" for piece, count in self.runs[:8])
        return (
            f"{self.seconds * 1000:8.1f} ms {self.seconds_a_kb * 1e6:8.0f} us/KB {self.size:9,} bytes"
            f"  {self.target}: {shown}"
        )


class Failure(Exception):
    """An input did what no input may do."""


# Parsers


def measured(parse: Callable[[bytes], object], expected: tuple[type[Exception], ...]) -> Callable[[bytes], float]:
    """Return what calls a parser and returns the CPU time that it took. It may raise what is `expected`."""

    def run(data: bytes) -> float:
        media_type.cache_clear()
        started = time.thread_time()
        with contextlib.suppress(*expected):
            parse(data)
        return time.thread_time() - started

    return run


def parse_head(data: bytes) -> None:
    config = Config()
    config.set("limit_request_line", 8190)
    for request in RequestParser(
        config, iter([data[at : at + 8192] for at in range(0, len(data), 8192)]), ("127.0.0.2", 1)
    ):
        check_head(request)
        parse_target(request.uri)
        request.body.read(65_536)


def make_event(content_type: bytes, is_legacy: bool, data: bytes) -> None:
    call = Call(
        "a" * 24, "POST", "", "", {"content-type": content_type.decode("latin-1")}, data, 0.0, is_legacy=is_legacy
    )
    event_packets("/a", request_event(call))


def make_event_of_target(is_legacy: bool, data: bytes) -> None:
    target = parse_target("/v1/go/" + "a" * 24 + data.decode("latin-1"))
    if target is not None:
        call = Call("a" * 24, "GET", target.path, target.query, {}, b"", 0.0, is_legacy=is_legacy)
        request_event(call)


def make_event_of_type(data: bytes) -> None:
    make_event(data, False, b"--x\r\n\r\nx")


def read_address(data: bytes) -> None:
    text = data.decode("latin-1")
    address_key(caller_address({"x-forwarded-for": text}, "", 1))
    environ = dict.fromkeys(("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"), text)
    ProxyFix(lambda environ, start_response: [], x_for=1, x_proto=1, x_host=1)(environ, None)


def read_frames(data: bytes) -> float:
    """Return the longest stretch of reading frames, as `Connection` does: other green threads run between reads."""
    reader = FrameReader(262_144)
    at, longest = 0, 0.0
    while at < len(data):
        size = min(max(READ_BYTES, reader.missing_bytes), LARGE_READ_BYTES)
        piece = data[at : at + size]
        at += size
        started = time.thread_time()
        try:
            for opcode, payload in reader.feed(piece):
                if opcode < 8:
                    protocol.decode_message(opcode, payload)
        except (ProtocolError, BadPacket):
            at = len(data)
        longest = max(longest, time.thread_time() - started)
    return longest


def reply(data: bytes) -> None:
    arguments = json.loads(data)
    if isinstance(arguments, list):
        for is_legacy in (False, True):
            replies.from_acknowledgement(arguments, is_legacy=is_legacy)


JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
HEAD = b"POST /v1/go/zz HTTP/1.1\r\nHost: x\r\n"
BODY_BYTES = 2_048_000


def parsers() -> list[Target]:
    """Return the targets in this process."""
    nothing: tuple[type[Exception], ...] = ()
    text = lambda parse: lambda data: parse(data.decode("latin-1"))  # noqa: E731
    bad_json = (ValueError, RecursionError)
    malformed = (ParseException, NoMoreData)
    targets = [
        Target("head", measured(parse_head, malformed), [((HEAD, 1), (b"X-A: b\r\n", 90), (b"\r\n", 1))], 65_536),
        Target(
            "chunks",
            measured(lambda data: parse_head(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + data), malformed),
            [((b"1\r\nx\r\n", 5000), (b"0\r\n\r\n", 1)), ((b"1;a=b\r\nx\r\n0\r\n", 1), (b"X-A: b\r\n", 900), (b"\r\n", 1))],
            65_536,
        ),
        Target("target", measured(partial(make_event_of_target, False), nothing), [((b"/a?", 1), (b"a=b&", 1500))], 8100),
        Target("target of /go", measured(partial(make_event_of_target, True), nothing), [((b"/a/b?", 1), (b"a[b]=c&", 1000))], 8100),
        Target("Accept", measured(text(lambda accept: prefers(accept, "text/plain", "application/json")), nothing), [((b"a/b;q=0.1,", 800),)], 57_000),
        Target("Content-Type", measured(make_event_of_type, nothing), [((b"multipart/form-data", 1), (b";a=b", 2000))], 57_000),
        Target("Origin", measured(text(lambda origin: origins.Origins(None).allow({"HTTP_ORIGIN": origin, "HTTP_HOST": "x"})), nothing), [((b"http://a", 1), (b".a", 4000))], 57_000),
        Target("Host", measured(text(hosts.Hosts(["a"]).allow), nothing), [((b"a.", 4000),)], 57_000),
        Target("X-Forwarded", measured(read_address, nothing), [((b"127.0.0.1, ", 5000),)], 57_000),
        Target("log line", measured(text(redact), nothing), [((b"a" * 24, 2000),)], 57_000),
        Target("options of POST /v1/new", measured(tokens.parse_options, (RelayError,)), [((b'{"ttl_seconds":', 1), (b"1", 4000), (b"}", 1))], 4096),
        Target("payload of Engine.IO 4", measured(protocol.decode_payload, (BadPacket,)), [((b"4a\x1e", 499), (b"4a", 1))], 262_144),
        Target("frames", read_frames, [((b"\x81\x81\0\0\0\0" + b"3", 9000),), ((b"\x01\x80\0\0\0\0", 1), (b"\x00\x80\0\0\0\0", 9000))], 262_144),
        Target("reply", measured(reply, (*bad_json, RelayError)), [((b'[200,"', 1), (b"a", 100_000), (b'",{"x-a":["b"]}]', 1)), ((b"[[", 1), (b"1e15,", 50_000), (b"1]]", 1))], 262_144),
    ]  # fmt: skip
    for is_base64 in (False, True):
        codec = protocol3.Codec(base64=is_base64)
        seeds: list[Runs] = [((b"2:4a", 400),), ((b"\0\2\xff4a", 400),), (("3:4éé".encode(), 400),)]
        targets.append(
            Target("payload of Engine.IO 3", measured(codec.decode_payload, (BadPacket,)), seeds, 262_144)
        )
    bodies: list[tuple[bytes, list[Runs]]] = [
        (JSON, [((b"{", 1), (b'"a":[{"b":1}],', 9000), (b'"c":0}', 1)), ((b"[", 400), (b"1,", 9000), (b"1", 1), (b"]", 400))]),
        (FORM, [((b"a=%41&", 900),), ((b"a=", 1), (b"%e9", 9000))]),
        (MULTIPART, [((PART + b"x\r\n", 900), (b"--x--\r\n", 1)), ((PART, 1), (b"\r\n-", 90_000), (b"\r\n--x--\r\n", 1))]),
        (b"text/plain", [((b"a", 9000),)]),
    ]  # fmt: skip
    for content_type, seeds in bodies:
        for is_legacy in (False, True):
            name = f"{content_type.decode().partition(';')[0]} at {'/go' if is_legacy else '/v1/go'}"
            run = measured(partial(make_event, content_type, is_legacy), nothing)
            targets.append(Target(name, run, seeds, BODY_BYTES))
    return targets


# A relay


class Relay:
    """A relay and what is sent to it over connections. `cpu` returns what its process has used."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.cpu = partial(cpu_of, server.worker_pid)
        self._pid = server.worker_pid
        made = server.new_with_secret(mode="reply")
        self._token, self._secret = made["token"], made["secret"]
        self._websocket: RawWebSocket | None = None

    def targets(self) -> list[Target]:
        """Return the targets that are reached over a connection."""
        heads: list[Runs] = [
            ((b"GET /v1/new HTTP/1.1\r\nHost: ", 1), (b"a.", 2000), (b"\r\n\r\n", 1)),
            ((b"POST /v1/new HTTP/1.1\r\nContent-Length: 0\r\nHost: ", 1), (b"a.", 2000), (b"\r\n\r\n", 1)),
            ((b"GET ", 1), (b"/a", 3000), (b" HTTP/1.1\r\nHost: x\r\n\r\n", 1)),
            ((b"GET /v1/refresh/", 1), (b"%2f", 2000), (b" HTTP/1.1\r\nHost: x\r\n\r\n", 1)),
            ((b"GET /v1/tokens/aaaaaaaaaaaaaaaaaaaaaaaa/events/", 1), (b"a", 7000), (b" HTTP/1.1\r\nHost: x\r\n\r\n", 1)),
            ((b"GET /v1/new HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: ", 1), (b"1, ", 2000), (b"\r\nX-Forwarded-Host: ", 1), (b"a,", 2000), (b"\r\n\r\n", 1)),
            ((b"GET /v1/new HTTP/1.1\r\nHost: x\r\nOrigin: http://x", 1), (b"a", 2000), (b"\r\nAuthorization: Bearer ", 1), (b" a", 2000), (b"\r\n\r\n", 1)),
            ((b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: ", 1), (b"a,", 3000), (b"\r\nConnection: ", 1), (b"a,", 3000), (b"\r\nSec-WebSocket-Key: ", 1), (b"a", 3000), (b"\r\n\r\n", 1)),
            ((b"GET /socket.io/?EIO=4&transport=polling&", 1), (b"a=b&", 1000), (b" HTTP/1.1\r\nHost: x\r\nCookie: ", 1), (b"a=b;", 2000), (b"\r\n\r\n", 1)),
            ((b"OPTIONS /v1/go/@TOKEN@/", 1), (b"//", 2000), (b" HTTP/1.1\r\nHost: x\r\n", 1), (b"X-A: b\r\n", 80), (b"\r\n", 1)),
        ]  # fmt: skip
        packets: list[Runs] = [
            ((b"43/@TOKEN@,@ID@[", 1), (b"[1e15],", 30_000), (b"0]", 1)),
            ((b'43/@TOKEN@,@ID@[200,"a",{"x-a":[', 1), (b'"b",', 60_000), (b'"c"]}]', 1)),
            ((b"43/@TOKEN@,@ID@", 1), (b"[", 900), (b"]", 900)),
            ((b"43/@TOKEN@,", 1), (b"1", 200_000)),
            ((b'40/@TOKEN@,{"a":', 1), (b"[", 8000)),
            ((b'40/@TOKEN@,{"a":"', 1), (b"b", 16_000), (b'"}', 1)),
            ((b"40/", 1), (b"a", 250_000), (b",", 1)),
            ((b'42/@TOKEN@,["a",', 1), (b"[],", 80_000), (b"0]", 1)),
            ((b"462-/@TOKEN@,@ID@[", 1), (b'{"_placeholder":true,"num":0},', 8000), (b"0]", 1)),
        ]  # fmt: skip
        payloads: list[Runs] = [
            ((b"4x\x1e", 400), (b"3", 1)),
            ((b"40/a,\x1e", 400), (b"3", 1)),
            ((b"bAAAA\x1e", 400), (b"3", 1)),
        ]
        return [
            Target("HTTP", self.request, heads, 65_536),
            Target("Socket.IO", self.packet, packets, 262_144),
            Target("POST of a session", self.payload, payloads, 262_144),
        ]

    def _fill(self, data: bytes, ack_id: bytes = b"1") -> bytes:
        return data.replace(b"@TOKEN@", self._token.encode()).replace(b"@ID@", ack_id)

    def request(self, data: bytes) -> float:
        """Send bytes, and read until the relay closes the connection."""
        started = self.cpu()
        answer = b""
        with connect(self._server.port) as sock, contextlib.suppress(ConnectionError, BrokenPipeError):
            sock.sendall(self._fill(data))
            sock.shutdown(1)
            while piece := sock.recv(65_536):
                answer += piece
        if answer.startswith(b"HTTP/1.1 500"):
            raise Failure("answered 500")
        return self.cpu() - started

    def packet(self, data: bytes) -> float:
        """Send a packet over a WebSocket while a call waits for its reply, and wait until it was handled."""
        websocket = self._websocket or self._join()
        with connect(self._server.port) as caller:
            caller.sendall(self._fill(b"GET /v1/go/@TOKEN@ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            event = websocket.receive()
            ack_id = event.partition(",")[2].partition("[")[0]
            started = self.cpu()
            self._websocket = None
            with contextlib.suppress(OSError):
                websocket.send_frame(self._fill(data, ack_id.encode()))
                websocket.send_frame(b"40/x,")  # which is refused when the packet before it was handled
                while websocket.receive_frame()[1][:5] not in (b"44/x,", b"\x03\xef"):  # or it was closed
                    pass
            seconds = self.cpu() - started
        websocket.close()
        return seconds

    def _join(self) -> RawWebSocket:
        websocket = RawWebSocket(self._server.port, address="127.0.0.2")
        websocket.join(self._token, json.dumps({"secret": self._secret}))
        return websocket

    def payload(self, data: bytes) -> float:
        """Send a body to a session that polls."""
        url = f"{self._server.url}/socket.io/?EIO=4&transport=polling"
        with requests.Session() as http:
            url += "&sid=" + http.get(url, timeout=20).text.split('"')[3]
            started = self.cpu()
            if http.post(url, data=data, timeout=20).status_code == 500:
                raise Failure("answered 500")
            seconds = self.cpu() - started
            http.post(url, data="1", timeout=20)
        return seconds

    def check(self) -> None:
        """Raise `Failure` if an input has made the relay stumble."""
        if (
            self._server.worker_pid != self._pid
            or requests.get(f"{self._server.url}/healthz", timeout=20).text != "OK"
        ):
            raise Failure("the relay does not answer, or its worker was replaced")
        if "Traceback" in self._server.log:
            raise Failure(self._server.log[self._server.log.index("Traceback") :][:2000])


# The search


def mutated(runs: Runs, other: Runs, chance: random.Random, most_bytes: int) -> Runs:
    """Return an input that differs a little, or is put together from two."""
    changed = list(runs)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(changed))
        piece, count = changed[at]
        how = chance.randrange(8)
        if how == 0:
            changed.insert(at, (chance.choice(WORDS), chance.choice((1, 1, 10, 1000))))
        elif how == 1 and piece:
            place = chance.randrange(len(piece))
            changed[at] = (piece[:place] + chance.choice(WORDS) + piece[place:], count)
        elif how == 2 and piece:
            place = chance.randrange(len(piece))
            changed[at] = (piece[:place] + chance.choice(WORDS) + piece[place + 1 :], count)
        elif how == 3 and len(changed) > 1:
            del changed[at]
        elif how == 4:
            changed[at] = (piece, max(1, int(count * chance.choice((0.5, 0.9, 2, 10)))))
        elif how == 5 and count == 1 and len(piece) > 1:  # a part of it is repeated
            start, end = sorted(chance.sample(range(len(piece) + 1), 2))
            changed[at : at + 1] = [(piece[:start], 1), (piece[start:end], chance.choice((2, 100, 10_000))), (piece[end:], 1)]  # fmt: skip
        elif how == 6:
            changed.insert(at, chance.choice(other))
        else:
            changed[at] = (chance.choice(WORDS), count)
    return fitted(tuple(changed), most_bytes)


def fitted(runs: Runs, most_bytes: int) -> Runs:
    """Return an input with no more bytes than that: its longest runs are repeated less often."""
    changed = [(piece[:most_bytes], count) for piece, count in runs if piece][:16] or [(b"a", 1)]
    while (size := sum(len(piece) * count for piece, count in changed)) > most_bytes:
        at = max(range(len(changed)), key=lambda at: len(changed[at][0]) * changed[at][1])
        piece, count = changed[at]
        if count == 1:
            changed[at] = (piece[: len(piece) // 2] or b"a", 1)
        else:
            changed[at] = (piece, max(1, min(count - 1, count - (size - most_bytes) // len(piece))))
    return tuple(changed)


def attempt(target: Target, runs: Runs) -> None:
    """Try an input, and keep it if it is among the worst of its target. What seems to be, is tried again."""
    data = data_of(runs)
    target.tried += 1
    seconds = target.run(data)
    worst = sorted(target.kept, key=lambda result: -result.seconds)[:KEPT]
    dearest = sorted(target.kept, key=lambda result: -result.seconds_a_kb)[:KEPT]
    result = Result(target.name, runs, len(data), seconds)
    is_worse = len(worst) < KEPT or seconds > worst[-1].seconds or result.seconds_a_kb > dearest[-1].seconds_a_kb
    if is_worse:
        for _ in range(2):
            result.seconds = min(result.seconds, target.run(data))
        target.kept = list({result.runs: result for result in [*worst, *dearest, result]}.values())


def search(targets: list[Target], seconds: float, chance: random.Random) -> list[str]:
    """Try inputs for so long, the same time for each target. Return what went wrong."""
    failures = []
    spent = dict.fromkeys(range(len(targets)), 0.0)
    ends_at = time.monotonic() + seconds
    waiting = [list(target.seeds) for target in targets]
    while time.monotonic() < ends_at:
        number = min(spent, key=lambda number: spent[number])
        target = targets[number]
        started = time.monotonic()
        if waiting[number]:
            runs = fitted(waiting[number].pop(), target.most_bytes)
        else:
            pool = [result.runs for result in target.kept] + target.seeds
            runs = mutated(chance.choice(pool), chance.choice(pool), chance, target.most_bytes)
        try:
            attempt(target, runs)
        except Exception as error:
            failures.append(f"{target.name}: {error!r} for {runs!r}"[:3000])
            if len(failures) >= SHOWN:
                break
        spent[number] += time.monotonic() - started
    return failures


def main() -> int:
    """Search, and print the worst."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=180)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options.add_argument("--only", help="the targets whose name has this in it")
    arguments = options.parse_args()
    print(f"seed {arguments.seed}, {arguments.seconds:g} seconds", flush=True)
    chance = random.Random(arguments.seed)
    with Server(HOLD_SECONDS=0.2, TRUSTED_PROXY_HOPS=1, MAX_TOKENS=0, RATE_LIMIT_REQUESTS=0) as server:
        relay = Relay(server)
        targets = [target for target in [*parsers(), *relay.targets()] if (arguments.only or "") in target.name]
        failures = search(targets, arguments.seconds, chance)
        try:
            relay.check()
        except Failure as failure:
            failures.append(str(failure))
    results = [result for target in targets for result in target.kept]
    for title, key in (("The longest stretches", "seconds"), ("The most CPU time a KB", "seconds_a_kb")):
        print(f"\n{title}:")
        for result in worst_of(results, key):
            print(result, "TOO LONG" if result.seconds > LONG_SECONDS else "")
    print("\nInputs: " + ", ".join(f"{target.name} {target.tried:,}" for target in targets))
    print("\n".join(["", *failures]))
    return int(bool(failures) or max(result.seconds for result in results) > MOST_SECONDS)


def worst_of(results: list[Result], key: str) -> list[Result]:
    """Return the ten worst, of each target no more than two: the others are much the same."""
    worst: list[Result] = []
    for result in sorted(results, key=lambda result: -getattr(result, key)):
        if sum(result.target == other.target for other in worst) < 2:
            worst.append(result)
    return worst[:SHOWN]


if __name__ == "__main__":
    sys.exit(main())
