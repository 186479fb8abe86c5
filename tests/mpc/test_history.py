"""mpc.history: which questions are the same, and which rosters give a site away."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest

from mpc.history import (
    Earlier,
    Forgotten,
    NearSums,
    check_forgotten,
    check_rosters,
    forgotten_beside,
    near_rosters,
    question_digest,
    same_numbers,
)
from mpc.query import Measure, Query
from privacy.local import GroupColumn
from privacy.predicate import And, Compare, Not
from wire.errors import Refused
from wire.secure_sum import apart

Make = Callable[..., Query]
HANDLE = bytes(range(16))


def _asked(query: Query) -> Earlier:
    return Earlier(HANDLE, query)


def test_a_question_is_the_same_however_it_is_written(make_query: Make) -> None:
    adult, woman = Compare("age", "ge", 18), Compare("sex", "eq", "f")
    age, visits = Measure("age", 0, 120, 1, (), (999, -1)), Measure("visits", 0, 30, 1)
    sex, region = GroupColumn("sex", ("f", "m")), GroupColumn("region", ("north", "south"))
    query = make_query(measures=(age, visits), groups=(sex, region), filter=And((adult, woman)))
    others = (
        {"filter": And((woman, Not(Not(adult))))},
        {"filter": And((woman, Not(Compare("age", "lt", 18))))},
        {"measures": (visits, age)},
        {"measures": (msgspec.structs.replace(age, missing=(-1, 999)), visits)},
        {"groups": (region, sex)},
        {"groups": (msgspec.structs.replace(sex, values=("m", "f")), region)},
    )
    for changes in others:
        assert question_digest(msgspec.structs.replace(query, **changes)) == question_digest(query)


def test_another_price_table_site_or_purpose_is_another_question(make_query: Make) -> None:
    query = make_query()
    sites = query.roster
    changes = (
        {"rho_nano": query.rho_nano + 1},
        {"datasets": (*query.datasets[:-1], "next-version")},
        {"roster": sites[:3], "datasets": query.datasets[:3]},
        {"purpose": "FRAUD"},
        {"filter": Compare("age", "ge", 18)},
        {"minimum_group": query.minimum_group + 1},
        {"colluders": query.colluders - 1},
        {"measures": (msgspec.structs.replace(query.measures[0], low=1, edges=()),)},
    )
    digests = {question_digest(msgspec.structs.replace(query, **change)) for change in changes}
    assert len(digests | {question_digest(query)}) == len(changes) + 1


def test_sets_of_sites_are_near_by_one_or_two() -> None:
    everybody = [f"hospital-{i}" for i in range(1, 7)]
    sets = [set(some) for size in range(7) for some in itertools.combinations(everybody, size)]
    for one, other in itertools.product(sets, sets):
        difference = one ^ other
        assert apart(one, other) == (tuple(sorted(difference)) if len(difference) in (1, 2) else ())


def _of(query: Query, roster: str, **changes: object) -> Query:
    sites = tuple(f"hospital-{site}" for site in roster)
    return msgspec.structs.replace(query, roster=sites, datasets=sites, **changes)


def test_a_roster_with_a_site_more_or_less_or_another_is_refused(make_query: Make) -> None:
    query = _of(make_query(), "1234")
    for roster in ("123", "12345", "1235", "123456", "12"):
        with pytest.raises(Refused) as caught:
            check_rosters(_of(query, roster), [_asked(query)])
        assert caught.value.code == "mpc.near_roster"
        assert caught.value.facts["query"] == HANDLE.hex()
        assert set(str(caught.value.facts["sites"]).split(", ")) == {
            f"hospital-{site}" for site in set(roster) ^ set("1234")
        }
        for language in ("en", "zh"):
            assert "hospital-1, hospital-2, hospital-3, hospital-4" in caught.value.text(language)
    for roster in ("1234", "1234567", "1256", "567"):
        check_rosters(_of(query, roster), [_asked(query)])


def test_of_what_a_site_forgot_the_roster_alone_decides_and_nothing_exact_is_answered(make_query: Make) -> None:
    query = _of(make_query(), "1234")
    for roster in ("123", "12345", "1235", "12"):
        near = (Forgotten(HANDLE, _of(query, roster).roster),)
        assert forgotten_beside(query, near) == near
        with pytest.raises(Refused) as caught:
            check_forgotten(query, near)
        assert (caught.value.code, caught.value.facts["query"]) == ("mpc.near_forgotten", HANDLE.hex())
        check_forgotten(query, near, rosters=False)
    exact = msgspec.structs.replace(query, exact=True)
    for roster in ("1234", "1234567", "1256", "567"):
        far = (Forgotten(HANDLE, _of(query, roster).roster),)
        assert forgotten_beside(query, far) == ()
        check_forgotten(query, far)
        assert forgotten_beside(exact, far) == far
        for rosters in (True, False):
            with pytest.raises(Refused) as caught:
                check_forgotten(exact, far, rosters)
            assert caught.value.code == "mpc.exact_forgotten"


def test_filter_groups_and_price_do_not_matter_the_measured_column_does(make_query: Make) -> None:
    query = _of(make_query(), "1234")
    near = _of(query, "123")
    rich = msgspec.structs.replace(near, rho_nano=1, groups=(), filter=Compare("age", "ge", 18), purpose="HRESCH")
    assert near_rosters(rich, [_asked(query)]) == (_asked(query),)
    narrow = msgspec.structs.replace(query.measures[0], low=1, edges=())
    assert near_rosters(msgspec.structs.replace(near, measures=(narrow,)), [_asked(query)])
    other = msgspec.structs.replace(query.measures[0], column="stays")
    assert not near_rosters(msgspec.structs.replace(near, measures=(other,)), [_asked(query)])
    assert near_rosters(msgspec.structs.replace(near, measures=(other, query.measures[0])), [_asked(query)])
    counts = msgspec.structs.replace(near, measures=())  # rows alone: everybody's counts are like them
    assert near_rosters(counts, [_asked(query)])
    assert near_rosters(query, [_asked(counts)])
    assert not same_numbers(msgspec.structs.replace(near, population="others"), query)


def test_what_near_sums_disclose_is_said_in_words() -> None:
    near = NearSums(HANDLE, 2, 3, ("hospital-4",))
    for language in ("en", "zh"):
        other, own = near.text(bytes(16), 1, language), near.text(HANDLE, 2, language)
        assert "hospital-4" in other and "hospital-4" in own
        assert HANDLE.hex() in other and HANDLE.hex() not in own
        assert other != own
