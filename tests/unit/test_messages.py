"""Messages between processes, in both forms, and those of a version yet to come."""

import json

import pytest

from socket2me_flask.cluster.messages import FIELDS, FORMER, FORMER_LENGTH, from_wire, lua_table, to_wire
from socket2me_flask.relay import call
from socket2me_flask.relay.call import READS_NAMES, call_from


@pytest.mark.parametrize("process", ["v2abc", "abc"])
@pytest.mark.parametrize("kind", list(FIELDS))
def test_every_kind_is_read_as_it_was_written(kind, process):
    """In both forms. Fields that the release before does not know are not written to it."""
    outcome = {"status": 200, "headers": [["a", "b"]], "body": b"c"}
    values = [outcome if name == "outcome" else name for name in FIELDS[kind]]
    written = json.loads(json.dumps(to_wire(process, (kind, *values)), default=bytes.decode))
    read = from_wire(written)
    if not process.startswith(READS_NAMES) and kind in FORMER_LENGTH:
        length = FORMER_LENGTH[kind]
        assert len(written) == 1 + length
        values[length:] = list(call.DEFAULTS.values())[-len(values[length:]) :]
    expected = [kind if process.startswith(READS_NAMES) else FORMER.get(kind, kind), *values]
    assert json.loads(json.dumps(read, default=bytes.decode)) == json.loads(
        json.dumps(expected, default=bytes.decode)
    )


@pytest.mark.parametrize("kind", list(FIELDS))
def test_fields_that_a_newer_peer_adds_are_skipped(kind):
    """Wherever they stand; the others are in the order of the table."""
    fields = {"colour": "blue"} | {name: name for name in reversed(FIELDS[kind])} | {"priority": [1]}
    assert from_wire([kind, fields]) == [kind, *FIELDS[kind]]


def test_fields_of_a_call_that_an_older_peer_does_not_send_have_their_defaults():
    """By name; and a call made of what is known skips what is not."""
    values = {"process": "v2a", "number": 1, "token": "t", "method": "GET", "path": "", "query": "", "headers": {}}
    values |= {"body": b"", "received_at": 1.0, "id": "i", "colour": "blue"}
    kind, process, number, *found = from_wire(["call", values])
    assert (kind, process, number) == ("call", "v2a", 1)
    expected = call.Call("t", "GET", "", "", {}, b"", 1.0, "i", is_legacy=False, remote_addr="", request_id="")
    assert call.Call(*found) == call_from(values) == expected


@pytest.mark.parametrize(
    "message",
    [["dance", {"slowly": True}], ["call", {"number": 1}], ["call", 1], ["call"], [], [7, {}], "call", 7, None, {}],
    ids=str,
)
def test_what_this_version_cannot_read_is_skipped(message):
    """A kind that it does not know, a message without a field that it needs, and what is no message."""
    assert from_wire(message) is None


def test_lua_has_the_same_table():
    """Each kind with its fields, in their order."""
    table = lua_table()
    for kind, names in FIELDS.items():
        assert f"{kind}={{{','.join(map(repr, names))}}}" in table
