"""A store of each engine, a clock that the test turns, randomness that replays."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medveil.service.database import Database

from .running import Running, Set


class Clock:
    """Milliseconds UTC; `pass_time` in seconds."""

    def __init__(self) -> None:
        self.now = 1_760_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rand() -> Callable[[int], bytes]:
    return random.Random(5).randbytes


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/service.sqlite")
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The store on SQLite and on PostgreSQL, one after the other."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/service.sqlite"
    else:
        url = request.getfixturevalue("postgres_url")
    opened = Database.open(url)
    yield opened
    opened.close()


@pytest.fixture
def make_set(tmp_path: Path) -> Iterator[Callable[..., Set]]:
    """Make a set of parts in the test's folder."""
    made: list[Set] = []

    def make(**others: Any) -> Set:
        made.append(Set(tmp_path, **others))
        return made[-1]

    yield make
    for each in made:
        each.database.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """Run a set of parts as a service; it is stopped when the test ends."""
    running: list[Running] = []

    def started(own: Set, **others: Any) -> Running:
        running.append(Running(own, **others).__enter__())
        return running[-1]

    yield started
    for each in running:
        each.__exit__()
