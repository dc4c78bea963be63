"""An engine in this process, for tests of its sessions without a server."""

from socket2me_flask.engineio import Engine, Limits, Session
from socket2me_flask.http.answers import ErrorAnswers
from socket2me_flask.http.origins import Origins


class IdleEngine(Engine):
    """An engine whose work the test does: `dispatcher.run_next()`. No thread does it, and no timer runs."""

    def start_background_task(self, target, *args, **kwargs):
        pass


def make_engine(**limits):
    """Return an engine with the limits of these tests, but for those that are given."""
    defaults = {
        "sessions": 10,
        "sessions_per_address": 0,
        "message_bytes": 1000,
        "outbox_packets": 100,
        "outbox_bytes": 10_000_000,
        "total_outbox_bytes": 15_000_000,
        "ping_interval_seconds": 25,
        "ping_timeout_seconds": 20,
        "send_timeout_seconds": 30,
        "join_timeout_seconds": 10,
        "body_timeout_seconds": 10,
        "reading_bytes": 1000,
    }
    engine = IdleEngine(Limits(**defaults | limits), ErrorAnswers(5), Origins(None), async_mode="threading")
    engine.on("disconnect", lambda sid, reason: None)
    return engine


def opened(engine, session_id="s", address="127.0.0.1", connect=lambda session: None):
    """Return a session that polls, or whose connection is what `connect` returns."""
    engine.admission.admit(address)
    session = Session(engine, session_id, address)
    engine.sessions[session_id] = session
    session.open(connect(session))
    return session
