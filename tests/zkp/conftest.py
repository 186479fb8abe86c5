"""Both backends, and randomness that replays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from zkp import groups
from zkp.groups import Backend


@pytest.fixture(params=groups.BACKENDS)
def either(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn."""
    return groups.backend(request.param)


@pytest.fixture
def arkworks() -> Backend:
    return groups.backend("arkworks")


@pytest.fixture
def reference() -> Backend:
    return groups.backend("reference")


@pytest.fixture
def seeded() -> Callable[[int], Callable[[int], bytes]]:
    """seeded(seed) is a `rand` that gives the same bytes in every run (SHAKE-256 of seed and counter)."""

    def make(seed: int) -> Callable[[int], bytes]:
        count = 0

        def rand(length: int) -> bytes:
            nonlocal count
            count += 1
            return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

        return rand

    return make
