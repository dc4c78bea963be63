"""Any bytes as path, query, headers and body: an answer below 500, and what is accepted arrives as it was sent."""

import json
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.raw import Raw
from tests.support.servers import PythonListener, Server


class Pair:
    """A relay and two clients that listen for one caller, one of them raw, and what a caller says to both."""

    def __init__(self, server):
        self.tokens = {"parsed": server.new(), "raw": server.new()}
        self.clients = {
            kind: PythonListener(server, token, auth={"body": kind}) for kind, token in self.tokens.items()
        }
        for client in self.clients.values():
            client.expect("connect")
        self._raw = None
        self._port = server.port

    def call(self, method=b"POST", path=b"", query=b"", headers=(), body=b"", kind="parsed"):
        """Return the status, and what the client got if it is 200."""
        target = b"/v1/go/" + self.tokens[kind].encode() + path + (b"?" + query if query else b"")
        lines = [method + b" " + target + b" HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body)]
        lines += [name + b": " + value for name, value in headers]
        if self._raw is None:
            self._raw = Raw(self._port)
        status = None
        self._raw.send(b"\r\n".join([*lines, b"", b""]) + body)
        try:
            status, _ = self._raw.answer()
        finally:
            if self._raw.is_closing or status != 200:
                self._raw.close()
                self._raw = None
        return status, self.clients[kind].expect("request") if status == 200 else None

    def close(self):
        for client in self.clients.values():
            client.expect_silence(0)  # it got what was answered 200, and nothing else
            client.close()
        if self._raw is not None:
            self._raw.close()


@pytest.fixture(scope="module", params=["gunicorn", "flask"])
def pair(request):
    with Server(request.param, KEEPALIVE_SECONDS=60) as server:
        pair = Pair(server)
        yield pair
        pair.close()


def as_text(data):
    """Return bytes as the request object has them: as UTF-8 if they are that, else a character a byte."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


# What can be in a request line at all, so that a good part of what is tried gets through. Werkzeug's server takes
# 0x85 and 0xA0 for white space.
visible = st.lists(
    st.sampled_from([bytes([byte]) for byte in range(0x21, 0x100) if byte not in (0x7F, 0x85, 0xA0)]), max_size=30
)
in_target = visible.map(b"".join)
any_bytes = st.binary(max_size=300)
often = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@often
@given(path=in_target, query=in_target)
def test_paths_and_queries(pair, path, query):
    """They arrive with their percent-encoding, and to the last byte."""
    path = b"/" + path.replace(b"?", b"").replace(b"#", b"")
    query = query.replace(b"#", b"")
    status, got = pair.call(path=path, query=query)
    assert status < 500
    if got is not None:
        assert got["path"] == as_text(path)
        assert got["query"] == as_text(query)


@often
@given(target=any_bytes)
def test_bytes_that_no_request_line_may_have(pair, target):
    """Refused, or understood; never a failure."""
    target = target.replace(b"\n", b"").replace(b"\r", b"")
    status, _ = pair.call(path=b"/" + target)
    assert status < 500


@often
@given(values=st.lists(st.text(st.characters(codec="latin-1", exclude_characters="\n\r"), max_size=40), max_size=5))
def test_header_values(pair, values):
    """A character a byte, joined where a name comes several times; spaces around a value mean nothing."""
    headers = [(b"X-Any", value.encode("latin-1")) for value in values]
    status, got = pair.call(headers=headers)
    assert status < 500
    if got is not None and values:
        # gunicorn's parser strips tabs and spaces, Werkzeug's all that Python takes for white space.
        parts = [value.strip() for value in values]
        received = got["headers"]["x-any"].split(",")
        assert ",".join(part.strip() for part in received) == ",".join(
            piece.strip() for piece in ",".join(parts).split(",")
        )


@often
@given(name=st.binary(min_size=1, max_size=20))
def test_header_names(pair, name):
    """Refused, or there."""
    status, _ = pair.call(headers=[(name.replace(b"\n", b""), b"x")])
    assert status < 500


TYPES = [
    b"",
    b"application/json",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=x",
    b"multipart/form-data",
    b"text/plain",
    b"text/plain; charset=utf-16",
    b"application/octet-stream",
]
form_pieces = st.sampled_from([b"--x", b"--x--", b"\r\n", b"a=b", b"&", b"%ff", b"=", b'"', b"{", b"}", b"[", b":"])
piecewise = st.lists(st.one_of(form_pieces, st.binary(max_size=5)), max_size=20).map(b"".join)
disposition = b'--x\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n'


@often
@given(
    content_type=st.one_of(
        st.sampled_from(TYPES),
        st.text(st.characters(codec="latin-1"), max_size=30).map(
            lambda text: text.encode("latin-1").replace(b"\n", b"").replace(b"\r", b"")
        ),
    ),
    body=st.one_of(any_bytes, piecewise, piecewise.map(lambda body: disposition + body + b"\r\n--x--")),
)
def test_bodies(pair, content_type, body):
    """Never a failure for what is of no type; and to a client that wants them raw, the very bytes."""
    headers = [(b"Content-Type", content_type)]
    status, got = pair.call(headers=headers, body=body)
    assert status < 500
    if got is not None:
        assert ("body" in got) == bool(body)
        assert got["params"]["token"] == pair.tokens["parsed"]
    status, got = pair.call(headers=headers, body=body, kind="raw")
    assert status < 500
    if got is not None:
        assert got.get("body", b"") == body


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=20,
)


@often
@given(value=json_values, ascii_only=st.booleans())
def test_json(pair, value, ascii_only):
    """Any value arrives equal, whichever way its strings were written."""
    try:
        body = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return  # half a surrogate pair, which is no text
    status, got = pair.call(headers=[(b"Content-Type", b"application/json")], body=body)
    assert status == 200
    expected = json.loads(body)
    try:
        json.dumps(expected, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        expected = body.decode()  # carried as text
    assert got["body"] == expected


@often
@given(pairs=st.lists(st.tuples(st.text(max_size=10), st.text(max_size=10)), max_size=6))
def test_forms(pair, pairs):
    """Each field arrives; one that comes several times as a list."""
    try:
        body = urlencode(pairs).encode()
    except UnicodeEncodeError:
        return
    status, got = pair.call(headers=[(b"Content-Type", b"application/x-www-form-urlencoded")], body=body)
    assert status == 200
    fields = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True):
        fields.setdefault(name, []).append(value)
    expected = {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    assert got.get("body", {}) == expected
    assert got["params"] == {**expected, "token": pair.tokens["parsed"]}
