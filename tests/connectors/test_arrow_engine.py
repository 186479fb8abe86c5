"""The local engine against a plain row-by-row computation, and every rule of its contract."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.arrow_engine import ArrowEngine, scaled
from connectors.dataset import load_layout
from connectors.layout import local_plan, row_class
from connectors.quality import prepare
from connectors.sources import load_sources
from privacy.local import GroupColumn, LocalEngine, LocalPlan, RowFilter, bind
from privacy.predicate import Between, Compare, IsNull, Not
from wire.errors import Refused

ALL_ROWS = RowFilter(None)

PLAN = LocalPlan(
    measure="x",
    low=-20,
    high=100,
    scale=10,
    groups=(GroupColumn(name="g", values=("a", "b")), GroupColumn(name="h", values=("0", "1"), other=False)),
    edges=(-20, 0, 35, 100),
    max_rows=1000,
)


def table(
    x: list[float | None], g: list[str | None], h: list[float | None], p: list[str | None] | None = None
) -> pa.Table:
    columns = {"x": pa.array(x, pa.float64()), "g": pa.array(g, pa.string()), "h": pa.array(h, pa.float64())}
    if p is not None:
        columns["p"] = pa.array(p, pa.string())
    return pa.table(columns)


def plainly(plan: LocalPlan, rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The definition, row by row, in exact arithmetic."""
    result = {label: [0, 0, 0] + [0] * plan.bins for label in plan.group_labels()}
    seen: dict[object, int] = {}
    for row in rows:
        cell = row[plan.measure]
        if cell is None or math.isnan(float(cell)):
            continue
        if math.isinf(float(cell)):
            value = plan.high if float(cell) > 0 else plan.low
        else:
            value = round(Fraction(cell) * plan.scale)
            if value in plan.missing:
                continue
            value = min(max(value, plan.low), plan.high)
        if plan.person:
            seen[row[plan.person]] = seen.get(row[plan.person], 0) + 1
            if seen[row[plan.person]] > plan.rows_per_person:
                continue
        labels = []
        for group in plan.groups:
            text = row[group.name]
            if isinstance(text, float):
                text = str(int(text)) if text.is_integer() else repr(text)
            labels.append(text if text in group.values else "other" if group.other else None)
        if None in labels:
            continue
        cells = result[plan.label(tuple(str(label) for label in labels))]
        centred = value - plan.centre
        cells[0] += 1
        cells[1] += centred
        cells[2] += centred**2
        for index in range(plan.bins):
            last = index == plan.bins - 1
            if plan.edges[index] <= value < plan.edges[index + 1] or (last and value == plan.edges[-1]):
                cells[3 + index] += 1
    return result


def found(result: pa.Table) -> dict[str, list[int]]:
    rows = result.to_pydict()
    names = [name for name in result.column_names if name != "group"]
    return {label: [rows[name][at] for name in names] for at, label in enumerate(rows["group"])}


def test_it_is_a_local_engine() -> None:
    engine: LocalEngine = ArrowEngine(table([1.0], ["a"], [0.0]))
    assert engine.run(PLAN, ALL_ROWS).schema == PLAN.result_schema()


cells = st.one_of(
    st.none(),
    st.just(math.nan),
    st.just(math.inf),
    st.just(-1e300),
    st.integers(-40, 200).map(lambda n: n / 10),
    st.integers(-400, 2000).map(lambda n: n / 32),  # halves of the lattice, exactly
)
rows = st.lists(
    st.tuples(
        cells,
        st.sampled_from(["a", "b", "c", "other", None]),
        st.sampled_from([0.0, 1.0, 2.0, 0.5, math.nan, None]),
        st.sampled_from(["p", "q", "r"]),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(rows, st.booleans(), st.integers(1, 3))
def test_it_equals_the_definition(
    given_rows: list[tuple[float | None, str | None, float | None, str]], by_person: bool, most: int
) -> None:
    columns = [list(column) for column in zip(*given_rows, strict=True)] or [[], [], [], []]
    data = table(*columns)
    plan = msgspec.structs.replace(PLAN, missing=(0, 15))
    if by_person:
        plan = msgspec.structs.replace(plan, person="p", rows_per_person=most)
    as_rows = [dict(zip("xghp", row, strict=True)) for row in given_rows]
    exact = [row | {"x": _on_lattice(row["x"])} for row in as_rows]
    assert found(ArrowEngine(data).run(plan, ALL_ROWS)) == plainly(plan, exact)


def _on_lattice(cell: object) -> object:
    """Tenths are not exact doubles: the engine rounds cell * scale as doubles do, so let the definition."""
    if isinstance(cell, float) and math.isfinite(cell):
        return Fraction(cell * 10) / 10
    return cell


def test_every_declared_group_is_there_though_the_table_is_empty() -> None:
    result = ArrowEngine(table([], [], [])).run(PLAN, ALL_ROWS)
    assert result["group"].to_pylist() == list(PLAN.group_labels())
    assert all(cells == [0] * 6 for cells in found(result).values())


def test_without_groups_all_rows_are_one() -> None:
    plan = msgspec.structs.replace(PLAN, groups=(), edges=())
    result = ArrowEngine(table([1.0, None], ["a", None], [None, None])).run(plan, ALL_ROWS)
    assert found(result) == {"all": [1, 10 - 40, 900]}


def test_values_beyond_the_bounds_are_clamped_into_the_first_and_last_bin() -> None:
    data = table([-1e308, -2.0, 10.0, math.inf], ["a"] * 4, [1.0] * 4)
    result = found(ArrowEngine(data).run(PLAN, ALL_ROWS))
    assert result["g=a|h=1"] == [4, 2 * -60 + 2 * 60, 4 * 3600, 2, 0, 2]


def test_rounding_is_half_to_even() -> None:
    data = table([0.25, 0.75, -0.25], ["a"] * 3, [1.0] * 3)
    plan = msgspec.structs.replace(PLAN, low=-10, high=10, edges=())
    assert found(ArrowEngine(data).run(plan, ALL_ROWS))["g=a|h=1"][1] == 2 + 8 - 2


def test_integer_columns_are_exact_beyond_doubles() -> None:
    big = 2**61
    data = pa.table({"x": pa.array([big - 1, big, None, big + 1, 2**63 - 1, -(2**63)], pa.int64())})
    plan = LocalPlan(measure="x", low=big - 1, high=big + 1, scale=1, groups=(), edges=(), max_rows=10, missing=(big,))
    assert found(ArrowEngine(data).run(plan, ALL_ROWS)) == {"all": [4, -1 + 1 + 1 - 1, 4]}
    scaled = msgspec.structs.replace(plan, scale=1000, missing=())
    assert found(ArrowEngine(data).run(scaled, ALL_ROWS)) == {"all": [5, 1 + 1 + 1 + 1 - 1, 5]}


def test_bounds_at_the_end_of_64_bits() -> None:
    top = 2**63 - 1
    data = pa.table({"x": pa.array([math.inf, -math.inf, 9.3e18, 0.0], pa.float64())})
    plan = LocalPlan(measure="x", low=top - 4, high=top, scale=1, groups=(), edges=(), max_rows=10)
    assert found(ArrowEngine(data).run(plan, ALL_ROWS)) == {"all": [4, 2 - 2 + 2 - 2, 16]}


def test_a_filter_leaves_rows_out_and_never_lets_a_missing_cell_in() -> None:
    data = table([1.0, 2.0, 3.0, None], ["a", "b", None, "a"], [1.0, 1.0, 1.0, 1.0])
    kinds = {"x": "number", "g": "category", "h": "number"}

    def count(*predicates: object) -> int:
        result = ArrowEngine(data).run(PLAN, bind(kinds, *predicates))  # type: ignore[arg-type]
        return sum(result["count"].to_pylist())

    assert count() == 3
    assert count(Between("x", 2, 3)) == 2
    assert count(Compare("g", "eq", "a")) == 1
    assert count(Not(Compare("g", "eq", "a"))) == 1  # the row without g stays out
    assert count(IsNull("g")) == 1
    assert count(Between("x", 2, 3), Compare("g", "eq", "a")) == 0


def test_group_columns_may_be_numbers_or_dictionaries() -> None:
    data = pa.table(
        {
            "x": pa.array([1, 2, 3, 4], pa.int32()),
            "g": pa.array(["a", "b", "zz", None]).dictionary_encode(),
            "h": pa.array([0, 1, 1, 0], pa.int8()),
        }
    )
    result = found(ArrowEngine(data).run(PLAN, ALL_ROWS))
    assert {label: cells[0] for label, cells in result.items() if cells[0]} == {
        "g=a|h=0": 1,
        "g=b|h=1": 1,
        "g=other|h=1": 1,
        "g=other|h=0": 1,
    }


@pytest.mark.parametrize("value", ["01", "1.0", "+1", " 1", "1e0"])
def test_a_number_matches_its_own_text_only(value: str) -> None:
    plan = msgspec.structs.replace(PLAN, groups=(GroupColumn(name="h", values=(value,)),))
    assert found(ArrowEngine(table([1.0], ["a"], [1.0])).run(plan, ALL_ROWS))[f"h={value}"][0] == 0


def refused(data: pa.Table, plan: LocalPlan, row_filter: RowFilter = ALL_ROWS) -> Refused:
    with pytest.raises(Refused) as caught:
        ArrowEngine(data).run(plan, row_filter)
    assert "{" not in caught.value.text("en") + caught.value.text("zh")
    return caught.value


def test_refusals() -> None:
    data = table([1.0], ["a"], [1.0])
    replace = msgspec.structs.replace
    assert refused(data, replace(PLAN, measure="y")).code == "connectors.no_such_column"
    assert refused(data, replace(PLAN, person="who")).facts["column"] == "who"
    assert refused(data, replace(PLAN, measure="g")).code == "connectors.not_a_measure"
    assert refused(data, replace(PLAN, low=100)).code == "privacy.plan_bounds"
    assert refused(data, PLAN, RowFilter(Compare("z", "eq", 1))).code == "connectors.no_such_column"
    assert refused(data, PLAN, RowFilter(Compare("g", "eq", 1))).code == "privacy.predicate_kind"
    assert refused(data.append_column("x", data["x"]), PLAN).code == "connectors.no_such_column"
    many = table([1.0] * 3, ["a"] * 3, [1.0] * 3)
    few = replace(PLAN, max_rows=2)
    error = refused(many, few, bind({"x": "number"}, Compare("x", "gt", 5)))
    assert error.code == "connectors.more_rows_than_declared"  # whatever the filter leaves
    assert 3 not in error.facts.values()


def test_rows_per_person_are_counted_after_the_filter_and_the_missing() -> None:
    data = table([None, 1.0, 2.0, 3.0, 4.0], ["a"] * 5, [1.0] * 5, ["p", "p", "p", None, None])
    plan = msgspec.structs.replace(PLAN, person="p", rows_per_person=1)
    kinds = {"x": "number"}
    assert found(ArrowEngine(data).run(plan, ALL_ROWS))["g=a|h=1"][:2] == [2, (10 - 40) + (30 - 40)]
    only = bind(kinds, Compare("x", "gt", 1))
    assert found(ArrowEngine(data).run(plan, only))["g=a|h=1"][:2] == [2, (20 - 40) + (30 - 40)]


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [(-20, 100, 10), (-1000, 1000, 1), (-(2**62), -(2**62) + 7, 10**9), (2**62 - 9, 2**62, 3), (0, 1, 10**9)],
)
def test_whole_numbers_of_every_kind_are_scaled_and_clamped(kind: str, low: int, high: int, scale: int) -> None:
    """As Python's integers have them, which do not wrap."""
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    near = [one // scale + more for one in (low, high) for more in (-1, 0, 1, 2)]
    cells = [one for one in (least, least + 1, most - 1, most, 0, 1, 2, 3, *near) if least <= one <= most]
    plan = msgspec.structs.replace(PLAN, low=low, high=high, scale=scale, edges=(), missing=(2 * scale, 3 * scale, 7))
    values, known = scaled(pa.chunked_array([pa.array([*cells, None], pa.type_for_alias(kind))]), plan)
    units = [cell * scale for cell in cells]
    assert known.tolist() == [unit not in plan.missing for unit in units] + [False]
    assert values.tolist()[:-1] == [min(max(unit, low), high) for unit in units]
    assert low <= values[-1] <= high


def test_one_person_in_several_spellings_is_one_person() -> None:
    """What the noise covers is the rows of one person: who is written in five ways has no five times as many."""
    one = [
        "330106199105230170",
        "330106 19910523 0170",
        "330106910523017",
        "\uff13\uff13\uff10106-19910523-0170",
        " 330106199105230170 ",
    ]
    other = ["P-7", "P-7 ", "P-7\u200b", "p-7"]
    data = table([1.0] * 9, ["a"] * 9, [1.0] * 9, one + other)
    for most, rows in ((1, 3), (2, 2 + 2 + 1), (5, 5 + 3 + 1)):  # p-7 may be somebody else
        plan = msgspec.structs.replace(PLAN, person="p", rows_per_person=most)
        assert found(ArrowEngine(data).run(plan, ALL_ROWS))["g=a|h=1"][0] == rows, most
    parts = pa.concat_tables([table([1.0], ["a"], [1.0], [name]) for name in one])
    plan = msgspec.structs.replace(PLAN, person="p", rows_per_person=1)
    assert found(ArrowEngine(parts).run(plan, ALL_ROWS))["g=a|h=1"][0] == 1, "also over chunks"


def test_the_sites_of_randhie_add_up_to_the_pooled_answer() -> None:
    layout = load_layout("randhie")
    tables = [prepare(data, layout).table for _, _, data in load_sources()]
    plan = local_plan(layout, row_class(20_190))
    parts = [found(ArrowEngine(data).run(plan, ALL_ROWS)) for data in tables]
    pooled = found(ArrowEngine(pa.concat_tables(tables)).run(plan, ALL_ROWS))
    assert pooled == {label: [sum(cells) for cells in zip(*(p[label] for p in parts), strict=True)] for label in pooled}
    assert sum(cells[0] for cells in pooled.values()) == 20_190
    assert pooled["health=poor|plan=deductible"][0] == 77
    frame = pa.concat_tables(tables).to_pandas()
    group = frame[(frame.health == "fair") & (frame.plan == "deductible")].mdvis.clip(plan.low, plan.high)
    count, total, squares, *bins = pooled["health=fair|plan=deductible"]
    assert (count, sum(bins)) == (399, 399)
    assert total / count + plan.centre == pytest.approx(group.mean())
    assert (squares - total**2 / count) / (count - 1) == pytest.approx(group.var())


def test_the_swiss_site_has_patients_and_no_cholesterol(shared_data: Path) -> None:
    for site, layout, data in load_sources(shared_data / "heart"):
        if site == "switzerland":
            result = found(ArrowEngine(prepare(data, layout).table).run(local_plan(layout, 200), ALL_ROWS))
            assert len(result) == 4 and all(set(cells) == {0} for cells in result.values())
