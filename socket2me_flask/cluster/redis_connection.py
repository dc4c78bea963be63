"""One pipelined connection to Redis that reconnects by itself.

Commands that are submitted during one exchange are sent together in the next: the more there are, the less each
costs. A command that Redis does not answer in time has failed, though Redis may have carried it out. While Redis is
down, each command fails at once, and a thread reconnects with growing pauses.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from ..concurrency.future import Job
from ..errors import StoreUnavailable
from ..logs import LogInterval
from .messages import lua_table

log = logging.getLogger(__name__)

# How many commands one exchange may have.
MOST_COMMANDS = 500

# How many connections there are, at most, for what is not pipelined: rates that processes count together.
POOL_CONNECTIONS = 20

# How long to wait before the next try to connect: twice as long after each, up to the longest, give or take half,
# so that many processes do not all connect at once.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

# What must be atomic.
SCRIPT = lua_table() + files(__package__).joinpath("redis.lua").read_text()


class RedisConnection:
    """Commands to the Redis at `url`, each of which has to be answered within `timeout_seconds`.

    `verify_tls` is whether a certificate (`rediss://`) must be one that this machine trusts.
    """

    def __init__(self, url: str, *, timeout_seconds: float, verify_tls: bool = True) -> None:
        parts = urlsplit(url)
        self.address = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"  # without a password
        options: dict[str, Any] = {} if verify_tls or parts.scheme != "rediss" else {"ssl_cert_reqs": "none"}
        options["retry"] = Retry(NoBackoff(), 0)  # this class decides on the pause before the next try
        self.pool = redis.BlockingConnectionPool.from_url(
            url,
            protocol=2,
            max_connections=POOL_CONNECTIONS,
            timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            **options,
        )
        self._timeout_seconds = timeout_seconds
        self._jobs: deque[Job] = deque()
        self._is_wanted = threading.Event()
        self._is_over = threading.Event()
        self._is_closing = False
        self.is_up = True  # until the first try has failed
        self._when_up: list[Callable[[], None]] = []
        self._failed_at = 0.0
        self._refusal_lines = LogInterval()
        self._sha: bytes = b""
        self._is_started = False

    def start(self) -> None:
        """Connect. What was submitted before is sent then."""
        self._is_started = True
        threading.Thread(target=self._run, daemon=True).start()

    def submit(
        self, what: Sequence[Any] | Callable[[], Sequence[Any]], then: Callable[[Job], None] | None = None
    ) -> Job:
        """Send a command, in the order of submission. Whether to wait for its answer is up to the caller.

        `what` may be a function, which is asked for the command when it is about to be sent.
        """
        job = Job(what, then)
        if self.is_up and not self._is_closing:
            self._jobs.append(job)
            self._is_wanted.set()
            if not self.is_up:
                self._fail_waiting()  # it was lost just now
        else:
            _fail([job])
        return job

    def call(self, *command: Any) -> Any:
        """Send a command and return its answer. Raises `StoreUnavailable`."""
        return self.submit(command).wait()

    def run_script(self, name: str, *args: Any) -> Any:
        """Run a script of `redis.lua` and return its result. Raises `StoreUnavailable`."""
        return self.submit_script(name, *args).wait()

    def submit_script(self, name: str, *args: Any, then: Callable[[Job], None] | None = None) -> Job:
        """As `submit`, for a script of `redis.lua`."""
        return self.submit(lambda: ("EVALSHA", self._sha, 0, name, *args), then)

    def check(self) -> None:
        """Raise `StoreUnavailable` if Redis is known not to answer."""
        if not self.is_up:
            raise StoreUnavailable

    def when_up(self, callback: Callable[[], None]) -> None:
        """Call back each time that Redis answers again."""
        self._when_up.append(callback)

    def open(self, timeout_seconds: float) -> Any:
        """Return one more connection, which waits so long for an answer. Raises `RedisError` or `OSError`."""
        # Not `make_connection`: the pool would count it as one of its own for good.
        connection: Any = self.pool.connection_class(**self.pool.connection_kwargs)
        connection.socket_timeout = timeout_seconds
        connection.connect()
        return connection

    def pause(self, tries: int) -> None:
        """Wait before one more try to connect."""
        seconds = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(tries, 10))
        time.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311  # no secret

    def close(self) -> None:
        """Send what has been submitted, then close."""
        self._is_closing = True
        self._is_wanted.set()
        if self._is_started:
            self._is_over.wait()

    def _run(self) -> None:
        tries = 0
        while not self._is_closing:
            connection = None
            try:
                connection = self.open(self._timeout_seconds)
                connection.send_command("SCRIPT", "LOAD", SCRIPT)
                self._sha = connection.read_response()
                connection.send_command("PEXPIRE", "s2m:none", 1)  # what a replica refuses
                connection.read_response()
                self._on_up()
                tries = 0
                self._serve(connection)
            except Exception as error:
                if not isinstance(error, RedisError | OSError):
                    log.exception("the connection to Redis failed")
                self._on_down(error)
                self.pause(tries)
                tries += 1
            finally:
                if connection is not None:
                    connection.disconnect()
        self.is_up = False
        self._fail_waiting()
        self._is_over.set()

    def _serve(self, connection: Any) -> None:
        while self._jobs or not self._is_closing:
            self._is_wanted.wait()
            self._is_wanted.clear()
            time.sleep(0)  # threads that are about to submit something do so first
            while self._jobs:
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), MOST_COMMANDS))]
                self._exchange(connection, jobs)

    def _exchange(self, connection: Any, jobs: list[Job]) -> None:
        answered = 0
        try:
            commands = [job.what() if callable(job.what) else job.what for job in jobs]
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for job in jobs:
                try:
                    job.result = connection.read_response(disable_decoding=True)
                except (NoScriptError, ReadOnlyError):
                    raise  # it is another Redis than a moment ago
                except ResponseError as error:
                    if "READONLY" in str(error):
                        raise  # the same, of a script
                    job.error = StoreUnavailable()
                    self._on_refusal(error)
                answered += 1
                job.finish()
        finally:
            _fail(jobs[answered:])

    def _on_up(self) -> None:
        if not self.is_up:
            log.warning("Redis at %s answers again, after %.1f s", self.address, time.monotonic() - self._failed_at)
            self.is_up = True
            for callback in self._when_up:
                callback()

    def _on_down(self, error: Exception) -> None:
        if self.is_up:
            self._failed_at = time.monotonic()
            log.error("Redis at %s does not answer; until it does, calls are answered 503: %s", self.address, error)
        self.is_up = False
        self._fail_waiting()

    def _on_refusal(self, error: ResponseError) -> None:
        if self._refusal_lines.is_due():
            log.error("Redis refused a command: %s", error)

    def _fail_waiting(self) -> None:
        jobs, self._jobs = self._jobs, deque()
        _fail(jobs)


def _fail(jobs: Sequence[Job] | deque[Job]) -> None:
    for job in jobs:
        job.error = StoreUnavailable()
        job.finish()
