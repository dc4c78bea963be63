"""`/v1/tokens/<token>/requests` and below it: the history of a token with `inspect`, live, and sent again.

`socket2me.inspector.http` decides what is answered; here are the routes, their authorization, and replays.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from socket2me.inspector import errors as inspector_errors
from socket2me.inspector.errors import InspectorError
from socket2me.inspector.http import ROUTES, Inspector, Question, Reply
from socket2me.inspector.replay import Draft

from .. import errors
from ..concurrency.loop import Loop
from ..errors import NoHistory, RelayError
from ..http.request_body import EnvironBody
from ..limits import AtOnce, address_key, begin_one, check_rate
from ..relay.call import Call
from ..relay.forwarder import Forwarder
from ..relay.relay import Relay
from ..services import get_services
from ..telemetry import request_id
from .tokens import add_headers, find_with_secret, one_of_few

# What the errors of the inspector are to the relay.
_ERRORS: dict[type[InspectorError], type[RelayError]] = {
    inspector_errors.BadQuery: errors.BadRequest,
    inspector_errors.BadFilter: errors.BadFilter,
    inspector_errors.UnknownRequest: errors.UnknownRequest,
    inspector_errors.TooManyStreams: errors.TooManyStreams,
}

blueprint = Blueprint("inspector", __name__)
blueprint.after_request(add_headers)

# How many answers may be on their way at once, streams not counted. Each may hold the body of a call until its
# caller has read it. A browser opens six connections to a server.
MAX_ANSWERS_PER_TOKEN = 8
MAX_ANSWERS_PER_ADDRESS = 16
MAX_ANSWERS = 32

# How many replays may wait for their client at once.
MAX_REPLAYS_PER_TOKEN = 20
MAX_REPLAYS = 200

# What the relay's own worker adds to the environ, for `Loop`.
_CONNECTION = "socket2me.connection"


class Replays:
    """Sends calls of the history again, the way that any call goes. `spawn` runs something in the background."""

    def __init__(self, relay: Relay, forwarder: Forwarder, spawn: Callable[[Callable[[], None]], object]) -> None:
        self._relay = relay
        self._forwarder = forwarder
        self._spawn = spawn
        self._at_once = AtOnce()

    def send(self, token: str, draft: Draft, address: str) -> str:
        """Begin to send a call, and return its id. Raises `TooManyRequests` or `UnknownToken`."""
        record = self._relay.admit(token)
        bounds = {f"token {token}": MAX_REPLAYS_PER_TOKEN, "": MAX_REPLAYS}
        leave = begin_one(self._at_once, bounds, "MAX_REPLAYS", "Too many replays wait for their clients.")
        call = Call(
            token,
            draft.method,
            draft.path,
            draft.query,
            dict(draft.headers),
            draft.body,
            time.time(),
            remote_addr=address,
            replay_of=draft.replay_of,
            verified=None if draft.verified is None else {"provider": draft.verified},
        )
        call_id = call.id  # the call may be over when the thread has begun

        def forward() -> None:
            request_id.begin()
            call.request_id = request_id.resolve(call.id)
            try:
                with contextlib.suppress(RelayError):  # the history says what became of it
                    self._forwarder.replay(call, record)
            finally:
                leave()

        self._spawn(forward)
        return call_id


def _view(answer: Callable[[Inspector, Question], Reply], token: str, request_id: str = "") -> Response:
    record = find_with_secret(token)
    services = get_services()
    if not record.inspect:
        raise NoHistory
    environ = request.environ
    message = "The history of this token is asked for too often."
    check_rate(services.event_rate, token, "RATE_LIMIT_EVENTS", message)
    question = Question(
        token,
        request_id,
        request.args,
        request.headers.get("Last-Event-ID"),
        lambda limit: services.bodies.read(EnvironBody(environ), limit),
        f"{request.host_url}v1/go/{token}",
        request.remote_addr or "",
        lambda: services.store.get(token) is not None,
        partial(_has_left, services.sockets.engine.loop, environ),
    )

    def respond() -> Response:
        try:
            reply = answer(services.inspector, question)
        except InspectorError as error:
            raise _ERRORS[type(error)](str(error)) from None
        body = _until_hangup(reply) if answer is Inspector.stream else reply.body
        response = Response(body, reply.status, reply.headers)
        response.call_on_close(reply.close)
        return response

    if answer is Inspector.stream:
        return respond()
    bounds = {
        f"history {token}": MAX_ANSWERS_PER_TOKEN,
        f"histories {address_key(request.remote_addr or '')}": MAX_ANSWERS_PER_ADDRESS,
        "histories": MAX_ANSWERS,
    }
    return one_of_few(bounds, "MAX_ANSWERS", "Too many answers of the inspector are not read yet.", respond)


def _until_hangup(reply: Reply) -> Iterator[bytes]:
    """Return the pieces of a stream, which ends when its peer leaves, where the server reports that at once."""
    loop, environ = get_services().sockets.engine.loop, request.environ

    def pieces() -> Iterator[bytes]:
        with loop.on_hangup(environ, reply.close) if _CONNECTION in environ else contextlib.nullcontext():
            yield from reply.body

    return pieces()


def _has_left(loop: Loop, environ: dict[str, Any]) -> bool:
    """Say whether the peer of a request is known to have closed its connection."""
    try:
        if "werkzeug.socket" in environ:
            return not environ["werkzeug.socket"].recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return _CONNECTION in environ and loop.has_hung_up(environ)
    except BlockingIOError:
        return False
    except OSError:
        return True


for _method, _path, _answer in ROUTES:
    _rule = _path.replace("<request_id>", "<request_id:request_id>")
    blueprint.add_url_rule(_rule, _answer.__name__, partial(_view, _answer), methods=[_method])
