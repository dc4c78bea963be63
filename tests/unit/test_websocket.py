"""RFC 6455 from the server's side: bytes in, messages out."""

import base64
import gc
import struct
import tracemalloc

import pytest

from socket2me_flask.engineio import websocket
from socket2me_flask.engineio.websocket import (
    BadHandshake,
    BadVersion,
    CloseCode,
    FrameReader,
    Opcode,
    ProtocolError,
    accept,
    close_frame,
    frame,
)

LIMIT = 1000


def client_frame(payload, opcode=Opcode.TEXT, final=True, bits=0):
    """Return a frame as a client sends it."""
    mask = b"\x01\x02\x03\x04"
    head = bytes([(0x80 if final else 0) | bits | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", 0x80 | 126, len(payload))
    else:
        head += struct.pack("!BQ", 0x80 | 127, len(payload))
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def read(*pieces, limit=LIMIT):
    reader = FrameReader(limit)
    return [message for piece in pieces for message in reader.feed(piece)]


def handshake(**changes):
    """Return the environ of the RFC's own example, with some of it changed, or left out."""
    environ = {
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return {name: value for name, value in (environ | changes).items() if value is not None}


def test_the_example_of_the_rfc():
    """Section 1.3: the key `dGhlIHNhbXBsZSBub25jZQ==` is answered with `s3pPLMBiTxaQ9kYGzzhZRbK+xOo=`."""
    answer = accept(handshake()).decode()
    assert answer.startswith("HTTP/1.1 101 ")
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("version", "error"),
    [("8", BadVersion), ("13, 8", BadVersion), ("14", BadVersion), ("", BadHandshake), (None, BadHandshake)],
)
def test_only_version_13_is_accepted(version, error):
    """The response to another version names the right one; what names none is from before the RFC."""
    with pytest.raises(BadHandshake) as caught:
        accept(handshake(HTTP_SEC_WEBSOCKET_VERSION=version))
    assert caught.type is error


@pytest.mark.parametrize("key", ["", "x", "dGhlIHNhbXBsZSBub25jZQ", base64.b64encode(b"x" * 15).decode(), "ü"])
def test_a_key_is_16_bytes(key):
    """Anything else is no handshake."""
    with pytest.raises(BadHandshake):
        accept(handshake(HTTP_SEC_WEBSOCKET_KEY=key))


@pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "upgrade", "Upgrade,", "a,UPGRADE ,b"])
def test_connection_is_a_list_of_tokens(connection):
    """Firefox says keep-alive, too; case does not matter."""
    assert accept(handshake(HTTP_CONNECTION=connection))


@pytest.mark.parametrize(
    "changes",
    [{"HTTP_CONNECTION": None}, {"HTTP_CONNECTION": "keep-alive"}, {"SERVER_PROTOCOL": "HTTP/1.0"}],
)
def test_an_upgrade_is_asked_for_by_connection_and_http_1_1(changes):
    """Section 4.2.1; without it, a proxy in between may not know that this becomes a WebSocket."""
    with pytest.raises(BadHandshake):
        accept(handshake(**changes))


def test_the_hello_of_the_rfc():
    """Section 5.7: a masked and an unmasked `Hello`."""
    masked = bytes([0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58])
    assert read(masked) == [(Opcode.TEXT, b"Hello")]
    assert frame(Opcode.TEXT, b"Hello") == bytes([0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F])


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_every_form_of_length(size):
    """Lengths of one, two and eight bytes, both ways."""
    payload = bytes(index % 251 for index in range(size))
    assert read(client_frame(payload, Opcode.BINARY), limit=200_000) == [(Opcode.BINARY, payload)]
    sent = frame(Opcode.BINARY, payload)
    assert sent.endswith(payload)
    assert len(sent) - size == (2 if size < 126 else 4 if size < 65536 else 10)


def test_frames_may_be_cut_anywhere():
    """A byte at a time gives the same messages."""
    data = (
        client_frame(b"one")
        + client_frame(b"x" * 300, Opcode.BINARY)
        + client_frame(b"a", final=False)
        + client_frame(b"", Opcode.PING)
        + client_frame(b"b", Opcode.CONTINUATION)
    )
    expected = [
        (Opcode.TEXT, b"one"),
        (Opcode.BINARY, b"x" * 300),
        (Opcode.PING, b""),
        (Opcode.TEXT, b"ab"),
    ]
    assert read(data) == expected
    assert read(*[data[index : index + 1] for index in range(len(data))]) == expected


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.TEXT, b"not masked"), CloseCode.PROTOCOL_ERROR),
        (client_frame(b"", bits=0x40), CloseCode.PROTOCOL_ERROR),
        (client_frame(b"", 3), CloseCode.PROTOCOL_ERROR),
        (client_frame(b"x" * 126, Opcode.PING), CloseCode.PROTOCOL_ERROR),
        (client_frame(b"", Opcode.CLOSE, final=False), CloseCode.PROTOCOL_ERROR),
        (client_frame(b"", Opcode.CONTINUATION), CloseCode.PROTOCOL_ERROR),
        (client_frame(b"a", final=False) + client_frame(b"b"), CloseCode.PROTOCOL_ERROR),
        (client_frame(b"x" * (LIMIT + 1)), CloseCode.TOO_BIG),
        (bytes([0x81, 0xFF]) + b"\xff" * 8, CloseCode.TOO_BIG),
    ],
)
def test_what_a_client_must_not_send(data, code):
    """Each ends the connection with the code that the RFC names for it."""
    with pytest.raises(ProtocolError) as caught:
        read(data)
    assert caught.value.code == code


def test_a_length_is_refused_before_its_bytes_come():
    """A length of a gigabyte is refused before its content is sent."""
    with pytest.raises(ProtocolError):
        read(bytes([0x82, 0xFF]) + (10**9).to_bytes(8, "big"))


@pytest.mark.parametrize("payload", [b"x" * 10, b""])
def test_endless_fragments_end(payload):
    """The bound is on the message, not on the frame; empty fragments count too."""
    reader = FrameReader(LIMIT)
    list(reader.feed(client_frame(b"", final=False)))
    with pytest.raises(ProtocolError) as caught:
        for _ in range(LIMIT + 1):
            list(reader.feed(client_frame(payload, Opcode.CONTINUATION, final=False)))
    assert caught.value.code == CloseCode.TOO_BIG


def test_a_close_frame_carries_its_code():
    """Section 5.5.1."""
    assert close_frame(CloseCode.GOING_AWAY) == b"\x88\x02\x03\xe9"


def test_fragments_are_kept_in_one_buffer():
    """A message of two-byte fragments takes no more memory than twice its own size."""
    reader = FrameReader(300_000)
    fragment = client_frame(b"xy", Opcode.CONTINUATION, final=False)
    list(reader.feed(client_frame(b"xy", final=False)))
    gc.collect()
    tracemalloc.start()
    for _ in range(30):
        list(reader.feed(fragment * 1000))
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, websocket.__file__)])
    tracemalloc.stop()
    used = sum(each.size for each in snapshot.traces)  # other threads of this process allocate, too
    assert 60_000 <= used < 2 * 60_000
    assert list(reader.feed(client_frame(b"", Opcode.CONTINUATION))) == [(Opcode.TEXT, b"xy" * 30_001)]


def test_what_came_before_a_bad_frame_is_not_lost():
    """In the same read, too."""
    messages = FrameReader(LIMIT).feed(client_frame(b"good") + client_frame(b"", 3))
    assert next(messages) == (Opcode.TEXT, b"good")
    with pytest.raises(ProtocolError):
        next(messages)


def test_a_reader_says_how_much_of_a_frame_is_missing():
    """So that a large frame is read in large pieces, and small ones are not."""
    reader = FrameReader(200_000)
    data = client_frame(b"x" * 100_000, Opcode.BINARY)
    assert list(reader.feed(data[:1])) == []
    assert reader.missing_bytes == 0
    assert list(reader.feed(data[1:1000])) == []
    assert reader.missing_bytes == len(data) - 1000
    assert len(list(reader.feed(data[1000:]))) == 1
