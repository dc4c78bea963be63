"""How long something takes: counts of durations by size. Knows no metrics system, and takes no lock.

Counters of the relay are plain integers of the objects that count. `prometheus.py` reads them all when it is asked.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

# The upper bounds of the buckets, in seconds. Most calls take less than a millisecond, and the longest as long as
# the timeouts of the delivery modes.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """Counts durations. `total_seconds` is the sum of all."""

    __slots__ = ("_counts", "total_seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)  # the last one is of those beyond all bounds
        self.total_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self.total_seconds += seconds

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Yield each upper bound, as text, and how many took no longer. The last bound is `+Inf`."""
        yield from zip([*map(str, SECONDS), "+Inf"], accumulate(self._counts), strict=True)
