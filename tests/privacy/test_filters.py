"""Filters as JSON: what fits becomes a predicate and comes back the same; what does not is told by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.filters import MOST_PARTS, MOST_VALUES, NoFilter, parse_filter, show_filter
from privacy.predicate import DEEPEST, And, Between, Compare, Fixed, In, IsNull, Not, Or, check

AGE = {"column": "age", "at_least": 18}


@pytest.mark.parametrize(
    ("value", "predicate"),
    [
        (AGE, Compare("age", "ge", 18)),
        ({"column": "age", "less_than": "37.50"}, Compare("age", "lt", Fixed(375, 10))),
        ({"column": "age", "more_than": 2.0}, Compare("age", "gt", 2)),
        ({"column": "age", "equals": {"decimal": "-0.5"}}, Compare("age", "eq", Fixed(-5, 10))),
        ({"column": "age", "equals": {"decimal": "20.0"}}, Compare("age", "eq", 20)),
        ({"column": "region", "not_equals": "20.0"}, Compare("region", "ne", "20.0")),
        ({"column": "region", "in": ["north", "南"]}, In("region", ("north", "南"))),
        ({"column": "cost", "between": ["0", 99]}, Between("cost", 0, 99)),
        ({"column": "cost", "missing": True}, IsNull("cost")),
        ({"column": "cost", "missing": False}, Not(IsNull("cost"))),
        ({"all": [AGE, {"any": [AGE]}]}, And((Compare("age", "ge", 18), Or((Compare("age", "ge", 18),))))),
        ({"not": AGE}, Not(Compare("age", "ge", 18))),
    ],
)
def test_what_fits(value: Any, predicate: Any) -> None:
    assert parse_filter(value) == predicate
    check(predicate)
    assert parse_filter(json.loads(json.dumps(show_filter(predicate)))) == predicate


@pytest.mark.parametrize(
    ("value", "place", "rule"),
    [
        (None, (), "filter_type"),
        ("age > 18", (), "filter_type"),
        ({}, (), "filter_form"),
        ({"column": "age"}, (), "filter_form"),
        ({"column": "age", "equals": 1, "at_least": 0}, (), "filter_form"),
        ({"column": "age", "like": "x"}, (), "filter_operator"),
        ({"column": "a b", "equals": 1}, ("column",), "filter_column"),
        ({"column": 3, "equals": 1}, ("column",), "filter_column"),
        ({"column": "age", "at_least": True}, ("at_least",), "filter_value"),
        ({"column": "age", "at_least": 1.5}, ("at_least",), "filter_value"),
        ({"column": "age", "at_least": "ten"}, ("at_least",), "filter_decimal"),
        ({"column": "age", "at_least": "1\n"}, ("at_least",), "filter_decimal"),
        ({"column": "age", "at_least": "٣"}, ("at_least",), "filter_decimal"),
        ({"column": "age", "equals": {"decimal": 5}}, ("equals", "decimal"), "filter_value"),
        ({"column": "age", "equals": {"decimal": "999999999999999.5"}}, ("equals", "decimal"), "filter_decimal"),
        ({"column": "age", "equals": 2**53}, ("equals",), "filter_number_range"),
        ({"column": "age", "equals": "x" * 201}, ("equals",), "filter_text"),
        ({"column": "age", "equals": "\ud800"}, ("equals",), "filter_text"),
        ({"column": "age", "equals": "a\x00"}, ("equals",), "filter_text"),
        ({"column": "age", "in": []}, ("in",), "too_short"),
        ({"column": "age", "in": [1, "x"]}, ("in",), "filter_mixed"),
        ({"column": "age", "in": "x"}, ("in",), "list_type"),
        ({"column": "age", "between": [1]}, ("between",), "filter_two_ends"),
        ({"column": "age", "between": [1, None]}, ("between", 1), "filter_value"),
        ({"column": "age", "missing": "yes"}, ("missing",), "bool_type"),
        ({"all": [AGE, {"any": [AGE, {"not": 3}]}]}, ("all", 1, "any", 1, "not"), "filter_type"),
        ({"all": []}, ("all",), "too_short"),
        ({"all": [AGE] * (MOST_PARTS + 1)}, ("all",), "too_long"),
        ({"any": [{"all": [AGE] * 99}] * 11}, ("any", 9, "all", 98), "filter_too_large"),
        ({"column": "age", "in": [1] * (MOST_VALUES + 1)}, ("in",), "too_long"),
        ({"all": [{"column": "age", "in": [1] * MOST_VALUES}] * 2}, ("all", 1, "in"), "filter_too_large"),
    ],
)
def test_what_does_not(value: Any, place: tuple[str | int, ...], rule: str) -> None:
    with pytest.raises(NoFilter) as caught:
        parse_filter(value)
    assert caught.value.misfit == (place, rule)


def test_depth_is_limited() -> None:
    value: Any = AGE
    for _ in range(DEEPEST - 1):
        value = {"not": value}
    check(parse_filter(value))
    with pytest.raises(NoFilter) as caught:
        parse_filter({"not": value})
    assert caught.value.misfit.rule == "filter_too_deep"


_values = st.integers(-(2**53) + 1, 2**53 - 1) | st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=200
)
_leaves = st.one_of(
    st.builds(Compare, st.just("c"), st.sampled_from(["eq", "ne"]), _values),
    st.builds(Compare, st.just("c"), st.sampled_from(["lt", "le", "gt", "ge"]), st.integers(-(10**9), 10**9)),
    st.builds(IsNull, st.just("c")),
    st.builds(Between, st.just("c"), st.just(Fixed(15, 10)), st.integers(0, 9)),
    st.builds(In, st.just("c"), st.lists(st.text("abc", max_size=3), min_size=1, max_size=3).map(tuple)),
)


@given(
    st.recursive(
        _leaves,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
            st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        ),
        max_leaves=10,
    )
)
def test_every_predicate_survives_json(predicate: Any) -> None:
    assert parse_filter(json.loads(json.dumps(show_filter(predicate)))) == predicate


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["all", "any", "not", "column", "in", "between", "equals", "missing", "decimal"])
                | st.text(),
                inner,
                max_size=3,
            )
        ),
        max_leaves=20,
    )
)
def test_anything_else_is_told_or_taken(value: Any) -> None:
    try:
        predicate = parse_filter(value)
    except NoFilter:
        return
    check(predicate)
