"""Log lines as JSON objects, one a line: for programs that read logs.

Whatever is written to standard error becomes such a line, too: warnings, tracebacks, and what libraries print.
"""

import io
import json
import logging
import os
import sys
import threading
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any, TextIO

from ..logs import fields_of, redact, redact_id
from . import request_id

# Where lines are written, whatever `sys.stderr` is.
STREAM: TextIO = sys.__stderr__ or io.StringIO()

_TRACEBACK = "Traceback (most recent call last):"


# As it is before eventlet patches it.
_write = os.write


def _head(seconds: float, level: str, event: str, logger: str) -> dict[str, Any]:
    """Return what each line begins with."""
    at = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return {"time": at, "level": level, "event": event, "logger": logger, "process": os.getpid()}


class JSONFormatter(logging.Formatter):
    """Writes `time` (RFC 3339), `level`, `event`, `logger`; `request_id` and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = _head(record.created, record.levelname, redact(record.getMessage()), record.name)
        current = request_id.current()
        if current:
            line["request_id"] = redact_id(current)
        for name, value in fields_of(record).items():
            line.setdefault(name, redact(value) if isinstance(value, str) else value)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = redact(record.exc_text or self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = redact(record.stack_info)
        return json.dumps(line, default=str)


class _ErrorStream(io.TextIOBase):
    """Takes the place of standard error: each line is logged, and a traceback as one record."""

    def __init__(self) -> None:
        self._rest = ""
        self._traceback: list[str] = []
        self._is_logging = threading.local()

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._add(line)
        return len(text)

    def fileno(self) -> int:
        return STREAM.fileno()

    def _add(self, line: str) -> None:
        if line == _TRACEBACK or (self._traceback and line.startswith(" ")):
            self._traceback.append(line)
        elif self._traceback:
            lines, self._traceback = [*self._traceback, line], []
            self._log(line, exception="\n".join(lines))
        elif line.strip():
            self._log(line)

    def _log(self, line: str, **fields: str) -> None:
        if getattr(self._is_logging, "now", False):
            return  # logging itself failed, and would say so for ever
        self._is_logging.now = True
        try:
            logging.getLogger("stderr").error("%s", line, extra={"fields": fields})
        finally:
            self._is_logging.now = False


def capture() -> None:
    """Log warnings, exceptions that nothing handles, and what is written to standard error."""
    logging.captureWarnings(True)
    sys.excepthook = _on_exception
    threading.excepthook = lambda args: _on_exception(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )
    if not isinstance(sys.stderr, _ErrorStream):
        sys.stderr = _ErrorStream()


def dump_traceback() -> None:
    """Write where each thread is, as one line.

    A signal handler calls it, perhaps on the green thread of the hub. So it takes no lock, reads no file, and does
    nothing else that a green thread could wait for.
    """
    stacks = []
    for frame in sys._current_frames().values():
        at: FrameType | None = frame
        while at is not None:
            stacks.append(f'File "{at.f_code.co_filename}", line {at.f_lineno} in {at.f_code.co_name}')
            at = at.f_back
        stacks.append("")
    event = "this process was sent SIGABRT, as gunicorn does when it has not heard of it for its timeout"
    line = {
        **_head(time.time(), "CRITICAL", event, "socket2me"),
        "exception": redact("\n".join(stacks).rstrip()),
    }
    _write(STREAM.fileno(), f"{json.dumps(line)}\n".encode())


def _on_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, SystemExit):
        return
    logging.getLogger("socket2me").critical("an exception was not handled", exc_info=(kind, error, trace))
