"""How gunicorn serves for `socket2me serve`: as `gunicorn_conf.py` says, and with the relay's URL on stdout."""

from typing import Any

from . import gunicorn_conf
from .gunicorn_conf import *  # noqa: F403

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # and where this machine reaches it


def when_ready(server: Any) -> None:  # type: ignore[no-redef]  # it replaces that one
    """Print the relay's URL, and the command that connects an app to it. A log of JSON has no other lines."""
    gunicorn_conf.when_ready(server)
    settings = gunicorn_conf.settings
    for address in server.cfg.address:
        if settings.log_format == "json" or not isinstance(address, tuple):
            continue
        host, port = str(address[0]), address[1]
        host = _EVERY_INTERFACE.get(host, host)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        url = settings.public_url or url
        key = " --api-key KEY" if settings.api_keys else ""
        print(
            f"\nThe relay is at {url}\n"
            "To give the app on port 3000 a URL, in another terminal:\n\n"
            f"  socket2me listen 3000 --server {url}{key}\n",
            flush=True,
        )
        return
