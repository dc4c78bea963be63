"""Engine.IO: packets, sessions and their bounds, without a server."""

import threading

import pytest

from socket2me_flask.engineio import EngineFull, OutboxFull, SessionClosed, protocol
from socket2me_flask.engineio.dispatcher import WORK_PACKETS
from socket2me_flask.engineio.inbox import INBOX_PACKETS
from socket2me_flask.engineio.outbox import CONTROL_BYTES, FAIR_BYTES, POLL_BYTES, POLL_PACKETS
from socket2me_flask.engineio.protocol import PAYLOAD_PACKETS, BadPacket, Packet
from socket2me_flask.engineio.protocol3 import Codec as Codec3
from socket2me_flask.engineio.state import CLOSED, POLLING
from tests.support.engines import make_engine, opened


@pytest.fixture
def engine():
    return make_engine()


@pytest.fixture
def session(engine):
    return opened(engine)


def event(size=10):
    return Packet(b"4" + b"x" * (size - 1))


def test_a_payload_there_and_back():
    """Engine.IO 4: packets are separated by 0x1e, bytes are base64 behind a `b`."""
    packets = [Packet("4grüße".encode()), Packet(bytes(range(256)), binary=True), Packet(b"3")]
    content_type, payload = protocol.encode_payload(packets)
    assert content_type == "text/plain; charset=UTF-8"
    assert payload.startswith("4grüße\x1eb".encode())
    assert protocol.decode_payload(payload) == packets


@pytest.mark.parametrize("body", [b"", b"4a\x1e", b"b*", b"b="])
def test_what_is_no_payload(body):
    """Each part is a packet, or all of it is refused."""
    with pytest.raises(BadPacket):
        protocol.decode_payload(body)


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (protocol.decode_payload, lambda number: b"\x1e".join([b"4x"] * number)),
        (Codec3(base64=True).decode_payload, lambda number: b"2:4x" * number),
        (Codec3(base64=True).decode_payload, lambda number: b"2:4x" * (number - 1) + "2:4ü".encode()),
        (Codec3(base64=False).decode_payload, lambda number: b"\0\2\xff4x" * number),
    ],
)
def test_a_payload_has_a_bound_in_packets(decode, payload):
    """None is dropped: all of them are taken, or the payload is refused."""
    assert len(decode(payload(PAYLOAD_PACKETS))) == PAYLOAD_PACKETS
    with pytest.raises(BadPacket, match="more than 500 packets"):
        decode(payload(PAYLOAD_PACKETS + 1))


def handle_all(engine):
    """Do the work of all inboxes. On a busy machine, one takes several turns."""
    while engine.dispatcher.run_next():
        pass


def test_what_was_not_handled_is_dropped_when_the_session_ends(session, engine):
    """What was received and not handled is dropped at once, however much it is, but for acknowledgements."""
    received = []
    engine.handlers["message"] = lambda sid, data: received.append(data)
    engine.handlers["disconnect"] = lambda sid, reason: received.append("the end")
    for _ in range(WORK_PACKETS * 3):
        session.receive(Packet(b"4x"))
    engine.dispatcher.run_next()
    handled = len(received)
    assert 0 < handled <= WORK_PACKETS
    session.abort()
    assert len(session.inbox.packets) == 1
    session.receive(Packet(b"4late"))
    handle_all(engine)
    assert received[handled:] == ["the end"]


class Wire:
    """What a session needs of a connection. Writing ends the session once it `is_broken`."""

    unsent_bytes = 0

    def __init__(self, session):
        self.session, self.written, self.is_broken = session, b"", False

    def write(self, data):
        if self.is_broken:
            self.session.abort()
        else:
            self.written += data

    def abort(self):
        pass

    def pause_reading(self, paused):
        pass

    def close(self, code, last=b""):
        self.written += last


def test_whether_an_event_was_sent_is_known_after_the_end(engine):
    """By its number: what was written or polled before was, what waited or was written in vain was not."""
    for end in ("abort", "on_closing", "close", "write"):
        session = opened(engine, end, connect=Wire)
        first = session.send([event()])
        session.flush()
        second = session.send([event(), event()])
        if end == "write":
            session.outbox.connection.is_broken = True
            with pytest.raises(SessionClosed):
                session.flush()
        elif end == "on_closing":
            session.on_closing("the client closed")
        else:
            getattr(session, end)("the end")
        assert not session.outbox.has_lost(first)
        assert session.outbox.has_lost(second) is (end != "close")
    session = opened(engine)
    numbers = [session.send([event()]) for _ in range(POLL_PACKETS + 1)]
    session.take_for_poll()
    session.abort()
    assert [session.outbox.has_lost(number) for number in numbers] == [False] * POLL_PACKETS + [True]


def test_acknowledgements_that_came_before_the_end_are_handled(session, engine):
    """In order, with their attachments, and then the end. A session counts until then."""
    received = []
    engine.handlers["message"] = lambda sid, data: received.append(data)
    engine.handlers["disconnect"] = lambda sid, reason: received.append("the end")
    first = Packet(b"its attachment", binary=True)  # of an acknowledgement that was handled before
    ack = [Packet(b'461-/t,2[{"_placeholder":true,"num":0}]'), Packet(b"bytes", binary=True)]
    event = [Packet(b"451-/t,[{}]"), Packet(b"of an event", binary=True)]
    for packet in (first, Packet(b"40/t,"), Packet(b"43/t,1[]"), *event, *ack, Packet(b"41/t,")):
        session.receive(packet)
    session.receive(Packet(b"1"))
    session.receive(Packet(b"43/t,3[]"))
    assert engine.admission.sessions == 1
    handle_all(engine)
    assert not engine.dispatcher.run_next()
    assert received == [b"its attachment", "3/t,1[]", '61-/t,2[{"_placeholder":true,"num":0}]', b"bytes", "the end"]
    assert engine.admission.sessions == 0


@pytest.mark.parametrize("ends_before", [True, False])
def test_nothing_is_handled_after_a_message_that_cannot_be_read(session, engine, ends_before):
    """Whether the session has ended already or ends by it."""
    received = []

    def fail(sid, data):
        received.append(data)
        raise ValueError

    engine.handlers["message"] = fail
    engine.handlers["disconnect"] = lambda sid, reason: received.append("the end")
    for _ in range(3):
        session.receive(Packet(b"43/t,x"))
    if ends_before:
        session.abort()
    handle_all(engine)
    session.abort()
    assert received == ["3/t,x", "the end"]
    assert (engine.dispatcher.run_next(), engine.admission.sessions) == (False, 0)


def test_a_session_is_counted_no_more_although_its_end_was_not_handled(session, engine, caplog):
    """The application fails at it: that is logged, and the place of the session is free again."""
    engine.handlers["disconnect"] = lambda sid, reason: 1 / 0
    session.abort()
    handle_all(engine)
    assert "ZeroDivisionError" in caplog.text
    assert engine.admission.sessions == 0


class EndedMeanwhile:
    """A lock that another thread had, which has ended the session and let its end be handled."""

    def __init__(self, session, engine):
        self.session, self.engine, self.lock = session, engine, session.lock

    def __enter__(self):
        if self.session.state is not CLOSED:
            self.session.lock = self.lock
            self.session.abort()
            handle_all(self.engine)

    def __exit__(self, *exc_info):
        pass


def test_a_packet_that_comes_with_the_end_begins_no_other_inbox(session, engine):
    """A session that another thread ends meanwhile is counted no more once, and not twice."""
    engine.admission.admit(session.address)
    session.lock = EndedMeanwhile(session, engine)
    session.receive(Packet(b"4x"))
    handle_all(engine)
    assert (session.state, session.inbox, engine.admission.sessions) == (CLOSED, None, 1)


def waiting_poster(session):
    """Fill the inbox of a session, and return a thread that waits for space in it."""
    for _ in range(INBOX_PACKETS):
        session.receive(Packet(b"4x"))
    poster = threading.Thread(target=session.inbox.wait_for_space, args=(60,))
    poster.start()
    while session.inbox.space is None:
        pass
    return poster


def test_a_post_is_answered_when_there_is_space_in_the_inbox(session, engine):
    """A client that polls sends the next POST then, so its inbox has a bound: of one payload more than is said."""
    engine.handlers["message"] = lambda sid, data: None
    poster = waiting_poster(session)
    while len(session.inbox.packets) > INBOX_PACKETS // 2:
        assert session.inbox.space is not None
        engine.dispatcher.run_next()
    poster.join(10)
    assert not poster.is_alive()


def test_the_end_of_its_session_ends_a_post_that_waits(session):
    """It does not wait for anything any more."""
    poster = waiting_poster(session)
    session.abort()
    poster.join(10)
    assert not poster.is_alive()


def test_frames_are_text_or_binary():
    """One frame a packet."""
    assert protocol.encode_frames([Packet(b"4a"), Packet(b"\x00", binary=True)]) == b"\x81\x024a\x82\x01\x00"


def test_a_poll_gets_what_pythons_client_takes(session, engine):
    """At most 16 packets: python-engineio's client refuses longer payloads whole."""
    for number in range(40):
        session.send([Packet(b"4%d" % number)])
    taken = []
    while packets := session.take_for_poll():
        assert len(packets) <= POLL_PACKETS == 16
        taken += packets
    assert [packet.data for packet in taken] == [b"4%d" % number for number in range(40)]
    assert engine.queued.used == 0


def test_a_poll_is_cut_by_size_and_gets_at_least_one_packet(session):
    """Large events come one by one, however large."""
    for size in (10, POLL_BYTES, POLL_BYTES + 1, 10, 10):
        session.send([event(size)])
    sizes = []
    while packets := session.take_for_poll():
        sizes.append([len(packet.data) for packet in packets])
    assert sizes == [[10], [POLL_BYTES], [POLL_BYTES + 1], [10, 10]]


def test_an_outbox_has_a_bound_in_packets(session):
    """The event that does not fit is not queued, the others are."""
    for _ in range(100):
        session.send([event()])
    with pytest.raises(OutboxFull):
        session.send([event()])
    assert len(session.outbox.packets) == 100


def test_an_outbox_has_a_bound_in_bytes(session):
    """Attachments count."""
    session.send([event(5_000_000)])
    with pytest.raises(OutboxFull):
        session.send([event(10), Packet(b"x" * 5_000_001, binary=True)])
    session.send([event(5_000_000)])


def test_the_outboxes_of_an_address_have_a_share(session, engine):
    """It is half of all, if no other address has any: another address has room, and small packets have."""
    neighbour, other = opened(engine, "n"), opened(engine, "o", "127.0.0.2")
    session.send([event(7_000_000)])
    with pytest.raises(EngineFull):
        neighbour.send([event(1_100_000)])
    neighbour.send([event(FAIR_BYTES)])
    other.send([event(3_000_000)])
    session.take_for_poll()
    neighbour.send([event(1_000_000)])
    for each in (session, neighbour, other):
        each.abort()
    assert engine.queued.used == 0


def test_all_outboxes_have_a_bound_together(engine):
    """Beyond it, who is slow gets no more; who keeps up gets little. What is read counts no more."""
    session, other, third = (opened(engine, str(number), f"127.0.0.{number}") for number in (1, 2, 3))
    session.send([event(7_000_000)])
    other.send([event(4_000_000)])
    with pytest.raises(OutboxFull):
        other.send([event(1_000_000)])
    with pytest.raises(EngineFull):
        third.send([event(4_000_001)])
    third.send([event(FAIR_BYTES - 10)])
    third.send([event(10)])
    session.take_for_poll()
    assert engine.queued.used == 4_000_000 + FAIR_BYTES
    other.send([event(2_000_000)])
    other.abort()
    third.abort()
    assert engine.queued.used == 0


def test_a_client_that_reads_nothing_at_all_is_cut_off(session):
    """What the relay itself has to say may exceed the bound, but not for ever."""
    session.send([event(10_000_000)])
    for _ in range(CONTROL_BYTES // 10):
        session.send_control(event(10))
    assert session.state is POLLING
    session.send_control(event(10))
    assert session.state is CLOSED


def test_a_closed_session_takes_nothing(session, engine):
    """`send` and `flush` raise `SessionClosed`: nothing is lost silently. What the protocols demand is dropped."""
    session.abort()
    with pytest.raises(SessionClosed):
        session.send([event()])
    for flush in (session.flush, session.flush_soon):
        with pytest.raises(SessionClosed):
            flush()
    session.send_control(event())
    assert engine.queued.used == 0
    assert engine.sessions == {}


def test_messages_and_the_end_are_handled_in_order(session, engine):
    """A message is never handled after the end of its session was, nor two at a time."""
    received = []
    engine.handlers["message"] = lambda sid, data: received.append(data)
    engine.handlers["disconnect"] = lambda sid, reason: received.append("the end")
    session.receive(Packet(b"4one"))
    session.receive(Packet(b"\x00", binary=True))
    handle_all(engine)
    assert not engine.dispatcher.run_next()
    session.receive(Packet(b"4late"))
    session.abort()
    handle_all(engine)
    assert received == ["one", b"\x00", "the end"]


def test_a_message_at_which_the_application_fails_ends_the_session(session, engine):
    """A peer's fault is no traceback and no session that looks alive."""

    def fail(sid, data):
        raise KeyError(data)

    engine.handlers["message"] = fail
    session.receive(Packet(b"4?"))
    handle_all(engine)
    assert not session.state.is_open


@pytest.mark.parametrize("packet", [b"0{}", b"2", b"2probe", b"5", b"6", b"7", b"x"])
def test_packets_that_a_client_does_not_send(session, packet):
    """Open, ping, upgrade and noop are not a client's to send here."""
    with pytest.raises(BadPacket):
        session.receive(Packet(packet))


def test_one_client_cannot_keep_the_worker_to_itself(session, engine):
    """After some packets it is the others' turn."""
    received = []
    engine.handlers["message"] = lambda sid, data: received.append(data)
    for _ in range(120):
        session.receive(Packet(b"4x"))
    turns = 0
    while engine.dispatcher.run_next():
        turns += 1
    assert len(received) == 120
    assert turns >= 3  # each of which has a bound in time, too
