"""The relay with defects, for `test_chaos.py`: each is one that the account of `chaos.py` must find.

`BROKEN` names them, with commas between. One after the other, each meets `TIMES` calls, one in `EVERY`.
"""

import itertools
import logging
import os

from socket2me_flask import get_services
from socket2me_flask.relay.replies import OK
from wsgi import app

EVERY, TIMES = 4, 3

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
    for token, sid, _ in relay.presence.clients()[:1]:
        relay.presence.displace(token, sid)
    return forward(call, record)


def deafen(call, record):
    """Forget a client that is connected."""
    client = relay._clients.get(call.token)
    if client is not None:
        relay.presence.detach(call.token, client)
    return forward(call, record)


def trace(call, record):
    """Log an exception."""
    try:
        raise ValueError
    except ValueError:
        logging.getLogger("socket2me_flask").exception("broken")
    return forward(call, record)


DEFECTS = [globals()[name] for name in os.environ["BROKEN"].split(",")]


def forward_with_defects(call, record):
    turn, rest = divmod(next(numbers), EVERY)
    if rest == 0 and turn // TIMES < len(DEFECTS):
        return DEFECTS[turn // TIMES](call, record)
    answer = forward(call, record)
    if call.token in late:
        forward(*late.pop(call.token))
    return answer


relay.forward = forward_with_defects
