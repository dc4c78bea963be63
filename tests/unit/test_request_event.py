"""The request object: what of a call arrives, and how."""

# ruff: noqa: E501  # the table of bodies reads best with a row on a line

import json
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket2me_flask.engineio.protocol import Packet
from socket2me_flask.relay.call import DEFAULTS, Call, shown
from socket2me_flask.sockets.request_event import (
    MAX_CONTENT_TYPE_CHARACTERS,
    MAX_FORM_ESCAPES,
    MAX_JSON_DEPTH,
    MAX_JSON_MEMBERS,
    MAX_PART_HEADERS_BYTES,
    MAX_STRAY_PERCENTS,
    Event,
    event_packets,
    json_depth,
    request_event,
)
from tests.support.specification import EXAMPLE_HEADERS

TOKEN = "mrs6wpu2mawk0swpja1c3dit"


def call(body=b"", content_type=None, query="", path="", method="POST", **headers):
    if content_type is not None:
        headers["content-type"] = content_type
    return Call(TOKEN, method, path, query, headers, body, received_at=1.5)


def received(the_call, raw=False):
    """Return the request object as a client has it, bytes where they belong."""
    event = request_event(the_call, raw=raw)

    def fill(value):
        if isinstance(value, dict):
            if value.get("_placeholder"):
                return event.attachments[value["num"]]
            return {key: fill(inner) for key, inner in value.items()}
        return [fill(inner) for inner in value] if isinstance(value, list) else value

    return fill(json.loads(event.json))


def nested(depth):
    return b"[" * depth + b"]" * depth


def test_the_example_of_the_specification():
    """The specification's example, field by field."""
    headers = EXAMPLE_HEADERS
    the_call = Call(TOKEN, "GET", "", "somevar1=somevalue1", headers, b"", received_at=1.5, remote_addr="5.5.5.5")
    assert received(the_call) == {
        "headers": headers,
        "params": {"token": TOKEN, "somevar1": "somevalue1"},
        "id": the_call.id,
        "method": "GET",
        "path": "",
        "query": "somevar1=somevalue1",
        "received_at": 1.5,
        "remote_addr": "5.5.5.5",
    }


def test_members_that_are_not_known_are_left_out():
    """An event that an earlier version kept has no caller's address, and most calls no id of their caller's."""
    the_call = call()
    assert not {"remote_addr", "request_id", "verified"} & set(received(the_call))
    the_call.request_id = "r-1"
    assert received(the_call)["request_id"] == "r-1"
    the_call.verified = {"provider": "github"}
    assert received(the_call)["verified"] == {"provider": "github"}


def test_each_field_that_is_shown_is_a_member_and_documented():
    """It has its own name in the request object, and a row in docs/design.md."""
    the_call = replace(call(), **{name: f"the {name}" for name in DEFAULTS if name != "is_legacy"})
    members = shown(the_call)
    assert members == {name: getattr(the_call, name) for name in members}
    assert members.items() <= received(the_call).items()
    design = (Path(__file__).parents[2] / "docs" / "design.md").read_text()
    section = design.partition("## The request object")[2].partition("\n## ")[0]
    assert [name for name in members if f"\n| `{name}` |" not in section] == []


def test_every_call_has_its_own_id():
    """Ids are unique."""
    assert len({call().id for _ in range(1000)}) == 1000


BODIES = {
    "json object": (b'{"a": 1, "b": [true, null]}', "application/json", {"a": 1, "b": [True, None]}, {"a": 1, "b": [True, None]}),
    "json with charset": (b'{"a":1}', "application/json; charset=utf-8", {"a": 1}, {"a": 1}),
    "json by suffix": (b'{"a":1}', "application/cloudevents+json", {"a": 1}, {"a": 1}),
    "json type in capitals": (b'{"a":1}', "Application/JSON", {"a": 1}, {"a": 1}),
    "json array": (b"[1,2]", "application/json", [1, 2], {}),
    "json string": (b'"hello"', "application/json", "hello", {}),
    "json number": (b" 12 ", "application/json", 12, {}),
    "json null": (b"null", "application/json", None, {}),
    "json 64 bits": (b'{"id":9223372036854775807}', "application/json", {"id": 2**63 - 1}, {"id": 2**63 - 1}),
    "json 80 bits": (b'{"id":1208925819614629174706175}', "application/json", {"id": 2**80 - 1}, {"id": 2**80 - 1}),
    "json 99 digits": (b"[%s]" % (b"9" * 99), "application/json", [10**99 - 1], {}),
    "json 100 digits": (b"[%s]" % (b"9" * 100), "application/json", "[%s]" % ("9" * 100), {}),
    "json 100 digits in a string": (b'["%s"]' % (b"9" * 100), "application/json", ["9" * 100], {}),
    "json many digits": (b"[3.14159265358979323846264338327950288]", "application/json", [3.141592653589793], {}),
    "json behind a byte order mark": (b'\xef\xbb\xbf{"a":1}', "application/json", {"a": 1}, {"a": 1}),
    "json with any text": ('{"ü€😀":"\\u0000\\n\u2028"}'.encode(), "application/json", {"ü€😀": "\0\n\u2028"}, {"ü€😀": "\0\n\u2028"}),
    "json that repeats a member": (b'{"a":1,"a":2}', "application/json", {"a": 2}, {"a": 2}),
    "json that names the token": (b'{"token":"evil"}', "application/json", {"token": "evil"}, {}),
    "json with placeholders": (b'{"a":{"_placeholder":false,"num":0}}', "application/json", {"a": {"_placeholder": False, "num": 0}}, {"a": {"_placeholder": False, "num": 0}}),
    "no json": (b'{"a":', "application/json", '{"a":', {}),
    "json with more behind it": (b"{} {}", "application/json", "{} {}", {}),
    "json as Python writes it": (b"[NaN, Infinity]", "application/json", "[NaN, Infinity]", {}),
    "json with half a surrogate pair": (b'["\\ud800"]', "application/json", '["\\ud800"]', {}),
    "json that is not UTF-8": (b'{"a":"\xff"}', "application/json", b'{"a":"\xff"}', {}),
    "json nested too deep": (nested(MAX_JSON_DEPTH + 1), "application/json", nested(MAX_JSON_DEPTH + 1).decode(), {}),
    "json nested absurdly deep": (nested(500_000), "application/json", nested(500_000).decode(), {}),
    "json wide": (b"[" + b"[]," * 5000 + b"{}]", "application/json", [[]] * 5000 + [{}], {}),
    "json with brackets in strings": (json.dumps(["[{\\\"" * 1000]).encode(), "application/json", ["[{\\\"" * 1000], {}),
    "form": (b"a=1&b=x%20y+z&c=", "application/x-www-form-urlencoded", {"a": "1", "b": "x y z", "c": ""}, {"a": "1", "b": "x y z", "c": ""}),
    "form of raw UTF-8": ("name=grüße".encode(), "application/x-www-form-urlencoded", {"name": "grüße"}, {"name": "grüße"}),
    "form that repeats a field": (b"a=1&a=2", "application/x-www-form-urlencoded", {"a": ["1", "2"]}, {"a": ["1", "2"]}),
    "form that names the token": (b"token=evil", "application/x-www-form-urlencoded", {"token": "evil"}, {}),
    "form that is not UTF-8 inside": (b"a=%ff", "application/x-www-form-urlencoded", "a=%ff", {}),
    "form of too many fields": (b"a=1&" * 1001, "application/x-www-form-urlencoded", "a=1&" * 1001, {}),
    "text": ("grüße".encode(), "text/plain", "grüße", {}),
    "xml": (b"<a/>", "application/soap+xml", "<a/>", {}),
    "text that is not UTF-8": (b"gr\xfc\xdfe", "text/plain; charset=iso-8859-1", b"gr\xfc\xdfe", {}),
    "binary": (b"\x00\x01\xff", "application/octet-stream", b"\x00\x01\xff", {}),
    "readable, but of no textual type": (b"hello", "application/octet-stream", b"hello", {}),
    "of no type": (b"hello", None, b"hello", {}),
    "of a nonsense type": (b"hello", ";;;=", b"hello", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body(name):
    """Each body arrives as docs/design.md says, and its members are in params where they belong."""
    body, content_type, expected, params = BODIES[name]
    request = received(call(body, content_type))
    assert request["body"] == expected
    assert request["params"] == {**params, "token": TOKEN}


@pytest.mark.parametrize("shape", ["[%s]", '{"a":%s}'])
def test_json_nested_to_the_limit_is_parsed(shape):
    """The limit itself is JSON, one level more is text."""
    body = "1"
    for _ in range(MAX_JSON_DEPTH):
        body = shape % body
    event = request_event(call(body.encode(), "application/json"))
    assert f'"body":{body},'.encode() in event.json
    assert received(call(f"[{body}]".encode(), "application/json"))["body"] == f"[{body}]"


def depth_of(value):
    if isinstance(value, list | dict):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


strings_of_structure = st.text(alphabet='[]{}",:\\\\1a', max_size=12) | st.sampled_from(["", "1" * 100, "\\"])
json_documents = st.recursive(
    strings_of_structure | st.integers(min_value=-9, max_value=9),
    lambda inner: st.lists(inner) | st.dictionaries(strings_of_structure, inner),
    max_leaves=40,
)


@given(json_documents, st.sampled_from([None, 1]))
def test_how_deep_json_is_nested(document, indent):
    """Brackets in strings count for nothing, however quotes and backslashes stand around them."""
    assert json_depth(json.dumps(document, indent=indent).encode()) == depth_of(document)


@given(st.lists(strings_of_structure), st.lists(strings_of_structure), st.sampled_from([1, 99, 100, 101, 250]))
def test_long_integers_are_found_outside_of_strings_only(before, after, digits):
    """More than 99 digits in a row make a body text, and those in a string do not."""
    document = (
        json.dumps([*before, 0, *after]).replace(", 0", f", {'1' * digits}").replace("[0", f"[{'1' * digits}")
    )
    value = received(call(document.encode(), "application/json"))["body"]
    assert isinstance(value, str) == (digits > 99)


form_parts = [
    "a",
    "=",
    "&",
    "+",
    "%41",
    "%c3%a9",
    "%c3",
    "%a9",
    "é",
    "%",
    "%2",
    "%zz",
    ";",
    "%00",
    "\n",
    " ",
    "%26",
    "\\",
    "\\x41",
    "%5C",
]


@given(st.lists(st.sampled_from(form_parts), min_size=1, max_size=12).map("".join))
def test_a_form_is_read_as_by_the_standard_library(body):
    """Names, values, order and what is no UTF-8: as `parse_qsl` has it."""
    try:
        pairs = parse_qsl(body, keep_blank_values=True, errors="strict")
    except ValueError:
        expected = body
    else:
        lists = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
        expected = {name: values[0] if len(values) == 1 else values for name, values in lists.items()}
    assert received(call(body.encode(), "application/x-www-form-urlencoded"))["body"] == expected


def cpu_seconds(body, content_type):
    """Return the least time of three, for what is read anew each time."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        request_event(call(body, content_type))
        seconds.append(time.process_time() - started)
    return min(seconds)


JSON_OF_ONE_LEVEL = b"[" + b"[]," * 666_000 + b"0]"


@pytest.mark.parametrize(
    "body",
    [
        b"[" + (b"[" * 499 + b"0" + b"]" * 499 + b",") * 2000 + b"0]",
        b"[" * 400 + (b"[" * 40 + b"0" + b"]" * 40 + b",") * 24_000 + b"0" + b"]" * 400,
        b'["' + b"1" * 100 + b'",' + b'"",' * 666_000 + b"0]",
        b"[" + b'"",' * 666_000 + b"[]," * 600 + b"0]",
    ],
    ids=["deep", "up and down", "digits in a string", "empty strings"],
)
def test_no_json_takes_much_longer_than_other_json(body):
    """A scan of the depth, or for long integers, takes little beside what any body of 2 MB takes."""
    assert cpu_seconds(body, "application/json") < 4 * cpu_seconds(JSON_OF_ONE_LEVEL, "application/json")


@pytest.mark.parametrize("name", BODIES)
def test_a_raw_body(name):
    """With raw, each body is its exact bytes and nothing is parsed."""
    body, content_type, _, _ = BODIES[name]
    request = received(call(body, content_type, query="q=1"), raw=True)
    assert request["body"] == body
    assert request["params"] == {"q": "1", "token": TOKEN}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("content_type", [None, "application/json", "multipart/form-data; boundary=x"])
def test_no_body_no_key(content_type, raw):
    """An empty body has no key, whatever its type says."""
    assert "body" not in received(call(b"", content_type), raw=raw)


def test_params_merge_and_later_ones_win():
    """Query, then body, then, always, the token of the URL."""
    request = received(call(b'{"b":2,"token":"evil"}', "application/json", query="a=1&b=1&c=1&c=2&token=evil&e"))
    assert request["params"] == {"a": "1", "b": 2, "c": ["1", "2"], "e": "", "token": TOKEN}


def test_a_query_that_is_not_utf8_arrives_as_it_was_sent():
    """`query` is the query as sent; `params` shows what of it is text."""
    request = received(call(query="a=%ff&b=%C3%BC"))
    assert request["query"] == "a=%ff&b=%C3%BC"
    assert request["params"] == {"a": "\ufffd", "b": "ü", "token": TOKEN}


def multipart(*parts):
    body = b"".join(b"--XX\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % part for part in parts)
    return body + b"--XX--\r\n", "multipart/form-data; boundary=XX"


def test_a_multipart_form():
    """Fields are text, and params has them; files are bytes with their name and type, in body alone."""
    png = bytes(range(256))
    body, content_type = multipart(
        (b'name="a"', "grüße".encode()),
        (b'name="b"', b"1"),
        (b'name="b"', b"2"),
        (b'name="token"', b"evil"),
        (b'name="f"; filename="x.png"\r\nContent-Type: image/png', png),
    )
    request = received(call(body, content_type))
    fields = {"a": "grüße", "b": ["1", "2"], "token": "evil"}
    assert request["body"] == {**fields, "f": {"filename": "x.png", "content_type": "image/png", "data": png}}
    assert request["params"] == {**fields, "token": TOKEN}


def test_what_comes_before_a_multipart_form():
    """It may begin as a delimiter does. Where no delimiter follows soon, the body arrives as its exact bytes."""
    body, content_type = multipart((b'name="a"', b"1"))
    like_a_delimiter = b"--XXL\r\n\r\n--XX \t!\r\n"
    assert received(call(like_a_delimiter + body, content_type))["body"] == {"a": "1"}
    late = like_a_delimiter + b"\r\n-" * 100_000 + b"\r\n" + body
    assert received(call(late, content_type))["body"] == late


def test_a_multipart_form_with_more_files_than_a_message_can_hold():
    """The form arrives as its exact bytes: nothing is left out."""
    body, content_type = multipart(*[(b'name="f"; filename="x"', b"%d" % number) for number in range(11)])
    assert received(call(body, content_type))["body"] == body


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--XX\r\nbroken", "multipart/form-data; boundary=XX"),
        (b"hello\xff", "multipart/form-data"),
        (
            b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--\r\n",
            "multipart/form-data; boundary=XX",
        ),
        (multipart((b'name="a"', b"\xff\xfe"))[0], "multipart/form-data; boundary=XX"),
        (multipart(*[(b'name="a"', b"1")] * 1001)[0], "multipart/form-data; boundary=XX"),
    ],
)
def test_a_multipart_form_that_cannot_be_read(body, content_type):
    """It arrives as its exact bytes."""
    assert received(call(body, content_type))["body"] == body


MANY_ESCAPES = b"a=" + b"%41" * (MAX_FORM_ESCAPES + 1)
MANY_PERCENTS = b"a=" + b"%#" * (MAX_STRAY_PERCENTS + 1)
MANY_MEMBERS = json.dumps({f"{number}": 0 for number in range(MAX_JSON_MEMBERS + 1)}).encode()
PART = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n%b\r\nvalue\r\n'


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (MANY_ESCAPES, "application/x-www-form-urlencoded", MANY_ESCAPES.decode()),
        (MANY_PERCENTS, "application/x-www-form-urlencoded", MANY_PERCENTS.decode()),
        (MANY_MEMBERS, "application/json", MANY_MEMBERS.decode()),
        (PART % (b"a" * MAX_PART_HEADERS_BYTES, b"") + b"--x--", "multipart/form-data; boundary=x", None),
        (PART % (b"a", b"b: c\r\n" * 100) * 300 + b"--x--", "multipart/form-data; boundary=x", None),
        (b"\r\n" * MAX_PART_HEADERS_BYTES + PART % (b"a", b"") + b"--x--", "multipart/form-data; boundary=x", None),
    ],
    ids=["escapes", "percent signs", "members", "a long name", "headers in every part", "a preamble"],
)
def test_forms_that_take_long_to_read_are_carried_as_they_are(body, content_type, expected):
    """Reading two megabytes of these took up to 0.7 s, for which every other caller had to wait."""
    assert received(call(body, content_type))["body"] == (body if expected is None else expected)


def test_as_many_members_and_stray_percent_signs_as_may_be():
    """One fewer than that is read."""
    members = {f"{number}": 0 for number in range(MAX_JSON_MEMBERS)}
    parsed = received(call(json.dumps(members).encode(), "application/json"))
    assert parsed["body"] == members
    assert parsed["params"] == members | {"token": parsed["params"]["token"]}
    strays = b"%#" * (MAX_STRAY_PERCENTS - 3)
    form = call(strays + b"=%4&%=%+%41", "application/x-www-form-urlencoded")
    assert received(form)["body"] == {strays.decode(): "%4", "%": "% A"}


def test_the_beginning_of_a_content_type_is_read():
    """More of it than any has that is meant to be one takes no time: it is looked at no further."""
    body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--"
    assert received(call(body, "multipart/form-data; boundary=x" + ";a=b" * 20_000))["body"] == {"a": "b"}
    assert (
        received(call(body, "multipart/form-data" + ";" * MAX_CONTENT_TYPE_CHARACTERS + "boundary=x"))["body"]
        == body
    )


def test_a_placeholder_cannot_be_forged():
    """A query or a form cannot make a client take a field for a place where bytes belong."""
    event = request_event(call(b"\x00", "image/png", query="_placeholder=true&num=0"))
    assert json.loads(event.json)["params"] == {"num": "0", "token": TOKEN}
    for parts in (
        ((b'name="_placeholder"', b"1"), (b'name="f"; filename="x"', b"data")),
        ((b'name="_placeholder"; filename="x"', b"data"), (b'name="num"', b"0")),
    ):
        body, content_type = multipart(*parts)
        assert received(call(body, content_type))["body"] == body


def test_a_text_event_is_one_packet():
    """Engine.IO message; Socket.IO protocol 5: type, namespace, data."""
    assert event_packets("/t", Event(b'{"a":1}')) == [Packet(b'42/t,["request",{"a":1}]')]


def test_a_binary_event_is_a_packet_and_its_attachments():
    """Socket.IO protocol 5: the number of attachments, then each of them."""
    packets = event_packets("/t", Event(b"{}", (b"a", b"b")))
    assert packets == [Packet(b'452-/t,["request",{}]'), Packet(b"a", True), Packet(b"b", True)]
