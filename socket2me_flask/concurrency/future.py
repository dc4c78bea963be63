"""Something that another thread is asked to do, and what came of it."""

import threading
from collections.abc import Callable
from typing import Any


class Job:
    """What is to be done (`what`, whatever its thread takes), and what came of it.

    `then` is called when it is done, on the thread that says so.
    """

    __slots__ = ("_done", "error", "result", "then", "what")

    def __init__(self, what: Any, then: "Callable[[Job], None] | None" = None) -> None:
        self.what = what
        self.then = then
        self.result: Any = None
        self.error: Exception | None = None
        self._done = threading.Event()

    def finish(self) -> None:
        """Let go whoever waits."""
        self._done.set()
        if self.then is not None:
            self.then(self)

    def wait(self) -> Any:
        """Return the result when the job is done. Raises its error."""
        self._done.wait()
        if self.error is not None:
            raise self.error
        return self.result
