"""nginx with examples/nginx.conf, on other ports and paths."""

import os
import pwd
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from socket2me_flask.relay.call import process_of
from tests.support.delivery import Acknowledging
from tests.support.redis_server import Redis
from tests.support.servers import ROOT, Server, free_port, wait_until

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIGURATION = (ROOT / "examples" / "nginx.conf").read_text()


class Nginx(Server):
    """nginx in front of `relays`, and so what clients and callers see of them. Its log is all that it wrote."""

    def __init__(self, folder: Path, redis: Redis, relays: Sequence[Server]) -> None:
        self.redis = redis
        self.relays = relays
        self.folder = folder
        port = free_port()
        modules = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        replacements = {
            "user www-data;": f"user {pwd.getpwuid(os.getuid()).pw_name};",
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/": f"{folder}/",
            "http {": "http {" + "".join(f"\n    {name}_temp_path {folder}/{name};" for name in modules),
            "listen 80 ": f"listen 127.0.0.1:{port} ",
            "shutdown_timeout 60s": "shutdown_timeout 1s",
        }
        for shipped, relay in zip((8001, 8002, 8003), relays, strict=True):
            replacements[f"127.0.0.1:{shipped} "] = f"127.0.0.1:{relay.port} "
        self._configuration = CONFIGURATION
        for old, new in replacements.items():
            self.configure(old, new)
        super().__init__(str(folder / "nginx.conf"), port)
        for relay in relays:
            relay.giveaways = self.giveaways

    @staticmethod
    def command(runner, port):
        return [NGINX, "-c", runner, "-g", "daemon off;"], {}

    def configure(self, old: str, new: str) -> None:
        assert old in self._configuration
        self._configuration = self._configuration.replace(old, new)
        (self.folder / "nginx.conf").write_text(self._configuration)

    def reload(self) -> None:
        """Read the configuration again. Returns when the workers with the old one have gone."""
        old = self._workers()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not old & self._workers(), "nginx has other workers")

    def _workers(self) -> set[str]:
        master = self.process.pid
        return set(Path(f"/proc/{master}/task/{master}/children").read_text().split())

    def learn_names(self) -> None:
        """Learn what the relays call themselves: it is in the id of each event."""
        token = self.new()
        with Acknowledging(self, token) as client:
            for relay in self.relays:
                assert relay.go(token).text == "OK"
                relay.name = process_of(client.event()[1]["id"])

    def relay_named(self, name: str) -> Server:
        return next(relay for relay in self.relays if relay.name == name)

    def relay_with_client_of(self, token: str) -> Server | None:
        name = self.redis.client.hget(f"s2m:token:{token}", "process")
        return self.relay_named(name.decode()) if name else None

    def stop(self, sig: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, sig)
            self.process.wait(timeout=10)
        for log in self.folder.glob("*.log"):
            self._log += log.read_text().splitlines(keepends=True)
        return super().stop(sig)
