"""The sequencer's clock, watched: time that ran ahead by mistake must not get into a block.

The time of blocks never goes back, and replicas refuse one too far ahead of their own clocks: a single block with
an hour too much would stop the ledger for that hour, however soon the clock is right again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ledger.replicas import FUTURE
from wire.errors import Unavailable

JUMP = FUTURE // 2
"""How far a clock may be set ahead while the engine is open, in ms."""


def steady() -> int:
    """Milliseconds that nobody sets: since the machine was started, its sleep included where the system counts it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    return time.monotonic_ns() // 1_000_000


class WatchedClock:
    """`clock` (ms UTC), as long as it goes with `against` (ms, from anywhere), and a clock that nobody sets.

    A clock that was set back and forth again is right; so is one that gains a little at a time.
    """

    def __init__(self, clock: Callable[[], int], against: Callable[[], int]) -> None:
        self._clock, self._against = clock, against
        self._ahead = clock() - against()  # the most that was believed

    def __call__(self) -> int:
        """The time. Raises Unavailable if it has jumped ahead by more than `JUMP` since it was believed last."""
        now = self._clock()
        ahead = now - self._against()
        if ahead > self._ahead + JUMP:
            raise Unavailable("ledger.clock_jumped", retry_after=60, seconds=(ahead - self._ahead) // 1000)
        self._ahead = max(self._ahead, ahead)
        return now
