"""Row filters as JSON: what people send and read, and `privacy.predicate`, which is what is decided and signed.

    {"all": [...]}   {"any": [...]}   {"not": {...}}
    {"column": "age", "at_least": 18}              equals, not_equals, less_than, at_most, more_than, at_least
    {"column": "region", "in": ["north", "south"]}
    {"column": "cost", "between": ["0", "99.50"]}
    {"column": "cost", "missing": true}

A value is a whole number, a text, or ``{"decimal": "37.5"}``; where only numbers can stand, a plain text is a decimal.
Nothing else is taken, no fraction of binary kind among it, and no more than `MOST_NODES` parts `DEEPEST` deep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple, assert_never

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
    Operator,
    Or,
    Predicate,
)

COMPONENT = "Filter"
"""Name of the schema in the OpenAPI components."""
_REF = {"$ref": f"#/components/schemas/{COMPONENT}"}
MOST_PARTS = 100
"""Most parts of one `all` or `any`."""
MOST_VALUES = 500
"""Most values of one `in`."""
_LARGEST = 2**53 - 1
_LONGEST_TEXT = 200
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_DECIMAL = re.compile(r"-?([0-9]{1,15}|[0-9]{1,9}\.[0-9]{1,6})")
_OPERATORS: Mapping[str, Operator] = {
    "equals": "eq",
    "not_equals": "ne",
    "less_than": "lt",
    "at_most": "le",
    "more_than": "gt",
    "at_least": "ge",
}
_NAMES = {operator: name for name, operator in _OPERATORS.items()}
_OF_NUMBERS = frozenset({"less_than", "at_most", "more_than", "at_least"})

Place = tuple[str | int, ...]


class Misfit(NamedTuple):
    """Where a filter is none, and which rule it breaks."""

    place: Place
    rule: str


class NoFilter(Exception):
    """What was sent is no filter. misfit: where and why."""

    def __init__(self, place: Place, rule: str) -> None:
        self.misfit = Misfit(place, rule)
        super().__init__(rule)


def parse_filter(value: object) -> Predicate:
    """The predicate that a JSON value says. Raises NoFilter naming the place."""
    return _Parser().node(value, (), 1)


class _Parser:
    """Counts what it has read."""

    def __init__(self) -> None:
        self._seen = 0

    def node(self, value: object, place: Place, depth: int) -> Predicate:
        self._count(1, place)
        if depth > DEEPEST:
            raise NoFilter(place, "filter_too_deep")
        if not isinstance(value, dict):
            raise NoFilter(place, "filter_type")
        keys = set(value)
        if keys == {"all"} or keys == {"any"}:
            (key,) = keys
            parts = self._list(value[key], (*place, key), MOST_PARTS)
            nodes = tuple(self.node(part, (*place, key, at), depth + 1) for at, part in enumerate(parts))
            return And(nodes) if key == "all" else Or(nodes)
        if keys == {"not"}:
            return Not(self.node(value["not"], (*place, "not"), depth + 1))
        if "column" not in keys or len(keys) != 2:
            raise NoFilter(place, "filter_form")
        return self._leaf(value, (keys - {"column"}).pop(), place)

    def _leaf(self, value: dict[Any, Any], key: Any, place: Place) -> Predicate:
        column, given = value["column"], value[key]
        if not isinstance(column, str) or not _FIELD.fullmatch(column):
            raise NoFilter((*place, "column"), "filter_column")
        if not isinstance(key, str):
            raise NoFilter(place, "filter_operator")
        here: Place = (*place, key)
        if key in _OPERATORS:
            return Compare(column, _OPERATORS[key], _value(given, here, numbers=key in _OF_NUMBERS))
        if key == "in":
            items = self._list(given, here, MOST_VALUES)
            self._count(len(items), here)
            values = tuple(_value(item, (*here, at)) for at, item in enumerate(items))
            if len({isinstance(one, str) for one in values}) > 1:
                raise NoFilter(here, "filter_mixed")
            return In(column, values)
        if key == "between":
            ends = self._list(given, here, MOST_VALUES)
            if len(ends) != 2:
                raise NoFilter(here, "filter_two_ends")
            low, high = (_value(end, (*here, at), numbers=True) for at, end in enumerate(ends))
            assert not isinstance(low, str) and not isinstance(high, str)  # numbers alone
            return Between(column, low, high)
        if key == "missing":
            if not isinstance(given, bool):
                raise NoFilter(here, "bool_type")
            return IsNull(column) if given else Not(IsNull(column))
        raise NoFilter(place, "filter_operator")

    def _list(self, value: object, place: Place, most: int) -> list[Any]:
        if not isinstance(value, list):
            raise NoFilter(place, "list_type")
        if not value:
            raise NoFilter(place, "too_short")
        if len(value) > most:
            raise NoFilter(place, "too_long")
        return value

    def _count(self, more: int, place: Place) -> None:
        self._seen += more
        if self._seen > MOST_NODES:
            raise NoFilter(place, "filter_too_large")


def _value(value: object, place: Place, numbers: bool = False) -> int | Fixed | str:
    """A whole number, text or decimal. numbers: a plain text is a decimal."""
    if isinstance(value, bool):
        raise NoFilter(place, "filter_value")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 15.0 is a whole number in JSON
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise NoFilter(place, "filter_number_range")
        return value
    if isinstance(value, str) and not numbers:
        if len(value) > _LONGEST_TEXT or "\x00" in value or not _encodes(value):
            raise NoFilter(place, "filter_text")
        return value
    if isinstance(value, dict) and set(value) == {"decimal"}:
        value, place = value["decimal"], (*place, "decimal")
    if not isinstance(value, str):
        raise NoFilter(place, "filter_value")
    return _decimal(value, place)


def _encodes(text: str) -> bool:
    """Whether a text is Unicode: JSON can name half of a surrogate pair, which has no encoding."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _decimal(text: str, place: Place) -> int | Fixed:
    if not _DECIMAL.fullmatch(text) or not text.isascii():
        raise NoFilter(place, "filter_decimal")
    places = len(text.partition(".")[2].rstrip("0"))
    units = int(Decimal(text).scaleb(places).to_integral_value())
    return Fixed(units, 10**places) if places else units


def show_filter(predicate: Predicate) -> dict[str, Any]:
    """The JSON of a predicate: `parse_filter` gives it back."""
    match predicate:
        case And(parts):
            return {"all": [show_filter(part) for part in parts]}
        case Or(parts):
            return {"any": [show_filter(part) for part in parts]}
        case Not(IsNull(field)):
            return {"column": field, "missing": False}
        case Not(part):
            return {"not": show_filter(part)}
        case IsNull(field):
            return {"column": field, "missing": True}
        case In(field, values):
            return {"column": field, "in": [_shown(value) for value in values]}
        case Between(field, low, high):
            return {"column": field, "between": [_shown(low), _shown(high)]}
        case Compare(field, operator, value):
            return {"column": field, _NAMES[operator]: _shown(value)}
        case _:
            assert_never(predicate)


def _shown(value: int | Fixed | str) -> int | str | dict[str, str]:
    if not isinstance(value, Fixed):
        return value
    places = len(str(value.scale)) - 1
    return {"decimal": str(Decimal(value.units).scaleb(-places))}


def schema() -> dict[str, Any]:
    """The one OpenAPI component of a filter."""
    column = {"type": "string", "pattern": f"^{_FIELD.pattern}$"}
    whole = {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST}
    decimal = {"type": "string", "pattern": f"^{_DECIMAL.pattern}$"}
    exact = {
        "type": "object",
        "properties": {"decimal": decimal},
        "required": ["decimal"],
        "additionalProperties": False,
    }
    text = {"type": "string", "maxLength": _LONGEST_TEXT, "pattern": "^[^\\x00]*$"}
    numbers, any_value = {"anyOf": [whole, decimal, exact]}, {"anyOf": [whole, text, exact]}
    some = {"type": "array", "items": _REF, "minItems": 1, "maxItems": MOST_PARTS}
    several = {"anyOf": [_several(text), _several({"anyOf": [whole, exact]})]}

    def of(name: str, value: dict[str, Any]) -> dict[str, Any]:
        return _object({"column": column, name: value})

    forms = [
        *(_object({key: some}) for key in ("all", "any")),
        _object({"not": _REF}),
        *(of(name, numbers if name in _OF_NUMBERS else any_value) for name in _OPERATORS),
        of("in", several),
        of("between", {"type": "array", "items": numbers, "minItems": 2, "maxItems": 2}),
        of("missing", {"type": "boolean"}),
    ]
    about = f"Which rows. At most {MOST_NODES} parts and values, {DEEPEST} deep."
    return {"title": COMPONENT, "description": about, "anyOf": forms}


def _several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_VALUES}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
