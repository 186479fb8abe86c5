"""Row filters as they are written in Python: ``(column("age") >= 18) & column("region").isin(["north"])``.

A value is a whole number, a text or a `decimal.Decimal`: a binary fraction would not say what is meant. What comes
out is the JSON of `privacy.filters`, which may be written by hand as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

Value = int | str | Decimal


class Filter:
    """Which rows. Put together with ``&``, ``|`` and ``~``. json: as it is sent."""

    def __init__(self, json: dict[str, Any]) -> None:
        self.json = json

    def __and__(self, other: Filter) -> Filter:
        return Filter({"all": [self.json, other.json]})

    def __or__(self, other: Filter) -> Filter:
        return Filter({"any": [self.json, other.json]})

    def __invert__(self) -> Filter:
        return Filter({"not": self.json})

    def __bool__(self) -> bool:
        raise ValueError("filters are put together with &, | and ~, not with and, or, not")

    def __repr__(self) -> str:
        return f"Filter({self.json})"


if TYPE_CHECKING:
    AnyFilter = Filter | dict[str, Any] | None
else:
    AnyFilter = Any  # msgspec knows no union with a class of ours
"""A filter, its JSON, or None for all rows."""


class column:  # noqa: N801 (reads as a word of the question)
    """A column to compare."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        return self._compare("equals", value)

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        return self._compare("not_equals", value)

    def __lt__(self, value: Value) -> Filter:
        return self._compare("less_than", value)

    def __le__(self, value: Value) -> Filter:
        return self._compare("at_most", value)

    def __gt__(self, value: Value) -> Filter:
        return self._compare("more_than", value)

    def __ge__(self, value: Value) -> Filter:
        return self._compare("at_least", value)

    def isin(self, values: Iterable[Value]) -> Filter:
        """One of these."""
        return Filter({"column": self.name, "in": [_value(value) for value in values]})

    def between(self, low: Value, high: Value) -> Filter:
        """From low to high, both included."""
        return Filter({"column": self.name, "between": [_value(low), _value(high)]})

    def missing(self) -> Filter:
        """No value is there."""
        return Filter({"column": self.name, "missing": True})

    def _compare(self, how: str, value: object) -> Filter:
        return Filter({"column": self.name, how: _value(value)})


def _value(value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError("a filter compares with a whole number, a text or a decimal.Decimal")
    return {"decimal": f"{value:f}"} if isinstance(value, Decimal) else value


def as_json(given: AnyFilter) -> dict[str, Any] | None:
    """A filter as it is sent."""
    return given.json if isinstance(given, Filter) else given
