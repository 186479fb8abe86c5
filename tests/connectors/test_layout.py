"""Layouts: the built-in ones, the schema hash, the row class, the plan of a study."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.dataset import BUILT_IN, load_layout
from connectors.layout import MOST_ROWS, Layout, local_plan, row_class, schema_hash
from wire.canonical import decode, encode


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_layout_is_canonical_and_its_study_is_a_plan_that_checks(name: str) -> None:
    layout = load_layout(name)
    assert decode(Layout, encode(layout)) == layout
    plan = local_plan(layout, row_class(MOST_ROWS))
    assert plan.bins >= 5 and len(plan.group_labels()) >= 4
    assert layout.unit == "row" and layout.about.text("en") and layout.about.text("zh") != layout.about.text("en")
    assert layout.study is not None and layout.study.label.unit_text("zh")


def test_the_plan_of_randhie() -> None:
    plan = local_plan(load_layout("randhie"), 50_000)
    assert (plan.measure, plan.low, plan.high, plan.scale, plan.centre) == ("mdvis", 0, 30, 1, 15)
    assert [group.name for group in plan.groups] == ["health", "plan"]
    assert plan.group_labels()[0] == "health=excellent|plan=no-deductible"
    assert plan.person == "" and plan.max_rows == 50_000


def test_a_fractional_measure_is_planned_in_units_of_its_scale(small: Layout) -> None:
    plan = local_plan(small, 100)
    assert (plan.low, plan.high, plan.scale, plan.edges) == (-500, 100_000, 100, (-500, 0, 950, 100_000))
    assert plan.groups[0].labels() == ("under-40", "40-64", "65-up", "other")


def test_a_layout_without_a_study_has_no_plan(small: Layout) -> None:
    with pytest.raises(ValueError, match="no study"):
        local_plan(msgspec.structs.replace(small, study=None), 100)


def test_the_schema_hash_covers_the_meaning_of_cells_and_nothing_else(small: Layout) -> None:
    replace = msgspec.structs.replace
    same = replace(small, labels=(), study=None, about=small.split_rule, population="elsewhere")
    assert schema_hash(same) == schema_hash(small) and len(schema_hash(small)) == 32
    age = small.column("age")
    for changed in (
        replace(age, high=121),
        replace(age, scale=10),
        replace(age, missing=("", "0", "?")),
        replace(age, source="years"),
    ):
        assert schema_hash(replace(small, columns=(changed, *small.columns[1:]))) != schema_hash(small)
    assert schema_hash(replace(small, unit="person", person="p")) != schema_hash(small)


def test_words_of_a_layout(small: Layout) -> None:
    assert small.kinds() == {"age": "number", "cost": "number", "sex": "category", "age_band": "category"}
    assert [column.name for column in small.read_columns] == ["age", "cost", "sex"]
    assert small.column("age_band").derived and small.label("cost").text("zh") == "cost"
    assert load_layout("heart").label("chol").unit_text("en") == "mg/dl"
    with pytest.raises(ValueError, match="no column"):
        small.column("nothing")


@pytest.mark.parametrize(
    ("count", "step"),
    [
        (0, 100),
        (100, 100),
        (101, 200),
        (123, 200),
        (303, 500),
        (5048, 10_000),
        (20_190, 50_000),
        (MOST_ROWS, MOST_ROWS),
    ],
)
def test_row_classes(count: int, step: int) -> None:
    assert row_class(count) == step


@given(st.integers(0, MOST_ROWS))
def test_a_row_class_covers_the_count_and_is_coarse(count: int) -> None:
    step = row_class(count)
    assert count <= step and row_class(step) == step
    assert str(step).rstrip("0") in {"1", "2", "5"}


@pytest.mark.parametrize("count", [-1, MOST_ROWS + 1])
def test_a_row_class_of_an_impossible_count_is_a_bug(count: int) -> None:
    with pytest.raises(ValueError):
        row_class(count)
