"""wire.strict_json: no name stands twice, and an error shows no text that may be anything."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import DecodeError
from wire.strict_json import names_differ, shown_name

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
)


@given(VALUES)
def test_any_other_json_is_read_as_it_is(value: object) -> None:
    assert json.loads(json.dumps(value), object_pairs_hook=names_differ) == value


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"rho": 1, "rho": 2}', "rho"),
        ('{"rho": 1, "\\u0072ho": 1}', "rho"),
        ('[{"a": {"inner": 1, "other": 2, "inner": 1}}]', "inner"),
        ('{"<b>": 1, "<b>": 2}', "?"),
        ('{"\\u202e": 1, "\\u202e": 2}', "?"),
    ],
)
def test_a_name_that_stands_twice_is_named(text: str, field: str) -> None:
    with pytest.raises(DecodeError) as caught:
        json.loads(text, object_pairs_hook=names_differ)
    assert (caught.value.code, caught.value.facts) == ("wire.name_twice", {"field": field})


@pytest.mark.parametrize("name", ["", "1a", "a b", "a" * 41, "a\n", "<b>"])
def test_a_name_that_may_be_anything_is_not_shown(name: str) -> None:
    assert shown_name(name) == "?" and shown_name("rows_per-person") == "rows_per-person"
