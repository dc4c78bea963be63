"""Work that waits for something in between, written once for a thread that waits and for one that must not.

It is a generator: it yields what it needs, is sent that or has the error thrown in, and returns its result.
"""

from collections.abc import Callable, Generator
from typing import TypeVar

Needed = TypeVar("Needed")
Sent = TypeVar("Sent")
Result = TypeVar("Result")


def run(steps: Generator[Needed, Sent, Result], provide: Callable[[Needed], Sent]) -> Result:
    """Run steps to their end and return their result. `provide` returns what they need, or raises an error."""
    try:
        needed = next(steps)
        while True:
            try:
                sent = provide(needed)
            except BaseException as error:
                needed = steps.throw(error)
            else:
                needed = steps.send(sent)
    except StopIteration as end:
        result: Result = end.value
        return result
