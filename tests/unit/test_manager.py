"""The register that takes the place of python-socketio's, and what it counts on in python-socketio."""

import inspect

import pytest
import socketio

from socket2me_flask.sockets.manager import ClientManager, NamespaceClient


@pytest.fixture
def accepted():
    return []


@pytest.fixture
def register(accepted):
    return served(ClientManager(NamespaceClient, accepted.append))


def served(register):
    """Give a register its python-socketio server, whose packets are kept in `sent`."""
    server = socketio.Server(client_manager=register, namespaces="*", async_mode="threading", monitor_clients=False)
    register.sent = []
    server._send_packet = lambda transport_id, packet: register.sent.append(packet.encode())
    return register


def test_a_client_from_connect_to_disconnect(register, accepted):
    """Each step changes what the register says, and the last leaves nothing."""
    sid = register.pre_connect("t", "/a")
    assert not register.is_connected(sid, "/a")
    assert register.sid_from_eio_sid("t", "/a") == sid
    register.connect(sid, "/a")
    assert accepted == [register[sid]]
    assert register.is_connected(sid, "/a")
    assert register.eio_sid_from_sid(sid, "/a") == "t"
    assert list(register.get_participants("/a", sid)) == [(sid, "t")]
    assert register.pre_disconnect(sid, "/a") == "t"
    assert not register.is_connected(sid, "/a")
    register.disconnect(sid, "/a")
    assert register.get_namespaces() == []
    assert register.on_transport("t") == ()


def test_a_transport_joins_a_namespace_once(register):
    """A second CONNECT to the same namespace over one connection is refused."""
    assert register.pre_connect("t", "/a")
    assert register.pre_connect("t", "/a") is None
    assert register.pre_connect("t", "/b")
    assert register.pre_connect("u", "/a")
    assert [member.namespace for member in register.on_transport("t")] == ["/a", "/b"]


def test_what_is_left_of_a_transport_can_be_dropped(register):
    """A connect that was never accepted stays nowhere."""
    register.pre_connect("t", "/a")
    register.forget("t")
    assert register.get_namespaces() == []
    assert register.on_transport("t") == ()


def test_python_socketio_accepts_after_it_answered():
    """`connect` is called after the handler agreed and CONNECT was sent: before that no client may be attached."""
    order = []
    register = served(ClientManager(NamespaceClient, lambda member: order.append(("accepted", len(register.sent)))))
    server = register.server
    server.on("connect", lambda namespace, sid, environ, auth: order.append("handler"), namespace="*")
    server.environ["t"] = {}
    server._handle_eio_message("t", "0/a,")
    assert order == ["handler", ("accepted", 1)]
    assert register.sent[0].startswith("0/a,")


def test_python_socketio_calls_nothing_that_the_register_lacks():
    """Every method that python-socketio's server calls on its manager is one that this register defines."""
    source = inspect.getsource(socketio.Server) + inspect.getsource(socketio.base_server.BaseServer)
    import re

    called = set(re.findall(r"self\.manager\.(\w+)\(", source))
    ours = {name for name in vars(ClientManager) if not name.startswith("__")}
    inherited = {
        "emit",  # by get_participants
        "set_server",
        "initialize",
        "trigger_callback",
        # Rooms: nobody here asks for any.
        "enter_room",
        "leave_room",
        "close_room",
        "get_rooms",
    }
    assert called <= ours | inherited
