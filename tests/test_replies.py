"""What a client's acknowledgement makes of its caller's answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket2me_flask.errors import BadReply
from socket2me_flask.replies import OK, from_acknowledgement, kept


def parts(args):
    answer = from_acknowledgement(args)
    return answer.status, {name.lower(): value for name, value in answer.headers}, answer.body


def test_nothing_at_all_is_ok():
    """As without an acknowledgement."""
    assert from_acknowledgement([]) is OK


@pytest.mark.parametrize(
    ("args", "status", "content_type", "body"),
    [
        ([201], "201 Created", None, b""),
        ([201, "made"], "201 Created", "text/plain; charset=utf-8", b"made"),
        ([202.0, "made"], "202 Accepted", "text/plain; charset=utf-8", b"made"),
        (["grüße"], "200 OK", "text/plain; charset=utf-8", "grüße".encode()),
        ([{"a": [1]}], "200 OK", "application/json", b'{"a":[1]}'),
        ([True], "200 OK", "application/json", b"true"),
        ([b"\x00\xff"], "200 OK", "application/octet-stream", b"\x00\xff"),
        ([None, "x"], "200 OK", "text/plain; charset=utf-8", b"x"),
        ([None], "200 OK", None, b""),
        ([204, "not sent"], "204 No Content", "text/plain; charset=utf-8", b""),
        ([299], "299 Unknown", None, b""),
        ([404, None, None], "404 Not Found", None, b""),
        (["x", {"Content-Type": "text/html"}], "200 OK", "text/html", b"x"),
        ([200, "x", {"content-type": "text/html"}], "200 OK", "text/html", b"x"),
    ],
)
def test_status_body_and_headers_are_optional(args, status, content_type, body):
    """A first argument that is no number is the body."""
    got = parts(args)
    assert (got[0], got[1].get("content-type"), got[2]) == (status, content_type, body)
    assert got[1].get("content-length") == (None if status.startswith("204") else str(len(body)))


@pytest.mark.parametrize(
    "args",
    [[199], [600], [0], [-1], [200.5], [float("nan")], [1e300], [200, "x", {}, 1], [200, "x", "headers"]]
    + [[200, {"a": b"x"}], [200, "x", {"a": {}}], [200, "x", {"a": [None]}], [200, "x", {"a": True}]],
)
def test_what_is_no_reply(args):
    """Each is refused with a reason."""
    with pytest.raises(BadReply):
        from_acknowledgement(args)


def test_headers_that_are_not_a_clients_to_set_are_left_out():
    """Hop-by-hop ones, those that frame the answer, those that `Connection` names, and what HTTP does not allow."""
    headers = {
        "X-Good": "a",
        "X-Number": 5,
        "X-Many": ["a", "b"],
        "Connection": "close, X-Mine",
        "x-mine": "a",
        "Transfer-Encoding": "chunked",
        "CONTENT-LENGTH": "99",
        "Upgrade": "h2c",
        "X-Split": "a\r\nSet-Cookie: b",
        "X-Null": "a\0",
        "X-Wide": "\u4f60",
        "Bad Name": "a",
        "Bad:Name": "a",
        "": "a",
    }
    answer = from_acknowledgement([200, "x", headers])
    own = [pair for pair in answer.headers if pair[0].startswith("X-") and pair[0] != "X-Content-Type-Options"]
    assert own == [("X-Good", "a"), ("X-Number", "5"), ("X-Many", "a"), ("X-Many", "b")]
    assert {name.lower() for name, _ in answer.headers} == {
        *("x-good", "x-number", "x-many", "content-type", "content-length"),
        *("referrer-policy", "x-content-type-options", "content-security-policy"),
    }


def test_a_page_in_a_reply_is_no_page_of_the_relay():
    """No script of it runs in the relay's name."""
    answer = from_acknowledgement(
        ["<script>", {"Content-Type": "text/html", "Content-Security-Policy": "default-src *"}]
    )
    assert [value for name, value in answer.headers if name == "Content-Security-Policy"] == [
        "default-src *",
        "sandbox",
    ]


def test_what_proxies_obey_is_not_a_clients_to_say():
    """nginx would serve its own files for one of these; the relay's own headers stay as they are."""
    headers = {"X-Accel-Redirect": "/etc/passwd", "X-Sendfile": "/etc/passwd", "Referrer-Policy": "unsafe-url"}
    got = parts([200, "x", headers])[1]
    assert got["referrer-policy"] == "no-referrer"
    assert not {"x-accel-redirect", "x-sendfile"} & set(got)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=4))
def test_whatever_a_client_says_is_an_answer_or_a_bad_reply(args):
    """Never a failure of the relay, and never what a server would refuse to send."""
    try:
        answer = from_acknowledgement(args)
    except BadReply:
        return
    assert 200 <= int(answer.status.split()[0]) <= 599
    for name, value in answer.headers:
        (name + value).encode("latin-1")
        assert not set(name + value) & set("\r\n\0")


def test_an_event_that_is_kept_is_answered_with_its_id():
    """202, as JSON."""
    answer = kept("an-id")
    assert answer.status == "202 Accepted"
    assert json.loads(answer.body) == {"id": "an-id"}
