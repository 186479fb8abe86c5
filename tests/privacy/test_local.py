"""The plan: bounds proved from declarations, every group always there, filters bound to real columns."""

from __future__ import annotations

import msgspec
import pytest

from privacy.local import ALL, GroupColumn, LocalPlan, bind
from privacy.predicate import And, Compare, IsNull
from wire.canonical import decode, encode
from wire.errors import Refused

PLAN = LocalPlan(
    measure="visits",
    low=0,
    high=60,
    scale=1,
    groups=(GroupColumn("health", ("good", "poor")), GroupColumn("plan", ("yes", "no"), other=False)),
    edges=(0, 1, 5, 60),
    max_rows=8192,
)


def test_every_combination_has_its_place() -> None:
    PLAN.check()
    assert PLAN.group_labels() == (
        "health=good|plan=yes",
        "health=good|plan=no",
        "health=poor|plan=yes",
        "health=poor|plan=no",
        "health=other|plan=yes",
        "health=other|plan=no",
    )
    assert msgspec.structs.replace(PLAN, groups=()).group_labels() == (ALL,)
    assert PLAN.result_schema().names == ["group", "count", "sum", "sum_squares", "bin_0", "bin_1", "bin_2"]
    assert PLAN.columns() == {"visits", "health", "plan"}
    assert decode(LocalPlan, encode(PLAN)) == PLAN


@pytest.mark.parametrize(("low", "high", "centre", "largest"), [(0, 60, 30, 30), (-26, 61, 17, 44), (-5, -2, -4, 2)])
def test_centred_values_stay_within_largest(low: int, high: int, centre: int, largest: int) -> None:
    plan = msgspec.structs.replace(PLAN, low=low, high=high, edges=())
    assert (plan.centre, plan.largest) == (centre, largest)
    assert max(abs(value - plan.centre) for value in range(low, high + 1)) == largest


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"low": 60}, "privacy.plan_bounds"),
        ({"edges": (0, 60, 60)}, "privacy.plan_edges"),
        ({"edges": (1, 60)}, "privacy.plan_edges"),
        ({"edges": (0, 59)}, "privacy.plan_edges"),
        ({"edges": (0,)}, "privacy.plan_edges"),
        ({"max_rows": 2**39, "high": 2**13, "edges": ()}, "privacy.plan_overflow"),
        ({"groups": (GroupColumn("a", ("x",)), GroupColumn("a", ("y",)))}, "privacy.plan_groups"),
        ({"groups": (GroupColumn("a", ("x", "x")),)}, "privacy.plan_groups"),
        ({"groups": (GroupColumn("a", ("other",)),)}, "privacy.plan_groups"),
        ({"groups": (GroupColumn("a", ("x|b=y",)),)}, "privacy.plan_groups"),
    ],
)
def test_what_does_not_check(change: dict[str, object], code: str) -> None:
    with pytest.raises(Refused) as raised:
        msgspec.structs.replace(PLAN, **change).check()
    assert raised.value.code == code


def test_the_largest_sum_fits() -> None:
    plan = msgspec.structs.replace(PLAN, low=-(2**20), high=2**20 - 1, edges=(), max_rows=2**22 - 1)
    plan.check()
    assert plan.largest**2 * plan.max_rows < 2**62
    with pytest.raises(Refused):
        msgspec.structs.replace(plan, max_rows=2**22).check()


def test_a_filter_is_bound_to_the_table() -> None:
    kinds = {"visits": "number", "plan": "category"}
    a, b = Compare("visits", "ge", 1), IsNull("plan")
    assert bind(kinds).predicate is None
    assert bind(kinds, None, a).predicate == a
    assert bind(kinds, a, b).predicate == And((a, b))
    assert bind(kinds, a, b).columns() == {"visits", "plan"}
    assert bind(kinds).columns() == frozenset()
    with pytest.raises(Refused):
        bind(kinds, a, IsNull("income"))
