"""Which requests take long: one thread watches all of them, and sleeps while there are none."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from ..request import Request


class SlowRequests:
    """Calls `report` once with each request that is watched for longer than `seconds`, and with `seconds`.

    Several threads may watch requests at once.
    """

    def __init__(self, seconds: float, report: Callable[[Request, float], object]) -> None:
        self._seconds = seconds
        self._report = report
        self._due: dict[_Watch, float] = {}  # by `time.monotonic()`; the first is due first
        self._any = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watching(self, request: Request) -> AbstractContextManager[None]:
        """Watch a request within a context."""
        if self._thread is None:
            self._start()
        return _Watch(self, request)

    def begin(self, watch: "_Watch") -> None:
        """Watch a request from now on."""
        self._due[watch] = time.monotonic() + self._seconds
        if not self._any.is_set():
            self._any.set()

    def end(self, watch: "_Watch") -> None:
        """Watch it no more."""
        self._due.pop(watch, None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._any.wait():
            self._any.clear()
            while self._due:
                try:
                    watch, due = next(iter(self._due.items()))
                except (StopIteration, RuntimeError):  # it changed meanwhile
                    continue
                seconds = due - time.monotonic()
                if seconds > 0:
                    time.sleep(seconds)
                elif self._due.pop(watch, None) is not None:
                    self._report(watch.request, self._seconds)


class _Watch(AbstractContextManager[None]):
    """A request while it is watched."""

    __slots__ = ("_requests", "request")

    def __init__(self, requests: SlowRequests, request: Request) -> None:
        self._requests = requests
        self.request = request

    def __enter__(self) -> None:
        self._requests.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._requests.end(self)
