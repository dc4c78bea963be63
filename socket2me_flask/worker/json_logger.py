"""gunicorn's log as JSON: of its master, its workers, and of each request. `gunicorn_conf.py` names it.

gunicorn's master imports this: it imports no eventlet.
"""

import logging
import re
from datetime import timedelta
from typing import Any, TextIO

from gunicorn.glogging import Logger

from ..relay.tokens import tag_of
from ..telemetry.json_logs import STREAM, JSONFormatter

# The token of a target, whether or not it is one.
_token_of = re.compile(r"[^?#]*/(?:go|refresh|tokens)/([^/?#]+)").match


class JSONLogger(Logger):  # type: ignore[misc]  # gunicorn carries no types
    """gunicorn's own, with another format."""

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """Log a request that was answered."""
        if self.access_log_enabled:
            fields = {
                "method": environ["REQUEST_METHOD"],
                "target": environ["RAW_URI"],
                "status": int(str(resp.status).split(None, 1)[0]),
                "bytes": getattr(resp, "sent", None),
                "seconds": round(request_time.total_seconds(), 6),
                "remote_addr": environ.get("REMOTE_ADDR", ""),
                "user_agent": environ.get("HTTP_USER_AGENT", ""),
            }
            match = _token_of(environ["RAW_URI"])
            if match is not None:
                fields["token_hash"] = tag_of(match[1])
            self.access_log.info("request", extra={"fields": fields})

    def _set_handler(
        self, log: logging.Logger, output: str | None, fmt: logging.Formatter, stream: TextIO | None = None
    ) -> None:
        super()._set_handler(log, output, JSONFormatter(), stream or STREAM)
