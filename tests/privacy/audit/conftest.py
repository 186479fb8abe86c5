"""A trail with a clock that a test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from privacy.audit import AuditTrail, Use

USE = Use("university", "claims-1", "query", "HRESCH", "grant-1", b"q" * 32, True, "granted")


class Clock:
    """Instants in milliseconds; every reading is 10 later."""

    def __init__(self, now: int = 1_000) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 10
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reopen(tmp_path: Path, clock: Clock) -> Callable[[], AuditTrail]:
    return lambda: AuditTrail(tmp_path / "audit.sqlite", "hospital-1", clock=clock)


@pytest.fixture
def trail(reopen: Callable[[], AuditTrail]) -> Iterator[AuditTrail]:
    with reopen() as made:
        yield made


@pytest.fixture
def use() -> Use:
    return USE
