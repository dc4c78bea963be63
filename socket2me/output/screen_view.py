"""What the live screen of `socket2me listen` shows: a list of requests, and one of them. Knows no terminal.

All text of a request passes `printable`: no control character and none that changes the direction of text is left.
`rich` is given `Text`, in which it reads no markup.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from ..local_app.target import Answer
from ..request import Request
from .report import style_of
from .terminal import printable, size_of

# How much is kept: requests, and bytes of their bodies and answers. The oldest are dropped first.
MAX_ROWS = 1000
MAX_KEPT_BYTES = 20_000_000

# What is shown of a body, and of one value that is not folded.
MAX_BODY_BYTES = 20_000
MAX_LINE_CHARACTERS = 1000

# From how many columns on the time, the duration, the size and the remark of a request have room in the list.
DURATION_COLUMNS = 48
TIME_COLUMNS = 64
SIZE_COLUMNS = 80
REMARK_COLUMNS = 100

LIST_HELP = (
    "↑↓ ⏎ detail  r replay  c copy  q quit",
    "j/k move, Enter detail, r replay, c copy as curl, q quit",
)
DETAIL_HELP = ("↑↓ scroll  Esc back  r replay  c copy", "j/k scroll, Esc back, r replay, c copy as curl, q back")


@dataclass
class Row:
    """A request, and what has become of it at one of its receivers. `status` is None without an answer."""

    request: Request
    target: str
    at: float
    is_done: bool = False
    status: int | None = None
    seconds: float = 0.0
    remark: str = ""
    answer: Answer | None = None

    @property
    def bytes(self) -> int:
        """How many bytes its bodies have."""
        return len(self.request.body) + (len(self.answer.body) if self.answer is not None else 0)

    @property
    def shown_status(self) -> str:
        """The status in three characters."""
        return str(self.status) if self.status is not None else "---" if self.is_done else "..."

    @property
    def style(self) -> str:
        """The style of the status."""
        return style_of(self.status) if self.is_done else "yellow"


@dataclass
class View:
    """What is shown. Not for several threads at once.

    Fields:
        url, targets: of `listen`; inspector: the URL of its page, if there is one.
        state: of the connection, and `is_well` whether that is as it should be.
        message: the last one.
        detail: the request that is shown whole, if one is.
    """

    url: str = ""
    targets: str = ""
    inspector: str = ""
    state: str = "connecting"
    is_well: bool = False
    message: str = ""
    detail: Row | None = None
    dropped: int = 0
    _rows: "OrderedDict[tuple[str, str], Row]" = field(default_factory=OrderedDict)
    _bytes: int = 0
    _selected: Row | None = None  # None: the newest, whichever that is
    _scrolled: int = 0

    def put(self, request: Request, target: str = "", **members: object) -> None:
        """Keep what has become of a request. One that came again has the row that it had."""
        row = self._rows.get((request.id, target))
        if row is None:
            row = self._rows[request.id, target] = Row(request, target, time.time())
        else:
            self._bytes -= row.bytes
        row.request = request
        for name, value in members.items():
            setattr(row, name, value)
        self._bytes += row.bytes
        while len(self._rows) > 1 and (len(self._rows) > MAX_ROWS or self._bytes > MAX_KEPT_BYTES):
            _, oldest = self._rows.popitem(last=False)
            self._bytes -= oldest.bytes
            self.dropped += 1
            if self._selected is oldest:
                self._selected = None

    @property
    def selected(self) -> Row | None:
        """The request that a key is about; None if there is none."""
        return self.detail or self._selected or next(reversed(self._rows.values()), None)

    def move(self, count: int) -> None:
        """Select the request so many rows further down, or scroll the one that is shown."""
        if self.detail is not None:
            self._scrolled = max(0, self._scrolled + count)
            return
        rows = self._newest_first()
        if rows:
            at = max(0, min(len(rows) - 1, self._index(rows) + count))
            self._selected = rows[at] if at > 0 else None

    def open(self) -> None:
        """Show the selected request whole."""
        self.detail, self._scrolled = self.selected, 0

    def close(self) -> None:
        """Show the list."""
        self.detail = None

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the lines of the screen, as many as it is high."""
        head = list(self._head(width))[: max(0, height - 4)]
        words = LIST_HELP if self.detail is None else DETAIL_HELP
        help = words[1] if cell_len(words[1]) <= width else words[0]
        foot = [self._message(width), Text(fit(help, width), style="dim")]
        room = max(1, height - len(head) - len(foot))
        body = self._list(width, room) if self.detail is None else self._detail(self.detail, width, room)
        body += [Text("")] * (room - len(body))
        lines = [*head, *body, *foot][:height]
        for line in lines:
            line.truncate(width)
        return lines

    def _newest_first(self) -> list[Row]:
        return list(reversed(self._rows.values()))

    def _index(self, rows: list[Row]) -> int:
        return next((at for at, row in enumerate(rows) if row is self._selected), 0)

    def _head(self, width: int) -> Iterator[Text]:
        if self.detail is None:
            for text, style in ((self.url, "bold green"), (self.inspector, "bold")):
                for piece in chop_cells(printable(text), width):
                    yield Text(piece, style=style)
        state = Text(fit(self.state, width), style="green" if self.is_well else "yellow")
        if (room := width - state.cell_len - 4) > 8:
            state.append("  → " + fit(printable(self.targets), room), style="dim")
        yield state
        yield Text("─" * width, style="dim")

    def _message(self, width: int) -> Text:
        row = self.selected if self.detail is None else None
        if row is not None and row.remark and not self.message:
            return Text(fit(printable(row.remark), width), style=row.style)
        return Text(fit(printable(self.message), width), style="yellow")

    def _list(self, width: int, room: int) -> list[Text]:
        rows = self._newest_first()
        if not rows:
            return [Text(fit("No request yet.", width), style="dim")]
        at = self._index(rows)
        start = max(0, min(at - room // 2, len(rows) - room))
        return [_row(row, width, row is rows[at]) for row in rows[start : start + room]]

    def _detail(self, row: Row, width: int, room: int) -> list[Text]:
        lines = [
            Text(piece, style=style) for line, style in _told_of(row) for piece in chop_cells(line, width) or [""]
        ]
        self._scrolled = min(self._scrolled, max(0, len(lines) - room))
        return lines[self._scrolled : self._scrolled + room]


def fit(text: str, width: int) -> str:
    """Return a text that has no more columns than that; an ellipsis says that it is cut."""
    if len(text) > 4 * width:
        text = text[: 4 * width]
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(0, width - 1))}…"


def _row(row: Row, width: int, is_selected: bool) -> Text:
    left = [("▸" if is_selected else " ", "bold")]
    if width >= TIME_COLUMNS:
        left.append((time.strftime("%H:%M:%S ", time.localtime(row.at)), "dim"))
    left.append((f"{row.request.method:<7} ", "bold"))
    right = [(f" {row.shown_status}", row.style)]
    if width >= DURATION_COLUMNS:
        right.append((f"{_took(row):>9}", "dim"))
    if width >= SIZE_COLUMNS:
        right.insert(0, (f"{size_of(len(row.request.body)):>9} ", "dim"))
    room = width - sum(cell_len(text) for text, _ in [*left, *right])
    remark = printable(f"{row.target} {row.remark}".strip())
    remark_room = room * 2 // 5 if width >= REMARK_COLUMNS else 0
    if remark_room:
        right.append((f"  {set_cell_size(fit(remark, remark_room - 2), remark_room - 2)}", row.style))
    path_room = max(1, room - remark_room)
    path = fit(printable(row.request.target or "/"), path_room)
    text = Text.assemble(*left, (set_cell_size(path, path_room), "bold"), *right, no_wrap=True)
    if is_selected:
        text.stylize("reverse")
    return text


def _took(row: Row) -> str:
    if not row.is_done:
        return ""
    return f"{row.seconds * 1000:.0f} ms" if row.seconds < 100 else f"{row.seconds:.0f} s"


def _told_of(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the lines of one request, with their styles."""
    request, answer = row.request, row.answer
    yield printable(f"{request.method} {request.target or '/'}")[:MAX_LINE_CHARACTERS], "bold"
    yield f"{row.shown_status}  {_took(row)}".rstrip(), row.style
    if row.remark or row.target:
        yield printable(f"{row.target} {row.remark}".strip())[:MAX_LINE_CHARACTERS], row.style
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(request.received_at))
    words = [at, f"id {request.id}"]
    words += [f"from {request.remote_addr}"] if request.remote_addr else []
    words += [f"attempt {request.attempt}"] if request.attempt is not None else []
    words += [f"repeats {request.replay_of}"] if request.replay_of else []
    words += [f"signed by {request.verified}"] if request.verified else []
    yield printable(", ".join(words))[:MAX_LINE_CHARACTERS], "dim"
    yield "", ""
    yield from _message(list(request.headers.items()), request.body)
    if answer is not None:
        yield "", ""
        yield f"Answer {answer.status}", f"bold {row.style}"
        yield from _message(answer.headers, answer.body)


def _message(headers: list[tuple[str, str]], body: bytes) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        yield printable(f"{name}: {value}")[:MAX_LINE_CHARACTERS], "cyan"
    if not body:
        return
    yield "", ""
    shown = body[:MAX_BODY_BYTES]
    try:
        text = shown.decode(errors="strict" if len(shown) == len(body) else "ignore")
    except UnicodeDecodeError:
        yield f"({size_of(len(body))} that are no text)", "dim"
        return
    for line in text.replace("\r\n", "\n").split("\n"):
        yield printable(line.expandtabs(4)), ""
    if len(shown) < len(body):
        yield f"({size_of(len(body) - len(shown))} more)", "dim"
