"""The relay without the inspector in a forwarded call: what `inspect` costs is measured against it."""

from socket2me_flask import get_services
from socket2me_flask.http.answers import Answer
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

    def _answer(self, call: Call, delivery: Delivery) -> Answer:
        return OK


get_services(app).relay.__class__ = Uninspected
