"""Answers as pandas tables. pandas is imported when a table is asked for.

One row a thing, one column a field. Whole numbers stay whole, also where some are missing (``Int64``). Instants (ms
since 1970) become timestamps in UTC, nested structs columns with a dot, lists of names one text. Nothing is left out:
what has no place in a table is in the struct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import msgspec

from wire.errors import DecodeError, Unavailable

Instant = Annotated[int, "ms since 1970, UTC"]
"""An instant in ms since 1970, UTC."""
_INSTANT = "ms since 1970, UTC"


class Rows(msgspec.Struct, frozen=True):
    """An answer that is a list of things."""

    def rows(self) -> Sequence[msgspec.Struct]:
        """The things."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with one row a thing. Raises Unavailable where pandas is not installed."""
        return table([record(row) for row in self.rows()])


def pandas() -> Any:
    """The library. Raises Unavailable where it is not installed."""
    try:
        import pandas as library
    except ModuleNotFoundError:
        raise Unavailable("client.no_pandas") from None
    return library


def table(records: Sequence[Mapping[str, Any]]) -> Any:
    """A ``pandas.DataFrame`` of records; columns in order of first appearance."""
    library, kept = pandas(), list(records)
    frame = library.DataFrame.from_records(kept)
    for name in frame.columns:
        values = [one.get(name) for one in kept]
        found = [value for value in values if value is not None]
        if 0 < len(found) < len(values) and all(type(value) is int for value in found):
            fits = all(-(2**63) <= value < 2**63 for value in found)
            frame[name] = library.Series(values, dtype="Int64" if fits else object)  # floats would round
    return frame


def record(thing: msgspec.Struct, before: str = "") -> dict[str, Any]:
    """One thing as a flat record."""
    hints = get_type_hints(type(thing), include_extras=True)
    found: dict[str, Any] = {}
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if isinstance(value, msgspec.Struct):
            found |= record(value, f"{before}{name}.")
        elif _INSTANT in getattr(hints[name], "__metadata__", ()):
            found[before + name] = _timestamp(value)
        elif isinstance(value, tuple | list):
            found[before + name] = ", ".join(map(str, value)) if all(map(_plain, value)) else value
        else:
            found[before + name] = value
    return found


def _timestamp(value: int) -> Any:
    try:
        return pandas().Timestamp(value, unit="ms", tz="UTC")
    except (ValueError, OverflowError):  # beyond what a calendar has
        raise DecodeError("client.unexpected_answer") from None


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float)
