"""What is erased, what is restricted, until when and why: a pure function."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.erasure.plan import ErasurePlan, plan_erasure, still_erasable
from privacy.legal_holds import LegalHold
from wire.canonical import decode, encode
from wire.dates import NO_END

TODAY = 46_000
ME, OTHER = b"m" * 16, b"o" * 16


class Key(NamedTuple):
    key: bytes
    dataset: str
    rows: int
    retain_until: int | None


def key(number: int, until: int | None, dataset: str = "visits") -> Key:
    return Key(bytes([number]) * 16, dataset, number, until)


def hold(person: bytes = b"", dataset: str = "", since: int = 0, until: int = NO_END) -> LegalHold:
    return LegalHold("hold-1", person, dataset, "court/1", since, until)


def planned(keys: list[Key], *holds: LegalHold) -> ErasurePlan:
    return plan_erasure(b"e" * 16, "hospital-1", ME, keys, holds, TODAY)


def test_a_duty_keeps_through_its_last_day() -> None:
    plan = planned([key(1, None), key(2, TODAY - 1), key(3, TODAY), key(4, NO_END), key(5, TODAY + 1)])
    assert [one.rows for one in plan.erase] == [1, 2]
    assert [(one.rows, one.why, one.until) for one in plan.restrict] == [
        (3, ("retention",), TODAY),
        (4, ("retention",), NO_END),
        (5, ("retention",), TODAY + 1),
    ]
    assert plan.datasets == ("visits",)


@pytest.mark.parametrize(
    ("standing", "holds"),
    [
        (hold(), True),
        (hold(person=ME), True),
        (hold(person=OTHER), False),
        (hold(dataset="visits"), True),
        (hold(dataset="bills"), False),
        (hold(person=ME, dataset="bills"), False),
        (hold(since=TODAY), True),
        (hold(since=TODAY + 1), False),
        (hold(until=TODAY), True),
        (hold(until=TODAY - 1), False),
    ],
)
def test_a_hold_keeps_whom_and_what_it_names_while_it_stands(standing: LegalHold, holds: bool) -> None:
    plan = planned([key(1, None)], standing)
    assert [one.why for one in plan.restrict] == ([("hold",)] if holds else [])
    assert len(plan.erase) == (0 if holds else 1)


def test_the_later_of_duty_and_holds_counts() -> None:
    holds = (hold(until=TODAY + 5), hold(until=TODAY + 9))
    one, two = planned([key(1, TODAY + 7), key(2, TODAY + 30)], *holds).restrict
    assert (one.why, one.until) == (("retention", "hold"), TODAY + 9)
    assert (two.why, two.until) == (("retention", "hold"), TODAY + 30)


keys = st.lists(
    st.builds(
        key, st.integers(1, 255), st.none() | st.integers(TODAY - 3, TODAY + 3), st.sampled_from(["visits", "bills"])
    ),
    unique_by=lambda one: one.key,
)
holds = st.lists(
    st.builds(
        hold,
        st.sampled_from([b"", ME, OTHER]),
        st.sampled_from(["", "visits", "bills"]),
        st.integers(TODAY - 2, TODAY + 1),
        st.integers(TODAY - 1, TODAY + 2),
    ),
    max_size=4,
)


@given(keys, holds, st.randoms())
def test_every_key_is_in_one_place_whatever_the_order(
    found: list[Key], standing: list[LegalHold], random: object
) -> None:
    plan = planned(found, *standing)
    assert sorted(one.key for one in (*plan.erase, *plan.restrict)) == sorted(one.key for one in found)
    again_keys, again_holds = list(found), list(standing)
    random.shuffle(again_keys)  # type: ignore[attr-defined]
    random.shuffle(again_holds)  # type: ignore[attr-defined]
    assert planned(again_keys, *again_holds) == plan == decode(ErasurePlan, encode(plan))
    by_key = {one.key: one for one in found}
    for one in plan.erase:
        until = by_key[one.key].retain_until
        assert until is None or until < TODAY
        assert not any(
            h.person in (b"", ME) and h.dataset in ("", one.dataset) and h.since <= TODAY <= h.until for h in standing
        )
    for one in plan.restrict:
        assert one.why and one.until >= TODAY


@given(keys, holds)
def test_a_hold_that_comes_in_between_keeps(found: list[Key], standing: list[LegalHold]) -> None:
    assert still_erasable(planned(found), standing, TODAY).erase == planned(found, *standing).erase
    later = still_erasable(planned(found), standing, TODAY)
    assert {one.key for one in later.restrict} == {one.key for one in planned(found, *standing).restrict}


def test_a_plan_says_no_name() -> None:
    plan = planned([key(1, None)])
    assert msgspec.structs.replace(plan, person=OTHER) != plan and plan.person == ME
