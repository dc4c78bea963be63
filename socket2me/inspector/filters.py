"""The filter language of the inspector: which requests a list and a stream show. Pure.

    POST /stripe/* -status:2xx body.$.type:invoice.* "card declined"

Terms are separated by spaces, and all have to hold. A term that begins with `-` must not hold. Quotes keep spaces
and colons in a term; within them `\\"` is a quote and `\\\\` a backslash.

| term | holds if |
|---|---|
| `method:POST`, or `POST` | that is the method |
| `path:/a/*`, or `/a/*` | the path, as it follows the token, matches |
| `status:200`, `status:4xx`, `status:waiting` | the caller was answered so, or waits |
| `outcome:refused` | that is the outcome |
| `header.x-foo:value` | a header of this name matches, whatever the case |
| `body.$.a.b[0]:value` | the member of the JSON body, or the field of the form, matches |
| anything else | the text is in the method, the path, the query, a header or the body, whatever the case |

A term that begins with `body.$` and is no path with a colon and a value is an error; in quotes it is a text.
`*` in a value stands for any characters.

Which requests a client receives is said in the same language, without `status:` and `outcome:`: nothing has become
of them yet. Those of the body hold for no request whose body is larger than `MAX_READ_BYTES`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from ..request import METHODS
from .errors import BadFilter
from .record import OUTCOMES, RequestRecord

# A filter is longer or has more terms only by mistake. Each term reads every request.
MAX_FILTER_CHARACTERS = 1000
MAX_TERMS = 20

# A `Subject` with a larger body is not read: its filters delay other requests.
MAX_READ_BYTES = 262_144

Test = Callable[[RequestRecord], bool]


@dataclass(frozen=True)
class Filter:
    """A filter that was parsed.

    reads_body: whether it has to see the body of a request.
    may_change: whether it may come to hold, or cease to, for a request that is there.
    text: what was parsed.
    """

    tests: tuple[Test, ...] = ()
    reads_body: bool = False
    may_change: bool = False
    text: str = ""

    def holds(self, record: RequestRecord) -> bool:
        """Say whether a request is one of those that the filter asks for."""
        return all(test(record) for test in self.tests)


class Subject(RequestRecord):
    """A request that several filters look at before anything has become of it: its body is read once."""

    __slots__ = ("_lower", "_members")

    def members(self) -> Any:
        """Return the body as JSON or as the fields of a form."""
        if not hasattr(self, "_members"):
            self._members = _NOTHING if len(self.body) > MAX_READ_BYTES else _parsed(self)
        return self._members

    def lower(self) -> bytes:
        """Return the body in lower case."""
        if not hasattr(self, "_lower"):
            self._lower = b"" if len(self.body) > MAX_READ_BYTES else self.body.lower()
        return self._lower


def parse(text: str, *, knows_outcome: bool = True) -> Filter:
    """Return the filter that a text is. Raises `BadFilter`, which has the place of the error.

    Without `knows_outcome` it may not ask for what becomes of a request.
    """
    if len(text) > MAX_FILTER_CHARACTERS:
        raise BadFilter(f"A filter has at most {MAX_FILTER_CHARACTERS} characters.", MAX_FILTER_CHARACTERS + 1)
    tests: list[Test] = []
    reads_body = may_change = False
    for term in _terms(text):
        if len(tests) == MAX_TERMS:
            raise BadFilter(f"A filter has at most {MAX_TERMS} terms.", term.column)
        if not knows_outcome and term.key in ("status", "outcome"):
            raise BadFilter(f"{term.key}: is not known before the request was forwarded.", term.column)
        test = _test(term)
        reads_body |= not term.key or term.key.startswith("body")
        may_change |= term.key in ("status", "outcome")
        tests.append(_not(test) if term.is_negated else test)
    return Filter(tuple(tests), reads_body, may_change, text)


@dataclass(frozen=True)
class _Term:
    """A term: `key` is what stands before the colon, or `""` if it has none; the columns count from 1."""

    key: str
    value: str
    is_negated: bool
    column: int
    value_column: int


_BODY_PATH = r"body\.(?:[^\s:\"\[]|\[(?:\"[^\"]*\"|[^\"\]])*\])+"
_KEY = re.compile(rf"(?:method|path|status|outcome|header\.[^\s:\"]+|{_BODY_PATH}):")
_LOOKS_LIKE_KEY = re.compile(r"[A-Za-z][\w.$-]*:")
_LOOKS_LIKE_BODY_PATH = re.compile(r"body(?:\.\$|\[\S*:)")


def _terms(text: str) -> Iterator[_Term]:
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        start = at
        is_negated = text[at] == "-" and at + 1 < len(text) and not text[at + 1].isspace()
        at += is_negated
        is_quoted = text[at] == '"'
        key = ""
        match = _KEY.match(text, at)
        if match is not None:
            key, at = match[0][:-1], match.end()
        elif not is_quoted and _LOOKS_LIKE_BODY_PATH.match(text, at):
            raise _bad_body_path(text, at)
        elif not is_quoted and (match := _LOOKS_LIKE_KEY.match(text, at)) is not None:
            raise BadFilter(
                f"{match[0]!r} is none of method: path: status: outcome: header.<name>: body.$...: "
                "(quotes make it text)",
                at + 1,
            )
        value_at = at
        value, at = _value(text, at)
        if not value and (at == value_at or not key):  # `header.x:""` is a header without a value
            raise BadFilter("A value is missing.", value_at + 1)
        if not key and not is_quoted:
            if value in METHODS:
                key = "method"
            elif value.startswith("/"):
                key = "path"
        yield _Term(key, value, is_negated, start + 1, value_at + 1)


def _bad_body_path(text: str, at: int) -> BadFilter:
    """Return what is wrong with a term that begins as a path in the body does, and is not followed by a value."""
    match = re.compile(_BODY_PATH).match(text, at)
    if match is None:
        return BadFilter(_PATH_BEGINS, at + 1)
    _steps(match[0].removeprefix("body."), at + len("body.") + 1)
    end = match.end()
    if end == len(text) or text[end].isspace():
        return BadFilter("A colon and a value are missing after a path in the body.", end + 1)
    return BadFilter(_PATH_GOES_ON, end + 1)


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the value that begins at a place, and where it ends."""
    if at == len(text) or text[at] != '"':
        end = at
        while end < len(text) and not text[end].isspace():
            end += 1
        return text[at:end], end
    start, found = at, []
    at += 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in '"\\':
            at += 1
        found.append(text[at])
        at += 1
    if at == len(text):
        raise BadFilter("A quote is not closed.", start + 1)
    if at + 1 < len(text) and not text[at + 1].isspace():
        raise BadFilter("A space is missing after a quote.", at + 2)
    return "".join(found), at + 1


def _test(term: _Term) -> Test:
    key, value = term.key, term.value
    if key == "method":
        method = value.upper()
        return lambda record: record.method == method
    if key == "path":
        matches = _glob(value)
        return lambda record: matches(record.path)
    if key == "status":
        return _status(term)
    if key == "outcome":
        if value not in (*OUTCOMES, "waiting"):
            raise BadFilter(f"An outcome is one of {', '.join(OUTCOMES)}, waiting.", term.value_column)
        outcome = None if value == "waiting" else value
        return lambda record: record.outcome == outcome
    if key.startswith("header."):
        name, matches = key.removeprefix("header.").lower(), _glob(value.lower())
        return lambda record: any(
            found.lower() == name and matches(content.lower()) for found, content in record.headers
        )
    if key.startswith("body."):
        return _body_member(term)
    return _text(value)


def _not(test: Test) -> Test:
    return lambda record: not test(record)


def _status(term: _Term) -> Test:
    value = term.value.lower()
    if value == "waiting":
        return lambda record: record.status is None
    if re.fullmatch(r"[1-5]xx", value):
        hundreds = int(value[0])
        return lambda record: record.status is not None and record.status // 100 == hundreds
    if re.fullmatch(r"[1-5]\d\d", value, re.ASCII):
        status = int(value)
        return lambda record: record.status == status
    raise BadFilter("A status is a number such as 404, a class such as 4xx, or waiting.", term.value_column)


def _glob(pattern: str) -> Callable[[str], bool]:
    """Return what says whether a text matches. Takes time in proportion to the text, whatever the pattern."""
    first, *others = pattern.split("*")
    if not others:
        return lambda text: text == pattern
    *middle, last = others

    def matches(text: str) -> bool:
        if not text.startswith(first):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            at = text.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return at <= end and text.endswith(last)

    return matches


def _text(value: str) -> Test:
    if value.isascii():
        needle, folded = value.lower().encode(), value.lower()
        return lambda record: _is_in_head(record, folded) or needle in _lower(record)
    folded = value.casefold()
    return lambda record: (
        _is_in_head(record, folded) or folded in _lower(record).decode(errors="replace").casefold()
    )


def _lower(record: RequestRecord) -> bytes:
    return record.lower() if isinstance(record, Subject) else record.body.lower()


def _is_in_head(record: RequestRecord, folded: str) -> bool:
    return (
        folded in record.method.lower()
        or folded in record.path.casefold()
        or folded in record.query.casefold()
        or any(folded in f"{name}: {value}".casefold() for name, value in record.headers)
    )


_STEP = re.compile(
    r"\.(?P<name>[^.\[\]\"*]+)|\[(?P<index>\d{1,9})\]|\[\"(?P<quoted>[^\"]*)\"\]|(?P<any>\.\*|\[\*\])"
)


_PATH_BEGINS = "A path in the body begins with body.$, as in body.$.a:value."
_PATH_GOES_ON = 'A path goes on with .name, ["name"], [0], .* or [*].'


def _steps(path: str, column: int) -> list[str | int | None]:
    """Return the steps of a JSON path: `$`, then `.name`, `["name"]`, `[0]`, or `.*` and `[*]` for any.

    Raises `BadFilter` if it is malformed; `column` is that of the `$`.
    """
    if not path.startswith("$"):
        raise BadFilter(_PATH_BEGINS, column)
    steps: list[str | int | None] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise BadFilter(_PATH_GOES_ON, column + at)
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["name"] if match["name"] is not None else match["quoted"])
        at = match.end()
    return steps


def _body_member(term: _Term) -> Test:
    """Return the test of a member of the body."""
    steps = _steps(term.key.removeprefix("body."), term.column + term.is_negated + len("body."))
    matches = _glob(term.value)

    def parsed(record: RequestRecord) -> Any:
        return record.members() if isinstance(record, Subject) else _parsed(record)

    def test(record: RequestRecord) -> bool:
        return any(matches(_as_text(value)) for value in _members(parsed(record), steps))

    return test


def _members(value: Any, steps: list[str | int | None]) -> list[Any]:
    """Return the values at a path."""
    found = [value]
    for step in steps:
        following: list[Any] = []
        for each in found:
            if isinstance(each, dict):
                if step is None:
                    following += each.values()
                elif str(step) in each:
                    following.append(each[str(step)])
            elif isinstance(each, list):
                if step is None:
                    following += each
                elif isinstance(step, int) and step < len(each):
                    following.append(each[step])
        found = following
    return found


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


_NOTHING = object()


def _parsed(record: RequestRecord) -> Any:
    """Return the body as JSON or as the fields of a form; numbers as they are written."""
    if record.header("content-type").lower().startswith("application/x-www-form-urlencoded"):
        fields: dict[str, list[str]] = {}
        try:
            for name, value in parse_qsl(
                record.body.decode(errors="replace"), keep_blank_values=True, errors="replace", max_num_fields=1000
            ):
                fields.setdefault(name, []).append(value)
        except ValueError:
            return _NOTHING
        return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    if record.body.lstrip()[:1] not in (b"{", b"["):
        return _NOTHING
    try:
        return json.loads(record.body, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError):
        return _NOTHING


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return ""  # an object or a list: only `*` matches
