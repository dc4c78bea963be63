"""The relay with defects, for `test_chaos.py`: each is one that the account of `chaos.py` must find.

`BROKEN` names them, with commas between. One after the other, each meets `TIMES` calls: one in `EVERY` of those
whose client is connected.
"""

import itertools
import logging
import os

from socket2me_flask import get_services
from socket2me_flask.relay.replies import OK
from wsgi import app

EVERY, TIMES = 3, 2

log = logging.getLogger("socket2me_flask")
relay = get_services(app).relay
forward, numbers, late = relay.forward, itertools.count(1), {}


def lose(call, record):
    """Say that a call was delivered that was not."""
    return OK


def delay(call, record):
    """Deliver a call after the next one."""
    late[call.token] = call, record
    return OK


def replace(call, record):
    """Tell a client that another has its token."""
    for token, client in relay.presence.clients()[:1]:
        relay.presence.replace_client(token, client.sid)
    return forward(call, record)


def deafen(call, record):
    """Forget a client that is connected."""
    client = relay.presence.get(call.token)
    if client is not None:
        relay.presence.detach(call.token, client)
    return forward(call, record)


def trace(call, record):
    """Log an exception."""
    try:
        raise ValueError
    except ValueError:
        log.exception("broken")
    return forward(call, record)


DEFECTS = [globals()[name] for name in os.environ["BROKEN"].split(",")]


def forward_with_defects(call, record):
    if call.token not in relay.presence:
        return forward(call, record)
    turn, rest = divmod(next(numbers), EVERY)
    if rest == 0 and turn < TIMES * len(DEFECTS):
        if turn == TIMES * len(DEFECTS) - 1:
            log.warning("each defect was met")
        return DEFECTS[turn // TIMES](call, record)
    answer = forward(call, record)
    if call.token in late:
        forward(*late.pop(call.token))
    return answer


relay.forward = forward_with_defects
