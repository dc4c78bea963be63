"""Engine.IO 3, as it is written: against itself, and against the parsers of the clients themselves."""

import json
import subprocess
from base64 import b64decode, b64encode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socket2me_flask.engineio.protocol import BadPacket, Packet
from socket2me_flask.engineio.protocol3 import Codec
from socket2me_flask.engineio.websocket import Opcode
from tests.support.legacy_clients import VERSIONS
from tests.support.node import JS, needs_npm_packages

# No example has a deadline, since none has the machine to itself.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: Packet(f"4{text}".encode()))
messages = st.binary().map(lambda data: Packet(data, binary=True))
payloads = st.lists(texts | messages, min_size=1, max_size=5)


def codec(base64, encodes_twice=False):
    made = Codec(base64=base64)
    made.encodes_twice = encodes_twice
    return made


CODECS = {"bytes": codec(False), "text": codec(True), "text encoded twice": codec(True, encodes_twice=True)}


@pytest.fixture(params=CODECS)
def any_codec(request):
    return CODECS[request.param]


@given(packets=payloads)
@PATIENT
def test_a_payload_there_and_back(any_codec, packets):
    """Any text and any bytes."""
    assert any_codec.decode_payload(any_codec.encode_payload(packets)[1]) == packets


@given(packets=payloads)
@PATIENT
def test_frames_there_and_back(any_codec, packets):
    """Bytes are a binary frame with the type in front, or base64 where the client takes text only."""
    decoded = []
    for packet in packets:
        payload, opcode = _unframed(any_codec.encode_frames([packet]))
        assert opcode == (Opcode.BINARY if packet.binary and not any_codec.base64 else Opcode.TEXT)
        decoded.append(any_codec.decode_message(opcode, payload))
    assert decoded == packets


def _unframed(frame):
    """Return what is in a frame that a server sent, which has no mask."""
    head = 2 if frame[1] < 126 else 4
    return frame[head:], frame[0] & 15


@given(body=st.binary(max_size=60) | st.text("0123456789:b4é😀\0\1\xff", max_size=20).map(str.encode))
@PATIENT
def test_any_input_is_packets_or_refused(any_codec, body):
    """Nothing else is raised, and what is taken can be written again."""
    try:
        packets = any_codec.decode_payload(body)
    except BadPacket:
        return
    for packet in packets:
        assert packet.binary or packet.data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1",
        b":",
        b"x:4",
        b"0:",
        b"2:4",
        b"1:44",
        b"-1:4",
        b"99999999999:4",
        b"2:b5",
        b"3:b4*",
        b"6:b3AAAA",
        "2:4😀".encode(),
        "1İ:4é".encode(),  # whose low byte is that of 0
        b"2:4\xff",
        b"\0\xff",
        b"\0\1\xff",
        b"\0\x0b\xff4",
        b"\1\1\xff3",
        b"\0" + b"\1" * 11 + b"\xff4",
        b"\2\1\xff4",
    ],
)
def test_what_is_no_payload(body):
    """Lengths that are none, are wrong, or cut a character in two; packets of no type or of a wrong one."""
    for any_codec in (codec(True), codec(False)):
        with pytest.raises(BadPacket):
            any_codec.decode_payload(body)


def test_lengths_are_counted_as_the_protocol_says():
    """Its own examples, and a character of two UTF-16 units."""
    assert written(codec(True), Packet("4utf 8 string: €".encode())) == "16:4utf 8 string: €".encode()
    assert written(codec(True), Packet("4😀".encode())) == "3:4😀".encode()
    assert written(codec(True), Packet(b"\1\2\3", binary=True)) == b"6:b4AQID"
    assert written(codec(False), Packet("4€".encode()), Packet(b"\1", binary=True)) == (
        b"\0\4\xff4\xe2\x82\xac\1\2\xff\4\1"
    )


def written(any_codec, *packets):
    return any_codec.encode_payload(packets)[1]


def test_a_payload_without_bytes_is_text():
    """As engine.io's server writes it; not for a client of 1.x, which reads text payloads otherwise where it can
    take bytes."""
    text, data = Packet("4ü".encode()), Packet(b"\xff", binary=True)
    as_text, as_bytes = "text/plain; charset=UTF-8", "application/octet-stream"
    assert codec(False).encode_payload([text]) == (as_text, "2:4ü".encode())
    assert codec(False).encode_payload([text, data]) == (as_bytes, b"\0\3\xff4\xc3\xbc\1\2\xff\4\xff")
    assert codec(False, encodes_twice=True).encode_payload([text]) == (as_bytes, b"\0\3\xff4\xc3\xbc")
    assert codec(True).encode_payload([text, data]) == (as_text, "2:4ü6:b4/w==".encode())


class Parser:
    """engine.io-parser under Node."""

    def __init__(self, version):
        self.version = version
        self._process = subprocess.Popen(
            ["node", "--no-deprecation", "parser.mjs", f"sio-{version}"],
            cwd=JS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def encode(self, packets, binary):
        return b64decode(self._ask(packets=[_to_json(packet) for packet in packets], binary=binary))

    def decode(self, payload, binary):
        return [_from_json(packet) for packet in self._ask(payload=b64encode(payload).decode(), binary=binary)]

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def _ask(self, **question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _to_json(packet):
    return {"$bytes": b64encode(packet.data).decode()} if packet.binary else packet.data[1:].decode()


def _from_json(packet):
    if isinstance(packet, str):
        return Packet(f"4{packet}".encode())
    return Packet(b64decode(packet["$bytes"]), binary=True)


@pytest.fixture(scope="module", params=VERSIONS)
def parser(request):
    parser = Parser(request.param)
    yield parser
    parser.close()


@needs_npm_packages
@pytest.mark.parametrize("base64", [False, True])
@given(packets=payloads)
@PATIENT
def test_the_clients_own_parser_reads_and_writes_the_same(parser, base64, packets):
    """Both ways, for clients that take bytes and for those that do not."""
    ours = codec(base64, encodes_twice=parser.version.startswith("1."))
    content_type, payload = ours.encode_payload(packets)
    assert parser.decode(payload, binary=content_type == "application/octet-stream") == packets
    assert ours.decode_payload(parser.encode(packets, binary=not base64)) == packets
