"""Names of query strings and forms that say where their values belong: `a[b]=1&l[]=2` is `{a: {b: "1"}, l: ["2"]}`.

As the JavaScript library `qs` reads them, which Express uses; `docs/compatibility.md` has what differs.
"""

import re
from collections.abc import Iterable
from typing import Any

# What is nested deeper stays in the last name, brackets and all. As in `qs`.
MAX_DEPTH = 5

# A larger index makes an object and no list, so that a caller cannot have a long one made. As in `qs`.
MAX_INDEX = 20

# Names that mean something else to a client: they stay in the name, with their brackets.
_SPECIAL = frozenset({"__proto__", "_placeholder"})

_segment = re.compile(r"\[([^\[\]]*)\]").match
_is_index = re.compile(r"0|[1-9][0-9]?").fullmatch


def nest(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return names and values as one object. Values of the same name are a list of them."""
    root = _Root()
    for name, value in pairs:
        node: _Node = root
        *parents, last = _path(name)
        for segment in parents:
            node = node.child(segment)
        node.put(last, value)
    return {name: _finished(value) for name, value in root.members.items()}


def _path(name: str) -> list[str]:
    """Return the segments of a name; `""` is the next in a list."""
    start = name.find("[")
    if start <= 0:
        return [name]
    path, at = [name[:start]], start
    while len(path) <= MAX_DEPTH and (match := _segment(name, at)) is not None:
        if match[1] in _SPECIAL:
            return [name]
        path.append(match[1])
        at = match.end()
    if at < len(name):
        if len(path) <= MAX_DEPTH:
            return [name]  # something stands between or behind the brackets
        path.append(name[at:])
    return path


class _Node:
    """What has members: a list, as long as all their names are indexes."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {}
        self.is_list = True
        self._next = 0

    def child(self, segment: str) -> "_Node":
        """Return the node at a segment. A value that was there is its first member."""
        name = self._name(segment)
        member = self.members.get(name)
        if not isinstance(member, _Node):
            node = self.members[name] = _Node()
            if member is not None:
                node.put("", member)
            return node
        return member

    def put(self, segment: str, value: str) -> None:
        """Set a value, beside what was there."""
        name = self._name(segment)
        if name in self.members:
            self.child(segment).put("", value)
        else:
            self.members[name] = value

    def _name(self, segment: str) -> str:
        if not self.is_list:
            return segment or self._index(self._next)
        if not segment:
            return self._index(self._next)
        if _is_index(segment) and int(segment) <= MAX_INDEX:
            return self._index(int(segment))
        self.is_list = False
        return segment

    def _index(self, index: int) -> str:
        self._next = max(self._next, index + 1)
        return str(index)


class _Root(_Node):
    """The outermost one, whose names are what they are."""

    def _name(self, segment: str) -> str:
        return segment


def _finished(value: Any) -> Any:
    if not isinstance(value, _Node):
        return value
    members = value.members
    if value.is_list:
        return [_finished(members[name]) for name in sorted(members, key=int)]
    return {name: _finished(member) for name, member in members.items()}
