"""Risk figures against a plain second implementation, and the findings an officer must see."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from math import ceil

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.masking.disclosure_risk import RiskColumns, RiskPolicy, measure, withhold
from wire.errors import Refused

OPEN = RiskPolicy(1, 1, 1_000_000)


def plain(rows: list[dict[str, object]], quasi: list[str], sensitive: str, numbers: bool) -> tuple[int, int, Fraction]:
    """k, l and t by their definitions, in exact fractions."""
    classes = defaultdict(list)
    for row in rows:
        classes[tuple(row[name] for name in quasi)].append(row)
    values = sorted({row[sensitive] for row in rows}, key=lambda value: (value is not None, value))

    def share(of: list[dict[str, object]], value: object) -> Fraction:
        return Fraction(sum(row[sensitive] == value for row in of), len(of))

    worst = Fraction(0)
    for members in classes.values():
        gaps = [share(members, value) - share(rows, value) for value in values]
        if not numbers:
            distance = sum((abs(gap) for gap in gaps), Fraction(0)) / 2
        elif len(values) == 1:
            distance = Fraction(0)
        else:
            running, total = Fraction(0), Fraction(0)
            for gap in gaps[:-1]:
                running += gap
                total += abs(running)
            distance = total / (len(values) - 1)
        worst = max(worst, distance)
    k = min(len({row["person"] for row in members}) for members in classes.values())
    diversity = min(len({row[sensitive] for row in members}) for members in classes.values())
    return k, diversity, worst


cells = st.fixed_dictionaries(
    {
        "age": st.sampled_from(["0-17", "18-64", "65+", None]),
        "region": st.sampled_from(["a", "b"]),
        "illness": st.sampled_from(["flu", "asthma", "hiv", None]),
        "cost": st.one_of(st.none(), st.integers(-3, 6), st.sampled_from([-(2**63), 2**63 - 1, 10**9])),
        "person": st.integers(0, 8),
    }
)


@settings(max_examples=200, deadline=None)
@given(st.lists(cells, min_size=1, max_size=40), st.sampled_from(["illness", "cost"]))
def test_the_figures_are_those_of_the_definitions(rows: list[dict[str, object]], sensitive: str) -> None:
    kinds = {
        "age": pa.string(),
        "region": pa.string(),
        "illness": pa.string(),
        "cost": pa.int64(),
        "person": pa.int64(),
    }
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})
    columns = RiskColumns(("age", "region"), (sensitive,))
    report = measure(table.drop_columns("person"), columns, OPEN, table.column("person")).report
    k, diversity, t = plain(rows, ["age", "region"], sensitive, sensitive == "cost")
    assert (report.persons, report.diversity) == (k, diversity)
    assert abs(report.closeness - ceil(t * 1_000_000)) <= 1
    assert report.rows == len(rows) and report.offending == 0


@given(st.lists(st.one_of(st.none(), st.integers(-40, 40), st.integers(-700_000, 700_000)), max_size=30))
def test_days_and_whole_numbers_of_any_width_are_measured_alike(values: list[int | None]) -> None:
    kinds = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint32(), pa.string()]
    if any(value is not None and not -128 <= value <= 127 for value in values):
        kinds = kinds[2:]
    if any(value is not None and value < 0 for value in values):
        kinds.remove(pa.uint32())
    found = []
    for column in [pa.array(values, pa.int32()).cast(pa.date32()), *(_as(values, kind) for kind in kinds)]:
        report = measure(pa.table({"born": column}), RiskColumns(("born",)), OPEN).report
        found.append((report.classes, report.persons))
    assert set(found) == {(len(set(values)), min((values.count(one) for one in values), default=0))}


def _as(values: list[int | None], kind: pa.DataType) -> pa.Array:
    return pa.array([None if one is None else str(one) if kind == pa.string() else one for one in values], kind)


def visits() -> pa.Table:
    ages = ["30-39"] * 6 + ["40-49"] * 6 + ["50-59"] * 2
    illness = ["flu", "asthma"] * 3 + ["hiv"] * 6 + ["flu", "asthma"]
    return pa.table({"age": ages, "illness": illness, "cost": list(range(14))})


def test_each_rule_names_the_groups_that_break_it() -> None:
    columns = RiskColumns(("age",), ("illness",))
    measured = measure(visits(), columns, RiskPolicy(5, 2, 500_000))
    assert not measured.report.within and measured.report.offending == 2 and measured.report.offending_rows == 8
    found = {row["age"]: row for row in measured.groups.to_pylist()}
    assert list(found) == ["50-59", "40-49"]  # fewest persons first
    assert found["50-59"]["reasons"] == ["persons"]
    assert found["40-49"]["reasons"] == ["diversity", "closeness"]
    assert found["40-49"]["diversity"] == 1
    assert "hiv" not in repr(measured) and "40-49" not in repr(measured)


def test_persons_are_counted_not_rows() -> None:
    table = pa.table({"age": ["30-39"] * 10})
    one = pa.chunked_array([[b"p"] * 10])
    assert measure(table, RiskColumns(("age",)), OPEN).report.persons == 10
    assert measure(table, RiskColumns(("age",)), OPEN, one).report.persons == 1


def test_three_institutions_and_the_dominance_rule() -> None:
    def dominated(*totals: int) -> tuple[int, list[str]]:
        table = pa.table(
            {"drug": ["d"] * len(totals), "maker": [f"m{i}" for i in range(len(totals))], "paid": list(totals)}
        )
        columns = RiskColumns(("drug",), institution="maker", amounts=("paid",))
        measured = measure(table, columns, RiskPolicy(1, 1, 1_000_000, 3, 10))
        return measured.report.dominated, [word for row in measured.groups.to_pylist() for word in row["reasons"]]

    assert dominated(100, 80) == (1, ["institutions", "dominance"])
    assert dominated(100, 80, 9) == (1, ["dominance"])
    assert dominated(100, 80, 10) == (0, [])
    assert dominated(10_000, 9_000, 999) == (1, ["dominance"])
    assert dominated(10_000, 9_000, 1_000) == (0, [])
    assert dominated(-100, -80, -10) == (0, [])
    assert dominated(0, 0, 0) == (0, [])
    assert dominated(-100, 80, 10) == (0, [])
    assert dominated(2**62, 2**61, 2**58) == (1, ["dominance"])  # exact beyond doubles


def dominance(rows: list[dict[str, object]], percent: int) -> set[object]:
    """The drugs that break the p % rule by its definition, of amounts with their signs or without."""
    broken = set()
    for drug in {row["drug"] for row in rows}:
        known = [row for row in rows if row["drug"] == drug and row["maker"] is not None]
        for signed in (True, False):
            totals: dict[object, int] = defaultdict(int)
            for row in known:
                paid = int(str(row["paid"] or 0))
                totals[row["maker"]] += paid if signed else abs(paid)
            shares = sorted((abs(total) for total in totals.values()), reverse=True)
            if shares and 100 * (sum(shares) - sum(shares[:2])) < percent * shares[0]:
                broken.add(drug)
    return broken


sales = st.fixed_dictionaries(
    {
        "drug": st.sampled_from(["d", "e", "f"]),
        "maker": st.sampled_from(["a", "b", "c", "d", None]),
        "paid": st.one_of(
            st.none(), st.sampled_from([1, 9, 10, 11, 99, 100, 101, -1, -10, -100]), st.integers(-200, 200)
        ),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.lists(sales, min_size=1, max_size=16), st.sampled_from([1, 10, 99, 100]))
def test_dominance_is_that_of_the_definition(rows: list[dict[str, object]], percent: int) -> None:
    kinds = {"drug": pa.string(), "maker": pa.string(), "paid": pa.int64()}
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})
    columns = RiskColumns(("drug",), institution="maker", amounts=("paid",))
    measured = measure(table, columns, RiskPolicy(1, 1, 1_000_000, 3, percent))
    found = {row["drug"] for row in measured.groups.to_pylist() if "dominance" in row["reasons"]}
    assert found == dominance(rows, percent) and measured.report.dominated == len(found)


def test_closeness_may_be_what_the_policy_says() -> None:
    columns, reached = RiskColumns(("age",), ("illness",)), measure(visits(), RiskColumns(("age",), ("illness",)), OPEN)
    t = reached.report.closeness
    assert measure(visits(), columns, RiskPolicy(1, 1, t)).report.within
    assert not measure(visits(), columns, RiskPolicy(1, 1, t - 1)).report.within


def test_withholding_measures_again_until_nothing_offends() -> None:
    columns, policy = RiskColumns(("age",), ("illness",)), RiskPolicy(3, 2, 500_000)
    left, stays, report = withhold(visits(), columns, policy)
    assert report.within and left.num_rows == int(stays.sum()) == report.rows
    assert measure(left, columns, policy).report.within
    with pytest.raises(Refused, match="No row is left"):
        withhold(visits(), columns, RiskPolicy(100))


def test_columns_that_cannot_be_judged_are_refused() -> None:
    table = pa.table({"age": ["a"], "paid": [1.5], "maker": ["m"]})

    def refused(columns: RiskColumns) -> str:
        with pytest.raises(Refused) as caught:
            measure(table, columns, OPEN)
        return caught.value.code

    assert refused(RiskColumns(("nothing",))) == "privacy.risk_column"
    assert refused(RiskColumns(("age",), ("age",))) == "privacy.risk_twice"
    assert refused(RiskColumns(("age",), institution="maker", amounts=("paid",))) == "privacy.risk_amount"
    assert refused(RiskColumns(("age",), amounts=("paid",))) == "privacy.risk_amount"


def test_an_empty_table_has_no_groups() -> None:
    empty = pa.table({"age": pa.array([], pa.string()), "cost": pa.array([], pa.int64())})
    measured = measure(empty, RiskColumns(("age",), ("cost",)), RiskPolicy())
    assert measured.report.within and measured.report.classes == 0 and measured.groups.num_rows == 0


def test_without_quasi_identifiers_the_table_is_one_group() -> None:
    assert measure(visits(), RiskColumns((), ("illness",)), OPEN).report.classes == 1


THREE = RiskPolicy(1, 1, 1_000_000, 3, 10)


def shared(makers: list[str | None], paid: list[int]) -> list[str]:
    table = pa.table({"drug": ["d"] * len(makers), "maker": pa.array(makers, pa.string()), "paid": paid})
    measured = measure(table, RiskColumns(("drug",), institution="maker", amounts=("paid",)), THREE)
    return [word for row in measured.groups.to_pylist() for word in row["reasons"]]


def test_a_missing_institution_is_none_and_its_amounts_hide_nobody() -> None:
    assert shared(["a", "b", "c"], [10, 10, 10]) == []
    assert shared(["a", "b", None], [10, 10, 10]) == ["institutions", "dominance"]
    assert shared(["a", "b", ""], [10, 10, 10]) == ["institutions", "dominance"]
    assert shared(["a", "b", "c", None], [100, 90, 1, 50]) == ["dominance"]
    assert shared([None, None, None], [1, 1, 1]) == ["institutions"]


def test_one_institution_in_three_spellings_is_one() -> None:
    assert "institutions" in shared(["Ruijin", "ruijin ", "Ｒｕｉｊｉｎ", "b"], [10, 10, 10, 10])


def test_a_refund_hides_nobody() -> None:
    """C's amounts cancel out: of the total, which is published, B subtracts itself and has A's."""
    assert shared(["a", "b", "c", "c"], [1000, 900, 500, -500]) == ["dominance"]
    assert shared(["a", "b", "c"], [1000, 900, 500]) == []
    # And what is large only without signs is large.
    assert shared(["a", "a", "b", "c"], [1000, -900, 90, 80]) == ["dominance"]


def test_rows_of_nobody_known_are_no_person() -> None:
    table = pa.table({"age": ["30-39"] * 5})
    persons = pa.chunked_array([pa.array([b"a", b"b", None, None, b"b"], pa.binary())])
    assert measure(table, RiskColumns(("age",)), OPEN, persons).report.persons == 2
    nobody = pa.chunked_array([pa.nulls(5, pa.binary())])
    measured = measure(table, RiskColumns(("age",)), OPEN, nobody)
    assert (measured.report.persons, measured.report.within) == (0, False)


def test_one_illness_in_three_spellings_is_one() -> None:
    table = pa.table({"age": ["30-39"] * 5, "illness": ["HIV", "hiv", " HIV", "ＨＩＶ", "HIV"]})
    assert measure(table, RiskColumns(("age",), ("illness",)), OPEN).report.diversity == 1
    missing = pa.table({"age": ["30-39"] * 2, "illness": ["", None]})
    assert measure(missing, RiskColumns(("age",), ("illness",)), OPEN).report.diversity == 1
