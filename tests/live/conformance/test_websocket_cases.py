"""The cases of Autobahn's suite for WebSocket servers, restated: frames in, messages and a close code out.

A case is a row: its number there, what the client sends, and what it has to receive from a server that echoes
messages. Each case is run over a real socket three times: sent whole, frame by frame, and byte by byte (where it
is short). Sections 9 (speed, and sizes up to 16 MB), 12 and 13 (compression, which is not offered) have no rows.
Text that is not UTF-8 is refused when its message is whole.
"""

import os
import socket
import struct
import threading

import pytest

from socket2me_flask.concurrency.loop import ThreadLoop
from socket2me_flask.engineio.websocket import Opcode
from tests.support.echo import Echo
from tests.support.servers import DEADLINE_SECONDS

CONT, TEXT, BINARY, CLOSE, PING, PONG = (int(opcode) for opcode in Opcode)
LONGEST_BY_BYTES = 2000


def sent(opcode, payload=b"", fin=True, rsv=0, masked=True):
    """Return a frame as a client sends it."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", bit | 127, len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def close(code=None, reason=b""):
    return sent(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def in_fragments(opcode, *parts):
    """Return the frames of a message in fragments."""
    last = len(parts) - 1
    return [sent(opcode if not number else CONT, part, fin=number == last) for number, part in enumerate(parts)]


DONE = close(1000)
HELLO = (TEXT, b"Hello, world!")
VALID = "Hello-µ@ßöäüàá-UTF-8!!".encode()
KAPPA = "κόσμε".encode()


def cases():
    """Yield number, frames, received messages, close code."""
    # 1: messages of every form of length
    for number, size in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
        yield f"1.1.{number}", [sent(TEXT, b"*" * size), DONE], [(TEXT, b"*" * size)], 1000
        yield f"1.2.{number}", [sent(BINARY, b"\xfe" * size), DONE], [(BINARY, b"\xfe" * size)], 1000
    # 2: pings and pongs
    for number, payload in enumerate(
        (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125), 1
    ):
        yield f"2.{number}", [sent(PING, payload), DONE], [(PONG, payload)], 1000
    yield "2.5", [sent(PING, b"\xfe" * 126)], [], 1002
    yield "2.6", [sent(PING, b"\xfe" * 125), DONE], [(PONG, b"\xfe" * 125)], 1000
    yield "2.7", [sent(PONG), DONE], [], 1000
    yield "2.8", [sent(PONG, b"unsolicited"), DONE], [], 1000
    yield "2.9", [sent(PONG, b"unsolicited"), sent(PING, b"ping"), DONE], [(PONG, b"ping")], 1000
    ten = [b"payload-%d" % number for number in range(10)]
    for number in ("2.10", "2.11"):
        yield number, [*(sent(PING, payload) for payload in ten), DONE], [(PONG, payload) for payload in ten], 1000
    # 3: reserved bits
    hello, ping = sent(*HELLO), sent(PING)
    yield "3.1", [sent(*HELLO, rsv=1)], [], 1002
    for number, rsv in (("3.2", 2), ("3.3", 3), ("3.4", 4)):
        yield number, [hello, sent(*HELLO, rsv=rsv), ping], [HELLO], 1002
    yield "3.5", [sent(BINARY, b"\x00\xff" * 4, rsv=5)], [], 1002
    yield "3.6", [sent(PING, b"Hello", rsv=6)], [], 1002
    yield "3.7", [sent(CLOSE, rsv=7)], [], 1002
    # 4: reserved opcodes
    for section, first in ((1, 3), (2, 11)):
        yield f"4.{section}.1", [sent(first)], [], 1002
        yield f"4.{section}.2", [sent(first + 1, b"reserved")], [], 1002
        for number in (3, 4, 5):
            frames = [hello, sent(first + number - 1, b"x" * (number > 3)), ping]
            yield f"4.{section}.{number}", frames, [HELLO], 1002
    # 5: fragments
    yield "5.1", in_fragments(PING, b"fragment1", b"fragment2"), [], 1002
    yield "5.2", in_fragments(PONG, b"fragment1", b"fragment2"), [], 1002
    two = in_fragments(TEXT, b"fragment1", b"fragment2")
    joined = (TEXT, b"fragment1fragment2")
    for number in ("5.3", "5.4", "5.5"):
        yield number, [*two, DONE], [joined], 1000
    for number in ("5.6", "5.7", "5.8"):
        yield number, [two[0], sent(PING, b"ping"), two[1], DONE], [(PONG, b"ping"), joined], 1000
    lonely = sent(CONT, b"non-continuation payload")
    for number in ("5.9", "5.10", "5.11"):
        yield number, [lonely, hello], [], 1002
    for number in ("5.12", "5.13", "5.14"):
        yield number, [sent(CONT, b"non-continuation payload", fin=False), hello], [], 1002
    four = in_fragments(TEXT, b"fragment1", b"fragment2", b"fragment3", b"fragment4")
    yield "5.15", [*two, sent(CONT, b"fragment3", fin=False), sent(TEXT, b"fragment4")], [joined], 1002
    for number, fin in (("5.16", False), ("5.17", True)):
        yield number, [sent(CONT, b"fragment1", fin=fin), sent(TEXT, b"fragment2", fin=False), two[1]], [], 1002
    yield "5.18", [two[0], sent(TEXT, b"fragment2")], [], 1002
    for number in ("5.19", "5.20"):
        frames = []
        for part in in_fragments(TEXT, b"fragment1", b"fragment2", b"fragment3", b"fragment4", b"fragment5"):
            frames += [part, sent(PING, b"pongme")]
        everything = b"".join(b"fragment%d" % part for part in range(1, 6))
        pongs = [(PONG, b"pongme")]
        yield number, [*frames, DONE], [*pongs * 4, (TEXT, everything), *pongs], 1000
    yield "5.x", [*four, DONE], [(TEXT, b"fragment1fragment2fragment3fragment4")], 1000
    # 6: text is UTF-8
    yield "6.1.1", [sent(TEXT), DONE], [(TEXT, b"")], 1000
    yield "6.1.2", [*in_fragments(TEXT, b"", b"", b""), DONE], [(TEXT, b"")], 1000
    yield (
        "6.1.3",
        [*in_fragments(TEXT, b"", b"middle frame payload", b""), DONE],
        [(TEXT, b"middle frame payload")],
        1000,
    )
    half = len(VALID) // 2
    yield "6.2.1", [sent(TEXT, VALID), DONE], [(TEXT, VALID)], 1000
    yield "6.2.2", [*in_fragments(TEXT, VALID[:half], VALID[half:]), DONE], [(TEXT, VALID)], 1000
    yield (
        "6.2.3",
        [*in_fragments(TEXT, *(VALID[at : at + 1] for at in range(len(VALID)))), DONE],
        [(TEXT, VALID)],
        1000,
    )
    yield (
        "6.2.4",
        [*in_fragments(TEXT, *(KAPPA[at : at + 1] for at in range(len(KAPPA)))), DONE],
        [(TEXT, KAPPA)],
        1000,
    )
    invalid = KAPPA + b"\xed\xa0\x80edited"
    yield "6.3.1", [sent(TEXT, invalid)], [], 1007
    yield "6.3.2", in_fragments(TEXT, *(invalid[at : at + 1] for at in range(len(invalid)))), [], 1007
    for number, parts in (
        ("6.4.1", (KAPPA, b"\xf4\x90\x80\x80", b"edited")),
        ("6.4.2", (KAPPA + b"\xf4", b"\x90", b"\x80\x80edited")),
        ("6.4.3", (KAPPA, b"\xf4\x90\x80\x80", b"edited")),
        ("6.4.4", (KAPPA + b"\xf4", b"\x90", b"")),
    ):
        yield number, in_fragments(TEXT, *parts), [], 1007
    for number, payload in UTF8:
        is_valid = _is_utf8(payload)
        yield number, [sent(TEXT, payload), DONE], [(TEXT, payload)] if is_valid else [], 1000 if is_valid else 1007
    # 7: the end
    yield "7.1.1", [hello, DONE], [HELLO], 1000
    yield "7.1.2", [DONE, DONE], [], 1000
    yield "7.1.3", [DONE, ping], [], 1000
    yield "7.1.4", [DONE, hello], [], 1000
    yield "7.1.5", [two[0], DONE, two[1]], [], 1000
    yield (
        "7.1.6",
        [sent(TEXT, b"BAsd7&jh23" * 1000), hello, DONE, ping],
        [(TEXT, b"BAsd7&jh23" * 1000), HELLO],
        1000,
    )
    yield "7.3.1", [close()], [], 1000
    yield "7.3.2", [sent(CLOSE, b"a")], [], 1002
    yield "7.3.3", [close(1000)], [], 1000
    yield "7.3.4", [close(1000, b"Hello World!")], [], 1000
    yield "7.3.5", [close(1000, b"*" * 123)], [], 1000
    yield "7.3.6", [close(1000, b"*" * 124)], [], 1002
    yield "7.5.1", [close(1000, invalid)], [], 1007
    valid_codes = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for number, code in enumerate(valid_codes, 1):
        yield f"7.7.{number}", [close(code)], [], code
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield f"7.9.{number}", [close(code)], [], 1002
    yield "7.13.1", [close(5000)], [], 1002
    yield "7.13.2", [sent(CLOSE, struct.pack("!I", 65536))], [], 1002
    # 10: a message in fragments of 1,300 bytes
    parts = [b"*" * 1300] * 50 + [b"*" * 536]
    yield "10.1.1", [*in_fragments(TEXT, *parts), DONE], [(TEXT, b"*" * 65536)], 1000
    # What Autobahn does not ask, and RFC 6455 says in sections 5.1 and 5.2
    yield "unmasked", [sent(TEXT, b"Hello", masked=False)], [], 1002
    yield "length 125 in 16 bits", [struct.pack("!BBH", 0x81, 0xFE, 125) + bytes(4 + 125)], [], 1002
    yield "length 65535 in 64 bits", [struct.pack("!BBQ", 0x81, 0xFF, 65535) + bytes(4)], [], 1002
    yield "a ping of a length in 16 bits", [struct.pack("!BBH", 0x89, 0xFE, 5) + bytes(4 + 5)], [], 1002


def _is_utf8(payload):
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _utf8():
    """Yield the texts of sections 6.5 to 6.23, most of which are from Markus Kuhn's stress test."""
    yield "6.5.1", KAPPA
    lengths = (b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80")  # the first of each length
    longer = (b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80")  # which UTF-8 does not have
    for number in range(1, len(KAPPA) + 1):
        yield f"6.6.{number}", KAPPA[:number]
    for number, text in enumerate(lengths, 1):
        yield f"6.7.{number}", text
    for number, text in enumerate(longer, 1):
        yield f"6.8.{number}", text
    for number, text in enumerate((b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"), 1):
        yield f"6.9.{number}", text
    beyond = (b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf")
    for number, text in enumerate(beyond, 1):
        yield f"6.10.{number}", text
    for number, text in enumerate(
        (b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"), 1
    ):
        yield f"6.11.{number}", text
    for number in range(1, 9):  # continuation bytes alone
        text = (b"\x80", b"\xbf", *((b"\x80\xbf" * 4)[:count] for count in range(2, 7)), bytes(range(0x80, 0xC0)))
        yield f"6.12.{number}", text[number - 1]
    starts = (range(0xC0, 0xE0), range(0xE0, 0xF0), range(0xF0, 0xF8), range(0xF8, 0xFC), range(0xFC, 0xFE))
    for number, start in enumerate(starts, 1):
        yield f"6.13.{number}", b"".join(bytes([byte]) + b" " for byte in start)
    cut = (b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80")
    cut += (b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf")
    for number, text in enumerate(cut, 1):
        yield f"6.14.{number}", text
    yield "6.15.1", b"".join(cut)
    for number, text in enumerate((b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"), 1):
        yield f"6.16.{number}", text
    too_long = {
        "6.17": (
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xf8\x80\x80\x80\xaf",
            b"\xfc\x80\x80\x80\x80\xaf",
        ),
        "6.18": (
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87\xbf\xbf\xbf",
            b"\xfc\x83\xbf\xbf\xbf\xbf",
        ),
        "6.19": (
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80",
        ),
    }
    for case, texts in too_long.items():
        for number, text in enumerate(texts, 1):
            yield f"{case}.{number}", text
    high, low = (
        (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf"),
        (b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf"),
    )
    for number, text in enumerate((*high, *low), 1):  # halves of a pair
        yield f"6.20.{number}", text
    pairs = [first + second for first in high for second in (low[0], low[2])]
    for number, text in enumerate(pairs, 1):
        yield f"6.21.{number}", text
    # The last two of each plane, which are no characters and yet valid.
    nonchars = [chr(plane << 16 | last).encode() for plane in range(17) for last in (0xFFFE, 0xFFFF)]
    for number, text in enumerate(nonchars, 1):
        yield f"6.22.{number}", text
    for number, text in enumerate((chr(code).encode() for code in range(0xFFF9, 0x10000)), 1):
        yield f"6.23.{number}", text


UTF8 = list(_utf8())
CASES = {number: case for number, *case in cases()}


@pytest.fixture
def client():
    """Return the client's end of a WebSocket that echoes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setblocking(False)
    loop = ThreadLoop()
    connection = Echo(theirs, loop).connection
    server = threading.Thread(target=loop.watch, args=(connection,), daemon=True)
    server.start()
    ours.settimeout(DEADLINE_SECONDS)
    yield ours
    ours.close()
    server.join(DEADLINE_SECONDS)
    assert not server.is_alive()
    connection.abort()


def receive(sock):
    """Return all frames until a close frame, and its code. Fails where the connection ends without one."""
    file = sock.makefile("rb")
    messages = []
    while head := file.read(2):
        assert head[0] & 0x70 == 0 and head[0] & 0x80, "a frame of a server is whole and uses no extension"
        length = head[1]
        if length >= 126:
            (length,) = struct.unpack("!H" if length == 126 else "!Q", file.read(2 if length == 126 else 8))
        payload = file.read(length)
        if head[0] & 15 == CLOSE:
            return messages, struct.unpack("!H", payload)[0]
        messages.append((head[0] & 15, payload))
    raise AssertionError(f"no close frame after {messages}")


@pytest.mark.parametrize("cut", ["whole", "frames", "bytes"])
@pytest.mark.parametrize("number", CASES)
def test_case(client, number, cut):
    """The same messages in the same order, and the same code."""
    frames, expected, code = CASES[number]
    data = b"".join(frames)
    pieces = {"whole": [data], "frames": frames, "bytes": [bytes([byte]) for byte in data[:LONGEST_BY_BYTES]]}[cut]
    if cut == "bytes":
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pieces.append(data[LONGEST_BY_BYTES:])
    try:
        for piece in pieces:
            client.sendall(piece)
    except ConnectionError:
        pass  # it was closed for what came before
    assert receive(client) == (expected, code)
