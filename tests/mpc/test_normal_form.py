"""mpc.normal_form: equal filters become equal, and none changes its meaning."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.normal_form import normal
from privacy.predicate import And, Between, Compare, Fixed, In, IsNull, Not, Or, Predicate, check

a, b, c = Compare("age", "ge", 18), Compare("sex", "eq", "f"), IsNull("idp")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Not(And((a, b))), Or((Not(a), Not(b)))),
        (Not(Or((a, c))), And((Not(c), Not(a)))),
        (Not(a), Compare("age", "lt", 18)),
        (Not(Compare("age", "eq", 3)), Compare("age", "ne", 3)),
        (Between("age", 18, 65), And((Compare("age", "le", 65), Compare("age", "ge", 18)))),
        (Not(Between("age", 18, 65)), Or((Compare("age", "lt", 18), Compare("age", "gt", 65)))),
        (Between("age", 18, 18), Compare("age", "eq", 18)),
        (Or((Compare("sex", "eq", "m"), b)), In("sex", ("f", "m"))),
        (Not(In("age", (1, 2))), And((Compare("age", "ne", 2), Compare("age", "ne", 1)))),
        (And((In("age", (1, 2, 3)), In("age", (2, 3, 4)))), In("age", (2, 3))),
        (And((a, Compare("age", "ge", 21))), Compare("age", "ge", 21)),
        (And((a, Compare("age", "gt", 18))), Compare("age", "gt", 18)),
        (Or((a, Compare("age", "gt", 18))), a),
        (Or((a, And((a, b)))), a),
        (And((a, Or((b, a)))), a),
        (And((Compare("age", "ge", Fixed(175, 10)), a)), a),
        (Or((And((a, b, c)), And((b, a)))), And((a, b))),
    ],
)
def test_the_same_written_differently_is_the_same(one: Predicate, other: Predicate) -> None:
    assert normal(one) == normal(other)


def test_what_differs_stays_different() -> None:
    filters = (
        a,
        b,
        Not(a),
        And((a, b)),
        Or((a, b)),
        Not(And((a, b))),
        And((Not(a), b)),
        Compare("age", "gt", 18),
        c,
        Not(c),
        And((Compare("age", "eq", 1), Compare("age", "eq", 2))),
    )
    assert len({repr(normal(one)) for one in filters}) == len(filters)


def _compare(field: str) -> st.SearchStrategy[Predicate]:
    values = st.sampled_from([0, 1, 2, Fixed(5, 10), Fixed(15, 10)])
    return (
        st.builds(Compare, st.just(field), st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]), values)
        | st.builds(In, st.just(field), st.lists(values, min_size=1, max_size=3).map(tuple))
        | st.builds(Between, st.just(field), values, values)
        | st.builds(IsNull, st.just(field))
    )


TREES = st.recursive(
    _compare("x") | _compare("y"),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=10,
)
_CELLS = (None, Fraction(0), Fraction(1, 2), Fraction(1), Fraction(5, 4), Fraction(3, 2), Fraction(2), Fraction(3))


def _number(value: int | Fixed | str) -> Fraction:
    assert not isinstance(value, str)
    return Fraction(value.units, value.scale) if isinstance(value, Fixed) else Fraction(value)


def truth(node: Predicate, row: dict[str, Fraction | None]) -> bool | None:
    """Three-valued logic, written out."""
    if isinstance(node, IsNull):
        return row[node.field] is None
    if isinstance(node, Not):
        inner = truth(node.part, row)
        return None if inner is None else not inner
    if isinstance(node, (And, Or)):
        decisive = isinstance(node, Or)
        values = [truth(part, row) for part in node.parts]
        return decisive if decisive in values else None if None in values else not decisive
    cell = row[node.field]
    if cell is None:
        return None
    if isinstance(node, In):
        return cell in map(_number, node.values)
    if isinstance(node, Between):
        return _number(node.low) <= cell <= _number(node.high)
    value = _number(node.value)
    return {
        "eq": cell == value,
        "ne": cell != value,
        "lt": cell < value,
        "le": cell <= value,
        "gt": cell > value,
        "ge": cell >= value,
    }[node.operator]


@given(tree=TREES)
def test_the_meaning_is_kept_and_the_form_is_final(tree: Predicate) -> None:
    found = normal(tree)
    assert normal(found) == found
    check(found)
    for x in _CELLS:
        for y in _CELLS:
            row = {"x": x, "y": y}
            assert truth(found, row) == truth(tree, row)


@given(tree=TREES, order=st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(tree: Predicate, order) -> None:
    def shuffled(node: Predicate) -> Predicate:
        if isinstance(node, (And, Or)):
            parts = [shuffled(part) for part in node.parts]
            parts.append(order.choice(parts))
            order.shuffle(parts)
            return type(node)(tuple(parts))
        return Not(shuffled(node.part)) if isinstance(node, Not) else node

    assert normal(shuffled(tree)) == normal(tree)


def test_a_large_filter_is_normalised_at_once() -> None:
    parts = tuple(And((Compare(f"c{i}", "ge", i), Compare(f"d{i}", "lt", i))) for i in range(330))
    assert normal(Or(parts)) == normal(Or(parts[::-1]))
