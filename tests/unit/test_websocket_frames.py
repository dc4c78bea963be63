"""The client's WebSocket: what it makes of frames in any pieces, and what the relay reads of its own."""

import socket

import pytest
import websocket

from socket2me.client.websocket_frames import WebSocket
from socket2me_flask.engineio.websocket import FrameReader, Opcode, frame

TIMES = [0, 1, 125, 126, 65_535, 65_536]


@pytest.fixture
def connected():
    """A WebSocket after its handshake, the relay's end of it, and the messages that it took."""
    taken = []

    def take(message):
        taken.append(message)
        return message != "last"

    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    client = WebSocket(take, enable_multithread=True)
    client.sock, client.connected = ours, True
    with ours, theirs:
        yield client, theirs, taken


@pytest.mark.parametrize("size", TIMES)
def test_messages_are_what_was_sent(connected, size):
    """Text and bytes of every form of length, one after another, each once and in order."""
    client, theirs, taken = connected
    text, data = "x" * size, b"z" * size
    sent = frame(Opcode.TEXT, text.encode()) + frame(Opcode.BINARY, data) + frame(Opcode.TEXT, b"last")
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(sent) * 4)
    theirs.sendall(sent)
    assert client.recv() == "last"
    assert taken == [text, data, "last"]


def test_a_message_in_single_bytes_in_fragments_and_between_control_frames(connected):
    """Fragments are one message, a ping is answered between them, and no cut between two reads matters."""
    client, theirs, taken = connected
    whole = (
        bytes((Opcode.TEXT, 2)) + b"ab" + frame(Opcode.PING, b"now") + bytes((0x80, 1)) + b"c"
        + frame(Opcode.PONG, b"") + frame(Opcode.TEXT, "d\u00fc".encode()) + frame(Opcode.TEXT, b"last")
    )  # fmt: skip
    for number in whole:
        theirs.sendall(bytes((number,)))
    assert client.recv() == "last"
    assert taken == ["abc", "d\u00fc", "last"]
    assert list(FrameReader(1000).feed(theirs.recv(1000))) == [(Opcode.PONG, b"now")]


@pytest.mark.parametrize("data", [b"\x81\x80aaaa", b"\xc1\x01a", b"\x83\x01a", b"\x81\x01\xff"])
def test_what_breaks_the_protocol_ends_it(connected, data):
    """A masked frame, a reserved bit, an unknown kind, and text that is not UTF-8."""
    client, theirs, _ = connected
    theirs.sendall(data)
    with pytest.raises((websocket.WebSocketException, UnicodeDecodeError)):
        client.recv()


def test_the_end(connected):
    """A close frame is answered and brings an empty message; the end of the connection raises."""
    client, theirs, _ = connected
    theirs.sendall(frame(Opcode.CLOSE, b"\x03\xe8"))
    assert client.recv() == ""
    assert [opcode for opcode, _ in FrameReader(1000).feed(theirs.recv(1000))] == [Opcode.CLOSE]
    theirs.close()
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        client.recv()


@pytest.mark.parametrize("size", TIMES)
def test_what_is_written_is_read_by_the_relay(connected, size):
    """Each message is one masked frame, those that belong together follow each other."""
    client, theirs, _ = connected
    text, data = "\u00fc" * (size // 2), bytes(range(256)) * (size // 256) + b"q" * (size % 256)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    client.send_messages([text, data])
    reader, found = FrameReader(100_000), []
    while len(found) < 2:
        found += reader.feed(theirs.recv(65_536))
    assert found == [(Opcode.TEXT, text.encode()), (Opcode.BINARY, data)]
