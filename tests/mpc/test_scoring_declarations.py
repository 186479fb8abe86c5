"""What a model declares, and how values become the integers that are scored."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.scoring import Feature, declared_bounds, integer_features
from wire.errors import MedveilError, Refused

FEATURES = (
    Feature("visits", 0, 60, 1, 0),
    Feature("spend", 0, 5000, 10, 100),
    Feature("change", -50, 50, 2, 0),
)


def code_of(caught: pytest.ExceptionInfo[MedveilError]) -> str:
    assert caught.value.message != caught.value.code and caught.value.fix
    return caught.value.code


def test_the_widest_declaration_still_has_room() -> None:
    widest = [Feature(f"f{number}", -(1 << 31), 1 << 31, 10**6, 0) for number in range(64)]
    bounds = declared_bounds(widest, -1000, 1000, 1)
    assert bounds.mask_high - bounds.mask_low > 1500 and bounds.leak_per_mille < 50
    assert bounds.mask_high + (bounds.distance + 1).bit_length() == 2045 - 128


@pytest.mark.parametrize(
    ("feature", "code"),
    [
        (Feature("x", 5, 4, 1, 5), "scoring.bad_feature"),
        (Feature("x", 0, 4, 1, 5), "scoring.bad_feature"),
        (Feature("x", 0, 4, 0, 1), "scoring.bad_feature"),
        (Feature("x", 0, 4, 10**7, 1), "scoring.bad_feature"),
        (Feature("x", 0, 1 << 40, 1, 1), "scoring.bad_feature"),
        (Feature("visits", 0, 4, 1, 1), "scoring.bad_features"),
    ],
)
def test_a_bad_declaration_of_a_feature_is_refused(feature: Feature, code: str) -> None:
    with pytest.raises(Refused) as caught:
        declared_bounds((FEATURES[0], feature), 0, 5, 3)
    assert code_of(caught) == code


def test_a_limit_that_says_nothing_is_refused() -> None:
    for limit in (-(10**9), 0, 5 * 60 + 1, 10**12):
        with pytest.raises(Refused) as caught:
            declared_bounds(FEATURES[:1], 0, 5, limit)
        assert code_of(caught) == "scoring.limit_out_of_reach"
    declared_bounds(FEATURES[:1], 0, 5, 300)
    for count in (0, 65):
        with pytest.raises(Refused) as caught:
            declared_bounds([Feature(f"f{number}", 0, 1, 1, 0) for number in range(count)], 0, 5, 3)
        assert code_of(caught) == "scoring.bad_features"
    with pytest.raises(Refused) as caught:
        declared_bounds(FEATURES, 5, 4, 3)
    assert code_of(caught) == "scoring.range_too_wide"


# values


def test_values_become_integers_without_ever_being_refused() -> None:
    feature = Feature("x", -2, 10, 4, 3)
    values = [None, math.nan, math.inf, -math.inf, 11, -3, 0.125, 0.375, 2.3, numpy.float64(1.25), True, 7]
    rows = integer_features([feature], [[value] for value in values])
    assert [row[0] for row in rows] == [12, 12, 40, -8, 40, -8, 0, 2, 9, 5, 4, 28]
    assert all(type(row[0]) is int for row in rows)


@given(value=st.floats(), scale=st.integers(1, 10**6))
def test_fixed_point_is_exact_to_half_a_unit(value: float, scale: int) -> None:
    feature = Feature("x", -100, 100, scale, 0)
    ((found,),) = integer_features([feature], [[value]])
    kept = 0.0 if math.isnan(value) else min(max(value, -100.0), 100.0)
    assert abs(found - Fraction(kept) * scale) <= Fraction(1, 2)
