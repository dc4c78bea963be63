"""One call through a relay and back, step by step: what `socket2me check` does.

A relay that is frozen accepts connections and answers nothing, and looks like one that has nothing to do. A call
that arrives distinguishes the two.
"""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from .client.http_api import RelayApi, Token
from .client.socketio_connection import Connection, Delivery
from .exceptions import ClientError, NotHandled
from .request import Request

_T = TypeVar("_T")

# How long the token lives at most, if it cannot be deleted.
TTL_SECONDS = 60

# What the call ends with, and the size of its body.
TAIL = "/check?a=%20b"
BODY_BYTES = 1024

# The part of the timeout that is left for deleting the token if a step fails.
DELETE_PART = 0.2


class CheckFailed(ClientError):
    """A step failed. The text begins with the name of the step."""


def check(
    server: str, *, api_key: str | None, timeout_seconds: float, report: Callable[[str, float], None]
) -> None:
    """Make a token at a relay, connect, call it, verify what arrives, and delete the token, whatever fails.

    `report` is called with each step that succeeds and how many seconds it took: `token`, `connect`, `call`,
    `verify` and `delete`. Ends within `timeout_seconds`, whatever the relay does. Raises `CheckFailed`, and
    `BadArgument` if `server` is no address or the key no key.
    """
    api = RelayApi(server, api_key)
    steps = _Steps(timeout_seconds, report)
    token = steps.run("token", partial(_make_token, api))
    try:
        _check_token(api, token, steps)
    except CheckFailed as failure:
        steps.begin_last()
        try:
            steps.run("delete", partial(api.delete, token))
        except CheckFailed as another:
            raise CheckFailed(f"{failure}; {another}") from None
        raise
    steps.begin_last()
    steps.run("delete", partial(api.delete, token))


def _make_token(api: RelayApi) -> Token:
    token, _ = api.new(mode="ack", mailbox=False, ttl_seconds=TTL_SECONDS)
    if token.secret is None:
        raise ClientError("the relay issued a token without a secret, which cannot be deleted")
    return token


def _check_token(api: RelayApi, token: Token, steps: "_Steps") -> None:
    body = os.urandom(BODY_BYTES)
    deliveries: SimpleQueue[Delivery] = SimpleQueue()

    def take(delivery: Delivery) -> None:
        deliveries.put(delivery)
        delivery.acknowledge()

    connection = steps.run(
        "connect",
        partial(
            Connection,
            api.server,
            token.token,
            {"body": "raw", "mode": "ack", "secret": token.secret},
            on_delivery=take,
            on_dropped=lambda event_id: None,
        ),
    )
    try:
        steps.run("call", partial(api.call, token, TAIL, body))
        steps.run("verify", partial(verify, deliveries, body))
    finally:
        threading.Thread(target=connection.close, daemon=True).start()  # which may wait for the relay


def verify(deliveries: "SimpleQueue[Delivery]", body: bytes) -> None:
    """Raise `ClientError` unless what was delivered is the call."""
    try:
        request = Request.from_event(deliveries.get_nowait().event)  # it was acknowledged: the call was answered
    except Empty:
        raise ClientError("the call was answered 200 and did not arrive") from None
    except NotHandled as error:
        raise ClientError(str(error)) from None
    arrived = {"method": request.method, "path and query": request.target, "body": request.body}
    for part, sent in {"method": "POST", "path and query": TAIL, "body": body}.items():
        if arrived[part] != sent:
            raise ClientError(f"the {part} of the call arrived changed")


class _Steps:
    """Runs the steps of a check, all of them within its timeout."""

    def __init__(self, timeout_seconds: float, report: Callable[[str, float], None]) -> None:
        self._timeout_seconds = timeout_seconds
        self._report = report
        self._last_ends_at = time.monotonic() + timeout_seconds
        self._ends_at = self._last_ends_at - timeout_seconds * DELETE_PART

    def begin_last(self) -> None:
        """Give the next step the time that was left for it."""
        self._ends_at = self._last_ends_at

    def run(self, name: str, step: Callable[[], _T]) -> _T:
        """Return what `step` returns. Raises `CheckFailed` if it raises `ClientError`, or does not end in time.

        It runs in a thread, which is left behind in that case: the timeout of a read does not bound a peer that
        sends a byte now and then.
        """
        results: list[_T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                results.append(step())
            except Exception as error:
                errors.append(error)

        started = time.monotonic()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(max(0.0, self._ends_at - started))
        for error in errors:
            raise CheckFailed(f"{name}: {error}") if isinstance(error, ClientError) else error
        if not results:
            raise CheckFailed(f"{name}: no answer within {self._timeout_seconds:g} s")
        self._report(name, time.monotonic() - started)
        return results[0]
