"""How often one address, and one person or program, may ask: sliding windows in this process's memory.

The address is counted before anything is read; whoever it turns out to be is counted after that. An IPv6 host
has a whole /64 to itself and counts as one. Behind a proxy the server must be told which addresses to believe
(uvicorn's ``forwarded_allow_ips``): else all callers share the proxy's.

The windows are the library `limits`: two counters a caller, so memory is bounded by callers a window.
"""

from __future__ import annotations

import ipaddress
import time
from functools import lru_cache
from math import ceil
from typing import Literal

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from medveil.service.metrics import Metrics
from wire.errors import Unavailable

PER_ADDRESS = "3000/minute"
PER_PRINCIPAL = "1200/minute"


class Rates:
    """The limits of one process. per_address, per_principal: as in ``1200/minute``; more, separated by ``;``."""

    def __init__(self, metrics: Metrics, per_address: str = PER_ADDRESS, per_principal: str = PER_PRINCIPAL) -> None:
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._items = {
            "address": [parse(part.strip()) for part in per_address.split(";")],
            "principal": [parse(part.strip()) for part in per_principal.split(";")],
        }
        self._metrics = metrics

    def address(self, host: str) -> None:
        """Count a request from an address. Raises Unavailable when it is one too many."""
        self._count("address", network(host))

    def principal(self, name: str) -> None:
        """Count a request of a person or program. Raises Unavailable when it is one too many."""
        self._count("principal", name)

    def _count(self, limit: Literal["address", "principal"], key: str) -> None:
        for item in self._items[limit]:
            if not self._windows.hit(item, limit, key):
                self._metrics.limited.labels(limit).inc()
                raise Unavailable("http.too_many_requests", retry_after=self._wait(item, limit, key))

    def _wait(self, item: RateLimitItem, limit: str, key: str) -> int:
        """Whole seconds until the window lets one through again, at least one."""
        return max(1, ceil(self._windows.get_window_stats(item, limit, key).reset_time - time.time()))


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
