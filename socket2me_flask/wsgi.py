"""The application for WSGI servers. Importing this builds it, or ends the process with a line that says why not."""

import sys

import click
from flask.cli import run_command
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

from . import create_app, get_services
from .errors import ConfigError
from .telemetry import log_setup

# To gunicorn, 3 says that it is no use to start a worker again; to the reloader of `flask run --debug`, that it is.
STATUS = 1 if is_running_from_reloader() else 3


def is_about_to_serve() -> bool:
    """Return whether `flask run` imports this to serve it. With a reloader, only its child process serves."""
    context = click.get_current_context(silent=True)
    if context is None or context.command is not run_command:
        return False
    reload = context.params.get("reload")
    return is_running_from_reloader() or not (get_debug_flag() if reload is None else reload)


log_setup.configure_at_start()
try:
    app = create_app()
    settings = get_services(app).settings
    log_setup.configure(settings.log_level, settings.log_format)
    if is_about_to_serve():
        get_services(app).lifecycle.start()
except ConfigError as error:
    print(f"socket2me: {error}", file=sys.stderr)
    sys.exit(STATUS)
