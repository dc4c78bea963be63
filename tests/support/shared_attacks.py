"""Attacks that are tried both on a relay itself and through nginx. `attack.py` runs them."""

import contextlib
import select
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.attack import ATTACKER, connect
from tests.support.raw import RawWebSocket

# Frames of seven bytes or less, each masked with zeros.
PING = b"\x89\x80" + bytes(4)
PONG_PACKET = b"\x81\x81" + bytes(4) + b"3"
EVENT_PACKET = b"\x81\x82" + bytes(4) + b"42"
EMPTY_FRAGMENTS = b"\x01\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * 999 + b"\x80\x81" + bytes(4) + b"3"
MIXED = (PING + EVENT_PACKET) * 500
JOIN_PACKET = b"\x81\x85" + bytes(4) + b"40/x,"
FRAMES = {
    "join": JOIN_PACKET * 1000,
    "ping": PING * 1000,
    "pong": PONG_PACKET * 1000,
    "fragment": EMPTY_FRAGMENTS,
    "mixed": MIXED,
}


def send_small_frames(port, kind, count, seconds):
    """Send 60 KB of small frames over each of many WebSockets at once, and then as much as is taken."""
    frames = FRAMES[kind] * (60_000 // len(FRAMES[kind]) + 1)
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            websocket = stack.enter_context(RawWebSocket(port, address=ATTACKER))
            websocket.socket.setblocking(False)
            sockets.append(websocket.socket)
        left = dict.fromkeys(sockets, b"")
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and left:
            _, writable, _ = select.select([], list(left), [], 0.1)
            for sock in writable:
                rest = left[sock] or frames
                try:
                    left[sock] = rest[sock.send(rest) :]
                except OSError:  # it was closed, as it may be
                    del left[sock]


ACCEPTS = {
    "8 KB": ",".join(f"a/b{n};q=0.{n % 10}" for n in range(600))[:8000],
    "many parameters": "text/plain" + ";a=b" * 1900,
    "quotes": 'text/plain;a="' + "\\\\" * 3900 + '"',
}


def ask_with_accept(port, name, headers, seconds):
    """Cause errors, whose form the caller chooses."""
    request = "GET /v1/go/zz HTTP/1.1\r\nHost: x\r\n" + f"Accept: {ACCEPTS[name]}\r\n" * headers + "\r\n"
    ends_at = time.monotonic() + seconds

    def ask():
        with connect(port) as sock, contextlib.suppress(OSError):
            while time.monotonic() < ends_at:
                sock.sendall(request.encode())
                if not sock.recv(65_536):
                    return

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(ask)
