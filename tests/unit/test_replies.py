"""What a client's acknowledgement makes of its caller's answer."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket2me_flask.errors import BadReply
from socket2me_flask.http.answers import SECURITY_HEADERS
from socket2me_flask.relay.replies import (
    MAX_REPLY_HEADERS,
    MAX_REPLY_HEADERS_BYTES,
    OK,
    PASSED_HEADERS,
    PASSED_PREFIXES,
    from_acknowledgement,
    kept,
)


def parts(args):
    answer = from_acknowledgement(args)
    return answer.status, {name.lower(): value for name, value in answer.headers}, answer.body


def test_nothing_at_all_is_ok():
    """As without an acknowledgement."""
    assert from_acknowledgement([]) == OK


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
        *("referrer-policy", "x-content-type-options", "content-security-policy", "cache-control"),
    }


OF_EACH_REPLY = {"content-type", "content-length", *(name.lower() for name, _ in SECURITY_HEADERS)}
OF_EACH_REPLY |= {"content-security-policy", "cache-control"}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Set-Cookie",
            "Set-Cookie2",
            "Strict-Transport-Security",
            "Clear-Site-Data",
            "Report-To",
            "NEL",
            "Alt-Svc",
        ),
        *("Reporting-Endpoints", "Service-Worker-Allowed", "Public-Key-Pins", "Expect-CT", "Accept-CH", "Expires"),
        *("Critical-CH", "Origin-Agent-Cluster", "Permissions-Policy", "WWW-Authenticate", "Authentication-Info"),
        *("Access-Control-Allow-Credentials", "Access-Control-Max-Age", "Refresh", "Pragma", "Age", "SourceMap"),
        *("X-Accel-Redirect", "X-Accel-Anything", "X-Sendfile", "X-SENDFILE2", "X-LIGHTTPD-Send-File", "Via"),
        *("X-LiteSpeed-Location", "X-Reproxy-URL", "X-DNS-Prefetch-Control", "Server", "Date", "Connection"),
    ],
)
def test_a_reply_passes_nothing_that_a_browser_keeps_or_a_proxy_obeys(name):
    """Whatever is not on the list of what callers need is left out."""
    assert set(parts([200, "x", {name: "a", "X-Other": "b"}])[1]) == OF_EACH_REPLY | {"x-other"}


@pytest.mark.parametrize("name", ["Content-Security-Policy", "Cache-Control", "Referrer-Policy"])
def test_what_the_relay_says_of_a_reply_is_not_a_clients_to_say(name):
    """No script of a page in a reply runs in the relay's name, and no cache answers in place of the client."""
    answer = from_acknowledgement(["<script>", {"Content-Type": "text/html", name: "anything"}])
    said = {
        ("Content-Security-Policy", "sandbox"),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
    }
    assert {pair for pair in answer.headers if pair[0].lower() in {other.lower() for other, _ in said}} == said


@pytest.mark.parametrize("name", sorted(PASSED_HEADERS) + ["X-Own", "Ce-Id", "WebHook-Allowed-Origin", "RateLimit"])
def test_a_reply_passes_what_callers_need(name):
    """Each header of the list, and the names that are free for custom ones; the documentation names each."""
    assert parts([200, "x", {name.title(): "a"}])[1][name.lower()] == "a"
    document = (Path(__file__).parent.parent.parent / "docs" / "delivery.md").read_text().lower()
    listed = document.partition("### headers of a reply")[2].partition("\n## ")[0]
    assert f"`{name.lower()}" in listed or any(
        f"`{prefix}*`" in listed and name.lower().startswith(prefix) for prefix in PASSED_PREFIXES
    )


@pytest.mark.parametrize(
    "headers",
    [
        {f"X-{number}": "a" for number in range(MAX_REPLY_HEADERS + 1)},
        {"X-Many": ["a"] * (MAX_REPLY_HEADERS + 1)},
        {"Not-Passed": ["a"] * (MAX_REPLY_HEADERS + 1)},
        {"X-A": ["a"] * MAX_REPLY_HEADERS, "X-B": "a"},
        {"X-Long": "a" * MAX_REPLY_HEADERS_BYTES},
        {f"X-{number}": "a" * (MAX_REPLY_HEADERS_BYTES // 4) for number in range(4)},
    ],
)
def test_a_reply_has_so_many_headers_at_most(headers):
    """Callers refuse longer heads, and each value takes time."""
    with pytest.raises(BadReply):
        from_acknowledgement([200, "x", headers])


def test_a_reply_with_as_many_headers_as_it_may_have():
    """The bounds themselves are within: so many values, so many bytes."""
    many = from_acknowledgement([200, "", {"X-Many": ["a"] * MAX_REPLY_HEADERS}])
    assert many.headers.count(("X-Many", "a")) == MAX_REPLY_HEADERS
    longest = "a" * (MAX_REPLY_HEADERS_BYTES - len("X-Long: \r\n"))
    assert parts([200, "x", {"X-Long": longest}])[1]["x-long"] == longest


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
