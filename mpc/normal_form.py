"""The normal form of a filter: equal filters, written differently, become equal.

Every step keeps the meaning in three-valued logic, for any column: comparisons are unknown where the cell is missing,
and their negations are, too.

    Not            pushed to the leaves (De Morgan); of a comparison: the opposite comparison; twice: gone
    Between        its two comparisons
    And, Or        flattened; parts sorted, each once; a part that another one makes needless is left out
    equal values   in an Or gathered into one In, in an And cut to those that all allow
    bounds         of one column, only the tightest of an And, the widest of an Or; a <= x and x <= a: x = a

Not seen, and so not found equal: an And of Ors and the same multiplied out; `x > 5 or x = 5` and `x >= 5`;
`x >= 5 and x != 5` and `x > 5`; an In and a bound of one column; a test for missing cells beside a comparison;
`a or (not a and b)` and `a or b`; `x > 5` and `x >= 6` of a column of whole numbers; conditions that no row can meet,
dependences between columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import assert_never

from privacy.predicate import And, Between, Compare, Fixed, In, IsNull, Not, Operator, Or, Predicate, Value
from wire.canonical import encode

_OPPOSITE: dict[Operator, Operator] = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "le": "gt", "gt": "le"}
_LOWER: tuple[Operator, ...] = ("ge", "gt")
_UPPER: tuple[Operator, ...] = ("le", "lt")


def normal(predicate: Predicate) -> Predicate:
    """The normal form of a checked `predicate` (`privacy.predicate.check`). Twice is the same as once."""
    found = _pushed(predicate, negated=False)
    while (again := _pushed(found, negated=False)) != found:  # what was gathered may make a neighbour needless
        found = again
    return found


def _pushed(node: Predicate, negated: bool) -> Predicate:
    """The normal form of `node`, or of its negation."""
    match node:
        case Not(part):
            return _pushed(part, not negated)
        case And(parts) | Or(parts):
            both = isinstance(node, And) != negated
            return _joined(And if both else Or, [_pushed(part, negated) for part in parts])
        case Between(field, low, high):
            return _pushed(And((Compare(field, "ge", low), Compare(field, "le", high))), negated)
        case In(field, values):
            if negated:
                return _joined(And, [Compare(field, "ne", value) for value in values])
            return _one_of(field, values)
        case Compare(field, operator, value):
            return Compare(field, _OPPOSITE[operator], value) if negated else node
        case IsNull():
            return Not(node) if negated else node
        case _:
            assert_never(node)


def _one_of(field: str, values: Iterable[Value]) -> Predicate:
    unique = {encode(Compare(field, "eq", value)): value for value in values}
    ordered = tuple(unique[key] for key in sorted(unique))
    return Compare(field, "eq", ordered[0]) if len(ordered) == 1 else In(field, ordered)


def _joined(kind: type[And] | type[Or], parts: Sequence[Predicate]) -> Predicate:
    pieces: list[Predicate] = []
    for part in parts:
        pieces.extend(part.parts if isinstance(part, (And, Or)) and isinstance(part, kind) else (part,))
    flat = {encode(piece): piece for piece in _bounded(kind, _gathered(kind, pieces))}
    flat = _absorbed(kind, flat)
    ordered = tuple(flat[key] for key in sorted(flat))
    return ordered[0] if len(ordered) == 1 else kind(ordered)


def _gathered(kind: type[And] | type[Or], pieces: Sequence[Predicate]) -> list[Predicate]:
    """Equality with one of several values, of each column, as one piece."""
    values: dict[str, list[dict[bytes, Value]]] = {}
    others: list[Predicate] = []
    for piece in pieces:
        if isinstance(piece, Compare) and piece.operator == "eq":
            some: tuple[Value, ...] = (piece.value,)
        elif isinstance(piece, In):
            some = piece.values
        else:
            others.append(piece)
            continue
        values.setdefault(piece.field, []).append({encode(Compare(piece.field, "eq", one)): one for one in some})
    for field, sets in values.items():
        keys = set(sets[0])
        for one in sets[1:]:
            keys = keys | set(one) if kind is Or else keys & set(one)
        every = {key: value for one in sets for key, value in one.items()}
        if keys:
            others.append(_one_of(field, (every[key] for key in keys)))
        else:  # no value is all of them: nothing shorter says so
            others.extend(_one_of(field, one.values()) for one in sets)
    return others


def _bounded(kind: type[And] | type[Or], pieces: Sequence[Predicate]) -> list[Predicate]:
    """Of each column's lower bounds, and of its upper ones, the one that decides; two that meet become equality."""
    bounds: dict[tuple[str, bool], Compare] = {}
    others: list[Predicate] = []
    for piece in pieces:
        if not isinstance(piece, Compare) or piece.operator not in (*_LOWER, *_UPPER):
            others.append(piece)
            continue
        place = piece.field, piece.operator in _LOWER
        before = bounds.get(place)
        if before is None or (_tighter(piece, before) == (kind is And)):
            bounds[place] = piece
    for (field, lower), bound in list(bounds.items()):
        other = bounds.get((field, False))
        meets = other is not None and (bound.operator, other.operator) == ("ge", "le") and bound.value == other.value
        if kind is And and lower and meets:
            del bounds[field, True], bounds[field, False]
            others.append(Compare(field, "eq", bound.value))
    return [*others, *bounds.values()]


def _tighter(bound: Compare, than: Compare) -> bool:
    """Whether `bound` lets fewer values pass than another bound of the same side, or the same ones."""
    here, there = _number(bound.value), _number(than.value)
    if here == there:
        return bound.operator in ("gt", "lt")
    return (here > there) == (bound.operator in _LOWER)


def _number(value: Value) -> Fraction:
    if isinstance(value, str):
        raise ValueError("text has no order: check the predicate first")
    return Fraction(value.units, value.scale) if isinstance(value, Fixed) else Fraction(value)


def _absorbed(kind: type[And] | type[Or], flat: dict[bytes, Predicate]) -> dict[bytes, Predicate]:
    """Absorption: `A or (A and B)` is A, and so is `A and (A or B)`."""
    inner = And if kind is Or else Or
    parts = {
        key: frozenset(map(encode, piece.parts)) if isinstance(piece, inner) else frozenset((key,))
        for key, piece in flat.items()
    }
    return {key: piece for key, piece in flat.items() if not any(other < parts[key] for other in parts.values())}
