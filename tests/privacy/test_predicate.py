"""The filter grammar means the same in Arrow, in SQL and to a plain evaluator."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.predicate import (
    DEEPEST,
    MOST_NODES,
    And,
    Between,
    Compare,
    Fixed,
    In,
    IsNull,
    Not,
    Or,
    Predicate,
    check,
    columns,
    to_arrow,
    to_sql,
)
from wire.canonical import decode, encode
from wire.errors import DecodeError, Refused

KINDS = {"age": "number", "cost": "number", "sex": "category"}

numbers = st.integers(-3, 3) | st.builds(Fixed, st.sampled_from([-15, -5, 5, 15, 25]), st.just(10))
texts = st.sampled_from(["f", "m", "", "女", "' OR 1=1 --", '"'])
orders = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"])
leaves = st.one_of(
    st.builds(Compare, st.sampled_from(["age", "cost"]), orders, numbers),
    st.builds(Compare, st.just("sex"), st.sampled_from(["eq", "ne"]), texts),
    st.builds(In, st.sampled_from(["age", "cost"]), st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(In, st.just("sex"), st.lists(texts, min_size=1, max_size=3).map(tuple)),
    st.builds(Between, st.sampled_from(["age", "cost"]), numbers, numbers),
    st.builds(IsNull, st.sampled_from(["age", "cost", "sex"])),
)
predicates = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=8,
)
rows = st.lists(
    st.tuples(
        st.none() | st.integers(-3, 3),
        st.none() | st.sampled_from([-1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 3.0]),
        st.none() | texts,
    ),
    max_size=12,
)


def truth(node: Predicate, row: dict[str, object]) -> bool | None:
    """The plain three-valued meaning."""

    def plain(value: object) -> object:
        return Fraction(value.units, value.scale) if isinstance(value, Fixed) else value

    match node:
        case And(parts):
            found = [truth(part, row) for part in parts]
            return False if False in found else None if None in found else True
        case Or(parts):
            found = [truth(part, row) for part in parts]
            return True if True in found else None if None in found else False
        case Not(part):
            inner = truth(part, row)
            return None if inner is None else not inner
        case IsNull(field):
            return row[field] is None
    cell = row[node.field]
    if cell is None:
        return None
    match node:
        case Compare(_, operator, value):
            other = plain(value)
            return {
                "eq": lambda: cell == other,
                "ne": lambda: cell != other,
                "lt": lambda: cell < other,
                "le": lambda: cell <= other,
                "gt": lambda: cell > other,
                "ge": lambda: cell >= other,
            }[operator]()
        case In(_, values):
            return cell in [plain(value) for value in values]
        case Between(_, low, high):
            return plain(low) <= cell <= plain(high)
    raise AssertionError(node)


def arrow_table(found: list[tuple[object, object, object]]) -> pa.Table:
    return pa.table(
        {
            "age": pa.array([row[0] for row in found], pa.int64()),
            "cost": pa.array([row[1] for row in found], pa.float64()),
            "sex": pa.array([row[2] for row in found], pa.string()),
            "position": pa.array(range(len(found)), pa.int64()),
        }
    )


@settings(max_examples=150, deadline=None)
@given(predicates, rows)
def test_arrow_sqlite_and_the_plain_meaning_agree(predicate: Predicate, found: list[tuple[object, ...]]) -> None:
    check(predicate, KINDS)
    expected = [
        position
        for position, row in enumerate(found)
        if truth(predicate, dict(zip(("age", "cost", "sex"), row, strict=True))) is True
    ]
    assert arrow_table(found).filter(to_arrow(predicate))["position"].to_pylist() == expected
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE t (age INTEGER, cost REAL, sex TEXT, position INTEGER)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", [(*row, i) for i, row in enumerate(found)])
        text, bound = to_sql(predicate, "sqlite")
        selected = database.execute(f"SELECT position FROM t WHERE {text} ORDER BY position", bound).fetchall()
    database.close()
    assert [row[0] for row in selected] == expected


@settings(max_examples=50, deadline=None)
@given(predicates)
def test_one_encoding(predicate: Predicate) -> None:
    assert decode(Predicate, encode(predicate)) == predicate
    assert columns(predicate) <= KINDS.keys()


def test_a_negation_never_lets_a_missing_cell_in() -> None:
    """Arrow's own is_in answers False for null; NaN compares False: Not would let both rows in."""
    table = pa.table({"cost": [1.0, None, math.nan], "sex": ["f", None, "m"]})
    assert table.filter(to_arrow(Not(In("sex", ("m",))))).num_rows == 1
    assert table.filter(to_arrow(Not(Compare("cost", "gt", 5)))).num_rows == 1
    assert table.filter(to_arrow(Not(Between("cost", 5, 6)))).num_rows == 1
    assert table.filter(to_arrow(IsNull("cost"))).num_rows == 2


def test_minus_zero_is_zero() -> None:
    """Arrow's own is_in tells them apart: "not one of 0, 9" would let a row in that "not 0 and not 9" keeps out."""
    table = pa.table({"cost": [-0.0, 0.0, 9.0, 5e-324, None]})
    for either in (In("cost", (0, 9)), Or((Compare("cost", "eq", 0), Compare("cost", "eq", 9)))):
        assert table.filter(to_arrow(either)).num_rows == 3
        assert table.filter(to_arrow(Not(either))).num_rows == 1


def test_values_are_always_parameters() -> None:
    text, bound = to_sql(And((Compare("sex", "eq", "'; DROP TABLE t; --"), In("age", (1, Fixed(15, 10))))), "postgres")
    assert text == '(("sex" = %s) AND ("age" IN (%s, %s)))'
    assert bound == ("'; DROP TABLE t; --", 1, 1.5)


@pytest.mark.parametrize(
    ("predicate", "code"),
    [
        (Compare("weight", "eq", 1), "privacy.predicate_column"),
        (Compare("sex", "eq", 1), "privacy.predicate_kind"),
        (Compare("age", "eq", "1"), "privacy.predicate_kind"),
        (Compare("sex", "lt", "m"), "privacy.predicate_kind"),
        (In("age", (1, "m")), "privacy.predicate_kind"),
        (Compare("age", "eq", Fixed(10, 10)), "privacy.predicate_kind"),
        (Compare("age", "eq", Fixed(3, 20)), "privacy.predicate_kind"),
        (Compare('age" OR 1=1 --', "eq", 1), "privacy.predicate_field"),
        (In("age", tuple(range(2000))), "privacy.predicate_too_large"),
        (Compare("age", "eq", 2**53), "privacy.predicate_form"),
        (Compare("age", "eq", True), "privacy.predicate_form"),
        (Compare("age", "eq", Fixed(10**15 + 1, 10)), "privacy.predicate_form"),
        (Compare("age", "like", 1), "privacy.predicate_form"),  # type: ignore[arg-type]
        (Compare("sex", "eq", "x" * 201), "privacy.predicate_form"),
        (In("age", ()), "privacy.predicate_form"),
    ],
)
def test_what_does_not_check(predicate: Predicate, code: str) -> None:
    with pytest.raises(Refused) as raised:
        check(predicate, KINDS)
    assert raised.value.code == code


def test_a_deep_predicate_is_refused_not_followed() -> None:
    deep: Predicate = IsNull("age")
    for _ in range(100):
        deep = Not(deep)
    with pytest.raises(Refused, match="nested deeper"):
        check(deep, KINDS)


@pytest.mark.parametrize("over", [lambda part: Not(part), lambda part: And((part, part)), lambda part: Or((part,))])
def test_as_deep_and_as_large_as_may_be_and_no_more(over: Callable[[Predicate], Predicate]) -> None:
    """Whoever reads filters of others goes down their whole depth, again and again."""
    deep: Predicate = IsNull("age")
    for _ in range(DEEPEST - 1):
        deep = Not(deep)
    check(deep, KINDS)
    with pytest.raises(Refused, match="nested deeper"):
        check(over(deep), KINDS)
    wide = over(In("age", tuple(range(MOST_NODES // 2 - 10))))
    whole = And((wide, In("age", tuple(range(MOST_NODES - 2 - _nodes(wide))))))
    assert _nodes(whole) == MOST_NODES
    check(whole, KINDS)
    with pytest.raises(Refused, match="nested deeper"):
        check(Not(whole), KINDS)


def _nodes(predicate: Predicate) -> int:
    match predicate:
        case And(parts) | Or(parts):
            return 1 + sum(map(_nodes, parts))
        case Not(part):
            return 1 + _nodes(part)
        case In(_, values):
            return 1 + len(values)
    return 1


@pytest.mark.parametrize(
    "predicate",
    [
        And(()),
        In("age", ()),
        Compare("bad name", "eq", 1),
        Compare("age", "like", 1),  # type: ignore[arg-type]
        Compare("sex", "eq", "a\x00b"),
        Compare("age", "eq", 2**63),
    ],
)
def test_malformed_bytes_do_not_decode(predicate: Predicate) -> None:
    with pytest.raises(DecodeError):
        decode(Predicate, encode(predicate))


def test_unchecked_names_never_become_sql() -> None:
    with pytest.raises(ValueError, match="checked"):
        to_sql(IsNull('x" OR 1=1 --'), "sqlite")


near = st.integers(-(2**53) + 1, 2**53 - 1)
edges = st.sampled_from([0, 1, 2**24, 2**24 + 1, 2**53 - 1, -(2**53) + 1])
literals = near | edges | st.builds(Fixed, st.integers(-(10**15) + 1, 10**15 - 1).filter(lambda u: u % 10), st.just(10))


@settings(max_examples=200, deadline=None)
@given(orders, literals, st.lists(st.integers(-(2**63), 2**63 - 1) | near | edges, max_size=6))
def test_comparisons_are_exact_and_never_fail_on_a_cell(operator: str, value: int | Fixed, cells: list[int]) -> None:
    """Arrow alone would compare an int64 column with 2.5 as float32, and raise on cells above 2^24."""
    predicate = Compare("age", operator, value)  # type: ignore[arg-type]
    check(predicate, KINDS)
    for kind, fits in ((pa.int64(), cells), (pa.uint64(), [c for c in cells if c >= 0])):
        kept = pa.table({"age": pa.array(fits, kind)}).filter(to_arrow(predicate))["age"].to_pylist()
        assert kept == [cell for cell in fits if truth(predicate, {"age": cell})]
    among = In("age", (value, 7))
    kept = pa.table({"age": pa.array(cells, pa.int64())}).filter(to_arrow(among))["age"].to_pylist()
    assert kept == [cell for cell in cells if truth(among, {"age": cell})]


def test_every_number_type_compares() -> None:
    for kind in (pa.int8(), pa.int16(), pa.uint8(), pa.float32(), pa.float64()):
        table = pa.table({"age": pa.array([1, 2, 3, None], kind)})
        assert table.filter(to_arrow(Compare("age", "lt", 2**40))).num_rows == 3
        assert table.filter(to_arrow(Between("age", Fixed(15, 10), 2**40))).num_rows == 2
        assert table.filter(to_arrow(In("age", (Fixed(15, 10), 3)))).num_rows == 1
