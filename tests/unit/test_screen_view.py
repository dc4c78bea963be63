"""What the screen of `listen` shows, for any request and in any size."""

import random

import pytest
from rich.cells import cell_len

from socket2me.local_app.target import Answer
from socket2me.output import screen_view
from socket2me.output.screen_view import View
from socket2me.output.terminal import printable
from socket2me.request import Request

TEXTS = (
    "/a/b?c=d",
    "/" + "日本" * 60,
    "/e\u0301\u200d\u202e\u2066[red]x[/red]:smile:",
    "/\x00\x1b[2J\x9b\r\n\t" * 9,
    "/👩\u200d👩\u200d👧🇩🇪" * 30,
    "",
)


def request(number, text="/x", body=b""):
    return Request("OPTIONS", text, "", {"x-a": text, "x-b": text * 9}, body, str(number), 0, attempt=3)


@pytest.fixture
def view():
    shown = View(url="http://127.0.0.1:8000/v1/go/" + "a" * 24, targets="http://localhost:3000/" + "x" * 90)
    for number, text in enumerate(TEXTS):
        body = text.encode() * 9
        answer = Answer(500, [("x", text)], body, False)
        shown.put(request(number, text, body), text, is_done=number > 0, remark=text * 3, answer=answer)
    return shown


@pytest.mark.parametrize("height", [1, 5, 24])
def test_no_line_is_longer_than_the_screen_is_wide(view, height):
    """Nor are there more lines than it is high; and each character is one that a terminal only shows."""
    for width in range(10, 140, 7):
        for detail in (False, True):
            for count in (0, 1, 3, 100, -2):
                view.detail = None
                view.move(count)
                if detail:
                    view.open()
                    view.move(count)
                lines = view.lines(width, height)
                assert len(lines) == height
                for line in lines:
                    assert line.plain == printable(line.plain)
                    assert cell_len(line.plain) <= width, (width, line.plain)


def test_markup_is_shown_as_it_is(view):
    """No emoji is made of it either."""
    view.move(3)
    (row,) = [line for line in view.lines(200, 24) if "▸" in line.plain]
    assert "\\x202e\\x2066[red]x[/red]:smile:" in row.plain


def test_what_is_kept_is_bounded(monkeypatch):
    """The oldest requests are dropped, by their number and by their bytes; the newest stays, however large."""
    monkeypatch.setattr(screen_view, "MAX_ROWS", 3)
    monkeypatch.setattr(screen_view, "MAX_KEPT_BYTES", 100)
    view = View()

    def shown():
        return [line.plain.split()[-1] for line in view.lines(40, 30) if "OPTIONS" in line.plain]

    for number in range(5):
        view.put(request(number, f"/{number}"), is_done=True, status=number + 200)
    assert (shown(), view.dropped) == (["204", "203", "202"], 2)
    view.move(2)
    view.put(request(9, body=b"x" * 60), is_done=True, status=209)
    assert (shown(), view.selected.request.id) == (["209", "204", "203"], "9")
    view.put(request(9, body=b"x" * 90), is_done=True, status=210)
    assert shown() == ["210", "204", "203"]
    view.put(request(8, body=b"x" * 101), is_done=True, status=208)
    assert shown() == ["208"]


def test_the_selection_stays_on_its_request():
    """While others arrive; the newest is selected as long as nothing else is."""
    view, numbers = View(), list(range(8))
    random.shuffle(numbers)
    for number in numbers[:3]:
        view.put(request(number), is_done=True)
    assert view.selected.request.id == str(numbers[2])
    view.move(1)
    for number in numbers[3:]:
        view.put(request(number), is_done=True)
    assert view.selected.request.id == str(numbers[1])
    view.move(-(10**9))
    view.put(request(9), is_done=True)
    assert view.selected.request.id == "9"
