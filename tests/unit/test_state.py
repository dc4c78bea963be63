"""The states of an Engine.IO session: the table, and that a session is never in a state that it does not have."""

from itertools import product

import pytest

from socket2me_flask.engineio.protocol import BadPacket, Packet
from socket2me_flask.engineio.state import (
    CLOSED,
    CLOSING,
    DRAINING,
    LINGERING,
    OPENING,
    POLLING,
    PROBING,
    STATES,
    TRANSITIONS,
    UPGRADING,
    WEBSOCKET,
    Event,
    IllegalTransition,
    transition,
)
from socket2me_flask.engineio.upgrade import Upgrade
from socket2me_flask.engineio.websocket import CloseCode, Opcode
from tests.support.engines import make_engine, opened

EVENT = Packet(b"4x")

LEGAL = {
    (OPENING, Event.OPENED_BY_POLLING): POLLING,
    (OPENING, Event.OPENED_BY_WEBSOCKET): WEBSOCKET,
    (OPENING, Event.ENDED): CLOSED,
    (POLLING, Event.UPGRADE_STARTED): PROBING,
    (POLLING, Event.CLOSED_GENTLY): DRAINING,
    (POLLING, Event.ENDED): CLOSED,
    (PROBING, Event.UPGRADE_PROBED): UPGRADING,
    (PROBING, Event.UPGRADE_FAILED): POLLING,
    (UPGRADING, Event.UPGRADE_FINISHED): WEBSOCKET,
    (UPGRADING, Event.UPGRADE_FAILED): POLLING,
    (UPGRADING, Event.CLOSED_GENTLY): CLOSING,
    (CLOSING, Event.UPGRADE_FINISHED): LINGERING,
    (CLOSING, Event.UPGRADE_FAILED): DRAINING,
    (WEBSOCKET, Event.CLOSED_GENTLY): LINGERING,
    (WEBSOCKET, Event.ENDED): CLOSED,
    (DRAINING, Event.ENDED): CLOSED,
    (LINGERING, Event.ENDED): CLOSED,
}


@pytest.mark.parametrize(("state", "happened"), list(product(STATES, Event)), ids=lambda part: part.name)
def test_every_transition_is_in_the_table_or_illegal(state, happened):
    """Seventeen are legal; each of the others raises."""
    if (state, happened) in LEGAL:
        assert transition(state, happened) is LEGAL[state, happened]
    else:
        with pytest.raises(IllegalTransition, match=f"{happened.name} cannot happen in {state.name}"):
            transition(state, happened)


def test_every_state_leads_to_the_end():
    """From each state CLOSED can be reached, and from CLOSED nothing."""
    for state in STATES:
        reached, seen = {state}, set()
        while reached - seen:
            seen |= reached
            reached |= {later for earlier in seen for later in TRANSITIONS[earlier].values()}
        assert CLOSED in reached
    assert not TRANSITIONS[CLOSED]


@pytest.fixture
def engine():
    return make_engine()


class Connection:
    """A WebSocket of which only the end matters."""

    def __init__(self, owner):
        self.owner = owner
        self.unsent_bytes = 0
        self.is_open = True
        self.written = b""

    def is_owned_by(self, owner):
        return self.owner is owner

    def transfer_to(self, owner):
        self.owner = owner

    def write(self, data):
        self.written += data

    def pause_reading(self, paused):
        pass

    def drain(self):
        """Read all that was written, as a client that was slow."""
        self.unsent_bytes = 0
        self.owner.on_drained()

    def close(self, code, last=b""):
        self.written += last

    def abort(self, reason=""):
        if self.is_open:
            self.is_open = False
            self.owner.on_closed(reason)


def in_state(engine, state):
    """Return a session that came to a state by the calls that lead there, and its upgrade."""
    session = opened(engine)
    upgrade = Upgrade(session, Connection)
    if state in (PROBING, UPGRADING, WEBSOCKET, CLOSING, LINGERING):
        session.upgrade_started(upgrade.connection)
    if state in (UPGRADING, WEBSOCKET, CLOSING, LINGERING):
        upgrade.on_message(Opcode.TEXT, b"2probe")
    if state in (WEBSOCKET, LINGERING):
        upgrade.on_message(Opcode.TEXT, b"5")
    if state in (CLOSING, DRAINING, LINGERING):
        session.close("the test closes it")
    if state is CLOSED:
        session.abort()
    assert session.state is state
    return session, upgrade


REACHED = [state for state in STATES if state is not OPENING]


@pytest.mark.parametrize("state", REACHED, ids=lambda state: state.name)
@pytest.mark.parametrize("how", ["abort", "close", "closing", "gone"])
def test_however_a_session_ends_it_is_counted_once_and_not_for_ever(engine, state, how):
    """Its end may come several times, and from any state: by the relay, by a bad frame, by its connection."""
    session, _ = in_state(engine, state)
    for _ in range(2):
        if how == "abort":
            session.abort()
        elif how == "close":
            session.close("the relay closes it", CloseCode.GOING_AWAY)
        elif session.outbox.connection is not None:
            session.on_closing("a bad frame") if how == "closing" else session.outbox.connection.abort()
        assert session.state is not state or state in (
            POLLING,
            PROBING,
            UPGRADING,
            CLOSING,
            DRAINING,
            LINGERING,
            CLOSED,
        )
    session.abort()
    assert session.state is CLOSED
    while engine.dispatcher.run_next():
        pass
    assert engine.admission.sessions == 0
    assert not engine.admission.by_address
    assert engine.sessions == {}
    assert session.upgrade is None
    assert not any(len(timer) for timer in (*engine.heartbeats.timers, *engine.deadlines.timers))


@pytest.mark.parametrize("state", [PROBING, UPGRADING], ids=lambda state: state.name)
def test_a_failed_upgrade_leaves_the_session_with_its_polls(engine, state):
    """Whatever was queued meanwhile goes with the next poll, and the next upgrade may be tried."""
    session, upgrade = in_state(engine, state)
    session.send([EVENT])
    upgrade.connection.abort("reset")
    assert session.state is POLLING
    assert session.take_for_poll() == [EVENT]
    session.upgrade_started(Upgrade(session, Connection).connection)


@pytest.mark.parametrize("state", [state for state in REACHED if state is not POLLING], ids=lambda s: s.name)
def test_a_second_upgrade_is_refused(engine, state):
    """While one is tried, after one succeeded, and after the end."""
    session, _ = in_state(engine, state)
    with pytest.raises(IllegalTransition):
        session.upgrade_started(Upgrade(session, Connection).connection)
    assert session.state is state


@pytest.mark.parametrize(
    ("state", "packet"),
    [(PROBING, b"5"), (UPGRADING, b"2probe"), (PROBING, b"4x"), (UPGRADING, b"3probe"), (PROBING, b"")],
)
def test_a_step_of_an_upgrade_out_of_its_turn_is_refused(engine, state, packet):
    """An upgrade packet without a probe, a second probe, and what is none of both."""
    session, upgrade = in_state(engine, state)
    with pytest.raises(BadPacket):
        upgrade.on_message(Opcode.TEXT, packet)
    assert session.state is state


def test_polls_bring_nothing_while_a_websocket_takes_over(engine):
    """What is queued meanwhile goes over the WebSocket, in order."""
    session, upgrade = in_state(engine, UPGRADING)
    session.send([EVENT])
    session.flush()
    assert session.take_for_poll() == []
    upgrade.on_message(Opcode.TEXT, b"5")
    assert upgrade.connection.written.endswith(EVENT.data)


def test_an_ending_session_ends_its_upgrade(engine):
    """The WebSocket that is being tried is an open file."""
    session, upgrade = in_state(engine, PROBING)
    session.close("the relay closes it")
    assert session.state is DRAINING
    assert not upgrade.connection.is_open


def test_a_session_that_ends_while_a_websocket_takes_over_ends_over_the_websocket(engine):
    """Its client polls no more; after its upgrade packet it gets what is queued, and the close frame."""
    session, upgrade = in_state(engine, UPGRADING)
    session.send([EVENT])
    session.close("the relay closes it")
    assert session.state is CLOSING
    assert upgrade.connection.is_open
    assert session.take_for_poll() == []
    upgrade.on_message(Opcode.TEXT, b"5")
    assert session.state is LINGERING
    assert upgrade.connection.written.endswith(EVENT.data)


def test_a_session_that_ends_while_a_websocket_takes_over_and_fails_ends_over_polls(engine):
    """What is queued is for the next poll."""
    session, upgrade = in_state(engine, UPGRADING)
    session.send([EVENT])
    session.close("the relay closes it")
    upgrade.connection.abort("reset")
    assert session.state is DRAINING
    assert session.take_for_poll() == [EVENT]


def test_a_pong_counts_when_its_ping_was_written(engine):
    """Not while the ping waits behind what the client does not read; however often a client says it is there."""
    session, upgrade = in_state(engine, WEBSOCKET)
    connection = upgrade.connection
    engine.heartbeats.ping(session)
    session.receive(Packet(b"3"))
    assert not session.is_pong_due
    connection.unsent_bytes = 1_000_000
    engine.heartbeats.ping(session)  # waits in the outbox
    session.receive(Packet(b"3"))
    assert session.is_pong_due
    connection.owner.on_drained()
    connection.unsent_bytes = 1  # the ping itself
    session.receive(Packet(b"3"))
    assert session.is_pong_due
    connection.drain()
    session.receive(Packet(b"3"))
    assert not session.is_pong_due


def test_a_pong_over_polls_counts_when_its_ping_was_polled(engine):
    """The same for the other transport, and in between."""
    session, upgrade = in_state(engine, POLLING)
    engine.heartbeats.ping(session)
    session.receive(Packet(b"3"))
    assert session.is_pong_due
    assert session.take_for_poll() == [Packet(b"2")]
    session.receive(Packet(b"3"))
    assert not session.is_pong_due
    engine.heartbeats.ping(session)
    session.upgrade_started(upgrade.connection)
    session.upgrade_probed()
    session.receive(Packet(b"3"))
    assert session.is_pong_due
    session.upgrade_finished(upgrade.connection)
    session.receive(Packet(b"3"))
    assert not session.is_pong_due


def test_a_client_has_time_while_it_reads(engine, monkeypatch):
    """Each piece that it reads gives it time anew; when nothing waits for it, it has no deadline."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    session, upgrade = in_state(engine, WEBSOCKET)
    upgrade.connection.unsent_bytes = 10
    session.on_progress()
    now[0] += 1
    assert engine.deadlines.reads.oldest(1, seconds=1) == [session]
    session.on_progress()
    assert engine.deadlines.reads.oldest(1, seconds=1) == []
    assert len(engine.deadlines.reads) == 1
    upgrade.connection.drain()
    assert len(engine.deadlines.reads) == 0
