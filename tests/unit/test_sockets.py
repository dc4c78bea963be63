"""Accepting and refusing clients, in this process. Round trips are in `tests/live`."""

from types import SimpleNamespace

import pytest

from socket2me_flask import get_services
from socket2me_flask.errors import TooManyIncomplete, TooManyListeners
from socket2me_flask.http.answers import ErrorAnswers
from socket2me_flask.limits import Pool
from socket2me_flask.relay.replies import TOO_LARGE
from socket2me_flask.relay.tokens import new_token
from socket2me_flask.sockets.acknowledgements import Acknowledgements


@pytest.fixture
def connect(app, http):
    """Connect to a namespace; return the test client and what the relay answered in case of a refusal."""
    socketio = get_services(app).sockets.socketio

    def connect(namespace, auth=None):
        client = socketio.test_client(app, namespace=namespace, auth=auth)
        return client

    return connect


@pytest.fixture
def token(http):
    return http.get("/v1/new").text


def test_a_live_token_is_accepted(connect, token):
    """Its client is connected to the namespace of the token."""
    assert connect(f"/{token}").is_connected(f"/{token}")


def test_an_expired_token_is_refused(connect, token, clock):
    """Refused on time, whether or not the reaper has been there."""
    clock.now += 86_400
    assert not connect(f"/{token}").is_connected(f"/{token}")


@pytest.mark.parametrize("namespace", ["/" + "a" * 24, "/x", "/v1", "//", "/*"])
def test_what_was_never_issued_is_refused(connect, namespace):
    """No namespace but those of live tokens."""
    assert not connect(namespace).is_connected(namespace)


def test_the_root_is_accepted_and_attaches_no_client(connect, app):
    """`/` is there for clients that join it first."""
    assert connect("/").is_connected("/")
    assert get_services(app).relay.presence.clients() == []


@pytest.mark.parametrize("auth", [None, {}, {"body": "raw"}, {"body": "parsed"}])
def test_known_auth_is_accepted(connect, token, auth):
    """`auth` may be missing, empty or known."""
    assert connect(f"/{token}", auth).is_connected(f"/{token}")


@pytest.mark.parametrize(
    "auth",
    [
        {"body": "RAW"},
        {"body": None},
        {"body": ["raw"]},
        {"Body": "raw"},
        {"mode": "sometimes"},
        {"mode": 1},
        {"window": 0},
        {"window": 101},
        {"window": "1"},
        {"window": True},
        "raw",
        [1],
    ],
)
def test_unknown_auth_is_refused(connect, token, auth):
    """Never a silent default."""
    assert not connect(f"/{token}", auth).is_connected(f"/{token}")


def test_an_error_inside_the_handler_refuses(connect, token, app, caplog):
    """A fault of ours is logged, and the client is refused: it does not hang."""

    def fail(_):
        raise TypeError("our own fault")

    get_services(app).store.get = fail
    assert not connect(f"/{token}").is_connected(f"/{token}")
    assert "our own fault" in caplog.text


@pytest.mark.parametrize("error", [TooManyListeners, TypeError])
def test_a_client_that_cannot_be_attached_is_disconnected(connect, token, app, monkeypatch, caplog, error):
    """It was accepted before. Others came meanwhile, or it is a fault of ours, which is logged."""

    def fail(*_):
        raise error("not attached")

    monkeypatch.setattr(get_services(app).relay.presence, "attach", fail)
    assert not connect(f"/{token}").is_connected(f"/{token}")
    assert ("not attached" in caplog.text) == (error is TypeError)
    assert app.extensions["socketio"].server.manager.get_namespaces() == []


def test_a_connect_of_a_session_that_has_ended_is_passed_over(token, app):
    """It was received before the end and is handled after it: no client is attached, and nothing is raised."""
    services = get_services(app)
    services.sockets.engine.handlers["message"]("a session that has ended", f"0/{token},")
    assert services.relay.presence.clients() == []


def test_a_disconnect_detaches_and_leaves_nothing(connect, token, app):
    """What was kept for a client goes with it."""
    client = connect(f"/{token}")
    services = get_services(app)
    assert token in services.relay.presence
    client.disconnect(f"/{token}")
    assert services.relay.presence.clients() == []
    register = app.extensions["socketio"].server.manager
    assert register.get_namespaces() == []
    assert register.on_transport(client.eio_sid) == ()


def test_a_refused_client_leaves_nothing(connect, token, app):
    """A refusal keeps nothing either."""
    connect(f"/{token}", {"body": "x"})
    connect(f"/{new_token()}")
    services = get_services(app)
    assert app.extensions["socketio"].server.manager.get_namespaces() == []
    assert services.relay.presence.clients() == []


def test_a_query_of_the_handshake_has_a_bound(http):
    """Engine.IO has few parameters; a peer that sends many is refused before they are looked at."""
    query = "/socket.io/?EIO=4&transport=polling"
    assert http.get(query + "&a=1" * 18).status_code == 200
    answer = http.get(query + "&a=1" * 19)
    assert answer.status_code == 400
    assert "Too many query parameters" in answer.text


class Acknowledging:
    """A client that is to acknowledge 1, and its acknowledgements, for all of which `held` is the room."""

    def __init__(self, held=100):
        self.pool, self.acknowledged = Pool(held), []
        client = SimpleNamespace(namespace="/ns", address="192.0.2.1")
        client.awaits = lambda ack_id: ack_id == 1
        client.acknowledge = lambda ack_id, args: self.acknowledged.append((ack_id, args))
        register = SimpleNamespace(on_transport=lambda transport_id: (client,))
        self.acks = Acknowledgements(register, self.pool, ErrorAnswers(5))


TWO_ATTACHMENTS = '62-/ns,1[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'


def test_what_is_held_of_acknowledgements_that_miss_attachments_has_a_bound():
    """Beyond it, what is held of this one is dropped, and nothing is left of it."""
    asked = Acknowledging(held=1000)
    asked.acks.on_ack("t", TWO_ATTACHMENTS)
    assert asked.pool.used == len(TWO_ATTACHMENTS)
    with pytest.raises(TooManyIncomplete):
        asked.acks.on_attachment("t", bytes(1000))
    assert asked.pool.used == 0
    with pytest.raises(TooManyIncomplete):
        Acknowledging(held=10).acks.on_ack("t", TWO_ATTACHMENTS)


def test_an_acknowledgement_that_is_too_large_is_that_to_its_caller():
    """In its text or in an attachment; whatever else is too large ends the session."""
    asked = Acknowledging()
    asked.acks.on_cut_message("t", "3/ns,1[")
    asked.acks.on_ack("t", TWO_ATTACHMENTS)
    asked.acks.on_cut_message("t", b"cut")
    assert asked.acknowledged == [(1, [TOO_LARGE])] * 2
    assert asked.pool.used == 0
    asked.acks.on_cut_message("t", "3/ns,2[")  # is not awaited
    with pytest.raises(ValueError, match="too large"):
        asked.acks.on_cut_message("t", '2/ns,["event",')
    assert len(asked.acknowledged) == 2


def test_an_acknowledgement_without_an_id_is_passed_over():
    """Socket.IO's own parsers do not send one."""
    asked = Acknowledging()
    asked.acks.on_ack("t", "3/ns,[1]")
    asked.acks.on_ack("t", "3")
    assert asked.acknowledged == []
