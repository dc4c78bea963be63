"""Log lines as JSON objects, one a line: for programs that read logs.

Whatever is written to standard error becomes such a line, too: warnings, tracebacks, and what libraries print.
"""

import io
import json
import logging
import os
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from . import request_id
from .logs import fields_of, redact, redact_id

# Where lines are written, whatever `sys.stderr` is.
STREAM: TextIO = sys.__stderr__ or io.StringIO()

_TRACEBACK = "Traceback (most recent call last):"


class JSONFormatter(logging.Formatter):
    """Writes `time` (RFC 3339), `level`, `event`, `logger`; `request_id` and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": redact(record.getMessage()),
            "logger": record.name,
            "process": record.process,
        }
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
    """Write where each thread is, as one line. A signal handler can call it: it takes no lock."""
    stacks = ["".join(traceback.format_stack(frame)) for frame in sys._current_frames().values()]
    record = logging.LogRecord("socket2me", logging.CRITICAL, "", 0, "the process was sent SIGABRT", None, None)
    record.stack_info = "\n".join(stacks)
    os.write(STREAM.fileno(), f"{JSONFormatter().format(record)}\n".encode())


def _on_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, SystemExit):
        return
    logging.getLogger("socket2me").critical("an exception was not handled", exc_info=(kind, error, trace))
