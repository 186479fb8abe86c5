"""The one filter grammar: which rows. Grants, queries and local plans all speak it.

A predicate is a closed tree: Compare, In, Between, IsNull, And, Or, Not. There is no text to parse
and no expression to evaluate; a value is bound as a parameter and never becomes part of SQL.

Meaning is three-valued, as in SQL: a comparison with a missing cell is neither true nor false, and
only rows that are plainly true pass, so a row with a missing cell is never let in by a negation.
``to_arrow`` takes care to mean the same (Arrow's own ``is_in`` answers False for null, which Not
would turn into True, and tells -0.0 from 0.0) and treats NaN as missing. Order is for numbers only:
text would sort by the collation of each database. Dates are civil days (`wire.dates`), hence numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, assert_never

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wire.canonical import Wire
from wire.errors import Refused

DEEPEST = 32
"""Deepest nesting of a predicate."""
MOST_NODES = 1000
"""Most nodes (an In counts its values too) in a predicate."""

FIELD_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z"
_FIELD = re.compile(FIELD_PATTERN)

Field = Annotated[str, msgspec.Meta(pattern=FIELD_PATTERN)]
"""A column's name."""

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Whole = Annotated[int, msgspec.Meta(ge=-(2**53 - 1), le=2**53 - 1)]
"""A whole number in a filter. Doubles tell these from all other whole numbers, so a comparison in
doubles is exact, whatever number type the column has."""
Text = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00]*\Z")]


class Fixed(Wire, frozen=True, tag="privacy.fixed"):
    """The decimal number units / scale; scale a power of ten, 10..10^9, and units not a multiple of ten.

    At most 15 digits: doubles tell all of those apart.
    """

    units: Annotated[int, msgspec.Meta(gt=-(10**15), lt=10**15)]
    scale: Annotated[int, msgspec.Meta(ge=10, le=10**9)]

    def as_float(self) -> float:
        """The nearest double: what a float column compares with."""
        return self.units / self.scale


Value = Whole | Fixed | Text
Operator = Literal["eq", "ne", "lt", "le", "gt", "ge"]


class Compare(Wire, frozen=True, tag="privacy.compare"):
    """field <operator> value. Text values know "eq" and "ne" only."""

    field: Field
    operator: Operator
    value: Value


class In(Wire, frozen=True, tag="privacy.in"):
    """field is one of `values` (all numbers or all text; at least one)."""

    field: Field
    values: Annotated[tuple[Value, ...], msgspec.Meta(min_length=1)]


class Between(Wire, frozen=True, tag="privacy.between"):
    """low <= field <= high, numbers."""

    field: Field
    low: Whole | Fixed
    high: Whole | Fixed


class IsNull(Wire, frozen=True, tag="privacy.is_null"):
    """The cell of `field` is missing. Never unknown itself."""

    field: Field


class And(Wire, frozen=True, tag="privacy.and"):
    """All of `parts`."""

    parts: Annotated[tuple[Predicate, ...], msgspec.Meta(min_length=1)]


class Or(Wire, frozen=True, tag="privacy.or"):
    """Any of `parts`."""

    parts: Annotated[tuple[Predicate, ...], msgspec.Meta(min_length=1)]


class Not(Wire, frozen=True, tag="privacy.not"):
    """Not `part`; unknown stays unknown."""

    part: Predicate


Predicate = Compare | In | Between | IsNull | And | Or | Not

Dialect = Literal["sqlite", "duckdb", "postgres"]
Kind = Literal["number", "category"]

_PLACEHOLDER: Mapping[str, str] = {"sqlite": "?", "duckdb": "?", "postgres": "%s"}
_SQL: Mapping[str, str] = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ARROW: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def columns(predicate: Predicate) -> frozenset[str]:
    """The columns that `predicate` looks at."""
    match predicate:
        case And(parts) | Or(parts):
            return frozenset().union(*(columns(part) for part in parts))
        case Not(part):
            return columns(part)
        case _:
            return frozenset((predicate.field,))


def check(predicate: Predicate, kinds: Mapping[str, str] | None = None) -> None:
    """Check size, depth, field names, values of one kind, and the types' own bounds.

    kinds: "number" or "category" by column; with it, every column must be known and every value
    be of its column's kind. Raises Refused naming the field, never a value.
    """
    seen = 0

    def walk(node: Predicate, depth: int) -> None:
        nonlocal seen
        seen += 1 + (len(node.values) if isinstance(node, In) else 0)
        if depth > DEEPEST or seen > MOST_NODES:
            raise Refused("privacy.predicate_too_large", depth=DEEPEST, nodes=MOST_NODES)
        match node:
            case And(parts) | Or(parts):
                for part in parts:
                    walk(part, depth + 1)
                return
            case Not(part):
                walk(part, depth + 1)
                return
        if not _FIELD.fullmatch(node.field):
            raise Refused("privacy.predicate_field")
        if kinds is not None and node.field not in kinds:
            raise Refused("privacy.predicate_column", field=node.field)
        values: tuple[int | Fixed | str, ...]
        match node:
            case Compare(_, operator, value):
                values = (value,)
                if isinstance(value, str) and operator not in ("eq", "ne"):
                    raise Refused("privacy.predicate_kind", field=node.field)
            case In(_, values):
                pass
            case Between(_, low, high):
                values = (low, high)
            case IsNull(_):
                return
            case _:
                assert_never(node)
        for value in values:
            text = isinstance(value, str)
            if text != isinstance(values[0], str) or (kinds is not None and text != (kinds[node.field] == "category")):
                raise Refused("privacy.predicate_kind", field=node.field)
            if isinstance(value, Fixed) and (value.units % 10 == 0 or 10 ** (len(str(value.scale)) - 1) != value.scale):
                raise Refused("privacy.predicate_kind", field=node.field)

    walk(predicate, 1)
    try:  # what was built in memory never passed a decoder
        msgspec.convert(msgspec.to_builtins(predicate), Predicate)
    except msgspec.ValidationError:
        raise Refused("privacy.predicate_form") from None


def to_arrow(predicate: Predicate) -> pc.Expression:
    """The predicate as an Arrow expression. Filter with it: only rows that are plainly true pass.

    Null and NaN cells are unknown. Check the predicate first.
    """
    match predicate:
        case And(parts):
            return _fold(parts, lambda a, b: a & b)
        case Or(parts):
            return _fold(parts, lambda a, b: a | b)
        case Not(part):
            return ~to_arrow(part)
        case IsNull(field):
            return pc.field(field).is_null(nan_is_null=True)
        case Compare(field, operator, value):
            known = _ARROW[operator](_cell(field, value), _scalar(value))
        case In(field, values):
            known = _any_of(field, values)
        case Between(field, low, high):
            known = (_cell(field, low) >= _scalar(low)) & (_cell(field, high) <= _scalar(high))
        case _:
            assert_never(predicate)
    return pc.if_else(pc.field(predicate.field).is_null(nan_is_null=True), pa.scalar(None, pa.bool_()), known)


def to_sql(predicate: Predicate, dialect: Dialect) -> tuple[str, tuple[int | float | str, ...]]:
    """A WHERE condition with placeholders and its parameters, in order.

    Names are quoted identifiers, values always parameters. Float columns must hold no NaN: load it
    as NULL (the databases disagree about it).
    """
    mark = _PLACEHOLDER[dialect]
    match predicate:
        case And(parts) | Or(parts):
            word = " AND " if isinstance(predicate, And) else " OR "
            texts, bound = zip(*(to_sql(part, dialect) for part in parts), strict=True)
            return "(" + word.join(texts) + ")", tuple(value for values in bound for value in values)
        case Not(part):
            text, bound = to_sql(part, dialect)
            return f"(NOT {text})", bound
    if not _FIELD.fullmatch(predicate.field):
        raise ValueError("a predicate is checked before it becomes SQL")
    name = f'"{predicate.field}"'
    match predicate:
        case IsNull(_):
            return f"({name} IS NULL)", ()
        case Compare(_, operator, value):
            return f"({name} {_SQL[operator]} {mark})", (_plain(value),)
        case In(_, values):
            return f"({name} IN ({', '.join([mark] * len(values))}))", tuple(_plain(value) for value in values)
        case Between(_, low, high):
            return f"({name} BETWEEN {mark} AND {mark})", (_plain(low), _plain(high))
        case _:
            assert_never(predicate)


def _plain(value: int | Fixed | str) -> int | float | str:
    return value.as_float() if isinstance(value, Fixed) else value


def _cell(field: str, value: int | Fixed | str) -> pc.Expression:
    """The column as what it is compared with. Left to itself, Arrow casts both sides to a type it
    picks from column and value, and fails on cells that do not fit: a fault that depends on the data."""
    return pc.field(field) if isinstance(value, str) else pc.field(field).cast(pa.float64(), safe=False)


def _scalar(value: int | Fixed | str) -> pa.Scalar:
    return pa.scalar(value, pa.string()) if isinstance(value, str) else pa.scalar(float(_plain(value)), pa.float64())


def _any_of(field: str, values: tuple[int | Fixed | str, ...]) -> pc.Expression:
    """Whether the cell is equal to one of `values`. Arrow's ``is_in`` takes minus zero and zero for two numbers."""
    text = isinstance(values[0], str)
    cell = _cell(field, values[0]) if text else pc.add(_cell(field, values[0]), pa.scalar(0.0))  # -0.0 + 0.0 is 0.0
    return cell.isin(pa.array([_scalar(value).as_py() for value in values], pa.string() if text else pa.float64()))


def _fold(parts: tuple[Predicate, ...], join: Callable[[Any, Any], Any]) -> pc.Expression:
    expression = to_arrow(parts[0])
    for part in parts[1:]:
        expression = join(expression, to_arrow(part))
    return expression
