"""A clock that is set forward, back, and right again: no signed call passes twice, and nobody is kept out for long."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from medveil.service.accounts.signed_request import LONGEST_S
from medveil.service.accounts.used_nonces import nonces, use_up
from medveil.service.database import Database
from wire.errors import VerificationError

KEY = bytes(range(32))
HOUR, DAY = 3600, 86_400
NOW = 1_760_000_000


class Store:
    """Takes signatures that end a minute after they are made, as the verifier does: each only before it has ended."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.used: list[tuple[str, int]] = []

    def take(self, now: int) -> str:
        """A fresh call by a clock that shows what the gateway's does. Returns "" or the code."""
        nonce = f"nonce-{len(self.used):010}"
        self.used.append((nonce, now + 60))
        return self.repeat(now, *self.used[-1])

    def repeat(self, now: int, nonce: str, expires: int) -> str:
        """The same call again. Returns "" where it is carried out."""
        if expires <= now or expires > now + 2 * LONGEST_S:
            return "the verifier refuses its times"
        try:
            use_up(self.database, KEY, nonce, now=now, expires=expires)
        except VerificationError as error:
            return error.code
        return ""

    def replayed(self, now: int) -> list[str]:
        """Whatever was used up before, sent again: what passes."""
        return [nonce for nonce, expires in self.used if not self.repeat(now, nonce, expires)]

    def rows(self) -> int:
        with self.database.reading() as connection:
            return len(connection.execute(sa.select(nonces)).all())


@pytest.fixture
def store(either: Database) -> Store:
    return Store(either)


@pytest.mark.parametrize("ahead", [700, HOUR, 5 * HOUR, 400 * DAY])
@pytest.mark.parametrize("stood", [0, 300, HOUR])
def test_a_clock_set_forward_and_back(store: Store, ahead: int, stood: int) -> None:
    for second in range(0, 600, 60):
        assert store.take(NOW + second) == ""
    now = NOW + 600
    for second in range(0, stood + 1, 60):  # programs on the same machine, or nobody: their signatures are not in time
        assert store.take(now + ahead + second) == ""
    now += stood
    assert store.replayed(now) == []
    for second in range(0, 2 * HOUR, 60):  # right again
        assert store.take(now + second) == ""
        if second % 600 == 0:
            assert store.replayed(now + second) == []


def test_where_the_clock_had_stood_for_long_calls_are_refused_for_as_long_less_an_hour(store: Store) -> None:
    assert store.take(NOW) == ""
    there = NOW + 10 * DAY
    for second in range(0, 3 * HOUR, 60):
        assert store.take(there + second) == ""
    assert all(store.take(NOW + second) == "" for second in range(HOUR, 9 * DAY, HOUR))
    refused = [second for second in range(0, 4 * HOUR, 60) if store.take(there + second) == "signatures.time_gone"]
    assert 2 * HOUR - LONGEST_S <= len(refused) * 60 <= 2 * HOUR + 60 and refused[-1] < 2 * HOUR
    assert store.replayed(there + 60) == [] and store.replayed(there + 3 * HOUR - 30) == []


def test_a_clock_that_stands_behind(store: Store) -> None:
    """By less than an hour nobody notices; by more, signed calls wait until it is right. Nothing passes twice."""
    for second in range(0, 5 * HOUR, 60):
        assert store.take(NOW + second) == ""
    last = NOW + 5 * HOUR
    assert store.take(last - HOUR + 120) == ""
    assert store.take(last - 2 * HOUR) == "signatures.time_gone"
    for back in range(0, 5 * HOUR, 60):
        assert store.replayed(last - back) == []
    assert store.take(last + 60) == ""


def test_the_store_stays_small(database: Database) -> None:
    """An hour of nonces, and a few spans, whatever the gaps are in between."""
    store = Store(database)
    for day in range(200):
        assert store.take(NOW + day * DAY) == store.take(NOW + day * DAY + 1) == ""
    assert store.rows() <= 64 + 4
    assert store.take(NOW + 100 * DAY) == "signatures.time_gone"
    assert store.take(NOW) == "signatures.time_gone"
    assert store.take(NOW + 200 * DAY) == ""


@settings(max_examples=30, deadline=None)
@given(
    moves=st.lists(
        st.one_of(st.integers(1, 2 * HOUR), st.sampled_from([-40 * DAY, -DAY, -HOUR, DAY, 40 * DAY, -5, -600])),
        max_size=60,
    )
)
def test_no_wandering_of_the_clock_lets_a_call_pass_twice(
    tmp_path_factory: pytest.TempPathFactory, moves: list[int]
) -> None:
    database = Database.open(f"sqlite:///{tmp_path_factory.mktemp('clock')}/service.sqlite")
    try:
        store, now, taken = Store(database), NOW, set()
        for move in moves:
            now += move
            if store.take(now) == "":
                taken.add(store.used[-1][0])
            again = set(store.replayed(now))
            assert not taken & again
            taken |= again  # what was refused when it was fresh may pass once, too
    finally:
        database.close()
