"""The relay without the inspector in a forwarded call: what `inspect` costs is measured against it."""

from socket2me_flask import get_services
from socket2me_flask.http.answers import Answer
from socket2me_flask.relay import relay
from socket2me_flask.relay.call import Call
from socket2me_flask.relay.delivery import Delivery
from socket2me_flask.relay.relay import Relay
from socket2me_flask.relay.replies import OK
from socket2me_flask.storage import Counts, TokenRecord
from wsgi import app as app


class Uninspected(Relay):
    """Forwards calls for a client in mode `notify`."""

    def forward(self, call: Call, record: TokenRecord) -> Answer:
        answer = self._forward(call)
        self._count(record, Counts(forwarded=1, last_request_at=call.received_at))
        return answer


def answer_of(call: Call, delivery: Delivery, timeouts: object) -> Answer:
    return OK


relay.answer_of = answer_of
get_services(app).relay.__class__ = Uninspected
