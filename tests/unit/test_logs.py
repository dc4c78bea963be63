"""The log: what is written too often is left out, and what else than the log writes becomes records of it."""

import logging
import sys
import threading

import pytest

from socket2me_flask import logs
from socket2me_flask.logs import FLOOD_SECONDS, MAX_SAME_RECORDS, Flood
from socket2me_flask.telemetry import json_logs


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def kept(now):
    """What a handler with the filter has kept, and the logger."""

    class SavedToken(logging.Handler):
        def emit(self, record):
            self.texts.append(record.getMessage())

    handler, logger = SavedToken(), logging.Logger("test")
    handler.texts = []
    handler.addFilter(Flood(lambda: now[0]))
    logger.addHandler(handler)
    return handler.texts, logger


def test_the_same_text_is_kept_some_times(kept, now):
    """Whatever its arguments are. The first record that is kept again says how many were left out."""
    texts, logger = kept
    for number in range(MAX_SAME_RECORDS + 7):
        logger.warning("a peer sent %d", number)
    assert texts == [f"a peer sent {number}" for number in range(MAX_SAME_RECORDS)]
    now[0] += FLOOD_SECONDS
    logger.warning("a peer sent %s", "more")
    logger.warning("a peer sent %s", "more")
    assert texts[MAX_SAME_RECORDS:] == [
        "a peer sent more (before this, 7 records were left out)",
        "a peer sent more",
    ]


def test_other_texts_are_kept(kept):
    """A flood of one does not hide another."""
    texts, logger = kept
    for _ in range(MAX_SAME_RECORDS + 1):
        logger.info("this")
    logger.error("that")
    assert texts[MAX_SAME_RECORDS:] == ["that (before this, 1 records were left out)"]


def test_texts_that_are_made_up_count_as_one(kept, monkeypatch):
    """So neither the log nor the table of counts has no end."""
    monkeypatch.setattr(logs, "MAX_COUNTED_TEXTS", 3)
    texts, logger = kept
    for number in range(1000):
        logger.info(f"text {number}")
    assert len(texts) == 3 + MAX_SAME_RECORDS


def test_debug_records_are_all_kept(kept):
    """At this level all are logged."""
    texts, logger = kept
    for _ in range(MAX_SAME_RECORDS + 7):
        logger.debug("this")
    assert len(texts) == MAX_SAME_RECORDS + 7


def test_arguments_that_do_not_fit_are_shown_with_the_text(kept):
    """A library's mistake in logging ends no request, and gives no token away."""
    texts, logger = kept
    logger.handlers[0].addFilter(logs.Redact())
    logger.warning("%d bytes", "abcdefghijklmnopqrstuvwx")
    assert texts == ["%d bytes ('<token>',)"]


def capture(monkeypatch):
    """Have standard error and exceptions that nothing handles logged, until the test ends."""
    for module, name in ((sys, "stderr"), (sys, "excepthook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    json_logs.capture()
    logging.captureWarnings(False)


def test_a_traceback_on_standard_error_is_one_record(monkeypatch, caplog):
    """However it is written; each other line is one of its own, and an empty one none."""
    capture(monkeypatch)
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: no'
    for piece in (trace[:20], trace[20:60], trace[60:], "\n\nnext\n"):
        sys.stderr.write(piece)
    first, second = caplog.records
    assert (first.name, first.getMessage(), first.fields) == ("stderr", "ValueError: no", {"exception": trace})
    assert (second.getMessage(), second.fields) == ("next", {})


def test_a_log_that_fails_says_so_once(monkeypatch, caplog):
    """What it writes to standard error for that is not logged in its turn."""
    capture(monkeypatch)

    class Broken(logging.Handler):
        def emit(self, record):
            sys.stderr.write("the log is broken\n")

    handler = Broken()
    logging.getLogger("stderr").addHandler(handler)
    try:
        sys.stderr.write("a line\n")
    finally:
        logging.getLogger("stderr").removeHandler(handler)
    assert [record.getMessage() for record in caplog.records] == ["a line"]


def test_what_nothing_handles_is_logged(monkeypatch, caplog):
    """With its traceback, from the main thread and from others; the end of a thread or process is no fault."""
    capture(monkeypatch)

    def fail(error):
        raise error

    for error in (ValueError("no"), SystemExit(1)):
        thread = threading.Thread(target=fail, args=[error])
        thread.start()
        thread.join()
        sys.excepthook(type(error), error, None)
    assert [(record.levelname, record.exc_info[0]) for record in caplog.records] == [("CRITICAL", ValueError)] * 2
