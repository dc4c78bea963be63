"""How gunicorn serves for `socket2me serve`: as `gunicorn_conf.py` says, and with the relay's URL on stdout."""

from gunicorn.workers import SUPPORTED_WORKERS

from .eventlet_worker import EventletWorker
from .gunicorn_conf import *  # noqa: F403
from .gunicorn_conf import settings

SUPPORTED_WORKERS["eventlet"] = f"{__name__}.ServeWorker"

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # and where this machine reaches it


class ServeWorker(EventletWorker):
    """The relay's worker, which prints where the relay is. Where the log is JSON it does not: every line is."""

    def on_serving(self) -> None:
        addresses = [address for address in self.cfg.address if isinstance(address, tuple)]
        if self.age > 1 or settings.log_format == "json" or not addresses:
            return
        host, port = str(addresses[0][0]), addresses[0][1]
        host = _EVERY_INTERFACE.get(host, host)
        url = settings.public_url or (f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        key = " --api-key KEY" if settings.api_keys else ""
        print(
            f"\nThe relay is at {url}\n"
            "To give the app on port 3000 a URL, in another terminal:\n\n"
            f"  socket2me listen 3000 --server {url}{key}\n",
            flush=True,
        )
