"""The grammar of a call's URL: one function for both ways that a call may take."""

import pytest

from socket2me_flask.relay.forwarder import decode_sent, parse_target

TOKEN = "mrs6wpu2mawk0swpja1c3dit"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (f"/v1/go/{TOKEN}", ""),
        (f"/v1/go/{TOKEN}?a=/go/{TOKEN}/x", ""),
        (f"/v1/go/{TOKEN}/", "/"),
        (f"/v1/go/{TOKEN}/a/b%20c?d", "/a/b%20c"),
        (f"/v1/go/{TOKEN}/a#b?c", "/a"),
        (f"/v1/go/{TOKEN}//a/../%2e%2F", "//a/../%2e%2F"),
        (f"http://host/v1/go/{TOKEN}/a", "/a"),
        (f"HTTPS://host:1/v1/go/{TOKEN}/a", "/a"),
        (f"/v1/go/{TOKEN}/go/{TOKEN}", f"/go/{TOKEN}"),
        (f"/v1/%67o/{TOKEN}/a/b%20c", "/a/b%20c"),
        (f"/%76%31/go/{TOKEN}/%67", "/%67"),
        (f"/v1/go/%6D{TOKEN[1:]}/x%2Fy", "/x%2Fy"),
        (f"/v1/go/%6D{TOKEN[1:]}", ""),
        (f"/v1/go/{TOKEN}/\xc3\xbc", "/ü"),
        (f"/v1/go/{TOKEN}/\xfc", "/ü"),
    ],
)
def test_the_path_is_what_follows_the_token(target, path):
    """The path arrives as it was sent, percent-encoding kept; UTF-8 as the text that it is."""
    parsed = parse_target(target)
    assert (parsed.token, decode_sent(parsed.path), parsed.is_legacy) == (TOKEN, path, False)


def test_the_query_is_as_it_was_sent():
    """Without the question mark, and with whatever else is in it."""
    assert parse_target(f"/v1/go/{TOKEN}?a=%20b&c?d/e").query == "a=%20b&c?d/e"


@pytest.mark.parametrize("target", [f"/go/{TOKEN}", f"/go/{TOKEN}/v1/go/x", f"/%67o/{TOKEN}"])
def test_go_without_a_version_is_that_of_the_originals(target):
    """`/go` is distinguished from `/v1/go`."""
    parsed = parse_target(target)
    assert (parsed.token, parsed.is_legacy) == (TOKEN, True)


@pytest.mark.parametrize(
    "target",
    [
        "/", "*", "", "/v1", "/v1/go", "/go", f"/v2/go/{TOKEN}", f"//v1/go/{TOKEN}", f"/v1//go/{TOKEN}", "/v1/new",
        f"/v1%2Fgo/{TOKEN}", f"/V1/go/{TOKEN}", f"/v1/go%2F{TOKEN}", f"/v1/go%3F/{TOKEN}", f"/x?/v1/go/{TOKEN}",
        f"x/v1/go/{TOKEN}", f"ftp://host/v1/go/{TOKEN}", f"/v1/g\no/{TOKEN}",
    ],
)  # fmt: skip
def test_what_is_no_call(target):
    """An encoded separator is no separator, and letter case counts."""
    assert parse_target(target) is None


def test_a_token_with_an_encoded_separator_is_none():
    """It stays encoded, so it has no token's form."""
    assert parse_target(f"/v1/go/{TOKEN[:10]}%2F{TOKEN[11:]}").token == f"{TOKEN[:10]}%2F{TOKEN[11:]}"
