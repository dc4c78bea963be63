"""A future for work on another thread."""

import threading
from collections.abc import Callable
from typing import Any


class Job:
    """Work for another thread, and its result or error.

    `what` describes the work, in the form that the thread expects. `then` is called when it is done, on the thread
    that calls `finish`.
    """

    __slots__ = ("_done", "error", "result", "then", "what")

    def __init__(self, what: Any, then: "Callable[[Job], None] | None" = None) -> None:
        self.what = what
        self.then = then
        self.result: Any = None
        self.error: Exception | None = None
        self._done = threading.Event()

    def finish(self) -> None:
        """End the wait for the job."""
        self._done.set()
        if self.then is not None:
            self.then(self)

    def wait(self) -> Any:
        """Return the result when the job is done. Raises its error."""
        self._done.wait()
        if self.error is not None:
            raise self.error
        return self.result
