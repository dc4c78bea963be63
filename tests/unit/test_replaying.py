"""Which requests `replay` sends, and when; without a relay and without an app."""

import math
import os
import time

import pytest

from socket2me.exceptions import BadArgument, ClientError
from socket2me.inspector.filters import parse
from socket2me.replaying import (
    Choice,
    Recorded,
    from_history,
    from_paths,
    paced,
    parse_moment,
    parse_speed,
    request_of,
)
from socket2me.request import Request
from socket2me.saved.request_files import save

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", NOW - 90),
        ("15m", NOW - 900),
        ("2min", NOW - 120),
        ("1h", NOW - 3600),
        ("2d", NOW - 172_800),
        ("2026-01-31T18:00:00Z", 1_769_882_400.0),
        ("2026-01-31T19:00+01:00", 1_769_882_400.0),
    ],
)
def test_a_time(text, seconds):
    """So long ago, or ISO 8601."""
    assert parse_moment(text, NOW) == seconds


def test_a_time_without_a_zone_is_local():
    """As the lines of `listen` show it."""
    assert parse_moment("2026-01-31 18:00", NOW) == time.mktime((2026, 1, 31, 18, 0, 0, 0, 0, -1))


@pytest.mark.parametrize("text", ["", "1", "h", "1y", "-1h", "1.5h", "tomorrow", "9999999999d", "2026-13-01"])
def test_what_is_no_time(text):
    """It is refused, with an example."""
    with pytest.raises(BadArgument, match="is no time, such as 90s"):
        parse_moment(text, NOW)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "fast"])
def test_what_is_no_speed(text):
    """It is refused, with an example."""
    with pytest.raises(BadArgument, match="is no speed, such as 1"):
        parse_speed(text)


def test_the_gaps_between_requests():
    """They are those in which the requests came, divided by the speed, and include the time of the requests."""
    recorded = [Recorded(at, "", lambda: None) for at in (100.0, 101.0, 101.0, 111.0, 111.5)]
    for speed, took, gaps in ((1, 0, [1, 10, 0.5]), (10, 0, [0.1, 1, 0.05]), (1, 2, [5]), (math.inf, 0, [])):
        now, slept = [5.0], []

        def sleep(seconds, now=now, slept=slept):
            slept.append(seconds)
            now[0] += seconds

        for _ in paced(recorded, speed, clock=lambda now=now: now[0], sleep=sleep):
            now[0] += took
        assert slept == pytest.approx(gaps), (speed, took)


def test_the_requests_of_a_folder(tmp_path):
    """In the order in which they came, to less than a second, and those only of the time that is meant."""
    for at in (NOW + 2.5, NOW, NOW + 2.25, NOW + 9):
        save(tmp_path, Request("POST", f"/{at - NOW}", id=f"x-{int(at * 100) % 7}", received_at=at), None)
    (tmp_path / "note.txt").write_text("no request")

    def found(**choice):
        return [each.load().path for each in from_paths([tmp_path], Choice(**choice))]

    assert found() == ["/0.0", "/2.25", "/2.5", "/9.0"]
    assert found(since=NOW + 2.25, until=NOW + 8) == ["/2.25", "/2.5"]
    for file in tmp_path.glob("*.http"):  # as a copy would have it: then its name says when, to the second
        os.utime(file, (1, 1))
    assert [each.at for each in from_paths([tmp_path], Choice())] == [NOW, NOW + 2, NOW + 2, NOW + 9]
    (other,) = tmp_path.glob("*000-*.http")
    other.rename(tmp_path / "mine.http")
    assert found(until=2) == ["/0.0"]


class History:
    """A relay's history, of which an answer has so many requests."""

    def __init__(self, count, page):
        self.page = page
        self.asked = []
        self.requests = [
            {"id": str(number), "received_at": NOW + number, "method": "POST", "path": f"/{number % 2}"}
            for number in reversed(range(count))
        ]

    def history(self, token, before, filter):
        self.asked.append(before)
        found = [each for each in self.requests if filter in ("", each["path"])]
        start = 0 if before is None else [each["id"] for each in found].index(before) + 1
        return found[start : start + self.page], start + self.page < len(found)


def test_the_requests_of_a_history():
    """They are read page by page, no further back than is asked for, and sent from the earliest on."""
    history = History(10, page=3)
    assert [each.name for each in from_history(history, None, Choice())] == list("0123456789")
    assert history.asked == [None, "7", "4", "1"]
    history.asked.clear()
    choice = Choice(NOW + 5, NOW + 8, [parse("/1"), parse("/0")])
    assert [each.name for each in from_history(history, None, choice)] == ["5", "6", "7", "8"]
    assert history.asked == [None, "5", None]
    assert from_history(History(0, 3), None, Choice()) == []


def test_a_request_of_a_history():
    """A header that came twice is one value, as the relay delivers it; what is no request is refused."""
    members = {
        "id": "1",
        "method": "PUT",
        "path": "/a",
        "query": "b",
        "headers": [["X-A", "1"], ["x-a", "2"]],
        "body": "AP8=",
        "received_at": 5,
    }
    assert request_of(members) == Request("PUT", "/a", "b", {"x-a": "1,2"}, b"\x00\xff", "1", 5.0)
    for wrong in ({**members, "headers": 1}, {**members, "body": "?"}, {"id": "1"}):
        with pytest.raises(ClientError, match="no request"):
            request_of(wrong)
