"""HTTP/1.1: both parsers of gunicorn beside h11, a third, on requests that differ from valid ones in a byte or two.

Each request is sent to a relay with each parser, with a valid one behind it. Were the two taken apart at different
places, the number of responses would tell.
"""

import random
import re
import shutil
import socket
import subprocess
from importlib.util import find_spec

import h11
import pytest

from tests.support.raw import Raw
from tests.support.servers import Server

MUTATIONS = 2000

VALID = [
    b"POST /v1/go/%b/a HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody",
    b"POST /v1/go/%b/a?b=c HTTP/1.1\r\nHost: x:80\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;e=f\r\nbo\r\n2\r\ndy\r\n0\r\nX-T: v\r\n\r\n",
    b"GET /v1/go/%b HTTP/1.0\r\nX-A: b\r\n\r\n",
    b"POST http://x/v1/go/%b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
]
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PIECES = [b"", b" ", b"  ", b"\t", b"\r", b"\n", b"\r\n", b"\0", b"\x0b", b"\x7f", b"\x80", b"\xff"]
PIECES += [bytes([byte]) for byte in b':;,/0-+%"#_A']

REFUSED = {400, 417, 501}

# What the C parser takes and the Python parser refuses: RFC 9112, section 3, lets a server do either.
_has_two_spaces = re.compile(rb"(\r\n)?[^ \r\n]+( +[^ \r\n]+  +|  +[^ \r\n]+ +)HTTP/1\.[01]\r\n").match

# What the relay takes and h11 refuses: an empty line before a request. RFC 9112, section 2.2, tells a server to
# ignore at least one.
_has_empty_line = re.compile(rb"\r\n[A-Z]|.*\r\n\r\n\r\n$", re.DOTALL).match


@pytest.fixture(scope="module")
def relays():
    """A relay with each parser, and a token of each."""
    if find_spec("gunicorn_h1c") is None:
        pytest.skip("the extra `fast` is not installed")
    with Server("gunicorn", HOLD_SECONDS=0) as python, Server("gunicorn-fast", HOLD_SECONDS=0) as fast:
        yield {"python": (python, python.new()), "fast": (fast, fast.new())}


def mutated(chance):
    """Return the parts of a valid request before and behind its token, changed in a place or two."""
    parts = chance.choice(VALID).split(b"%b")
    for _ in range(chance.choice((1, 1, 1, 2))):
        number = chance.randrange(2)
        part = parts[number]
        at = chance.randrange(len(part))
        parts[number] = part[:at] + chance.choice(PIECES) + part[at + chance.choice((0, 0, 1, 1, 2)) :]
    return parts


def statuses(relay, parts):
    """Return the status of each response, `100 Continue` aside."""
    server, token = relay
    with Raw(server.port) as raw:
        raw.send(token.encode().join(parts) + LAST)
        raw.socket.shutdown(socket.SHUT_WR)
        answers = raw.read_to_end()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers) if status != b"100"]


def h11_refuses(data):
    """Say whether h11 finds anything malformed in what is sent."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    connection.receive_data(b"")
    try:
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.EndOfMessage):
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    break
                connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return True
    return False


def is_refused(answers):
    return bool(answers) and answers[-1] in REFUSED


@pytest.mark.timeout(180)
def test_both_parsers_take_requests_apart_alike(relays):
    """The same number of responses with the same statuses; which of several faults is named may differ.

    What h11 refuses, both refuse, but for what stands above.
    """
    chance = random.Random(2026)
    refused = 0
    for _ in range(MUTATIONS):
        parts = mutated(chance)
        data = b"T".join(parts)
        python, fast = (statuses(relay, parts) for relay in relays.values())
        refused += is_refused(python)
        if python != fast and not (_has_two_spaces(data) and is_refused(python)):
            assert len(python) == len(fast) and is_refused(python) and is_refused(fast), (python, fast, data)
        # A call that reaches nobody is answered before its body is read: 404 and 405 say nothing of the rest.
        if h11_refuses(data + LAST) and not {404, 405} & set(python):
            assert is_refused(python) or _has_empty_line(data), (python, data)
    assert MUTATIONS / 5 < refused < MUTATIONS  # some are valid still


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("parser", ["python", "fast"])
@pytest.mark.parametrize("path", ["/v1/go/{}", "/socket.io/?EIO=4&transport=polling&sid={}"])
@pytest.mark.parametrize("options", [[], ["-H", "Transfer-Encoding: chunked"]])
def test_curl_need_not_wait_to_send_a_large_body(relays, tmp_path, parser, path, options):
    """It asks for `100 Continue` by itself above 1 MB, and receives it; with WSGI and without."""
    server, token = relays[parser]
    body = tmp_path / "body"
    body.write_bytes(b" " * 1_500_000)
    command = ["curl", "-sv", "--max-time", "15", "--expect100-timeout", "60", "--data-binary", f"@{body}"]
    sent = subprocess.run(
        [*command, *options, server.url + path.format(token)], capture_output=True, text=True, check=True
    )
    assert "> Expect: 100-continue" in sent.stderr
    assert "< HTTP/1.1 100 Continue" in sent.stderr
