"""The inspector without a server: its filters, HAR, replays and limits."""

import json
from base64 import b64encode

import pytest

from socket2me.inspector import har
from socket2me.inspector.errors import BadFilter, BadQuery
from socket2me.inspector.filters import parse
from socket2me.inspector.record import MAX_ENTRIES, Entry, RequestRecord, Response, Update
from socket2me.inspector.replay import draft


def record_of(**members):
    defaults = {
        "id": "v2-1",
        "received_at": 1.0,
        "method": "POST",
        "path": "/stripe/charge",
        "query": "a=1",
        "headers": (("content-type", "application/json"), ("X-Sig", "AbC")),
        "body": b'{"type": "invoice.paid", "n": 12345678901234567890, "x": 1.50, "l": [{"k": true}, null], '
        b'"a.b": "d"}',
    }
    values = defaults | members
    return RequestRecord(size=len(values["body"]), **values)


HOLDS = [
    "",
    "POST",
    "method:post",
    "-GET",
    "/stripe/*",
    "/*/charge",
    "path:/stripe/charge",
    "-/stripe",
    "status:waiting",
    "outcome:waiting",
    "header.x-sig:abc",
    "header.X-SIG:a*",
    "-header.x-none:*",
    "body.$.type:invoice.*",
    "body.$.n:12345678901234567890",
    "body.$.x:1.50",
    "body.$.l[0].k:true",
    "body.$.l[*].k:true",
    "body.$.l[1]:null",
    'body.$["a.b"]:d',
    "body.$.l:*",
    "-body.$.none:*",
    "INVOICE",
    '"\\"type\\": \\"invoice"',
    "x-sig",
    "a=1",
    'POST /stripe/* "invoice.paid" -status:2xx',
]


@pytest.mark.parametrize("text", HOLDS)
def test_a_filter_holds(text):
    """Each form of a term finds a request that it describes, and its negation does not."""
    shown = parse(text)
    assert shown.holds(record_of())
    if text and " " not in text:
        negated = text[1:] if text.startswith("-") else f"-{text}"
        assert not parse(negated).holds(record_of())


@pytest.mark.parametrize(
    "text",
    ["GET", "/strip", "/stripe", "status:200", "header.x-sig:b*", "body.$.n:1e3", "body.$.l[2]:*", "nothing"],
)
def test_a_filter_does_not_hold(text):
    """A term leaves out what it does not describe."""
    assert not parse(text).holds(record_of())


@pytest.mark.parametrize("text, status", [("status:404", 404), ("status:4xx", 404), ("-status:waiting", 200)])
def test_a_filter_of_what_may_change_says_so(text, status):
    """A stream has to show a request whose status has changed."""
    assert parse(text).may_change
    assert parse(text).holds(record_of(status=status))


def test_a_filter_reads_forms_and_text_of_any_case():
    """Fields of a form are members of the body, and text is found whatever its case."""
    form = record_of(headers=(("content-type", "application/x-www-form-urlencoded"),), body=b"a=%C3%9F&b=1&b=2")
    assert parse("body.$.a:ß body.$.b[1]:2").holds(form)
    assert parse('"GRÖSSE"').holds(record_of(body="die größe".encode()))


@pytest.mark.parametrize(
    "text, column",
    [
        ('POST "abc', 6),
        ("mehtod:POST", 1),
        ("a status:20", 10),
        ("outcome:good", 9),
        ("body.x:1", 6),
        ("-body.$..x:1", 8),
        ("body.$.:2", 7),
        ("body.$..x", 7),
        ("-body.$.a", 10),
        ("x body.$", 9),
        ('body.$["a b"] x', 14),
        ("body.$.a[0", 9),
        ('body.$.a"b":1', 9),
        ('body.$["a:1', 7),
        ("body.$[:x", 7),
        ("body[0]:1", 1),
        ("path:", 6),
        ('"a"b', 4),
        ("x " * 21, 41),
        ("x" * 1001, 1001),
    ],
)
def test_a_filter_that_does_not_parse_says_where(text, column):
    """The column of the error counts from 1."""
    with pytest.raises(BadFilter) as raised:
        parse(text)
    assert raised.value.column == column


@pytest.mark.parametrize(
    "body", [b"", b"[" * 100_000, b"{" + b'"a":{' * 100_000, b"\xff{", b'{"n": 1' + b"0" * 10_000 + b"}"]
)
def test_no_body_breaks_a_filter(body):
    """A body that is deep, broken or huge is one that does not match."""
    assert not parse("body.$.a.b:1 nothing").holds(record_of(body=body))


def test_an_empty_value_in_quotes():
    """It is that of a header or a member without one, which the page's button asks for; an empty text is none."""
    empty = record_of(headers=(("x-a", ""),), body=b'{"a": ""}')
    assert parse('header.x-a:"" body.$.a:""').holds(empty)
    assert not parse('header.x-a:""').holds(record_of(headers=(("x-a", "b"),)))
    with pytest.raises(BadFilter, match="A value is missing"):
        parse('""')


def test_a_path_in_quotes_is_a_text():
    """What looks like a path of the body can be searched for, and so can what only resembles one."""
    for text in ('"body.$.a"', '"body.$..x:1"', '-"body.$"', "body.html", "body"):
        shown = parse(text)
        assert shown.holds(record_of(body=text.strip('-"').encode())) is not text.startswith("-")


def test_a_glob_costs_no_more_for_many_stars():
    """A pattern of stars is found in one pass: no backtracking."""
    shown = parse("path:" + "*a" * 400 + "*b")
    assert not shown.holds(record_of(path="/" + "a" * 8000))


def har_of(*records, with_secrets=False):
    made = b"".join(har.pieces(records, base_url="http://r/v1/go/t", version="1", with_secrets=with_secrets))
    return json.loads(made)["log"]


def test_har_has_what_the_format_asks_for():
    """Version, creator, and of each entry all members that HAR 1.2 demands; a body as text, or as base64."""
    response = Response(201, [("Content-Type", "text/plain")], b"\xff")
    log = har_of(
        record_of(status=201, ms=2.5, response=response), record_of(body=b"\xff\x00", id="v2-2", replay_of="v2-1")
    )
    assert log["version"] == "1.2" and log["creator"] == {"name": "socket2me", "version": "1"}
    first, second = log["entries"]
    assert first["request"]["url"] == "http://r/v1/go/t/stripe/charge?a=1"
    assert first["request"]["postData"]["text"] == record_of().body.decode()
    assert first["response"]["content"] == {
        "size": 1,
        "mimeType": "text/plain",
        "text": "/w==",
        "encoding": "base64",
    }
    assert first["startedDateTime"] == "1970-01-01T00:00:01.000+00:00" and first["time"] == 2.5
    assert second["request"]["postData"]["text"] == b64encode(b"\xff\x00").decode()
    assert second["response"]["status"] == 0 and second["_replay_of"] == "v2-1"
    for entry in log["entries"]:
        assert {"startedDateTime", "time", "request", "response", "cache", "timings"} <= set(entry)
        for part in (entry["request"], entry["response"]):
            assert {"httpVersion", "cookies", "headers", "headersSize", "bodySize"} <= set(part)


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "Stripe-Signature", "X-Hub-Signature-256", "x-gitlab-token", "webhook-signature"],
)
def test_har_leaves_secrets_out_unless_asked(name):
    """A HAR is made to be passed on."""
    record = record_of(headers=((name, "s3cret"), ("x-a", "open")))
    assert "s3cret" not in json.dumps(har_of(record)) and "open" in json.dumps(har_of(record))
    assert "s3cret" in json.dumps(har_of(record, with_secrets=True))


def test_a_replay_is_what_came():
    """Without changes all of it is the same, with every byte."""
    sent = draft(record_of(body=bytes(range(256))), b"", max_body_bytes=1000)
    assert (sent.method, sent.path, sent.query, sent.body) == ("POST", "/stripe/charge", "a=1", bytes(range(256)))
    assert sent.headers == {"content-type": "application/json", "x-sig": "AbC"}
    assert sent.replay_of == "v2-1"


def test_a_replay_has_what_was_edited():
    """Each member replaces what the request had, and the length of the body follows."""
    changes = {
        "method": "PUT",
        "path": "/x",
        "query": "b=2",
        "headers": [["A", "1"], ["a", "2"], ["Content-Length", "9"]],
    }
    sent = draft(record_of(), json.dumps(changes | {"text": "hé"}).encode(), max_body_bytes=1000)
    assert (sent.method, sent.path, sent.query, sent.body) == ("PUT", "/x", "b=2", "hé".encode())
    assert sent.headers == {"a": "1,2", "content-length": "3"}
    body = draft(record_of(), json.dumps({"body": "AP8="}).encode(), max_body_bytes=1000)
    assert body.body == b"\x00\xff" and body.headers["content-length"] == "2" and body.headers["x-sig"] == "AbC"


@pytest.mark.parametrize(
    "changes",
    [
        [],
        {"url": "http://elsewhere"},
        {"method": "TRACE"},
        {"method": 1},
        {"path": "x"},
        {"path": "/a b"},
        {"path": "/a\r\nX: y"},
        {"query": "a\nb"},
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"a b": "c"}},
        {"headers": [["a"]]},
        {"headers": {"a": 1}},
        {"headers": [["a", "b"]] * 101},
        {"body": "%%%"},
        {"body": "", "text": ""},
        {"text": "x" * 1001},
        {"text": "\ud800"},
        {"path": "/" + "a" * 9000},
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(changes):
    """What HTTP does not allow is not sent."""
    with pytest.raises(BadQuery):
        draft(record_of(), json.dumps(changes).encode(), max_body_bytes=1000)


def test_a_timeline_is_bounded():
    """Its first entry stays, and the newest ones."""
    record = record_of()
    for number in range(MAX_ENTRIES + 50):
        record.apply(Update([Entry(float(number), "received" if number == 0 else "redelivered")]))
    assert len(record.timeline) == MAX_ENTRIES
    assert record.timeline[0].what == "received" and record.timeline[-1].at == MAX_ENTRIES + 49


def test_kept_replaces_no_other_outcome():
    """The client may have acknowledged an event just before its caller is answered that it is kept."""
    record = record_of()
    record.apply(Update([], outcome="acknowledged"))
    record.apply(Update([], status=202, ms=1.0, outcome="kept"))
    assert (record.status, record.outcome) == (202, "acknowledged")
