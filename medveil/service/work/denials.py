"""How often other organisations were denied of late what they began here.

Each denial is kept for years in the own trail, and as a job for a month, and costs whoever asks one message. So a
member that is denied too often waits: what it begins stays in the post, as part of its room there, and is tried again
until the first of its denials is long enough ago. What others begin goes on.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable

from wire.errors import Unavailable

MOST = 1000
"""Denials of one member within `SECONDS` after which it waits."""
SECONDS = 3600.0


class Denials:
    """Those of all members since the process began. ticks: seconds that only go forward."""

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks = ticks
        self._of: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MOST))

    def count(self, peer: str) -> bool:
        """Count one; whether it is the one after which the peer waits."""
        waited = self._wait(peer) > 0
        self._of[peer].append(self._ticks())
        return not waited and self._wait(peer) > 0

    def check(self, peer: str) -> None:
        """Raises Unavailable while the peer waits."""
        wait = self._wait(peer)
        if wait > 0:
            raise Unavailable("jobs.denied_often", retry_after=int(wait) + 1, organisation=peer, denials=MOST)

    def _wait(self, peer: str) -> float:
        times = self._of.get(peer)
        return 0.0 if times is None or len(times) < MOST else times[0] + SECONDS - self._ticks()
