"""zkp.policy: rows say one thing, tables leave no choice, the right row is found."""

from __future__ import annotations

from datetime import date
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import canonical
from wire.dates import NO_END, birth_days, day_of
from wire.errors import DecodeError, Refused
from zkp.policy import AGES, Case, Diagnoses, Row, check_in_force, check_table, encoded, find, row_id

DAY = day_of(date(2026, 5, 20))
ROW = Row(
    "resident-inpatient", 3, "bureau-fund", 1, True, 2026, day_of(date(2026, 1, 1)), day_of(date(2026, 12, 31)),
    "", "390", "", "310000", "", "21", "3", *AGES, 2, 3, True, None, "CNY",
    (1000, 1000, 900, 800, 0, 0, 500, 1000), False, 30_000, 500_000, 2_000_000, (700, 800, 900), False,
)  # fmt: skip
CASE = Case(DAY, "bureau-fund", 1, "a", "390", "1101", "310000", "1", day_of(date(1980, 5, 20)), "21", "3", 1)


def row(**changes: Any) -> Row:
    return msgspec.structs.replace(ROW, **changes)


def case(**changes: Any) -> Case:
    return Case(**{**vars(CASE), **changes})


def test_an_id_covers_every_field() -> None:
    others: dict[str, Any] = {
        "counts_visit": False, "statutory": False,
        "remainder": True, "half_up": True, "diagnoses": Diagnoses("filed", "chronic"),
        "weights": (999, *ROW.weights[1:]), "rates": (700, 800, 901), "deductible": 29_999, "youngest": 1,
        "oldest": 149, "currency": "EUR", "policy": "other", "payer": "other", "last_day": ROW.last_day - 1,
        "first_day": ROW.first_day + 1,
    }  # fmt: skip
    assert row_id(row(deductible=None)) != row_id(ROW)
    for name in Row.__struct_fields__:
        value = getattr(ROW, name)
        if name in others:
            changed = row(**{name: others[name]})
        else:
            changed = row(**{name: value + 1 if isinstance(value, int) else value[1:] + "9"})
        assert row_id(changed) != row_id(ROW), name
    assert canonical.decode(Row, encoded(ROW)) == ROW


@pytest.mark.parametrize(
    "changes",
    [
        {"first_day": ROW.last_day + 1},
        {"youngest": 60, "oldest": 59},
        {"visit": 4},
        {"visit": 0},  # a claim that counts is the first visit at least
        {"band_1": 2_000_001},
        {"weights": (0,) * 8},
        {"rates": (0, 0, 0)},
    ],
)
def test_a_row_that_contradicts_itself(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        row_id(row(**changes))
    assert caught.value.code == "policy.bad_row"
    assert caught.value.facts["field"] in ("last_day", "oldest", "visit", "band_2", "weights", "rates")
    with pytest.raises(DecodeError):
        check_table([ROW, row(layer=2, **changes)])


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": (1001, *ROW.weights[1:])},
        {"rates": (700, 800, 1001)},
        {"weights": (2**70, *ROW.weights[1:])},
        {"band_2": 2**40},
        {"deductible": -1},
        {"region": "310000000"},
        {"region": "31\x0000"},
        {"layer": 0},
        {"year": 1899},
        {"last_visit": 256},
        {"diagnoses": Diagnoses("maybe", "chronic")},
    ],
)
def test_numbers_out_of_range_get_no_id(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        row_id(row(**changes))


def test_what_a_row_discloses() -> None:
    assert ROW.person_keys == {"insutype": "390", "region": "310000"}
    assert ROW.encounter_keys == {"med_type": "21", "level": "3"}
    assert ROW.visits_added == 1 and row(counts_visit=False).visits_added == 0
    assert ROW.any_visit_from is None and row(visit=3).any_visit_from == 3
    assert row(visit=0, last_visit=0).any_visit_from == 0
    assert ROW.births(DAY) is None
    assert row(youngest=60).births(DAY) == birth_days(60, 150, DAY)
    with pytest.raises(Refused) as caught:
        row(youngest=140).births(day_of(date(2026, 1, 1)))
    assert caught.value.code == "policy.nobody_of_that_age"


@pytest.mark.parametrize("day", [ROW.first_day - 1, ROW.last_day + 1, NO_END])
def test_in_force(day: int) -> None:
    check_in_force(ROW, ROW.first_day)
    check_in_force(ROW, ROW.last_day)
    with pytest.raises(Refused) as caught:
        check_in_force(ROW, day)
    assert caught.value.code == "policy.not_in_force"
    with pytest.raises(Refused) as caught:
        check_in_force(row(first_day=0, last_day=NO_END), day)
    assert caught.value.code == "policy.other_year"


# ----------------------------------------------------------------------------------------------- tables


def visits() -> list[Row]:
    return [row(visit=number, deductible=30_000 - 10_000 * number) for number in (1, 2, 3)]


def test_a_table_without_choice() -> None:
    table = [
        *visits(),
        *(msgspec.structs.replace(one, region="320000") for one in visits()),
        *(msgspec.structs.replace(one, med_type="11", last_visit=3) for one in visits()),
        *(msgspec.structs.replace(one, layer=2) for one in visits()),
        row(payer="insurer-a", layer=10, statutory=False),
        row(payer="insurer-b", layer=10, statutory=False),
    ]
    check_table(table)
    assert find(table, CASE) == table[1]
    assert find(table, case(region="320000", visits=0)) == table[3]
    assert find(table, case(visits=40)) == table[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"region": ""},
        {"scheme": "b"},
        {"first_day": DAY},
        {"youngest": 18},
        {"deductible": 0},
        {"policy": "another", "version": 9},
        {"visit": 3, "last_visit": 4},
        {"visit": 1, "counts_visit": False},
        {"diagnoses": Diagnoses("covered", "chronic")},
        {"level": ""},
    ],
)
def test_a_better_row_cannot_stand_beside(changes: dict[str, Any]) -> None:
    for table in ([ROW, row(**changes)], [row(**changes), ROW]):
        with pytest.raises(Refused) as caught:
            check_table(table)
        assert caught.value.code == "policy.ambiguous_rows"
        assert caught.value.facts == {"first": 1, "second": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"region": "320000"},
        {"visit": 1},
        {"payer": "bureau-other"},
        {"layer": 2},
        {"year": 2025},
        {"first_day": 0, "last_day": ROW.first_day - 1},
    ],
)
def test_rows_apart(changes: dict[str, Any]) -> None:
    check_table([ROW, row(**changes)])


def test_ages_apart() -> None:
    check_table([row(oldest=59), row(youngest=60)])
    with pytest.raises(Refused):
        check_table([row(oldest=60), row(youngest=60)])


def test_a_layer_is_of_one_kind() -> None:
    with pytest.raises(Refused) as caught:
        check_table([ROW, row(payer="insurer-a", statutory=False)])
    assert caught.value.code == "policy.mixed_layer"


def test_no_row_fits() -> None:
    for changes in (
        {"service_day": ROW.last_day + 1}, {"payer": "other"}, {"layer": 2}, {"insutype": "310"}, {"level": "2"},
        {"visits": 2}, {"region": ""}, {"med_type": ""},
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            find([ROW], case(**changes))
        assert caught.value.code == "policy.no_row"
        assert "390" not in caught.value.text()
    born = day_of(date(1966, 5, 20))
    assert find([row(youngest=60)], case(birth=born)) == row(youngest=60)
    with pytest.raises(Refused):
        find([row(youngest=60)], case(birth=born + 1))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_checked_table_gives_one_row_at_most(data: st.DataObject) -> None:
    """Whatever rows pass the check: a claim fits at most one of them."""
    codes = st.sampled_from(["", "1", "2"])
    rows = []
    for _ in range(data.draw(st.integers(2, 4))):
        first, last = sorted(data.draw(st.tuples(*[st.integers(ROW.first_day, ROW.first_day + 3)] * 2)))
        youngest, oldest = sorted(data.draw(st.tuples(*[st.sampled_from([0, 30, 40, 150])] * 2)))
        last_visit = data.draw(st.integers(0, 2))
        rows.append(
            row(
                region=data.draw(codes), level=data.draw(codes), first_day=first, last_day=last, youngest=youngest,
                oldest=oldest, last_visit=last_visit, visit=data.draw(st.integers(0, last_visit)),
                counts_visit=data.draw(st.booleans()),
            )
        )  # fmt: skip
    try:
        check_table(rows)
    except (Refused, DecodeError):
        return
    for region, level, day, years, count in product("12", "12", range(4), (0, 35, 60), range(3)):
        service = ROW.first_day + day
        fit = 0
        for one in rows:
            try:
                find(
                    [one],
                    case(
                        region=region, level=level, service_day=service, visits=count,
                        birth=birth_days(years, years, service)[1],
                    ),
                )  # fmt: skip
                fit += 1
            except Refused:
                pass
        assert fit <= 1
