"""Messages between processes: the kinds, the names of their fields, and their two forms.

A message to a process of this version, or of a later one, is `[kind, {name: value}]`. A reader skips fields and
kinds that it does not know, so a later version may add both. The release before reads and writes `[kind,
value...]`: such messages are read, and written to its processes, so that both versions run side by side during a
rolling upgrade. The name of a process shows which form it reads (`READS_NAMES`).

Python and `redis.lua` use the same table. Kinds and fields keep the names of earlier versions.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from ..errors import ClientLeft, RelayError
from ..http.answers import OUTCOMES, Answer
from ..relay import call
from ..relay.call import READS_NAMES

# A message is a kind, and the values of its fields in the order of `FIELDS`: texts, numbers, bytes, lists.
Message = Sequence[Any]

FIELDS: dict[str, tuple[str, ...]] = {
    # A call, and the responses to it. `number` is that of the request of `process`.
    "call": ("process", "number", *call.FIELDS),
    "notified": ("numbers",),
    "handed": ("process", "number", "mode"),
    "queued": ("number",),
    "gone": ("number",),
    "outcome": ("number", "outcome"),
    "forget": ("process", "number"),
    # A token has changed.
    "arrived": ("token",),
    "displaced": ("token", "client"),
    "replaced": ("token", "listener"),
    "refreshed": ("token",),
    "ended": ("token",),
    # Mailboxes.
    "kick": ("token", "client"),
    "left": ("token",),
    "deleted": ("token", "event_id"),
    "retried": ("token", "event_id"),
    "dropped": ("token", "event_id"),  # the release before sends it in place of either
    "settled": ("token", "event_id", "outcome"),
    "in_flight": ("process", "number", "token"),
    "listeners": ("process", "number", "token"),
    "answer": ("number", "value"),
    # The history of a token, which this process watches.
    "changed": ("token",),
    # Of the bus itself.
    "beat": ("sent_at",),
    "large": ("key",),
}

# The fields that a message of a kind may miss, and what they are then.
DEFAULTS: dict[str, dict[str, Any]] = {"call": call.DEFAULTS}

# How many fields the release before has of a kind, if this one has more: the first ones.
FORMER_LENGTH = {"call": 11}

# The kinds that have another name in the release before, and that name.
FORMER = {"deleted": "dropped", "retried": "dropped"}

_GET = {kind: itemgetter(*names) for kind, names in FIELDS.items()}

# What a field `outcome` is in messages of the release before: a list that begins with whether it is an answer.
_ANSWER = ("status", "headers", "body")
_ERROR = ("status", "code", "message", "is_temporary", "retry_after_seconds", "setting")


def to_wire(process: str, message: Message) -> list[Any]:
    """Return a message in the form that a process reads."""
    kind = message[0]
    names, values = FIELDS[kind], list(message[1:])
    if process.startswith(READS_NAMES):
        return [kind, dict(zip(names, values, strict=True))]
    if names[-1] == "outcome":
        values[-1] = _to_list(values[-1])
    return [FORMER.get(kind, kind), *values[: FORMER_LENGTH.get(kind)]]


def from_wire(message: Any) -> list[Any] | None:
    """Return a message that has come, its values in the order of `FIELDS`; None if this version cannot read it."""
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        return None
    kind = message[0]
    names = FIELDS.get(kind)
    if names is None:
        return None
    if len(message) == 2 and isinstance(message[1], dict):
        try:
            found = _GET[kind]({**DEFAULTS[kind], **message[1]} if kind in DEFAULTS else message[1])
        except KeyError:
            return None
        return [kind, *found] if len(names) > 1 else [kind, found]
    names = names[: FORMER_LENGTH.get(kind)]
    values = message[1:]
    if len(values) < len(names):
        return None
    del values[len(names) :]
    if names[-1] == "outcome":
        values[-1] = _from_list(values[-1])
        if values[-1] is None:
            return None
    missing = FIELDS[kind][len(names) :]
    return [kind, *values, *(DEFAULTS[kind][name] for name in missing)]


def lua_table() -> str:
    """Return `FIELDS`, `FORMER` and `READS_NAMES` as Lua."""
    kinds = (f"{kind}={{{','.join(map(repr, names))}}}" for kind, names in FIELDS.items())
    former = (f"{kind}={name!r}" for kind, name in FORMER.items())
    return (
        f"local READS_NAMES = {READS_NAMES!r}\n"
        f"local FIELDS = {{{','.join(kinds)}}}\n"
        f"local FORMER = {{{','.join(former)}}}\n"
    )


def _to_list(outcome: dict[str, Any]) -> list[Any]:
    is_answer = "body" in outcome
    return [is_answer, *(outcome[name] for name in (_ANSWER if is_answer else _ERROR))]


def _from_list(outcome: Any) -> dict[str, Any] | None:
    if not isinstance(outcome, list) or not outcome:
        return None
    is_answer, *values = outcome
    names = _ANSWER if is_answer else _ERROR
    return dict(zip(names, values, strict=False)) if len(values) >= len(names) else None


def pack_outcome(outcome: Answer | RelayError) -> dict[str, Any]:
    """Return what a field `outcome` holds for an answer, or for an error that the caller receives."""
    if isinstance(outcome, Answer):
        return {
            "status": outcome.status,
            "headers": outcome.headers,
            "body": outcome.body,
            "outcome": outcome.outcome,
        }
    return {
        "status": outcome.status,
        "code": outcome.code,
        "message": str(outcome),
        "is_temporary": outcome.is_temporary,
        "retry_after_seconds": outcome.retry_after_seconds,
        "setting": outcome.setting,
        "outcome": outcome.outcome,
    }


def unpack_outcome(packed: dict[str, Any]) -> Answer | RelayError:
    """Return the answer or the error that a field `outcome` holds."""
    if "body" in packed:
        headers = [(name, value) for name, value in packed["headers"]]
        return Answer(packed["status"], headers, packed["body"], _counted_as(packed, "replied"))
    if packed["code"] == ClientLeft.code:
        return ClientLeft()
    error = RelayError(packed["message"], retry_after_seconds=packed["retry_after_seconds"])
    error.status, error.code = packed["status"], packed["code"]
    error.is_temporary, error.setting = packed["is_temporary"], packed["setting"]
    error.outcome = _counted_as(packed, "error")
    return error


def _counted_as(packed: dict[str, Any], default: str) -> str:
    """Return an `outcome` that this version counts: the release before has none, and a later one may have more."""
    outcome: str = packed.get("outcome", default)
    return outcome if outcome in OUTCOMES else default
