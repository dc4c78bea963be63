"""How the log is set up: lines of text as gunicorn writes them, or of JSON."""

import json
import logging
import os
import re
import sys
from typing import Any

from ..logs import Flood, Redact, fields_of, redact_id
from . import json_logs, request_id

# As gunicorn has it.
_LINE = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"


def configure_at_start() -> bool:
    """Log JSON if the environment says so, also that settings are not accepted. Return whether it says so."""
    is_json = os.environ.get("SOCKET2ME_LOG_FORMAT", "").strip().lower() == "json"
    if is_json:
        configure("INFO", "json")
    return is_json


def configure(level: str, log_format: str) -> None:
    """Log what the relay and its libraries have to say to standard error, as gunicorn does: `text` or `json`."""
    if log_format == "json":
        handler = logging.StreamHandler(json_logs.STREAM)
        handler.setFormatter(json_logs.JSONFormatter())
        json_logs.capture()
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_TextFormatter(_LINE, "%Y-%m-%d %H:%M:%S %z"))
    handler.addFilter(Flood())
    handler.addFilter(Redact())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)


class _TextFormatter(logging.Formatter):
    """Writes a line as gunicorn does, then the fields, and the id of the request if it belongs to one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        fields = dict(fields_of(record))
        current = request_id.current()
        if current:
            fields["request_id"] = redact_id(current)
        return "".join([super().formatMessage(record), *[f" {name}={_shown(fields[name])}" for name in fields]])


def _shown(value: Any) -> str:
    text = redact_id(str(value))
    return text if _is_plain(text) else json.dumps(text)


_is_plain = re.compile(r"[\w.:/<>-]*", re.ASCII).fullmatch
