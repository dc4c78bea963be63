"""The log: one format for the relay and gunicorn, and no line that gives a token or a secret away."""

import logging
import re
import sys

from .tokens import SECRET, TOKEN

_GIVEAWAY = re.compile(rf"{SECRET}|{TOKEN}")


class Redact(logging.Filter):
    """Puts `<token>` where a record says one, whoever wrote it: a malformed request line, an access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record's text; keep every record."""
        message = record.getMessage()
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, ()
        if record.exc_info:
            record.exc_text = redact(_FORMATTER.formatException(record.exc_info))
        return True


class QuietPeers(logging.Filter):
    """Drops gunicorn's traceback for a caller that did not read its answer in time: a peer's doing, no fault."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to keep a record."""
        return not (record.exc_info and isinstance(record.exc_info[1], TimeoutError))


def redact(text: str) -> str:
    """Return `text` without tokens and secrets."""
    return _GIVEAWAY.sub("<token>", text)


def configure(level: str) -> None:
    """Log what the relay and its libraries have to say to standard error, as gunicorn does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTER)
    handler.addFilter(Redact())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)


_FORMATTER = logging.Formatter("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", "%Y-%m-%d %H:%M:%S %z")
