"""How often one address, and one person or program, may ask: sliding windows in this process's memory.

The address is counted before anything is read; whoever it turns out to be is counted after that. An IPv6 host
has a whole /64 to itself and counts as one. Behind a proxy the server must be told which addresses to believe
(uvicorn's ``forwarded_allow_ips``): else all callers share the proxy's.

A window slides by two counters: of the present one, and of the one before, weighed by how much of it still counts.
Memory is bounded by the callers of two windows. This is our own, since the library for it (limits) takes a lock and
starts a thread for what is a few additions: a tenth of a small answer's time.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable
from functools import lru_cache
from math import ceil
from typing import Literal

from medveil.service.metrics import Metrics
from wire.errors import Unavailable

PER_ADDRESS = "3000/minute"
PER_PRINCIPAL = "1200/minute"

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


class Window:
    """A limit on each key. most: in any `seconds`. Used in one thread."""

    def __init__(self, most: int, seconds: int, ticks: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._ticks = ticks
        self._number = 0
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def hit(self, key: str) -> float:
        """Count one and return 0; or, where it is one too many, count nothing and return seconds to wait."""
        number, passed = divmod(self._ticks(), self._seconds)
        if number != self._number:
            self._before = self._now if number == self._number + 1 else {}
            self._now, self._number = {}, int(number)
        now, before = self._now.get(key, 0), self._before.get(key, 0)
        left = 1 - passed / self._seconds
        if now + before * left + 1 <= self._most:
            self._now[key] = now + 1
            return 0.0
        if before and now < self._most:  # until enough of the window before has slid out
            return float(self._seconds * (left - (self._most - 1 - now) / before))
        return float(self._seconds - passed + self._seconds * (1 - (self._most - 1) / now))


class Rates:
    """The limits of one process. per_address, per_principal: as in ``1200/minute``; more, separated by ``;``."""

    def __init__(self, metrics: Metrics, per_address: str = PER_ADDRESS, per_principal: str = PER_PRINCIPAL) -> None:
        self._windows = {"address": _windows(per_address), "principal": _windows(per_principal)}
        self._metrics = metrics

    def address(self, host: str) -> None:
        """Count a request from an address. Raises Unavailable when it is one too many."""
        self._count("address", network(host))

    def principal(self, name: str) -> None:
        """Count a request of a person or program. Raises Unavailable when it is one too many."""
        self._count("principal", name)

    def _count(self, limit: Literal["address", "principal"], key: str) -> None:
        for window in self._windows[limit]:
            wait = window.hit(key)
            if wait:
                self._metrics.limited.labels(limit).inc()
                raise Unavailable("http.too_many_requests", retry_after=max(1, ceil(wait)))


def _windows(text: str) -> list[Window]:
    """Raises ValueError for what is no rate."""
    found = []
    for part in text.split(";"):
        read = re.fullmatch(r"([1-9][0-9]{0,11})/(second|minute|hour|day)", part.strip())
        if read is None:
            raise ValueError(f"{part.strip()!r} is no rate, such as 1200/minute")
        found.append(Window(int(read[1]), _SECONDS[read[2]]))
    return found


@lru_cache(maxsize=4096)
def network(host: str) -> str:
    """Whom an address stands for: itself, or its /64; \"?\" for what is no address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "?"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
